"""The one table of weights: what each finding is worth, of a capture and of snapshots, and why.

Weights are natural log-odds: +0.7 doubles the odds that the site leaks, +2.2 makes them nine
times as great, and the negative of it as small. docs/verdicts.md shows the same table.
"""

from __future__ import annotations

from enum import Enum


class Fact(Enum):
    """All that can be found: the name in docs/verdicts.md, log-odds, and the reason for them."""

    __hash__ = object.__hash__  # members are single, and Enum's own is Python

    label: str
    log_odds: float
    reason: str

    def __init__(self, label: str, log_odds: float, reason: str) -> None:
        """Give the three parts of a value their names."""
        self.label = label
        self.log_odds = log_odds
        self.reason = reason

    PRIOR = (
        "prior",
        -2.0,
        "About one suspect in eight: naive tracing leaves 9 to 30 stacks outstanding after one "
        "unload of a driver without any leak (measured on 6.12), and settling removes many.",
    )

    SURVIVED_UNLOAD = (
        "survived unload",
        1.0,
        "The code that should have freed it is gone and the deferred frees are through; but "
        "the kernel may hold it, so this alone proves little.",
    )
    SURVIVED_LOSSY = (
        "survived unload, trace incomplete",
        0.5,
        "As above, but the trace lost events, and the free may be among them.",
    )
    STILL_LOADED = (
        "module still loaded",
        -1.5,
        "A loaded module may still use and free it: nothing has been survived yet.",
    )
    STILL_ALLOCATED = (
        "still allocated at the end",
        0.0,
        "Nothing was unloaded: kernel code in use holds memory as a matter of course.",
    )

    NONE_FREED = (
        "none freed",
        0.5,
        "No path was seen that frees memory of this site. Registries do the same, so little.",
    )
    SOME_FREED = (
        "some kept, others freed",
        0.3,
        "A free path exists and works, and one path forgets it. Caches do the same.",
    )
    RARELY_KEPT = (
        "kept as rarely as a free is missed",
        -1.0,
        "At most 1 in 1000 kept, in numbers that vary from cycle to cycle or with one cycle "
        "only: missed frees look so (0.065 to 0.086 % measured on 6.12 without paired free "
        "programs).",
    )
    IN_FLIGHT = (
        "kept in the last cycle only, freed before",
        -1.0,
        "Earlier cycles ended even, so the free works and probably is only late.",
    )

    ONE_CYCLE = ("one cycle", 0.0, "One cycle cannot show growth, for or against.")
    EVERY_CYCLE_EQUAL = (
        "same growth in every cycle",
        2.5,
        "Three cycles or more, each left the same number behind: caches and set-up do not, "
        "random losses hardly ever.",
    )
    EVERY_CYCLE = (
        "growth in every cycle",
        2.0,
        "Three cycles or more, each left something behind, in varying numbers.",
    )
    BOTH_CYCLES = (
        "growth in both of two cycles",
        0.8,
        "Two of two; a late free in the second and a set-up in the first look the same.",
    )
    SOME_CYCLES = (
        "growth in some cycles",
        1.2,
        "Two cycles or more, one of them neither first nor last: a leak that needs a "
        "condition. Caches that grow now and then do the same.",
    )
    ONE_LATER_CYCLE = (
        "growth in one later cycle",
        0.0,
        "One cycle, neither first nor last: a rare leak, or a kernel cache that grew once. No "
        "set-up, and not in flight, so nothing against it either.",
    )
    FIRST_AND_LAST = (
        "first and last cycle only",
        -0.5,
        "A set-up and a late free together look the same.",
    )
    LAST_CYCLE = (
        "last cycle only",
        -1.5,
        "Every cycle but the last ended even: most probably a free that is still to come.",
    )
    FIRST_OF_TWO = (
        "first of two cycles only",
        -2.0,
        "A set-up, as below, seen with one cycle to compare only.",
    )
    FIRST_CYCLE = (
        "first cycle only",
        -4.0,
        "Two or more later cycles left nothing: set up once and kept, not lost each time.",
    )
    PLATEAU = ("fills up, then stays", -1.5, "Growth that ends: a pool or cache that is full.")

    DIRECT = (
        "module's own call",
        2.2,
        "The module's own text called the allocator, and the module is what was unloaded. Of "
        "the 9 to 30 innocent stacks per driver hardly any names a function of the module.",
    )
    DIRECT_SYMBOL = (
        "scope's own call",
        0.7,
        "The function asked for called the allocator; it is still there to free it.",
    )
    CONSTRUCTOR = (
        "through a constructor",
        0.5,
        "The module called a kernel function that makes an object for its caller to give back "
        "(alloc_netdev, alloc_workqueue, a name).",
    )
    CONSTRUCTOR_EACH_TIME = (
        "through a constructor, the same growth in every cycle",
        1.0,
        "Both together: an object for the module to give back, and as many left by every one "
        "of three cycles or more. No innocent run of the corpus left any (docs/accuracy.md).",
    )
    OTHER_MODULE = (
        "another module's call",
        -0.3,
        "Another module allocated on the target's behalf, and may hold it on purpose.",
    )
    DEEP = (
        "deep in the kernel",
        -1.8,
        "The module only set something going, and a subsystem of the kernel allocated. Nearly "
        "all innocent stacks are of this sort.",
    )
    REGISTRY = (
        "kernel's own registry or cache",
        -2.5,
        "kernfs, dentries, inodes, uevents, slab creation, index trees, forks: these are freed "
        "after grace periods, kept in caches, or grow in nodes that serve many.",
    )
    SKB_HEAD = (
        "socket buffer head",
        -1.5,
        "Heads go into a per-CPU cache of the network core without a free event. A buffer that "
        "really leaks shows in its data as well.",
    )
    SKB_DATA = (
        "socket buffer data",
        0.5,
        "As a constructor, but made to be handed on: it may wait in the queue of a socket, in "
        "every cycle.",
    )
    NO_SCOPE_FRAME = (
        "no frame of the target",
        -1.8,
        "No frame of the stack could be named as the target's: as far off as deep ones.",
    )

    LARGE = ("1 MB or more", 0.2, "Size makes a leak matter; it hardly makes it one.")

    REGION_THERE = (
        "regions still mapped",
        1.5,
        "/proc/vmallocinfo lists every address: the ledger missed no free here. It says "
        "nothing of who may still hold it, so it cannot outweigh a deep stack alone.",
    )
    REGION_PARTLY = (
        "some regions still mapped",
        0.0,
        "Some frees were missed and some memory is still there: the two witnesses disagree.",
    )
    REGION_GONE = (
        "regions gone",
        -6.0,
        "The kernel has no such region: it was freed, and the tracer missed that.",
    )

    UNREFERENCED = (
        "no pointer to it",
        2.5,
        "Two scans and one to check found no pointer to it anywhere, so nobody can free it. "
        "Pointers that are kept in pages, or coded, are not found, so this alone proves "
        "nothing.",
    )
    REFERENCED = (
        "a pointer to it",
        -1.5,
        "Something points to it: it was handed over, or never unregistered. A stale value on a "
        "stack looks the same, so a leak that all else shows stays likely, but is not "
        "confirmed.",
    )
    REFERENCED_LARGE = (
        "a pointer into more than slabs hold",
        -0.3,
        "More than slabs hold has pages of its own. kmemleak scans their struct pages, too, "
        "where a page that was a slab's keeps the pointer to its free list, into itself; and "
        "any word within the object counts. Of 54 leaked objects of 64 kB, in nine runs, it "
        "reported none under kleak, and by itself 25 of 30 (measured on 6.12).",
    )
    OWN_REFERENCE = (
        "a pointer in the gone module's data",
        0.0,
        "With allocation profiling, Linux 6.12 keeps the data of a module that leaks. What its "
        "variables lead to may be reached by nothing else; but kmemleak stops at the first "
        "pointer, and a registry may have another. So it acquits no more than it proves.",
    )
    NOT_TRACKED = (
        "not tracked any more",
        -6.0,
        "kmemleak drops its record when an object is freed: the tracer missed that.",
    )

    UNHELD = (
        "nothing in memory points to it",
        2.5,
        "Two searches of all the kernel's memory, of 90 % of the objects and of 3 at least. As "
        "much as kmemleak's word: what is coded is not found, so this alone proves nothing.",
    )
    HELD = (
        "held by something",
        -1.5,
        "Something outside leads to every object: handed over, or never unregistered. As "
        "kmemleak's pointer, a leak that all else shows stays likely, but is not confirmed.",
    )
    HELD_IN_USE = (
        "held by something, nothing unloaded",
        -3.0,
        "Something outside leads to every object, and the code that uses it is still there: "
        "what grows and is held is a cache, a queue or a list, until something says otherwise.",
    )
    PARTLY_HELD = (
        "some held, some not",
        0.0,
        "Of mixed answers, some must be wrong, or the site is both: told, not weighed.",
    )
    SAME_QUESTION = (
        "asked twice",
        -2.5,
        "kmemleak and kleak's own search ask the same: where they agree, the weaker answer is "
        "taken back, and where they contradict each other, both are. Shown is the greatest.",
    )

    PAGES_HELD = (
        "pages in other hands",
        -4.0,
        "/proc/kpageflags names the holder of every page: the page cache, user memory, page "
        "tables, slab. The kernel gives them back when it needs them.",
    )
    PAGES_FREE = (
        "pages free",
        -6.0,
        "The kernel has these pages free: they were freed, and the tracer missed that.",
    )
    PAGES_OWNED = (
        "pages of the same task",
        0.5,
        "page_owner has for every page the process that the ledger has: no free was missed. It "
        "says nothing of who may still use them.",
    )
    PAGES_REUSED = (
        "pages allocated again",
        -6.0,
        "Another process allocated these pages since: they were freed, and that was missed.",
    )
    TAG_LEFT = (
        "allocation tag not empty at unload",
        0.5,
        "The kernel's own counter of that line was above 0 when the module went: the ledger "
        "missed no free here. Whether the kernel holds it on purpose, no counter knows.",
    )
    CACHE_LEFT = (
        "objects left in a destroyed cache",
        3.0,
        "The cache is destroyed, so nobody can free its objects any more; the log counts as "
        "many of that size as the ledger. They may be another site's of the same size.",
    )
    ROWS_GREW = (
        "allocinfo grew by as much",
        0.5,
        "The kernel's own counter of that line grew by as much: the ledger missed no free "
        "here. Others may have called the same line.",
    )
    ROWS_DID_NOT_GROW = (
        "allocinfo did not grow",
        -4.0,
        "The kernel's own counter of that line is exact and grew by less than half: freed, and "
        "the tracer missed that. A line in a function that was inlined may be another's.",
    )
    CACHE_GREW = (
        "cache grew by as much",
        0.3,
        "The cache grew by as much, and by more than CPUs keep in slabs of their own. Anybody "
        "may have taken the objects.",
    )
    CACHE_DID_NOT_GROW = (
        "cache did not grow",
        -1.5,
        "kmalloc's caches of that size grew by less than half. Somebody else may have given "
        "back as many meanwhile.",
    )
    CLASS_GREW = (
        "class of memory grew by as much",
        0.3,
        "/proc/meminfo grew by as much in that class. So it does by anybody's doing.",
    )
    CLASS_DID_NOT_GROW = (
        "class of memory did not grow",
        -1.5,
        "The class grew by less than a quarter of what its sites are said to hold. Somebody "
        "else may have given back as much meanwhile.",
    )
    NAME_STAYS = (
        "name still registered",
        4.0,
        "The target registered a name, was unloaded, and the name is still there: no grace "
        "period and no cache explains that. Takes back what the stack of a registry speaks "
        "against it. No innocent run of the corpus left any (docs/accuracy.md).",
    )
    DEVICE_STAYS = (
        "its device may be there still",
        0.0,
        "Managed memory goes when its device does. Which device that is nobody tells, so this "
        "only explains kmemleak's pointer.",
    )
    NAME_EXPLAINS = (
        "the name explains the pointer",
        1.5,
        "What is still registered, its registry points to. So kmemleak's pointer says nothing "
        "against a leak, and its weight is taken back.",
    )

    CORRELATED = (
        "same map asked thrice",
        -1.0,
        "Survival, growth and the share freed are three questions to one map; a free that is "
        "missed each time answers all three wrong. Together they count 3.5 at most, and 2.5 "
        "when the trace is known to have lost events. The weight is whatever that takes off; "
        "shown is the greatest.",
    )
    CORRELATED_BOOKS = (
        "kernel's counters asked twice",
        -0.6,
        "Allocation tags, allocinfo, slabinfo, page_owner and meminfo count one allocation; "
        "all they prove is that it was not freed. Together they count 0.5 at most, so that no "
        "pool that is kept on purpose becomes likely by them. Shown is the greatest.",
    )

    # Snapshots only: reports of a machine, between two of which anything may happen.
    APPEARED = (
        "appeared and stayed",
        1.0,
        "Was not there at first and is there at the end; so is much that is innocent.",
    )
    FIRST_STEP = (
        "first step only",
        -2.5,
        "Set up once and kept. Less than a first cycle, since others use the machine between "
        "two snapshots.",
    )
    LAST_STEP = ("last step only", -1.0, "Most probably not freed yet.")
    ONE_STEP = ("one step", 0.0, "One step cannot tell a leak from set-up.")
    TREND = ("a trend", 2.5, "The counter grows by more than noise (a 90 % interval).")
    UNRECLAIMABLE_RISES = (
        "unreclaimable slab rises in every step",
        1.5,
        "Memory that no shrinker gives back, more of it at every look and no slower at the end "
        "than before: what fills up once slows down.",
    )
    NO_TREND = ("no trend", -1.5, "The counter grew, but not by more than noise.")

    CODE_GONE = ("code gone", 2.5, "The code that could free it is no longer loaded.")
    TEXT_GONE = (
        "text gone",
        2.2,
        "A bare address: of an unloaded module, or the init text of a loaded one; between two "
        "looks around a load and unload the first is far commoner.",
    )
    CODE_LOADED = ("code still loaded", -0.5, "The module is still loaded and may use it.")
    COMES_AND_GOES = (
        "others came and went",
        -0.5,
        "Others of the same caller were freed: a free path exists.",
    )
    TASK_STACK = ("stack of a task", -2.5, "Goes with its task.")
    MODULE_MEMORY = (
        "memory of a module",
        -2.5,
        "The text and data of a module, not what it allocated.",
    )
    RECLAIMABLE = ("reclaimable cache", -2.0, "The kernel gives this back when memory is short.")

    UNREFERENCED_TWICE = (
        "no pointer to it, in two reports",
        3.5,
        "Two reports, so four scans or more, found no pointer to it.",
    )
    UNREFERENCED_ONCE = (
        "no pointer to it, in one report",
        2.0,
        "One report found no pointer to it; a short-lived pointer can be missed.",
    )
    TRANSIENT = (
        "others of the stack were transient",
        -1.0,
        "kmemleak was wrong about others of this stack.",
    )
    UNKNOWN_SIZE = ("size unknown", 0.0, "Told, not weighed.")
    KERNEL_SAYS = (
        "the kernel complained",
        4.5,
        "The kernel itself checked at unload and complained.",
    )
