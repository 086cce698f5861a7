"""The programs in the kernel, and what their maps say. The one module that imports bcc."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from kleak.capture.bpf_source import read_source
from kleak.capture.events import Attachment, Hook, Plan
from kleak.capture.headers import HeaderTree, bcc_environment
from kleak.capture.machine import require_root
from kleak.errors import UnsupportedError
from kleak.symbols.kernel_table import TextRange

# enum counter of bpf/record.h, in its order.
_COUNTERS = (
    "allocated",
    "freed",
    "repaired_frees",
    "double_events",
    "reused_addresses",
    "foreign_frees",
    "ledger_full",
    "stacks_full",
    "totals_full",
    "no_stack",
    "nested",
    "delete_refused",
    "loads_full",
    "walks",
)
# enum free_event of bpf/programs.h, in its order.
_FREE_EVENTS = ("kfree", "kmem_cache_free", "kvfree_call_rcu", "free_vmap_area_noflush")
# enum family of bpf/record.h, in its order.
FAMILIES = ("kmalloc", "kmem_cache", "vmap_area")

_MAX_LOADS = 4096  # MAX_LOADS of bpf/config.h


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes of the maps, in entries. All are preallocated: about 130 bytes for an outstanding
    allocation, 1.1 kB for a stack, 130 bytes for the totals of a stack in a cycle.
    """

    outstanding: int = 65536
    stacks: int = 16384
    totals: int = 32768


@dataclass(frozen=True, slots=True)
class SymbolScope:
    """Ranges of kernel text in scope. With ``everything`` there is one, and no more is asked."""

    ranges: tuple[TextRange, ...]
    everything: bool = False

    @property
    def envelope(self) -> TextRange:
        """The range from the lowest address in scope to the highest."""
        return TextRange(min(r.start for r in self.ranges), max(r.end for r in self.ranges))


@dataclass(frozen=True, slots=True)
class LoadRecord:
    """One load of a module in scope, as the kernel placed it. Times are CLOCK_MONOTONIC ns."""

    name: str
    cycle: int
    text: TextRange
    init_text: TextRange
    loaded_at_ns: int
    unloaded_at_ns: int | None


