"""The programs in the kernel, and what their maps say."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from kleak.capture.batches import Batches
from kleak.capture.bcc_library import (
    compiler_output,
    first_error,
    import_bcc,
    load_tracing,
    manual_bpf,
    missed_runs,
    release_compiler,
    stack_depth,
)
from kleak.capture.bpf_source import read_source
from kleak.capture.epochs import Epochs, drop_stacks
from kleak.capture.headers import HeaderTree, bcc_environment
from kleak.capture.hooks import Attachment, Hook, Plan
from kleak.capture.machine import require_root
from kleak.capture.records import (
    Counters,
    LedgerEntry,
    Limits,
    LoadRecord,
    StackTotal,
    SymbolScope,
)
from kleak.capture.settle import wait_for_grace_period
from kleak.errors import UnsupportedError
from kleak.symbols.kernel_table import TextRange

# enum counter of bpf/record.h, in its order.
_COUNTERS = (
    "allocated",
    "freed",
    "repaired_frees",
    "repaired_allocations",
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
    "bulk_beyond",
    "owned_pages",
    "loads_outside",
)
# enum copied_event of bpf/programs.h, in its order.
_COPIED_EVENTS = (
    "kfree",
    "kmem_cache_free",
    "kvfree_call_rcu",
    "free_vmap_area_noflush",
    "kmem_cache_free_bulk",
    "consume_skb",
    "mm_page_free",
    "percpu_free_percpu",
    "dma_free",
    "kmalloc",
    "kmalloc_node",
    "kmem_cache_alloc",
    "kmem_cache_alloc_node",
    "mm_page_alloc",
)
# enum family of bpf/record.h, in its order.
FAMILIES = (
    "kmalloc",
    "kmem_cache",
    "vmap_area",
    "pages",
    "percpu",
    "dma",
    "reclaimable_cache",
    "dma_pool",
)
_KEY_BITS = 3  # bits that bpf/percpu.c, pages.c and dma_pool.c set in a key

MAX_LOADS = 4096  # MAX_LOADS of bpf/config.h
_FILTER_SLOTS = 262144  # FILTER_SLOTS of bpf/config.h


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
        loaded: Sequence[TextRange] = (),
        by_process: bool = False,
        limits: Limits | None = None,
    ) -> None:
        """Prepare to trace ``modules`` (names as /proc/modules has them) and ``symbols``.

        ``loaded`` is the code of modules that are loaded already, and stay so. ``by_process``:
        only allocations made by the process tree that is followed count.
        """
        self._plan = plan
        self._headers = headers
        self._modules = tuple(modules)
        self._symbols = symbols
        self._loaded = tuple(loaded)
        self._by_process = by_process
        self._limits = limits or Limits()
        self._bpf: Any = None
        self._bcc: Any = None
        self._attached: list[_Attached] = []
        self._before = Counters({}, {}, {})
        self._epochs = Epochs()
        self.evicted_stacks = 0
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
        self._bcc = import_bcc()
        flags = [f"-D{name}={value:#x}" for name, value in self._constants().items()]
        with compiler_output() as said, bcc_environment(self._headers):
            try:
                self._bpf = manual_bpf(self._bcc)(text=read_source(), cflags=flags)
            except Exception as error:  # bcc raises bare Exception for all that goes wrong
                raise UnsupportedError(
                    f"bcc cannot compile kleak's programs with {self._headers.description}: "
                    f"{first_error(said()) or error}"
                ) from error
        self._set_page_owners()
        self._set_scope()
        for event in self._plan.events:
            self._attach(event.name, event.ways, event.without)

    def _constants(self) -> dict[str, int]:
        constants = dict(self._plan.constants)
        constants["MAX_OUTSTANDING"] = self._limits.outstanding
        constants["MAX_STACKS"] = self._limits.stacks
        constants["MAX_TOTALS"] = self._limits.totals
        constants["MAX_MODULES"] = max(1, len(self._modules) + len(self._loaded))
        constants["STACK_DEPTH"] = stack_depth()
        if self._symbols is not None and not self._symbols.everything:
            envelope = self._symbols.envelope
            constants["SYMBOL_WORDS"] = (envelope.end - envelope.start) // 64 + 1
        return constants

    def _set_page_owners(self) -> None:
        table = self._bpf["page_owners"]
        owners = table.Leaf()
        for place, text in enumerate(self._plan.page_owners):
            owners.ranges[place].start, owners.ranges[place].end = text.start, text.end
        table[ctypes.c_int(0)] = owners

    def _set_scope(self) -> None:
        if self._modules:
            targets = self._bpf["module_targets"]
            for number, name in enumerate(self._modules):
                targets[targets.Key(name.encode())] = targets.Leaf(number)
        scopes = self._bpf["scopes"]
        scope = scopes.Leaf()
        scope.tracer_tgid = os.getpid()
        # In a scope of modules there is no need, and their interrupts may hit this process.
        scope.ignore_tracer = self._symbols is not None
        scope.by_process = self._by_process
        if self._symbols is not None:
            envelope = self._symbols.envelope
            scope.low, scope.high = envelope.start, envelope.end
            scope.everything = self._symbols.everything
            if not self._symbols.everything:
                scope.symbols.start, scope.symbols.end = envelope.start, envelope.end
                self._set_symbol_bits(self._symbols, envelope.start)
        slots = self._bpf["module_slots"]
        for number, text in enumerate(self._loaded, len(self._modules)):
            slot = slots.Leaf()
            slot.text.start, slot.text.end = text.start, text.end
            slots[ctypes.c_int(number)] = slot
            scope.low = min(scope.low or text.start, text.start)
            scope.high = max(scope.high, text.end)
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
                with compiler_output():
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
            fd = self._load(program, hook, fresh=program in hook.programs[:copy])
            attached.program_fds.append(fd)
            if hook.attachment in (Attachment.FENTRY, Attachment.FEXIT):
                attached.fds.append(fd)  # loaded here, so closed here
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

    def _load(self, program: str, hook: Hook, *, fresh: bool) -> int:
        name = self._name_of(program)
        if hook.attachment in (Attachment.FENTRY, Attachment.FEXIT):
            at_exit = hook.attachment is Attachment.FEXIT
            try:
                return load_tracing(self._bcc, self._bpf, name, btf_id=hook.btf_id, at_exit=at_exit)
            except OSError as error:
                raise _RefusedError(
                    f"{hook.attachment.value} of {hook.target}: {error.strerror}"
                ) from error
        types = self._bcc.BPF
        raw = hook.attachment is Attachment.RAW_TRACEPOINT
        if fresh:
            # The same function again makes a second program, with a guard of its own.
            self._bpf.funcs.pop(name)
        try:
            return int(self._bpf.load_func(name, types.RAW_TRACEPOINT if raw else types.KPROBE).fd)
        except Exception as error:  # bcc raises bare Exception
            raise _RefusedError(f"{hook.attachment.value} of {hook.target} refused") from error

    def _name_of(self, program: str) -> bytes:
        """Return what bcc's KFUNC_PROBE made of a name: newer releases put vmlinux__ before it."""
        names = [program.encode()]
        kind, _, function = program.partition("__")
        if kind in ("kfunc", "kretfunc"):
            names.append(f"{kind}__vmlinux__{function}".encode())
        for name in names:
            if self._bcc.lib.bpf_function_start(self._bpf.module, name):
                return name
        raise _RefusedError(f"{program} was not compiled")

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

    def count_allocations(self, counting: bool, *, cycle: int | None = None) -> int:
        """Start or stop counting allocations; frees always count. For scopes of symbols.

        Modules do it by themselves, as they load and unload. Returns the number that allocations
        are booked under from now on: a greater one with each ``cycle``.
        """
        scopes = self._bpf["scopes"]
        scope = scopes[ctypes.c_int(0)]
        scope.counting = int(counting)
        if cycle is not None:
            scope.cycle = self._epochs.begin(cycle)
        scopes[ctypes.c_int(0)] = scope
        return int(scope.cycle)

    def evict(self) -> None:
        """Drop totals and stacks of which nothing is outstanding, to make room for others.

        For scopes of symbols that count now. Nothing that happens meanwhile is lost. What was
        allocated and freed is remembered for stacks of which something else is outstanding;
        ``evicted_stacks`` counts the others.
        """
        totals, stacks = self._bpf["totals"], self._bpf["stacks"]
        before = self._bpf["scopes"][ctypes.c_int(0)].cycle
        current = self.count_allocations(True, cycle=self._epochs.cycle_of(before))
        wait_for_grace_period()
        needed: set[int] = set()
        numbers: set[int] = set()
        over = []
        for key, leaf in _rows(totals):
            if key.cycle < current and leaf.allocated == leaf.freed:
                over.append((key, leaf))
            else:
                needed.add(key.stack)
                numbers.add(key.cycle)
        for key, leaf in over:
            del totals[key]
            if key.stack in needed:
                self._epochs.keep(self._total(key, leaf))
        self._epochs.forget(needed, numbers)
        gone = drop_stacks(stacks, needed)
        # A program may have found a stack there just before, and made a row for it just after.
        wait_for_grace_period()
        wanted = {key.stack for key, _ in _rows(totals)}.intersection(gone)
        for stack in wanted:
            stacks[stacks.Key(stack)] = gone[stack]
        self.evicted_stacks += len(gone) - len(wanted)

    def reset(self, modules: Sequence[str]) -> None:
        """Forget all that was seen and trace other modules, no more at a time than at first.

        The programs stay attached, which saves compiling them again. Raises ValueError for a
        tracer of symbols, or for too many modules.
        """
        if self._symbols is not None or len(modules) > len(self._modules):
            raise ValueError("a tracer can be reset to as many modules as it was made for")
        scopes = self._bpf["scopes"]
        scopes[ctypes.c_int(0)] = scopes.Leaf()  # nothing counts from here on
        addresses = [_address(key) for key, _ in _rows(self._bpf["outstanding"])]
        slots = self._bpf["module_slots"]
        for number in range(len(self._modules)):
            slots[ctypes.c_int(number)] = slots.Leaf()
            self._bpf["load_of_slot"][ctypes.c_int(number)] = ctypes.c_uint32(0)
        for name in (
            "outstanding",
            "totals",
            "stacks",
            "module_targets",
            "claimed_loads",
            "reused_by_cache",
        ):
            table = self._bpf[name]
            for key in [key for key, _ in table.items_lookup_batch()]:
                table.pop(key if isinstance(key, ctypes.Structure) else table.Key(key))
        ledger_filter = self._bpf["ledger_filter"]
        for address in addresses:
            ledger_filter[ctypes.c_int(_filter_slot(address))] = ledger_filter.Leaf(0)
        self._before = self._raw_counters()
        self._epochs = Epochs()
        self._modules = tuple(modules)
        self._set_scope()

    def release_compiler(self) -> None:
        """Give back the memory of the compiler, for a tracer that lives long."""
        release_compiler()

    def table(self, name: str) -> Any:
        """Return bcc's view of a map, for programs that have a module of their own here."""
        return self._bpf[name]

    def wait_for_events(self, seconds: float) -> None:
        """Sleep until a program announces something, for ``seconds`` at most."""
        self._bpf.perf_buffer_poll(max(1, int(seconds * 1000)))

    # --- reading ------------------------------------------------------------------------------

    @property
    def attachments(self) -> Mapping[str, Attachment]:
        """How each event is heard of."""
        return {attached.event: attached.way for attached in self._attached}

    @property
    def direct_map(self) -> int | None:
        """Where the kernel maps memory, if it is known and a page was seen."""
        if "ADDRESS_PAGE_OFFSET_BASE" not in self._plan.constants:
            return None
        return int(self._bpf["page_layouts"][ctypes.c_int(0)].direct) or None

    @property
    def sees_kfree_rcu(self) -> bool:
        """Whether memory given to kfree_rcu() is seen to go."""
        return "kvfree_call_rcu" in self.attachments

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
        found = []
        for number in range(min(count, MAX_LOADS)):
            leaf = table[ctypes.c_int(number)]
            if leaf.cycle != number + 1:  # being written just now, on another CPU
                break
            found.append(_module_load(leaf))
        return tuple(found)

    def outstanding_count(self) -> int:
        """Return how many allocations are outstanding now, without reading them."""
        counted = self.counters().counted
        gone = ("freed", "double_events", "reused_addresses")
        return counted["allocated"] - sum(counted[name] for name in gone)

    def totals(self) -> list[StackTotal]:
        """Return the totals of every stack in every cycle; there may be several rows of one."""
        rows = [self._total(key, leaf) for key, leaf in _rows(self._bpf["totals"])]
        return [*rows, *self._epochs.dropped()]

    def _total(self, key: Any, leaf: Any) -> StackTotal:
        return StackTotal(
            key.stack,
            self._epochs.cycle_of(key.cycle),
            FAMILIES[key.family],
            leaf.allocated,
            leaf.allocated_bytes,
            leaf.allocated_requested,
            leaf.freed,
            leaf.freed_bytes,
            leaf.freed_requested,
        )

    def batches(self, name: str, key: Sequence[str], leaf: Sequence[str]) -> Batches:
        """Return a reader of some fields of a map, for one that is read again and again."""
        return Batches(self._bcc.lib, self._bpf[name], key, leaf)

    def stack(self, key: int) -> tuple[int, ...]:
        """Return one stack. Raises KeyError if there is none."""
        table = self._bpf["stacks"]
        leaf = table[table.Key(key)]
        return tuple(leaf.frames[: leaf.depth])

    def stacks(self) -> dict[int, tuple[int, ...]]:
        """Return the stacks by their key: return addresses, innermost first."""
        return {key: tuple(leaf.frames[: leaf.depth]) for key, leaf in _rows(self._bpf["stacks"])}

    def outstanding(self) -> Iterator[LedgerEntry]:
        """Return the outstanding allocations, in no order."""
        for key, leaf in _rows(self._bpf["outstanding"]):
            yield LedgerEntry(
                _address(key) & ~_KEY_BITS,
                leaf.stack,
                leaf.size,
                leaf.requested,
                leaf.time_ns,
                self._epochs.cycle_of(leaf.cycle),
                FAMILIES[leaf.family],
                leaf.tgid,
                leaf.comm.decode(errors="replace"),
            )

    def reused_by_cache(self) -> dict[str, int]:
        """Return by slab cache how often an address came up again whose free went unseen."""
        return {
            key.name.decode(errors="replace") or f"objects of {key.size} bytes": leaf
            for key, leaf in _rows(self._bpf["reused_by_cache"])
        }

    def counters(self) -> Counters:
        """Return what was counted so far, over all CPUs."""
        return self._raw_counters().since(self._before)

    def _raw_counters(self) -> Counters:
        table = self._bpf["counters"]
        counted = {name: sum(table[ctypes.c_int(number)]) for number, name in enumerate(_COUNTERS)}
        missed = {
            attached.event: tuple(missed_runs(fd) for fd in attached.program_fds)
            for attached in self._attached
        }
        marks = self._bpf["event_marks"]
        made_good = {
            event: sum(on_cpu.made_good for on_cpu in marks[ctypes.c_int(number)])
            for number, event in enumerate(_COPIED_EVENTS)
            if self.attachments.get(event) is Attachment.RAW_TRACEPOINT
        }
        return Counters(counted, missed, made_good)


class _RefusedError(Exception):
    """One way to attach did not work; the next one may."""


def _rows(table: Any) -> Iterator[tuple[Any, Any]]:
    # In batches: a call for each key takes minutes for a million. An empty map gives no batch.
    yield from table.items_lookup_batch()


def _address(key: int) -> int:
    """The address whose ledger_key() of bpf/ledger.h is ``key``."""
    return key ^ (1 << 64) - 1


def _filter_slot(address: int) -> int:
    """filter_slot() of bpf/ledger.h."""
    spread = ((address >> 12) * 0x9E3779B97F4A7C15 & (1 << 64) - 1) >> 40
    return (spread ^ address >> 6 & 63) & (_FILTER_SLOTS - 1)


def _module_load(leaf: Any) -> LoadRecord:
    return LoadRecord(
        leaf.name.decode(errors="replace"),
        leaf.cycle,
        TextRange(leaf.text.start, leaf.text.end),
        TextRange(leaf.init_text.start, leaf.init_text.end),
        leaf.loaded_ns,
        leaf.unloaded_ns or None,
    )
