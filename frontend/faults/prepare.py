"""From a module that was asked for to a copy of it that can fail, and what else a run needs."""

from __future__ import annotations

import shlex
import subprocess
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from kleak.capture.machine.kernel_state import loaded_modules
from kleak.capture.target.modules import ModuleTarget
from kleak.errors import KleakError, TargetError, UnsupportedError
from kleak.faults.module_copy import Call, ModuleCopy, find_calls, read_module
from kleak.faults.prototypes import UNKNOWN, KernelTypes, how_to_fail
from kleak.model.faults import FailedCall, NotTried
from kleak.model.frame import Frame
from kleak.parsers.errors import ParseError
from kleak.symbols.module_image import ModuleImage

LOCKDOWN = Path("/sys/kernel/security/lockdown")
SIG_ENFORCE = Path("/sys/module/module/parameters/sig_enforce")


@dataclass(frozen=True, slots=True)
class Prepared:
    """``target`` is the copy, to be loaded with insmod after ``dependencies``. ``calls`` are those
    that can fail in it, by their place in ``copy``.
    """

    target: ModuleTarget
    copy: ModuleCopy
    calls: tuple[FailedCall, ...]
    not_tried: tuple[NotTried, ...]
    dependencies: tuple[str, ...]


def check_unsigned_loads(sig_enforce: Path = SIG_ENFORCE, lockdown: Path = LOCKDOWN) -> None:
    """Raise UnsupportedError where the kernel takes no module without a signature it trusts."""
    if _text(sig_enforce).strip() == "Y":
        raise UnsupportedError(
            "--fail-calls loads a changed copy of the module, which has no signature, and this "
            "kernel wants one (module.sig_enforce): boot without it, or use kleak vm"
        )
    mode = _text(lockdown)
    if "[integrity]" in mode or "[confidentiality]" in mode:
        raise UnsupportedError(
            "--fail-calls loads a changed copy of the module, which has no signature, and this "
            "kernel is locked down: boot without Secure Boot's lockdown, or use kleak vm"
        )


def prepare(target: ModuleTarget, directory: Path) -> Prepared:
    """Write a copy of ``target`` into ``directory``, with a stub for each call that can fail.

    Raises TargetError for a module that has none, UnsupportedError where the kernel has no types.
    """
    elf = read_module(target.image.data)
    found = find_calls(elf)
    paths, options = _from_modprobe(target.name) if target.by_name else ((), ())
    dependencies = tuple(_name_of(path) for path in paths)
    try:
        types = KernelTypes()
    except (OSError, ParseError) as error:
        raise UnsupportedError(
            f"--fail-calls needs the kernel's types (CONFIG_DEBUG_INFO_BTF): {error}"
        ) from error
    needed = target.image.information.get("depends", ("",))[0].split(",")
    # What a dependency exports is known before it is loaded.
    others: dict[str, bytes | None] = {_name_of(path): _types_in(path) for path in paths}
    others |= {name: None for name in (*needed, *loaded_modules()) if name and name not in others}
    number = Counter(call.function for call in found)
    how, refused = how_to_fail(number, types, others)
    chosen = [call for call in found if call.function in how]
    if not chosen:
        raise TargetError(f"module {target.name} makes no call that kleak knows how to fail")
    places = _places(target.image, chosen)
    copy = ModuleCopy(elf, chosen, [how[call.function] for call in chosen])
    path = directory / f"{target.name}.ko"
    copy.write(path)
    return Prepared(
        replace(
            target,
            path=path,
            parameters=(*options, *target.parameters),
            by_name=False,
            image=ModuleImage(path),
        ),
        copy,
        tuple(
            FailedCall(number, call.function, how[call.function].returns.value, place)
            for number, (call, place) in enumerate(zip(chosen, places, strict=True), start=1)
        ),
        tuple(
            NotTried(function, number[function], why)
            for function, why in sorted(refused.items())
            if why != UNKNOWN or _may_fail(types, function)
        ),
        dependencies,
    )


def _may_fail(types: KernelTypes, function: str) -> bool:
    """Whether a function that is not in the table returns something by which it could fail."""
    prototype = types.btf.prototype(function)
    if prototype is None:
        return not function.startswith("__")
    signed = prototype.returns == "integer" and prototype.returns_signed
    return signed or prototype.returns == "pointer"


def _places(image: ModuleImage, calls: list[Call]) -> list[Frame]:
    sections = {section.index: section for section in image.text_sections}
    found = []
    for call in calls:
        section = sections[call.section]
        location = image.resolve(section.region, section.offset + call.return_offset)
        found.append(Frame(image.name, location.symbol, location.offset, location.source))
    return found


def _name_of(path: Path) -> str:
    return path.name.split(".")[0].replace("-", "_")


def _types_in(path: Path) -> bytes | None:
    """The .BTF section of a module's file, where it goes on from the kernel's own types."""
    try:
        elf = read_module(ModuleImage(path).data)
    except KleakError:
        return None
    # With .BTF.base it goes on from a part of them, which the kernel maps when it loads it.
    if ".BTF" not in elf.section_names or ".BTF.base" in elf.section_names:
        return None
    return elf.contents(elf.section_names.index(".BTF"))


def _from_modprobe(name: str) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """The files that modprobe loads before this one, and the options that it gives to it."""
    answer = subprocess.run(
        ["modprobe", "--show-depends", name],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if answer.returncode != 0:
        raise TargetError(f"modprobe does not know how to load {name}: {answer.stderr.strip()}")
    paths: list[Path] = []
    options: list[str] = []
    for line in answer.stdout.splitlines():
        command, _, rest = line.partition(" ")
        if command != "insmod":
            continue  # one that is built in, or an install command of modprobe.d
        path, _, given = rest.strip().partition(" ")
        paths.append(Path(path))
        # The kernel takes quotes for values with spaces; insmod passes on what it gets.
        options = _split(given)
    return tuple(paths[:-1]), tuple(options)


def _split(options: str) -> list[str]:
    lexer = shlex.shlex(options, posix=False)
    lexer.whitespace_split = True
    lexer.quotes = '"'
    lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:
        return options.split()


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
