"""Loading and unloading the module under test, and leaving the machine's modules as found."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kleak.capture.machine.kernel_state import loaded_modules
from kleak.capture.machine.probes import examine_module_loading
from kleak.errors import TargetError, UnsupportedError, UsageError
from kleak.model.doctor import MODULE, obstacles
from kleak.symbols.module_image import ModuleImage

MODULES_ROOT = Path("/lib/modules")

_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class ModuleTarget:
    """A module to load: from a file, or by name with its dependencies.

    ``image`` is the module file that the kernel will get, whichever way was asked for.
    """

    name: str
    path: Path
    parameters: tuple[str, ...]
    by_name: bool
    image: ModuleImage


@dataclass(frozen=True, slots=True)
class Timeouts:
    """How long the parts of a cycle may take, in seconds."""

    load: float = 60.0
    unload: float = 30.0
    busy: float = 10.0


def find_target(
    spec: str, parameters: Sequence[str] = (), *, may_be_loaded: bool = False
) -> ModuleTarget:
    """Return the module that ``spec`` names: a path of a .ko file, or a module name.

    Raises UsageError where there is no such file, TargetError for a module that this kernel will
    not take: built for another one, built in, unknown, or, unless it ``may_be_loaded``, loaded
    already. Raises UnsupportedError where this kernel takes none.
    """
    for parameter in parameters:
        if parameter.startswith("-"):
            raise UsageError(f"{parameter} is no module parameter; options stand before the module")
    by_name = "/" not in spec and ".ko" not in spec
    if not by_name and not Path(spec).is_file():
        raise UsageError(f"{spec}: no such module file")
    for finding in obstacles(examine_module_loading(), MODULE):
        raise UnsupportedError(f"no module can be loaded here: {finding.found}; {finding.mend}")
    path = _find_by_name(spec) if by_name else Path(spec)
    if not path.is_file():
        raise UsageError(f"{spec}: no such module file")
    image = ModuleImage(path)
    _check_release(spec, image)
    loaded = image.name in loaded_modules()
    if loaded and not may_be_loaded:
        raise TargetError(f"module {image.name} is loaded already: unload it first")
    if not loaded and (Path("/sys/module") / image.name).is_dir():
        raise TargetError(f"module {image.name} is built into this kernel")
    return ModuleTarget(image.name, path, tuple(parameters), by_name, image)


def _find_by_name(name: str) -> Path:
    release = os.uname().release
    answer = _run(["modinfo", "-F", "filename", "-k", release, name])
    filename = answer.stdout.strip()
    if answer.returncode != 0 or not filename:
        raise TargetError(f"module {name} is not among those of kernel {release}")
    if filename == "(builtin)":
        raise TargetError(f"module {name} is built into this kernel")
    return Path(filename)


def _check_release(spec: str, image: ModuleImage) -> None:
    release = os.uname().release
    if image.vermagic is not None and image.vermagic.split()[0] != release:
        raise TargetError(
            f"{spec} was built for kernel {image.vermagic.split()[0]}, this is {release}"
        )


class ModuleLoader:
    """Loads and unloads modules, again and again. Use as a context: leaving it unloads what it
    loaded, dependencies too, and nothing else.
    """

    def __init__(
        self, targets: Sequence[ModuleTarget], timeouts: Timeouts, needs: Sequence[str] = ()
    ) -> None:
        """Prepare; nothing is loaded yet. Raises UnsupportedError without the kmod tools.

        ``needs``: modules that come by the way, and go with the dependencies.
        """
        for tool in ("insmod", "modprobe", "rmmod"):
            if shutil.which(tool) is None:
                raise UnsupportedError(f"no {tool} on this machine: install kmod")
        self._targets = tuple(targets)
        self._names = frozenset(target.name for target in targets)
        self._needs = tuple(needs)
        self._timeouts = timeouts
        self._before = set(loaded_modules())
        self._stuck = False

    def __enter__(self) -> ModuleLoader:
        """Nothing happens on the way in."""
        return self

    def __exit__(self, *_: object) -> None:
        """Unload what this loader brought in. A module that hangs is left to the kernel."""
        if self._stuck:
            return
        self.unload()
        self._unload_dependencies()

    def load(self) -> None:
        """Load the modules, in order; their inits have returned then.

        One that is there is left alone: another of them needed it. Raises TargetError where one
        fails.
        """
        for target in self._targets:
            if target.name not in loaded_modules():
                self._load(target)

    def _load(self, target: ModuleTarget) -> None:
        tool = "modprobe" if target.by_name else "insmod"
        what = target.name if target.by_name else str(target.path)
        command = [tool, what, *target.parameters]
        result = self._wait(command, self._timeouts.load, f"init of {target.name}")
        if result.returncode != 0:
            raise TargetError(f"module {target.name} does not load: {_reason(result.stderr)}")
        if target.name not in loaded_modules():
            raise TargetError(f"module {target.name} did not stay loaded")

    def unload(self) -> None:
        """Unload those that are loaded, the last one first; their exits have returned then.

        Raises TargetError where one stays.
        """
        # /proc/modules begins with the one that was loaded last, which may use the others.
        for name in loaded_modules():
            if name in self._names:
                self._unload(name)

    def _unload(self, name: str) -> None:
        """Unload one module.

        A module that is in use for a moment is normal (udev may still have its device open): it is
        tried again until ``Timeouts.busy`` is over.
        """
        give_up = time.monotonic() + self._timeouts.busy
        while True:
            result = self._wait(["rmmod", name], self._timeouts.unload, f"exit of {name}")
            if result.returncode == 0 or name not in loaded_modules():
                return
            if time.monotonic() >= give_up:
                raise TargetError(f"module {name} does not unload: {_reason(result.stderr)}")
            time.sleep(_POLL_SECONDS)

    def _unload_dependencies(self) -> None:
        """Unload modules that came with the targets, those that nothing uses first."""
        wanted = self._wanted()
        while True:
            ours = [
                module
                for name, module in loaded_modules().items()
                if name not in self._before and module.name in wanted
            ]
            idle = [module for module in ours if module.reference_count == 0]
            if not any(_run(["rmmod", module.name]).returncode == 0 for module in idle):
                return

    def _wanted(self) -> frozenset[str]:
        """Names of the modules that modprobe loads along with the targets, or for their sake."""
        names: set[str] = set()
        for name in (*self._needs, *(t.name for t in self._targets if t.by_name)):
            answer = _run(["modprobe", "--show-depends", name])
            paths = [
                line.split()[1] for line in answer.stdout.splitlines() if line.startswith("insmod")
            ]
            names |= {Path(path).name.split(".")[0].replace("-", "_") for path in paths}
        return frozenset(names)

    def _wait(
        self, command: list[str], timeout: float, doing: str
    ) -> subprocess.CompletedProcess[str]:
        # In a session of its own: Ctrl-C must not hit a tool in the middle of a load.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        try:
            try:
                _, stderr = process.communicate(timeout=timeout)
            except KeyboardInterrupt:
                # A load or unload is short: let it end, so that the state is known.
                process.communicate(timeout=timeout)
                raise
        except subprocess.TimeoutExpired:
            process.kill()  # of no use while the module's code does not return, harmless
            self._stuck = True
            raise TargetError(
                f"{doing} has not returned after {timeout:g} s; the module is left in the kernel"
            ) from None
        return subprocess.CompletedProcess(command, process.returncode, "", stderr)


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )


def _reason(stderr: str) -> str:
    """Return the last thing that a tool said, without its name and path."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return lines[-1].split(": ")[-1]
