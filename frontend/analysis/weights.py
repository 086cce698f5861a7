"""The one table of weights: what each finding of a witness is worth, and why.

Weights are natural log-odds: +0.7 doubles the odds that the site leaks, +2.2 makes them nine
times as great, and the negative of it as small. docs/verdicts.md shows the same table.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Fact(Enum):
    """All that a witness can find. The value is the name in docs/verdicts.md."""

    __hash__ = object.__hash__  # members are single, and Enum's own is Python

    PRIOR = "prior"

    SURVIVED_UNLOAD = "survived unload"
    SURVIVED_LOSSY = "survived unload, trace incomplete"
    STILL_LOADED = "module still loaded"
    STILL_ALLOCATED = "still allocated at the end"

    NONE_FREED = "none freed"
    SOME_FREED = "some kept, others freed"
    RARELY_KEPT = "kept as rarely as a free is missed"
    IN_FLIGHT = "kept in the last cycle only, freed before"

    ONE_CYCLE = "one cycle"
    EVERY_CYCLE_EQUAL = "same growth in every cycle"
    EVERY_CYCLE = "growth in every cycle"
    BOTH_CYCLES = "growth in both of two cycles"
    SOME_CYCLES = "growth in some cycles"
    ONE_LATER_CYCLE = "growth in one later cycle"
    FIRST_AND_LAST = "first and last cycle only"
    LAST_CYCLE = "last cycle only"
    FIRST_OF_TWO = "first of two cycles only"
    FIRST_CYCLE = "first cycle only"
    PLATEAU = "fills up, then stays"

    DIRECT = "module's own call"
    DIRECT_SYMBOL = "scope's own call"
    CONSTRUCTOR = "through a constructor"
    CONSTRUCTOR_EACH_TIME = "through a constructor, the same growth in every cycle"
    OTHER_MODULE = "another module's call"
    DEEP = "deep in the kernel"
    REGISTRY = "kernel's own registry or cache"
    SKB_HEAD = "socket buffer head"
    SKB_DATA = "socket buffer data"
    NO_SCOPE_FRAME = "no frame of the target"

    LARGE = "1 MB or more"

    REGION_THERE = "regions still mapped"
    REGION_PARTLY = "some regions still mapped"
    REGION_GONE = "regions gone"

    UNREFERENCED = "no pointer to it"
    REFERENCED = "a pointer to it"
    REFERENCED_LARGE = "a pointer into more than slabs hold"
    OWN_REFERENCE = "a pointer in the gone module's data"
    NOT_TRACKED = "not tracked any more"

    PAGES_HELD = "pages in other hands"
    PAGES_FREE = "pages free"
    PAGES_OWNED = "pages of the same task"
    PAGES_REUSED = "pages allocated again"
    TAG_LEFT = "allocation tag not empty at unload"
    CACHE_LEFT = "objects left in a destroyed cache"
    ROWS_GREW = "allocinfo grew by as much"
    ROWS_DID_NOT_GROW = "allocinfo did not grow"
    CACHE_GREW = "cache grew by as much"
    CACHE_DID_NOT_GROW = "cache did not grow"
    CLASS_GREW = "class of memory grew by as much"
    CLASS_DID_NOT_GROW = "class of memory did not grow"
    NAME_STAYS = "name still registered"
    DEVICE_STAYS = "its device may be there still"
    NAME_EXPLAINS = "the name explains the pointer"

    CORRELATED = "same map asked thrice"
    CORRELATED_BOOKS = "kernel's counters asked twice"


@dataclass(frozen=True, slots=True)
class Weight:
    """Log-odds and the reason for them, a sentence or two."""

    log_odds: float
    reason: str


WEIGHTS: dict[Fact, Weight] = {
    Fact.PRIOR: Weight(
        -2.0,
        "About one suspect in eight: naive tracing leaves 9 to 30 stacks outstanding after one "
        "unload of a driver without any leak (measured on 6.12), and settling removes many.",
    ),
    Fact.SURVIVED_UNLOAD: Weight(
        1.0,
        "The code that should have freed it is gone and the deferred frees are through; but the "
        "kernel may hold it, so this alone proves little.",
    ),
    Fact.SURVIVED_LOSSY: Weight(
        0.5, "As above, but the trace lost events, and the free may be among them."
    ),
    Fact.STILL_LOADED: Weight(
        -1.5, "A loaded module may still use and free it: nothing has been survived yet."
    ),
    Fact.STILL_ALLOCATED: Weight(
        0.0, "Nothing was unloaded: kernel code in use holds memory as a matter of course."
    ),
    Fact.NONE_FREED: Weight(
        0.5, "No path was seen that frees memory of this site. Registries do the same, so little."
    ),
    Fact.SOME_FREED: Weight(
        0.3, "A free path exists and works, and one path forgets it. Caches do the same."
    ),
    Fact.RARELY_KEPT: Weight(
        -1.0,
        "At most 1 in 1000 kept, in numbers that vary from cycle to cycle or with one cycle "
        "only: missed frees look so (0.065 to 0.086 % measured on 6.12 without paired free "
        "programs).",
    ),
    Fact.IN_FLIGHT: Weight(
        -1.0, "Earlier cycles ended even, so the free works and probably is only late."
    ),
    Fact.ONE_CYCLE: Weight(0.0, "One cycle cannot show growth, for or against."),
    Fact.EVERY_CYCLE_EQUAL: Weight(
        2.5,
        "Three cycles or more, each left the same number behind: caches and set-up do not, "
        "random losses hardly ever.",
    ),
    Fact.EVERY_CYCLE: Weight(
        2.0, "Three cycles or more, each left something behind, in varying numbers."
    ),
    Fact.BOTH_CYCLES: Weight(
        0.8, "Two of two; a late free in the second and a set-up in the first look the same."
    ),
    Fact.SOME_CYCLES: Weight(
        1.2,
        "Two cycles or more, one of them neither first nor last: a leak that needs a condition. "
        "Caches that grow now and then do the same.",
    ),
    Fact.ONE_LATER_CYCLE: Weight(
        0.0,
        "One cycle, neither first nor last: a rare leak, or a kernel cache that grew once. "
        "No set-up, and not in flight, so nothing against it either.",
    ),
    Fact.FIRST_AND_LAST: Weight(-0.5, "A set-up and a late free together look the same."),
    Fact.LAST_CYCLE: Weight(
        -1.5, "Every cycle but the last ended even: most probably a free that is still to come."
    ),
    Fact.FIRST_OF_TWO: Weight(-2.0, "A set-up, as below, seen with one cycle to compare only."),
    Fact.FIRST_CYCLE: Weight(
        -4.0, "Two or more later cycles left nothing: set up once and kept, not lost each time."
    ),
    Fact.PLATEAU: Weight(-1.5, "Growth that ends: a pool or cache that is full."),
    Fact.DIRECT: Weight(
        2.2,
        "The module's own text called the allocator, and the module is what was unloaded. Of "
        "the 9 to 30 innocent stacks per driver hardly any names a function of the module.",
    ),
    Fact.DIRECT_SYMBOL: Weight(
        0.7, "The function asked for called the allocator; it is still there to free it."
    ),
    Fact.CONSTRUCTOR: Weight(
        0.5,
        "The module called a kernel function that makes an object for its caller to give back "
        "(alloc_netdev, alloc_workqueue, a name).",
    ),
    Fact.CONSTRUCTOR_EACH_TIME: Weight(
        1.0,
        "Both together: an object for the module to give back, and as many left by every one of "
        "three cycles or more. No innocent run of the corpus left any (docs/accuracy.md).",
    ),
    Fact.OTHER_MODULE: Weight(
        -0.3, "Another module allocated on the target's behalf, and may hold it on purpose."
    ),
    Fact.DEEP: Weight(
        -1.8,
        "The module only set something going, and a subsystem of the kernel allocated. Nearly "
        "all innocent stacks are of this sort.",
    ),
    Fact.REGISTRY: Weight(
        -2.5,
        "kernfs, dentries, inodes, uevents, slab creation, index trees, forks: these are freed "
        "after grace periods, kept in caches, or grow in nodes that serve many.",
    ),
    Fact.SKB_HEAD: Weight(
        -1.5,
        "Heads go into a per-CPU cache of the network core without a free event. A buffer that "
        "really leaks shows in its data as well.",
    ),
    Fact.SKB_DATA: Weight(
        0.5,
        "As a constructor, but made to be handed on: it may wait in the queue of a socket, in "
        "every cycle.",
    ),
    Fact.NO_SCOPE_FRAME: Weight(
        -1.8, "No frame of the stack could be named as the target's: as far off as deep ones."
    ),
    Fact.LARGE: Weight(0.2, "Size makes a leak matter; it hardly makes it one."),
    Fact.REGION_THERE: Weight(
        1.5,
        "/proc/vmallocinfo lists every address: the ledger missed no free here. It says nothing "
        "of who may still hold it, so it cannot outweigh a deep stack alone.",
    ),
    Fact.REGION_PARTLY: Weight(
        0.0, "Some frees were missed and some memory is still there: the two witnesses disagree."
    ),
    Fact.REGION_GONE: Weight(
        -6.0, "The kernel has no such region: it was freed, and the tracer missed that."
    ),
    Fact.UNREFERENCED: Weight(
        2.5,
        "Two scans and one to check found no pointer to it anywhere, so nobody can free it. "
        "Pointers that are kept in pages, or coded, are not found, so this alone proves nothing.",
    ),
    Fact.REFERENCED: Weight(
        -1.5,
        "Something points to it: it was handed over, or never unregistered. A stale value on a "
        "stack looks the same, so a leak that all else shows stays likely, but is not confirmed.",
    ),
    Fact.REFERENCED_LARGE: Weight(
        -0.3,
        "More than slabs hold has pages of its own. kmemleak scans their struct pages, too, where "
        "a page that was a slab's keeps the pointer to its free list, into itself; and any word "
        "within the object counts. Of 54 leaked objects of 64 kB, in nine runs, it reported none "
        "under kleak, and by itself 25 of 30 (measured on 6.12).",
    ),
    Fact.OWN_REFERENCE: Weight(
        0.0,
        "With allocation profiling, Linux 6.12 keeps the data of a module that leaks. What its "
        "variables lead to may be reached by nothing else; but kmemleak stops at the first "
        "pointer, and a registry may have another. So it acquits no more than it proves.",
    ),
    Fact.NOT_TRACKED: Weight(
        -6.0, "kmemleak drops its record when an object is freed: the tracer missed that."
    ),
    Fact.PAGES_HELD: Weight(
        -4.0,
        "/proc/kpageflags names the holder of every page: the page cache, user memory, page "
        "tables, slab. The kernel gives them back when it needs them.",
    ),
    Fact.PAGES_FREE: Weight(
        -6.0, "The kernel has these pages free: they were freed, and the tracer missed that."
    ),
    Fact.PAGES_OWNED: Weight(
        0.5,
        "page_owner has for every page the process that the ledger has: no free was missed. It "
        "says nothing of who may still use them.",
    ),
    Fact.PAGES_REUSED: Weight(
        -6.0, "Another process allocated these pages since: they were freed, and that was missed."
    ),
    Fact.TAG_LEFT: Weight(
        0.5,
        "The kernel's own counter of that line was above 0 when the module went: the ledger "
        "missed no free here. Whether the kernel holds it on purpose, no counter knows.",
    ),
    Fact.CACHE_LEFT: Weight(
        3.0,
        "The cache is destroyed, so nobody can free its objects any more; the log counts as many "
        "of that size as the ledger. They may be another site's of the same size.",
    ),
    Fact.ROWS_GREW: Weight(
        0.5,
        "The kernel's own counter of that line grew by as much: the ledger missed no free here. "
        "Others may have called the same line.",
    ),
    Fact.ROWS_DID_NOT_GROW: Weight(
        -4.0,
        "The kernel's own counter of that line is exact and grew by less than half: freed, and "
        "the tracer missed that. A line in a function that was inlined may be another's.",
    ),
    Fact.CACHE_GREW: Weight(
        0.3,
        "The cache grew by as much, and by more than CPUs keep in slabs of their own. Anybody may "
        "have taken the objects.",
    ),
    Fact.CACHE_DID_NOT_GROW: Weight(
        -1.5,
        "kmalloc's caches of that size grew by less than half. Somebody else may have given "
        "back as many meanwhile.",
    ),
    Fact.CLASS_GREW: Weight(
        0.3, "/proc/meminfo grew by as much in that class. So it does by anybody's doing."
    ),
    Fact.CLASS_DID_NOT_GROW: Weight(
        -1.5,
        "The class grew by less than a quarter of what its sites are said to hold. Somebody else "
        "may have given back as much meanwhile.",
    ),
    Fact.NAME_STAYS: Weight(
        4.0,
        "The target registered a name, was unloaded, and the name is still there: no grace period "
        "and no cache explains that. Takes back what the stack of a registry speaks against it. "
        "No innocent run of the corpus left any (docs/accuracy.md).",
    ),
    Fact.DEVICE_STAYS: Weight(
        0.0,
        "Managed memory goes when its device does. Which device that is nobody tells, so this only "
        "explains kmemleak's pointer.",
    ),
    Fact.NAME_EXPLAINS: Weight(
        1.5,
        "What is still registered, its registry points to. So kmemleak's pointer says nothing "
        "against a leak, and its weight is taken back.",
    ),
    Fact.CORRELATED: Weight(
        -1.0,
        "Survival, growth and the share freed are three questions to one map; a free that is "
        "missed each time answers all three wrong. Together they count 3.5 at most, and 2.5 "
        "when the trace is known to have lost events. The weight is whatever that takes off; "
        "shown is the greatest.",
    ),
    Fact.CORRELATED_BOOKS: Weight(
        -0.6,
        "Allocation tags, allocinfo, slabinfo, page_owner and meminfo count one allocation; all "
        "they prove is that it was not freed. Together they count 0.5 at most, so that no pool "
        "that is kept on purpose becomes likely by them. Shown is the greatest.",
    ),
}

# The most that the witnesses which ask the ledger may add up to.
LEDGER_CAP = 3.5
LEDGER_CAP_LOSSY = 2.5
# The most that the kernel's counters may add up to.
BOOKS_CAP = 0.5

# What says, without the ledger, that the memory is there, and what says that it is not: a site
# with both is told to be disputed.
STILL_THERE = frozenset(
    {
        Fact.UNREFERENCED,
        Fact.REFERENCED,
        Fact.REFERENCED_LARGE,
        Fact.OWN_REFERENCE,
        Fact.REGION_THERE,
        Fact.PAGES_OWNED,
        Fact.TAG_LEFT,
        Fact.CACHE_LEFT,
        Fact.ROWS_GREW,
        Fact.CACHE_GREW,
        Fact.CLASS_GREW,
        Fact.NAME_STAYS,
    }
)
NOT_THERE = frozenset(
    {
        Fact.NOT_TRACKED,
        Fact.REGION_GONE,
        Fact.PAGES_FREE,
        Fact.PAGES_REUSED,
        Fact.ROWS_DID_NOT_GROW,
        Fact.CACHE_DID_NOT_GROW,
        Fact.CLASS_DID_NOT_GROW,
    }
)
