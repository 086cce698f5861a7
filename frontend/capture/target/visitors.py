"""Modules that others load while a capture runs: what their code is called, also when it is gone.

The programs note where each was, and when. Names come from its file, found as modprobe finds it;
of a module that has none there, from the kernel's list of symbols, read while it is loaded: at once
when the kernel announces it, which it does when its init is over.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import loaded_modules, read_module_symbols
from kleak.capture.target.module_news import ModuleNews
from kleak.capture.target.modules import find_file
from kleak.capture.witnesses.observer import read_build_id
from kleak.errors import KleakError
from kleak.symbols.listed_module import ListedModule
from kleak.symbols.module_image import ModuleImage
from kleak.symbols.symboliser import ModuleLoad

_MOST_LISTED = 256


@dataclass(frozen=True, slots=True)
class _Seen:
    """A module as it was found. ``listed`` where no file is known to be its own."""

    image: ModuleImage | None
    listed: ListedModule | None


class Visitors:
    """Modules that come while a capture runs. Use as a context around it, in the main thread."""

    def __init__(self, tracer: Tracer, targets: Sequence[str]) -> None:
        """``targets`` are known by other means."""
        self._tracer = tracer
        self._passed_over = {*targets, *loaded_modules()}
        self._seen: dict[tuple[str, int], _Seen] = {}
        self._images: dict[str, ModuleImage | None] = {}
        self._news = ModuleNews()
        self._before: object = signal.SIG_DFL

    def __enter__(self) -> Visitors:
        """Have the kernel interrupt with a signal when a module comes or goes."""
        self._before = signal.signal(signal.SIGIO, lambda *_: self.look())
        self._news.__enter__()
        announcements = self._news.fileno()
        if announcements is not None:
            fcntl.fcntl(announcements, fcntl.F_SETOWN, os.getpid())
            flags = fcntl.fcntl(announcements, fcntl.F_GETFL)
            fcntl.fcntl(announcements, fcntl.F_SETFL, flags | os.O_ASYNC)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let it interrupt no more."""
        self._news.__exit__(kind, error, trace)
        signal.signal(signal.SIGIO, self._before)  # type: ignore[arg-type]

    def look(self) -> None:
        """See which modules are loaded now that were not before, and note what they are called."""
        self._news.drain()
        there = {(one.name, one.address): one for one in loaded_modules().values()}
        self._passed_over -= self._passed_over - {name for name, _ in there}
        new = [
            (name, address)
            for name, address in there
            if (name, address) not in self._seen and name not in self._passed_over
        ]
        without_file = []
        for name, address in new[: _MOST_LISTED - len(self._seen)]:
            image = self._image(name)
            if image is not None and read_build_id(name) == image.build_id:
                self._seen[name, address] = _Seen(image, None)
            else:
                without_file.append((name, address))
        if not without_file:
            return
        symbols = read_module_symbols({name for name, _ in without_file})
        for name, address in without_file:
            listed = ListedModule(name, address, symbols.get(name, ()))
            self._seen[name, address] = _Seen(None, listed)

    def loads(self, began_ns: Sequence[int]) -> list[tuple[int, ModuleLoad]]:
        """Return when each came that has names, and what is known of it, first one first.

        ``began_ns``: when the cycles began, which are the epochs.
        """
        named = []
        for record in self._tracer.visits():
            seen = self._seen.get((record.name, record.text.start))
            code = self._image(record.name) if seen is None else seen.image or seen.listed
            last = len(began_ns)
            if record.unloaded_at_ns is not None:
                last = sum(began < record.unloaded_at_ns for began in began_ns)
            if code is None or last == 0:
                continue
            load = ModuleLoad(
                code,
                record.text.start,
                record.text.end - record.text.start,
                record.init_text.start,
                record.init_text.end - record.init_text.start,
                max(record.cycle, 1),
                last,
            )
            if load.fits:
                named.append((record.loaded_at_ns, load))
        return named

    def _image(self, name: str) -> ModuleImage | None:
        """The file that modprobe loads by that name, None where there is none."""
        if name not in self._images:
            try:
                self._images[name] = ModuleImage(find_file(name))
            except KleakError:
                self._images[name] = None
        return self._images[name]
