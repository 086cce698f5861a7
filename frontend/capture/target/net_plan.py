"""Plans for exercising network modules: what is to happen to devices, step by step.

A plan is a TOML file, or its steps alone with semicolons between:

    needs = ["vxlan"]     # modules without which there is nothing to do
    repeat = 3            # how often to run the steps, by default once
    timeout = 30          # seconds for all of it, by default 60
    steps = [
        "link add kleak0 kind vxlan vxlan_id 42 vxlan_port 4789",
        "link set kleak0 up",
        "address add 192.0.2.1/24 dev kleak0",
        "link set kleak0 netns other",
        "-n other link del kleak0",
    ]

The words are those of ip(8), but that attributes have the names of the kernel's (IFLA_VXLAN_ID is
``vxlan_id``). ``-n NAME`` runs a step in another network namespace; namespaces are private and come
by being named.
"""

from __future__ import annotations

import ipaddress
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kleak.errors import UsageError
from kleak.files.input_files import read_input
from kleak.files.names import readable

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEFAULT_NAME = "kleak0"
MAX_REPEAT = 10_000

_NAME_BYTES = 15  # IFNAMSIZ - 1
_MOST_BYTES = 1 << 20
_WORD = re.compile(r"[a-z][a-z0-9_]*")
_MODULE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_KEYS = frozenset({"needs", "repeat", "timeout", "steps"})
# Given by other words of a step.
_TAKEN = frozenset({"ifname", "kind", "index", "net_ns_fd", "net_ns_pid"})


@dataclass(frozen=True, slots=True)
class AddLink:
    """Create a device. ``attributes`` are named as the kernel's, in small letters."""

    name: str
    kind: str
    attributes: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class SetLinkState:
    """Take a device up or down."""

    name: str
    up: bool


@dataclass(frozen=True, slots=True)
class SetMaster:
    """Make a device a port of another, or of none."""

    name: str
    master: str | None


@dataclass(frozen=True, slots=True)
class MoveLink:
    """Move a device to another namespace."""

    name: str
    namespace: str


@dataclass(frozen=True, slots=True)
class DeleteLink:
    """Remove a device."""

    name: str


@dataclass(frozen=True, slots=True)
class AddAddress:
    """Give a device an address."""

    name: str
    address: str
    prefix_length: int


@dataclass(frozen=True, slots=True)
class AddNetdevsim:
    """Create a simulated bus device with so many ports."""

    number: int
    ports: int


@dataclass(frozen=True, slots=True)
class DeleteNetdevsim:
    """Remove a simulated bus device."""

    number: int


