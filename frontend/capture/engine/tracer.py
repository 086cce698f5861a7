"""The programs in the kernel, and what their maps say."""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

from kleak.capture.engine.attached import AttachedPrograms
from kleak.capture.engine.bcc_library import (
    compile_image,
    compiler_output,
    describe_bcc,
    first_error,
    import_bcc,
    stack_depth,
)
from kleak.capture.engine.bpf_maps import Bell, Map
from kleak.capture.engine.bpf_source import read_source
from kleak.capture.engine.bpf_syscall import ProgramType, load_program, run_raw_tracepoint
from kleak.capture.engine.eviction import Epochs, drop_stacks
from kleak.capture.engine.headers import HeaderTree, bcc_environment
from kleak.capture.engine.hooks import TRACEPOINTS, Attachment, Event, Plan
from kleak.capture.engine.ledger import (
    FAMILIES,
    every_entry,
    filter_slot,
    key_address,
    oldest_entries,
)
from kleak.capture.engine.program_cache import cached_image
from kleak.capture.engine.program_image import ProgramImage, replace_maps
from kleak.capture.engine.records import (
    Counters,
    LedgerEntry,
    Limits,
    LoadRecord,
    StackTotal,
    SymbolScope,
)
from kleak.capture.engine.sampling import WALK_GROWING, is_call_site, share_of, slot_of
from kleak.capture.engine.scope_maps import write_page_owners, write_scope
from kleak.capture.machine.kernel_state import pid_namespaces_below_proc, read_kernel
from kleak.capture.machine.settings import require_root
from kleak.capture.machine.settle import wait_for_grace_period
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
    "free_vmap_area_noflush",
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
MAX_LOADS = 4096  # MAX_LOADS of bpf/config.h


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
        own_calls: bool = False,
        limits: Limits | None = None,
        walk_every: int = 1,
    ) -> None:
        """Prepare to trace ``modules`` (names as /proc/modules has them) and ``symbols``.

        ``loaded`` is the code of modules that are loaded already, and stay so. ``by_process``:
        only allocations made by the process tree that is followed count. ``own_calls``: only those
        that functions in scope make themselves, where the event has a call site. ``walk_every``: in
        a scope of everything, or of own calls, the stack is walked for one allocation in so many of
        each call site.
        """
        self._plan = plan
        self._headers = headers
        self._modules = tuple(modules)
        self._symbols = symbols
        self._loaded = tuple(loaded)
        self._by_process = by_process
        self.own_calls = own_calls
        self._limits = limits or Limits()
        everything = symbols is not None and symbols.everything
        sampled = (everything or own_calls) and not by_process
        self.walk_every = walk_every if sampled else 1
        self._by_call_site = own_calls or self.walk_every > 1
        self._compiled: ProgramImage | None = None
        self._identify = b""
        self._maps: dict[str, Map] = {}
        self._bells: list[Bell] = []
        self.compiled_before = False
        self._attached = AttachedPrograms()
        self._before = Counters({}, {}, {})
        self._epochs = Epochs()
        self.evicted_stacks = 0
        self.notes: list[str] = []
        self._walked_more: set[int] = set()

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

    def compile(self) -> ProgramImage:
        """Have the programs compiled, if they were not before. Entering does it else.

        Raises UnsupportedError where bcc is missing or refuses.
        """
        require_root()
        if self._compiled is None:
            self._compiled = self._image()
        return self._compiled

    def _start(self) -> None:
        image = self.compile()
        numbers = {}
        for place, definition in enumerate(image.maps):
            try:
                made = self._maps[definition.name] = Map(definition)
            except OSError as error:
                raise UnsupportedError(
                    f"the kernel refuses the map {definition.name}: {error.strerror}"
                ) from error
            numbers[place] = made.fd
        programs = {name: replace_maps(code, numbers) for name, code in image.programs.items()}
        write_page_owners(self._maps, self._plan.page_owners)
        self._identify = programs["identify_tracer"]
        self._write_scope()
        self.notes += self._attached.attach(self._events(), programs)

    def _events(self) -> list[Event]:
        """What to hear of: where call sites decide, nothing that hides them."""
        if not self._by_call_site:
            return self._plan.events
        hiding = [event for event in self._plan.events if event.hides_call_sites]
        self.notes += [f"{event.without} (as call sites decide)" for event in hiding]
        return [event for event in self._plan.events if not event.hides_call_sites]

    def _image(self) -> ProgramImage:
        """Compile the programs, unless that was done before."""
        source = read_source()
        flags = [f"-D{name}={value:#x}" for name, value in self._constants().items()]

        def compile_now() -> ProgramImage:
            bcc = import_bcc()
            with compiler_output() as said, bcc_environment(self._headers):
                try:
                    return compile_image(bcc, source, flags)
                except Exception as error:  # bcc raises bare Exception for all that goes wrong
                    raise UnsupportedError(
                        f"bcc cannot compile kleak's programs with {self._headers.description}: "
                        f"{first_error(said()) or error}"
                    ) from error

        # All that the outcome depends on.
        means = (read_kernel(), self._headers, describe_bcc(), flags)
        key = hashlib.sha256(f"{means} {source}".encode()).hexdigest()
        image, self.compiled_before = cached_image(key, compile_now)
        return image

    def _constants(self) -> dict[str, int]:
        constants = dict(self._plan.constants)
        constants["MAX_OUTSTANDING"] = self._limits.outstanding
        constants["FILTER_SLOTS"] = self._limits.filter_slots
        constants["MAX_STACKS"] = self._limits.stacks
        constants["MAX_TOTALS"] = self._limits.totals
        places = len(self._modules) + len(self._loaded)
        follows_loads = "OFF_MODULE_NAME" in constants
        constants["MAX_MODULES"] = max(places, int(follows_loads))
        constants["STACK_DEPTH"] = stack_depth()
        if self.own_calls:
            constants["OWN_CALLS"] = 1
        if self.walk_every > 1:
            constants["SAMPLE_EVERY"] = self.walk_every
        if self._symbols is not None and not self._symbols.everything:
            constants["SYMBOL_WORDS"] = self._symbols.bitmap_words
        return constants

    def _write_scope(self) -> None:
        write_scope(
            self._maps, self._modules, self._symbols, self._loaded, by_process=self._by_process
        )
        try:
            program = load_program("identify_tracer", ProgramType.RAW_TRACEPOINT, self._identify)
            try:
                run_raw_tracepoint(program)
            finally:
                os.close(program)
        except OSError as error:
            raise UnsupportedError(
                f"the kernel does not run a program on demand: {error.strerror}"
            ) from error

    def close(self) -> None:
        """Detach all programs and give the maps back. May be called twice."""
        self._attached.close()
        for bell in self._bells:
            bell.close()
        self._bells.clear()
        for opened in self._maps.values():
            opened.close()
        self._maps.clear()

    # --- steering -----------------------------------------------------------------------------

    def count_allocations(self, counting: bool, *, cycle: int | None = None) -> int:
        """Start or stop counting allocations; frees always count. For scopes of symbols.

        Modules do it by themselves, as they load and unload. Returns the number that allocations
        are booked under from now on: a greater one with each ``cycle``.
        """
        scopes = self._maps["scopes"]
        scope = scopes[ctypes.c_int(0)]
        scope.counting = int(counting)
        if cycle is not None:
            scope.cycle = self._epochs.begin(cycle)
        scopes[ctypes.c_int(0)] = scope
        return int(scope.cycle)

    def forget_scratch(self) -> None:
        """Overwrite what programs keep from one run to the next: words of stacks, and so pointers.

        kmemleak scans the memory of maps, and would find an object by what was on the stack when
        it was made. To be called when nothing counts any more: programs read no stacks then.
        """
        if "stack_words" in self._maps:
            self._maps["stack_words"].clear()

    def walk_more(self, call_sites: Iterable[int]) -> None:
        """Walk one in WALK_GROWING allocations of these call sites, and of no others."""
        if self.walk_every <= WALK_GROWING:
            return
        slots = {slot_of(call_site) for call_site in call_sites}
        shares = self._maps["shares"]
        for slot in slots ^ self._walked_more:
            share = share_of(WALK_GROWING) if slot in slots else 0
            shares[ctypes.c_int(slot)] = ctypes.c_uint32(share)
        self._walked_more = slots

    def evict(self) -> None:
        """Drop totals and stacks of which nothing is outstanding, to make room for others.

        For scopes of symbols that count now. Nothing that happens meanwhile is lost. What was
        allocated and freed is remembered for stacks of which something else is outstanding;
        ``evicted_stacks`` counts the others.
        """
        totals, stacks = self._maps["totals"], self._maps["stacks"]
        before = self._maps["scopes"][ctypes.c_int(0)].cycle
        current = self.count_allocations(True, cycle=self._epochs.cycle_of(before))
        wait_for_grace_period()
        needed: set[int] = set()
        numbers: set[int] = set()
        over = []
        for key, leaf in totals.rows():
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
        wanted = {key.stack for key, _ in totals.rows()}.intersection(gone)
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
        scopes = self._maps["scopes"]
        scopes[ctypes.c_int(0)] = scopes.Leaf()  # nothing counts from here on
        addresses = [key_address(key) for key, _ in self._maps["outstanding"].rows()]
        slots = self._maps["module_slots"]
        for number in range(len(self._modules)):
            slots[ctypes.c_int(number)] = slots.Leaf()
            self._maps["load_of_slot"][ctypes.c_int(number)] = ctypes.c_uint32(0)
        for name in (
            "outstanding",
            "totals",
            "stacks",
            "module_targets",
            "claimed_loads",
            "reused_by_cache",
        ):
            table = self._maps[name]
            for key in [key for key, _ in table.rows()]:
                table.pop(key if isinstance(key, ctypes.Structure) else table.Key(key))
        ledger_filter = self._maps["ledger_filter"]
        for address in addresses:
            slot = filter_slot(address, self._limits.filter_slots)
            ledger_filter[ctypes.c_int(slot)] = ledger_filter.Leaf(0)
        self._before = self._raw_counters()
        self._epochs = Epochs()
        self._modules = tuple(modules)
        self._write_scope()

    @property
    def map_bytes(self) -> dict[str, int]:
        """Memory of each map, by its name."""
        return {name: opened.memory_bytes for name, opened in self._maps.items()}

    def table(self, name: str) -> Map:
        """Return a map, for what has a module of its own here."""
        return self._maps[name]

    def bell(self, name: str) -> Bell:
        """Return what waits for a ring buffer. Raises OSError where the kernel refuses."""
        bell = Bell(self._maps[name])
        self._bells.append(bell)
        return bell

    # --- reading ------------------------------------------------------------------------------

    @property
    def attachments(self) -> Mapping[str, Attachment]:
        """How each event is heard of."""
        return self._attached.ways

    @property
    def proc_level(self) -> int:
        """Depth of the pid namespace whose ids /proc shows; those of 0 are the programs' too."""
        level = int(self._maps["scopes"][ctypes.c_int(0)].tracer_level)
        return level - pid_namespaces_below_proc()

    @property
    def direct_map(self) -> int | None:
        """Where the kernel maps memory, if it is known and a page was seen."""
        if "ADDRESS_PAGE_OFFSET_BASE" not in self._plan.constants:
            return None
        return int(self._maps["page_layouts"][ctypes.c_int(0)].direct) or None

    @property
    def sees_kfree_rcu(self) -> bool:
        """Whether memory given to kfree_rcu() is seen to go."""
        return "kvfree_call_rcu" in self.attachments

    @property
    def means(self) -> dict[str, str]:
        """How each event is heard of, or "absent: " and why it is not; and which kernel headers
        the programs were compiled with.
        """
        means = {event: way.value for event, way in self.attachments.items()}
        means |= {event: f"absent: {why}" for event, why in self._attached.unheard.items()}
        means["kernel headers"] = self._headers.description
        return means

    def loads(self) -> tuple[LoadRecord, ...]:
        """Return the loads of modules in scope, first one first."""
        if not self._modules:
            return ()
        count = self._maps["scopes"][ctypes.c_int(0)].loads
        table = self._maps["loads"]
        found = []
        for number in range(min(count, MAX_LOADS)):
            leaf = table[ctypes.c_int(number)]
            if leaf.cycle != number + 1:  # being written just now, on another CPU
                break
            found.append(_module_load(leaf))
        return tuple(found)

    def outstanding_count(self) -> int:
        """Return how many allocations are outstanding now, without reading them."""
        counters = self.counters()
        return counters.counted["allocated"] - counters.gone

    def totals(self) -> list[StackTotal]:
        """Return the totals of every stack in every cycle; there may be several rows of one."""
        rows = [self._total(key, leaf) for key, leaf in self._maps["totals"].rows()]
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

    def stack(self, key: int) -> tuple[int, ...]:
        """Return one stack, of a call site alone that. Raises KeyError if there is none."""
        if self.is_call_site(key):
            return (key,)
        table = self._maps["stacks"]
        leaf = table[table.Key(key)]
        return tuple(leaf.frames[: leaf.depth])

    def stacks(self) -> dict[int, tuple[int, ...]]:
        """Return the stacks by their key: return addresses, innermost first."""
        return {key: tuple(leaf.frames[: leaf.depth]) for key, leaf in self._maps["stacks"].rows()}

    def is_call_site(self, key: int) -> bool:
        """Whether a key that is booked under is a call site, and not that of a walked stack."""
        return self.walk_every > 1 and is_call_site(key)

    def call_site(self, key: int) -> int:
        """Return the call site of a stack; 0 where stacks are not sampled, or it has none."""
        if self.walk_every == 1:
            return 0
        if is_call_site(key):
            return key
        table = self._maps["stacks"]
        return int(table[table.Key(key)].call_site)

    def call_sites(self) -> dict[int, int] | None:
        """Return the call sites of walked stacks by their keys; None if stacks are not sampled."""
        if self.walk_every == 1:
            return None
        return {key: leaf.call_site for key, leaf in self._maps["stacks"].rows() if leaf.call_site}

    def outstanding(self) -> Iterator[LedgerEntry]:
        """Return the outstanding allocations, in no order."""
        return every_entry(self._maps["outstanding"], self._epochs.cycle_of)

    def oldest(self, keep: int, before_ns: int) -> Iterator[LedgerEntry]:
        """Return the ``keep`` oldest of each stack and family among the outstanding allocations
        that were made before ``before_ns``, in no order.
        """
        return oldest_entries(self._maps["outstanding"], self._epochs.cycle_of, keep, before_ns)

    def reused_by_cache(self) -> dict[str, int]:
        """Return by slab cache how often an address came up again whose free went unseen."""
        return {
            key.name.decode(errors="replace") or f"objects of {key.size} bytes": leaf
            for key, leaf in self._maps["reused_by_cache"].rows()
        }

    def counters(self) -> Counters:
        """Return what was counted so far, over all CPUs."""
        return self._raw_counters().since(self._before)

    def _raw_counters(self) -> Counters:
        table = self._maps["counters"]
        counted = {name: sum(table[ctypes.c_int(number)]) for number, name in enumerate(_COUNTERS)}
        marks = self._maps["event_marks"]
        made_good = {
            event: sum(on_cpu.made_good for on_cpu in marks[ctypes.c_int(number)])
            for number, event in enumerate(_COPIED_EVENTS)
            if self.attachments.get(event) in TRACEPOINTS
        }
        return Counters(counted, self._attached.missed_runs(), made_good)


def _module_load(leaf: Any) -> LoadRecord:
    return LoadRecord(
        leaf.name.decode(errors="replace"),
        leaf.cycle,
        TextRange(leaf.text.start, leaf.text.end),
        TextRange(leaf.init_text.start, leaf.init_text.end),
        leaf.loaded_ns,
        leaf.unloaded_ns or None,
    )
