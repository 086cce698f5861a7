"""The programs in the kernel, and what their maps say."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType

from kleak.capture.engine.attached import AttachedPrograms
from kleak.capture.engine.bpf_maps import Bell, Map
from kleak.capture.engine.bpf_syscall import ProgramType, load_program, run_raw_tracepoint
from kleak.capture.engine.compile import Choices, compile_programs
from kleak.capture.engine.declared import COPIED_EVENTS, COUNTERS
from kleak.capture.engine.eviction import Epochs, evict
from kleak.capture.engine.headers import HeaderTree
from kleak.capture.engine.hooks import TRACEPOINTS, Attachment, Event, Plan
from kleak.capture.engine.map_reader import MapReader
from kleak.capture.engine.program_image import ProgramImage, replace_maps
from kleak.capture.engine.records import Counters, Limits, SymbolScope
from kleak.capture.engine.sampling import WALK_GROWING, share_of, slot_of
from kleak.capture.engine.scope_maps import forget_all, write_page_owners, write_scope
from kleak.capture.machine.kernel_state import pid_namespaces_below_proc
from kleak.capture.machine.settings import require_root
from kleak.errors import UnsupportedError
from kleak.symbols.kernel_table import TextRange


class Tracer(MapReader):
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
        super().__init__(walk_every if sampled else 1)
        self._by_call_site = own_calls or self.walk_every > 1
        self._compiled: ProgramImage | None = None
        self._identify = b""
        self._bells: list[Bell] = []
        self.compiled_before = False
        self._attached = AttachedPrograms()
        self._before = Counters({}, {}, {})
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
            self._compiled, self.compiled_before = compile_programs(
                self._constants(), self._headers
            )
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

    def _constants(self) -> dict[str, int]:
        choices = Choices(
            self._limits,
            module_slots=len(self._modules) + len(self._loaded),
            symbols=self._symbols,
            own_calls=self.own_calls,
            walk_every=self.walk_every,
        )
        return choices.constants(self._plan)

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
        before = self._maps["scopes"][ctypes.c_int(0)].cycle
        current = self.count_allocations(True, cycle=self._epochs.cycle_of(before))
        self.evicted_stacks += evict(self._maps, self._epochs, current, self._total)

    def reset(self, modules: Sequence[str]) -> None:
        """Forget all that was seen and trace other modules, no more at a time than at first.

        The programs stay attached, which saves compiling them again. Raises ValueError for a
        tracer of symbols, or for too many modules.
        """
        if self._symbols is not None or len(modules) > len(self._modules):
            raise ValueError("a tracer can be reset to as many modules as it was made for")
        forget_all(self._maps, len(self._modules), self._limits.filter_slots)
        self._before = self._raw_counters()
        self._epochs = Epochs()
        self._modules = tuple(modules)
        self._write_scope()

    def bell(self, name: str) -> Bell:
        """Return what waits for a ring buffer. Raises OSError where the kernel refuses."""
        bell = Bell(self._maps[name])
        self._bells.append(bell)
        return bell

    # --- what it says of itself ---------------------------------------------------------------

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

    def outstanding_count(self) -> int:
        """Return how many allocations are outstanding now, without reading them."""
        counters = self.counters()
        return counters.counted["allocated"] - counters.gone

    def counters(self) -> Counters:
        """Return what was counted so far, over all CPUs."""
        return self._raw_counters().since(self._before)

    def _raw_counters(self) -> Counters:
        table = self._maps["counters"]
        counted = {name: sum(table[ctypes.c_int(number)]) for number, name in enumerate(COUNTERS)}
        marks = self._maps["event_marks"]
        made_good = {
            event: sum(on_cpu.made_good for on_cpu in marks[ctypes.c_int(number)])
            for number, event in enumerate(COPIED_EVENTS)
            if self.attachments.get(event) in TRACEPOINTS
        }
        return Counters(counted, self._attached.missed_runs(), made_good)
