"""The programs as they are attached: loaded into the kernel, and linked to their events."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from kleak.capture.engine.bcc_library import compiler_output, import_bcc, missed_runs
from kleak.capture.engine.bpf_syscall import (
    AttachType,
    ProgramType,
    load_program,
    open_raw_tracepoint,
)
from kleak.capture.engine.hooks import PROBES, Attachment, Event, Hook
from kleak.errors import UnsupportedError

# Ways that are named when the program is loaded, by a number in the kernel's types.
_ATTACH_TYPES = {
    Attachment.TYPED_TRACEPOINT: AttachType.RAW_TRACEPOINT,
    Attachment.FENTRY: AttachType.FENTRY,
    Attachment.FEXIT: AttachType.FEXIT,
}


# Where the kernel takes probes: one of them exists with CONFIG_KPROBE_EVENTS.
_PROBE_EVENTS = (
    Path("/sys/bus/event_source/devices/kprobe"),
    Path("/sys/kernel/tracing/kprobe_events"),
    Path("/sys/kernel/debug/tracing/kprobe_events"),
)


@dataclass(eq=False)
class _Attached:
    event: str
    way: Attachment
    link_fds: list[int] = field(default_factory=list)
    program_fds: list[int] = field(default_factory=list)


class AttachedPrograms:
    """What is attached. Nothing at first; closing it detaches everything."""

    def __init__(self) -> None:
        """Attach nothing yet."""
        self._attached: list[_Attached] = []
        self._code: Mapping[str, bytes] = {}
        self._missing: dict[Event, str] = {}

    @property
    def ways(self) -> Mapping[str, Attachment]:
        """How each event is heard of."""
        return {attached.event: attached.way for attached in self._attached}

    @property
    def unheard(self) -> Mapping[str, str]:
        """Why nothing is heard of the other events."""
        return {event.name: why for event, why in self._missing.items()}

    def missed_runs(self) -> dict[str, tuple[int, ...]]:
        """Return by event how often the kernel could not run each copy of its program."""
        return {
            attached.event: tuple(missed_runs(fd) for fd in attached.program_fds)
            for attached in self._attached
        }

    def close(self) -> None:
        """Detach all programs. May be called twice."""
        for attached in self._attached:
            _detach(attached)
        self._attached.clear()

    def detach(self, wanted: Callable[[str], bool]) -> None:
        """Detach the programs of the events whose name is ``wanted``."""
        for attached in [one for one in self._attached if wanted(one.event)]:
            self._attached.remove(attached)
            _detach(attached)

    def attach(self, events: Sequence[Event], code: Mapping[str, bytes]) -> list[str]:
        """Attach the programs of ``code`` to ``events``, each in the first way that works.

        Returns a sentence for what is missing: no way worked, and the result can do without.
        Raises UnsupportedError for any other.
        """
        self._code = code
        with compiler_output():
            # The verifier is most of a start, so it gets all CPUs.
            with ThreadPoolExecutor(os.cpu_count()) as verifiers:
                loaded = [verifiers.submit(self._load_first, event) for event in events]
            # Attaching keeps the plan's order: frees before allocations, loads of modules last. It
            # begins when no verifier runs any more, on purpose: see docs/decisions.md.
            for event, first in zip(events, loaded, strict=True):
                self._attach(event, first)
        missing: dict[str | None, list[str]] = {}
        for event, why in self._missing.items():
            missing.setdefault(event.without, []).append(f"{event.name}: {why}")
        return [f"{without} ({'; '.join(why)})" for without, why in missing.items()]

    def _attach(self, event: Event, first: Future[tuple[int, _Attached]]) -> None:
        """Attach to an event in the first way that works; ``first`` is the first one loaded."""
        load: Callable[[], tuple[int, _Attached]] = first.result
        try:
            while True:
                number, attached = load()
                try:
                    self._link_programs(event.ways[number], attached)
                    return
                except _RefusedError as refusal:
                    load = partial(self._load_first, event, number + 1, refusal)
        except _RefusedError as refusal:
            if event.without is None:
                raise UnsupportedError(f"cannot trace {event.name}: {refusal}") from refusal
            self._missing[event] = str(refusal)

    def _load_first(
        self, event: Event, at: int = 0, refusal: _RefusedError | None = None
    ) -> tuple[int, _Attached]:
        """Load programs in the first way from number ``at`` on that the kernel takes; return which.

        Raises _RefusedError with the last refusal, where there is no further way ``refusal``.
        """
        refusal = refusal or _RefusedError("this kernel has nothing to attach to")
        for number, hook in enumerate(event.ways[at:], at):
            try:
                return number, self._load_programs(event.name, hook)
            except _RefusedError as error:
                refusal = error
        raise refusal

    def _load_programs(self, event: str, hook: Hook) -> _Attached:
        attached = _Attached(event, hook.attachment)
        self._attached.append(attached)
        with self._refusal(hook, attached):
            for program in hook.programs:
                # The same function again makes a second program, with a guard of its own.
                attached.program_fds.append(self._load(program, hook))
        return attached

    def _link_programs(self, hook: Hook, attached: _Attached) -> None:
        with self._refusal(hook, attached):
            for fd in attached.program_fds:
                attached.link_fds.append(self._link(fd, hook))

    @contextmanager
    def _refusal(self, hook: Hook, attached: _Attached) -> Iterator[None]:
        """Undo what was attached where the kernel refuses, and raise _RefusedError."""
        try:
            yield
        except (OSError, _RefusedError) as error:
            self._attached.remove(attached)
            _detach(attached)
            if isinstance(error, _RefusedError):
                raise
            raise _RefusedError(
                f"{hook.attachment.value} of {hook.target}: {error.strerror}"
            ) from error

    def _link(self, program_fd: int, hook: Hook) -> int:
        if hook.attachment is Attachment.RAW_TRACEPOINT:
            return open_raw_tracepoint(program_fd, hook.target)
        if hook.attachment in _ATTACH_TYPES:
            return open_raw_tracepoint(program_fd, None)
        kind = 0 if hook.attachment is Attachment.KPROBE else 1
        name = f"{'p' if kind == 0 else 'r'}_kleak_{os.getpid()}_{hook.target}".encode()
        link = import_bcc().lib.bpf_attach_kprobe(
            program_fd, kind, name, hook.target.encode(), 0, 0
        )
        if link < 0:
            raise OSError(-link, "refused")
        return int(link)

    def _load(self, program: str, hook: Hook) -> int:
        if hook.attachment in PROBES and not any(place.exists() for place in _PROBE_EVENTS):
            raise _RefusedError(f"{hook.attachment.value} of {hook.target}: this kernel has none")
        name = self._name_of(program)
        code = self._code[name]
        if hook.attachment is Attachment.RAW_TRACEPOINT:
            return load_program(name, ProgramType.RAW_TRACEPOINT, code)
        if (attach_type := _ATTACH_TYPES.get(hook.attachment)) is not None:
            return load_program(
                name, ProgramType.TRACING, code, attach_type=attach_type, btf_id=hook.btf_id
            )
        return load_program(name, ProgramType.KPROBE, code)

    def _name_of(self, program: str) -> str:
        """Return what bcc's KFUNC_PROBE made of a name: newer releases put vmlinux__ before it."""
        kind, _, function = program.partition("__")
        for name in (program, f"{kind}__vmlinux__{function}"):
            if name in self._code:
                return name
        raise _RefusedError(f"{program} was not compiled")


class _RefusedError(Exception):
    """One way to attach did not work; the next one may."""


def _detach(attached: _Attached) -> None:
    for fds in (attached.link_fds, attached.program_fds):
        for fd in fds:
            os.close(fd)
        fds.clear()
