"""Whether the code that allocated can still free: the same question for every report."""

from __future__ import annotations

from collections.abc import Sequence

from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.model.session import Frame
from kleak.snapshots.places import Places


def judge_owner(witness: str, frames: Sequence[Frame], places: Places) -> Finding | None:
    """What became of the innermost frame that is a module's, or that no symbol names."""
    for frame in frames:
        if frame.module is not None:
            loaded = places.is_loaded(frame.module)
            if loaded is None:
                return None
            if loaded:
                says = f"module {frame.module} is still loaded"
                return Finding(witness, Fact.CODE_LOADED, says)
            says = f"module {frame.module} is no longer loaded"
            return Finding(witness, Fact.CODE_GONE, says)
        if frame.symbol is None and places.nothing_new_loaded:
            # no module that is loaded now was loaded meanwhile, so it is no init text of one
            says = "called from text of a module that is no longer loaded"
            return Finding(witness, Fact.CODE_GONE, says)
        if frame.symbol is None:
            says = "called from text that is gone: of an unloaded module, or of a loaded one's init"
            return Finding(witness, Fact.TEXT_GONE, says)
    return None