@dataclass(frozen=True, slots=True)
class StackTotal:
    """What one stack of one family did in one cycle, by the cycle that allocated."""

    stack: int
    cycle: int
    family: str
    allocated: int
    allocated_bytes: int
    allocated_requested: int
    freed: int
    freed_bytes: int
    freed_requested: int

    @property
    def outstanding(self) -> int:
        """Objects allocated and not freed."""
        return self.allocated - self.freed


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One outstanding allocation."""

    address: int
    stack: int
    size_bytes: int
    requested_bytes: int
    time_ns: int
    cycle: int
    family: str
    tgid: int
    comm: str


@dataclass(frozen=True, slots=True)
class Counters:
    """What the programs counted, and how often the kernel could not run them.

    ``missed_runs`` is by event, then one figure a copy of its program. ``made_good`` is by event
    the runs of the first copy that were skipped, but not those of the second.
    """

    counted: Mapping[str, int]
    missed_runs: Mapping[str, tuple[int, ...]]
    made_good: Mapping[str, int]

    def lost_events(self) -> dict[str, int]:
        """Events that no copy of their program saw, by event; events without any are left out.

        Where the copies cannot tell, as many as the copy with the fewest was skipped: a bound.
        """
        lost = {}
        for event, missed in self.missed_runs.items():
            unseen = min(missed)
            if event in self.made_good:
                unseen = min(unseen, missed[0] - self.made_good[event])
            if unseen > 0:
                lost[event] = unseen
        return lost


@dataclass
class _Attached:
    event: str
    way: Attachment
    fds: list[int] = field(default_factory=list)
    program_fds: list[int] = field(default_factory=list)


class Tracer:
    """Compiles, attaches and reads the programs. Use as a context: leaving it detaches them."""

    def __init__(
        self,
        plan: Plan,
        headers: HeaderTree,
        *,
        modules: Sequence[str] = (),
        symbols: SymbolScope | None = None,
        limits: Limits = Limits(),
    ) -> None:
        """Prepare to trace ``modules`` (names as /proc/modules has them) and ``symbols``."""
        self._plan = plan
        self._headers = headers
        self._modules = tuple(modules)
        self._symbols = symbols
        self._limits = limits
        self._bpf: Any = None
        self._bcc: Any = None
        self._attached: list[_Attached] = []
        self.notes: list[str] = []

    def __enter__(self) -> Tracer:
        """Compile, load and attach. Nothing counts yet but what module loads bring into scope.

        Raises UnsupportedError where bcc is missing or this kernel refuses.
        """
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Detach everything."""
        self.close()

    # --- starting and stopping ----------------------------------------------------------------

    def _start(self) -> None:
        require_root()
        self._bcc = _import_bcc()
        flags = [f"-D{name}={value}" for name, value in self._constants().items()]
        with _compiler_output() as said, bcc_environment(self._headers):
            try:
                self._bpf = _manual_bpf(self._bcc)(text=read_source(), cflags=flags)
            except Exception as error:  # bcc raises bare Exception for all that goes wrong
                raise UnsupportedError(
                    f"bcc cannot compile kleak's programs with {self._headers.description}: "
                    f"{_first_error(said()) or error}"
                ) from error
        self._set_scope()
        for event in self._plan.events:
            self._attach(event.name, event.ways, event.without)

    def _constants(self) -> dict[str, int]:
        constants = dict(self._plan.constants)
        constants["MAX_OUTSTANDING"] = self._limits.outstanding
        constants["MAX_STACKS"] = self._limits.stacks
        constants["MAX_TOTALS"] = self._limits.totals
        constants["MAX_MODULES"] = max(1, len(self._modules))
        constants["STACK_DEPTH"] = _stack_depth()
        if self._symbols is not None and not self._symbols.everything:
            envelope = self._symbols.envelope
            constants["SYMBOL_WORDS"] = (envelope.end - envelope.start) // 64 + 1
        return constants

    def _set_scope(self) -> None:
        if self._modules:
            targets = self._bpf["module_targets"]
            for number, name in enumerate(self._modules):
                targets[targets.Key(name.encode())] = targets.Leaf(number)
        scopes = self._bpf["scopes"]
        scope = scopes.Leaf()
        scope.ignored_tgid = os.getpid()
        if self._symbols is not None:
            envelope = self._symbols.envelope
            scope.low, scope.high = envelope.start, envelope.end
            scope.everything = self._symbols.everything
            if not self._symbols.everything:
                scope.symbols.start, scope.symbols.end = envelope.start, envelope.end
                self._set_symbol_bits(self._symbols, envelope.start)
        scopes[ctypes.c_int(0)] = scope

    def _set_symbol_bits(self, symbols: SymbolScope, base: int) -> None:
        words: dict[int, int] = {}
        for text in symbols.ranges:
            first, last = text.start - base, text.end - base - 1
            for word in range(first // 64, last // 64 + 1):
                low, high = max(first - word * 64, 0), min(last - word * 64, 63)
                words[word] = words.get(word, 0) | ((1 << (high + 1)) - (1 << low))
        bits = self._bpf["symbol_bits"]
        for word, value in words.items():
            bits[ctypes.c_int(word)] = ctypes.c_uint64(value)

    def _attach(self, event: str, ways: Iterable[Hook], without: str | None) -> None:
        reason = "this kernel has nothing to attach to"
        for hook in ways:
            attached = _Attached(event, hook.attachment)
            try:
                with _compiler_output():
                    self._attach_programs(hook, attached)
            except _RefusedError as error:
                reason = str(error)
                self._detach(attached)
                continue
            self._attached.append(attached)
            return
        if without is None:
            raise UnsupportedError(f"cannot trace {event}: {reason}")
        self.notes.append(f"{without} ({event}: {reason})")

    def _attach_programs(self, hook: Hook, attached: _Attached) -> None:
        library = self._bcc.lib
        for copy, program in enumerate(hook.programs):
            fd = self._load(program, hook.attachment, fresh=program in hook.programs[:copy])
            attached.program_fds.append(fd)
            target = hook.target.encode()
            if hook.attachment is Attachment.RAW_TRACEPOINT:
                # Not through bcc's attach_raw_tracepoint(), which takes one program for each.
                link = library.bpf_attach_raw_tracepoint(fd, target)
            elif hook.attachment in (Attachment.FENTRY, Attachment.FEXIT):
                link = library.bpf_attach_kfunc(fd)
            else:
                kind = 0 if hook.attachment is Attachment.KPROBE else 1
                name = f"{'p' if kind == 0 else 'r'}_kleak_{os.getpid()}_{hook.target}".encode()
                link = library.bpf_attach_kprobe(fd, kind, name, target, 0, 0)
            if link < 0:
                raise _RefusedError(f"{hook.attachment.value} of {hook.target} refused")
            attached.fds.append(link)

    def _load(self, program: str, attachment: Attachment, *, fresh: bool) -> int:
        types = self._bcc.BPF
        kind = {
            Attachment.RAW_TRACEPOINT: types.RAW_TRACEPOINT,
            Attachment.FENTRY: types.TRACING,
            Attachment.FEXIT: types.TRACING,
            Attachment.KPROBE: types.KPROBE,
            Attachment.KRETPROBE: types.KPROBE,
        }[attachment]
        name = program.encode()
        if fresh:
            # The same function again makes a second program, with a guard of its own.
            self._bpf.funcs.pop(name)
        try:
            return int(self._bpf.load_func(name, kind).fd)
        except Exception as error:  # bcc raises bare Exception
            raise _RefusedError(f"{attachment.value} of {program}: {error}") from error

    def _detach(self, attached: _Attached) -> None:
        for fd in attached.fds:
            os.close(fd)
        attached.fds.clear()

    def close(self) -> None:
        """Detach all programs and give the maps back. May be called twice."""
        for attached in self._attached:
            self._detach(attached)
        self._attached.clear()
        if self._bpf is not None:
            self._bpf.cleanup()
            self._bpf = None

    # --- steering -----------------------------------------------------------------------------

    def count_allocations(self, counting: bool, *, cycle: int | None = None) -> None:
        """Start or stop counting allocations; frees always count. For scopes of symbols.

        Modules do it by themselves, as they load and unload.
        """
        scopes = self._bpf["scopes"]
        scope = scopes[ctypes.c_int(0)]
        scope.counting = int(counting)
        if cycle is not None:
            scope.cycle = cycle
        scopes[ctypes.c_int(0)] = scope

    # --- reading ------------------------------------------------------------------------------

    @property
    def attachments(self) -> Mapping[str, Attachment]:
        """How each event is heard of."""
        return {attached.event: attached.way for attached in self._attached}

    @property
    def means(self) -> dict[str, str]:
        """How each event is heard of, and which kernel headers the programs were compiled with."""
        means = {event: way.value for event, way in self.attachments.items()}
        means["kernel headers"] = self._headers.description
        return means

    def loads(self) -> tuple[LoadRecord, ...]:
        """Return the loads of modules in scope, first one first."""
        if not self._modules:
            return ()
        count = self._bpf["scopes"][ctypes.c_int(0)].loads
        table = self._bpf["loads"]
        return tuple(_module_load(table[ctypes.c_int(i)]) for i in range(min(count, _MAX_LOADS)))

    def outstanding_count(self) -> int:
        """Return how many allocations are outstanding now, without reading them."""
        counted = self.counters().counted
        gone = ("freed", "double_events", "reused_addresses")
        return counted["allocated"] - sum(counted[name] for name in gone)

    def totals(self) -> list[StackTotal]:
        """Return the totals of every stack in every cycle."""
        return [
            StackTotal(
                key.stack,
                key.cycle,
                FAMILIES[key.family],
                leaf.allocated,
                leaf.allocated_bytes,
                leaf.allocated_requested,
                leaf.freed,
                leaf.freed_bytes,
                leaf.freed_requested,
            )
            for key, leaf in _rows(self._bpf["totals"])
        ]

    def stacks(self) -> dict[int, tuple[int, ...]]:
        """Return the stacks by their key: return addresses, innermost first."""
        return {key: tuple(leaf.frames[: leaf.depth]) for key, leaf in _rows(self._bpf["stacks"])}

    def outstanding(self) -> Iterator[LedgerEntry]:
        """Return the outstanding allocations, in no order."""
        for key, leaf in _rows(self._bpf["outstanding"]):
            yield LedgerEntry(
                key,
                leaf.stack,
                leaf.size,
                leaf.requested,
                leaf.time_ns,
                leaf.cycle,
                FAMILIES[leaf.family],
                leaf.tgid,
                leaf.comm.decode(errors="replace"),
            )

    def counters(self) -> Counters:
        """Return what was counted so far, over all CPUs."""
        table = self._bpf["counters"]
        counted = {name: sum(table[ctypes.c_int(number)]) for number, name in enumerate(_COUNTERS)}
        missed = {
            attached.event: tuple(_missed_runs(fd) for fd in attached.program_fds)
            for attached in self._attached
        }
        marks = self._bpf["free_marks"]
        made_good = {
            event: sum(on_cpu.made_good for on_cpu in marks[ctypes.c_int(number)])
            for number, event in enumerate(_FREE_EVENTS)
            if self.attachments.get(event) is Attachment.RAW_TRACEPOINT
        }
        return Counters(counted, missed, made_good)


class _RefusedError(Exception):
    """One way to attach did not work; the next one may."""


def _import_bcc() -> Any:
    try:
        import bcc
    except ImportError as error:
        raise UnsupportedError(
            "Python cannot import bcc: install the distribution's package (Debian: "
            "apt-get install python3-bpfcc) and run kleak with the distribution's Python "
            "(a virtual environment needs --system-site-packages)"
        ) from error
    if not hasattr(bcc, "BPF"):
        raise UnsupportedError(
            f"{bcc.__file__} is another package that is called bcc too: remove it and install "
            "the distribution's python3-bpfcc"
        )
    return bcc


def _manual_bpf(bcc: Any) -> Any:
    class ManualBpf(bcc.BPF):  # type: ignore[misc]  # bcc has no types
        """bcc's BPF that attaches nothing by itself: each hook has ways that may fail."""

        def _trace_autoload(self) -> None:
            pass

    return ManualBpf


def _rows(table: Any) -> Iterator[tuple[Any, Any]]:
    # In batches: a call for each key takes minutes for a million. An empty map gives no batch.
    yield from table.items_lookup_batch()


def _module_load(leaf: Any) -> LoadRecord:
    return LoadRecord(
        leaf.name.decode(errors="replace"),
        leaf.cycle,
        TextRange(leaf.text.start, leaf.text.end),
        TextRange(leaf.init_text.start, leaf.init_text.end),
        leaf.loaded_ns,
        leaf.unloaded_ns or None,
    )


def _missed_runs(program_fd: int) -> int:
    """Return how often the kernel skipped a program because it was running already.

    In fdinfo since commit 9ed9e9ba2337 ("bpf: Count the number of times recursion was
    prevented", v5.12); kernels before do not tell, nor do they guard raw tracepoints.
    """
    with open(f"/proc/self/fdinfo/{program_fd}") as fdinfo:
        for line in fdinfo:
            if line.startswith("recursion_misses:"):
                return int(line.split()[1])
    return 0


def _stack_depth() -> int:
    """Return how many frames the kernel walks at most; a program's buffer may not be larger."""
    with open("/proc/sys/kernel/perf_event_max_stack") as sysctl:
        return min(127, int(sysctl.read()))


@contextmanager
def _compiler_output() -> Iterator[Any]:
    """Keep what clang, libbpf and the verifier write to standard error out of the user's sight.

    Gives a function that returns the text so far.
    """
    sys.stderr.flush()
    with tempfile.TemporaryFile() as output:
        stderr = os.dup(2)
        os.dup2(output.fileno(), 2)

        def said() -> str:
            output.seek(0)
            return output.read().decode(errors="replace")

        try:
            yield said
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _first_error(output: str) -> str | None:
    return next((line for line in output.splitlines() if "error:" in line), None)