Action = (
    AddLink
    | SetLinkState
    | SetMaster
    | MoveLink
    | DeleteLink
    | AddAddress
    | AddNetdevsim
    | DeleteNetdevsim
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step, and its text as it was written. ``namespace`` is None for the first one."""

    text: str
    namespace: str | None
    action: Action


@dataclass(frozen=True, slots=True)
class NetPlan:
    """What to do ``repeat`` times, within ``timeout_s``. ``needs`` are modules."""

    name: str
    steps: tuple[Step, ...]
    repeat: int = 1
    timeout_s: float = 60.0
    needs: tuple[str, ...] = ()

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Namespaces that the steps name."""
        named = [step.namespace for step in self.steps]
        named += [s.action.namespace for s in self.steps if isinstance(s.action, MoveLink)]
        return tuple(dict.fromkeys(name for name in named if name is not None))


def read_plan(spec: str) -> NetPlan:
    """Return the plan that ``spec`` is: the path of a .toml file, or steps.

    Raises UsageError, which names the file and the step.
    """
    if not spec.endswith(".toml"):
        return parse_steps(spec)
    try:
        text = read_input(spec, _MOST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{spec}: {getattr(error, 'strerror', None) or 'no text'}") from error
    return parse_plan(text, readable(spec))


def parse_steps(text: str) -> NetPlan:
    """Return the plan of steps with semicolons between. Raises UsageError."""
    return NetPlan(
        readable(text), _steps([step for step in text.split(";") if step.strip()], "plan")
    )


def parse_plan(text: str, name: str) -> NetPlan:
    """Return the plan that a TOML document is; ``name`` is for messages. Raises UsageError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{name}: {error}") from error
    for key in document:
        if key not in _KEYS:
            raise UsageError(f"{name}: no such key: {key} (there are {', '.join(sorted(_KEYS))})")
    steps = document.get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, str) for step in steps):
        raise UsageError(f"{name}: steps must be a list of strings")
    needs = document.get("needs", [])
    if not isinstance(needs, list) or not all(
        isinstance(module, str) and _MODULE.fullmatch(module) for module in needs
    ):
        raise UsageError(f"{name}: needs must be a list of module names")
    return NetPlan(
        name,
        _steps(steps, name),
        int(_number(document, "repeat", 1, MAX_REPEAT, name, whole=True)),
        _number(document, "timeout", 60, 86400, name, whole=False),
        tuple(needs),
    )


def _number(
    document: Mapping[str, Any], key: str, default: int, most: int, name: str, *, whole: bool
) -> float:
    value = document.get(key, default)
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not 0 < value <= most:
        what = "whole number" if whole else "number"
        raise UsageError(f"{name}: {key} must be a {what} above 0, {most} at most")
    return float(value)


def _steps(texts: Sequence[str], name: str) -> tuple[Step, ...]:
    if not texts:
        raise UsageError(f"{name}: no steps")
    steps = []
    for number, text in enumerate(texts, start=1):
        try:
            steps.append(_step(text))
        except _StepError as error:
            raise UsageError(f"{name}: step {number} ({text.strip()}): {error}") from error
    return tuple(steps)


class _StepError(Exception):
    """What is wrong with one step."""


def _step(text: str) -> Step:
    words = text.split()
    namespace = None
    if words[:1] == ["-n"]:
        if len(words) < 2:
            raise _StepError("-n needs the name of a namespace")
        namespace, words = _name(words[1]), words[2:]
    verb = " ".join(words[:2])
    parse = _VERBS.get(verb)
    if parse is None:
        raise _StepError(f"must begin with one of: {', '.join(_VERBS)}")
    return Step(" ".join(text.split()), namespace, parse(words[2:]))


def _add_link(words: list[str]) -> AddLink:
    name = DEFAULT_NAME
    if words[:1] != ["kind"] and words:
        name, words = _name(words[0]), words[1:]
    if len(words) < 2 or words[0] != "kind":
        raise _StepError("expected kind KIND")
    kind, rest = words[1], words[2:]
    if not re.fullmatch(r"[a-z0-9_-]+", kind):
        raise _StepError(f"no kind of device: {kind}")
    if len(rest) % 2:
        raise _StepError(f"{rest[-1]} has no value: attributes come in pairs, NAME VALUE")
    attributes: dict[str, str] = {}
    for key, value in zip(rest[::2], rest[1::2], strict=True):
        if not _WORD.fullmatch(key) or key in _TAKEN:
            raise _StepError(f"no attribute can be called {key}")
        if key in attributes:
            raise _StepError(f"{key} is given twice")
        attributes[key] = value
    return AddLink(name, kind, tuple(attributes.items()))


def _set_link(words: list[str]) -> Action:
    if len(words) == 2 and words[1] in ("up", "down"):
        return SetLinkState(_name(words[0]), words[1] == "up")
    if len(words) == 2 and words[1] == "nomaster":
        return SetMaster(_name(words[0]), None)
    if len(words) == 3 and words[1] == "master":
        return SetMaster(_name(words[0]), _name(words[2]))
    if len(words) == 3 and words[1] == "netns":
        return MoveLink(_name(words[0]), _name(words[2]))
    raise _StepError("expected NAME and up, down, master NAME, nomaster or netns NAME")


def _delete_link(words: list[str]) -> DeleteLink:
    if len(words) != 1:
        raise _StepError("expected NAME")
    return DeleteLink(_name(words[0]))


def _add_address(words: list[str]) -> AddAddress:
    if len(words) != 3 or words[1] != "dev":
        raise _StepError("expected ADDRESS/LENGTH dev NAME")
    try:
        address = ipaddress.ip_interface(words[0])
    except ValueError as error:
        raise _StepError(str(error)) from error
    return AddAddress(_name(words[2]), str(address.ip), address.network.prefixlen)


def _add_netdevsim(words: list[str]) -> AddNetdevsim:
    if len(words) not in (1, 2) or not all(word.isdecimal() for word in words):
        raise _StepError("expected NUMBER, and how many ports if not 1")
    return AddNetdevsim(int(words[0]), int(words[1]) if len(words) == 2 else 1)


def _delete_netdevsim(words: list[str]) -> DeleteNetdevsim:
    if len(words) != 1 or not words[0].isdecimal():
        raise _StepError("expected NUMBER")
    return DeleteNetdevsim(int(words[0]))


def _name(word: str) -> str:
    """Check a name of a device or namespace, by the rule of dev_valid_name()."""
    if len(word.encode()) > _NAME_BYTES or word in (".", "..") or set(word) & set("/:"):
        raise _StepError(f"no valid name: {word}")
    return word


_VERBS: dict[str, Callable[[list[str]], Action]] = {
    "link add": _add_link,
    "link set": _set_link,
    "link del": _delete_link,
    "address add": _add_address,
    "netdevsim add": _add_netdevsim,
    "netdevsim del": _delete_netdevsim,
}
