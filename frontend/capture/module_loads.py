"""What captures of modules have in common: a load is a cycle, and names come from the files."""

from __future__ import annotations

from collections.abc import Sequence

from kleak.capture.engine.records import LoadRecord
from kleak.capture.engine.tracer import Tracer
from kleak.capture.lifecycle import Driver
from kleak.capture.machine.kernel_state import loaded_modules, read_kernel_table
from kleak.capture.target.modules import ModuleTarget
from kleak.capture.witnesses.observer import Observer
from kleak.files.names import readable
from kleak.model.session import Cycle, Target
from kleak.symbols.kernel_table import KernelTable
from kleak.symbols.symboliser import ModuleLoad, Symboliser


class ModuleLoads(Driver):
    """A driver whose cycles are the loads of modules, whoever loads them."""

    def __init__(
        self, tracer: Tracer, targets: Sequence[ModuleTarget], *, planned_cycles: int | None
    ) -> None:
        """``planned_cycles``: of all modules together."""
        build_ids = {target.name: target.image.build_id for target in targets}
        super().__init__(_describe(targets), Observer(build_ids, planned_cycles, build_ids))
        self._tracer = tracer
        self._targets = {target.name: target for target in targets}
        self._table: KernelTable | None = None
        self._others: frozenset[tuple[str, int]] = frozenset()
        self._failures: dict[int, str] = {}
        self._strangers: set[int] = set()
        self._symboliser: Symboliser | None = None
        self._symboliser_table: KernelTable | None = None
        self._placed = 0
        self._misfits: list[str] = []

    @property
    def title(self) -> str:
        """Names of the modules, for a person."""
        return ", ".join(self._targets)

    def note_failure(self, cycle: int, reason: str) -> None:
        """Note that the load which is ``cycle`` failed."""
        self._failures[cycle] = reason

    def note_stranger(self, cycle: int) -> None:
        """Note that the load which is ``cycle`` was of another build than the target's file."""
        self._strangers.add(cycle)

    def notice_modules(self) -> None:
        """Take a snapshot of the kernel's symbols when other modules came or went."""
        others = frozenset(
            (name, module.address)
            for name, module in loaded_modules().items()
            if name not in self._targets
        )
        if self._table is None or others != self._others:
            self._table = read_kernel_table()
            self._others = others

    def cycles(self) -> list[Cycle]:
        """See Driver: each load is one."""
        return [self._cycle(record) for record in self._tracer.loads()]

    def notes(self) -> list[str]:
        """See Driver: loads that have no names."""
        self.names()
        return list(self._misfits)

    def names(self) -> Symboliser:
        """See Driver. What is known from earlier cycles is kept.

        Not with several modules: one that stays is there in the cycles of the others too.
        """
        if self._table is None:
            self._table = read_kernel_table()
        table, loads = self._table, self._tracer.loads()
        if (
            self._symboliser is None
            or self._symboliser_table is not table
            or (len(self._targets) > 1 and len(loads) > self._placed)
        ):
            self._symboliser, self._symboliser_table = Symboliser(table), table
            self._placed, self._misfits = 0, []
        for record in loads[self._placed :]:
            target = self._targets[record.name]
            load = _module_load(record, target, last_epoch(record, loads))
            if load.fits and record.cycle not in self._strangers:
                self._symboliser.add(load)
            else:
                self._misfits.append(
                    f"the module {target.name} loaded in cycle {record.cycle} is not the one in "
                    f"{load.image.path}: its functions have no names"
                )
        self._placed = len(loads)
        return self._symboliser

    def _cycle(self, record: LoadRecord) -> Cycle:
        return Cycle(
            record.cycle,
            record.loaded_at_ns,
            record.unloaded_at_ns,
            self._failures.get(record.cycle),
            record.name if len(self._targets) > 1 else None,
        )


def last_epoch(record: LoadRecord, loads: Sequence[LoadRecord]) -> int:
    """Return the last of the epochs, which loads begin, in which ``record`` was loaded."""
    return max(
        load.cycle
        for load in loads
        if record.unloaded_at_ns is None
        or load is record
        or load.loaded_at_ns < record.unloaded_at_ns
    )


def _module_load(record: LoadRecord, target: ModuleTarget, last: int) -> ModuleLoad:
    return ModuleLoad(
        target.image,
        record.text.start,
        record.text.end - record.text.start,
        record.init_text.start,
        record.init_text.end - record.init_text.start,
        record.cycle,
        last,
    )


def _describe(targets: Sequence[ModuleTarget]) -> Target:
    if len(targets) == 1:
        (target,) = targets
        return Target(
            "module",
            target.name,
            readable(str(target.path)),
            tuple(map(readable, target.parameters)),
            target.image.version,
            target.image.build_id,
        )
    return Target(
        "module",
        ",".join(target.name for target in targets),
        parameters=tuple(
            f"{target.name}.{readable(parameter)}"
            for target in targets
            for parameter in target.parameters
        ),
    )
