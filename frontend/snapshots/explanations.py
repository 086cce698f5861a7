"""What the fields of the kernel's reports mean to somebody who looks for a leak.

Versions are those whose source was read or that were run; "by 6.8" says that 6.8 has it and the
version read before it has not.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldText:
    """One field: what it means, and how versions differ (None where they do not)."""

    name: str
    meaning: str
    versions: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """One report: where it is, what it can and cannot show, its fields."""

    name: str
    path: str
    needs: str
    shows: str
    fields: tuple[FieldText, ...]


_MEMINFO = Explanation(
    name="meminfo",
    path="/proc/meminfo",
    needs="nothing; everybody may read it",
    shows="Totals by class of memory. It tells which class grows, never which code. Compare "
    "several readings, each after: sync; echo 3 >/proc/sys/vm/drop_caches.",
    fields=(
        FieldText(
            "MemFree",
            "Pages that nobody uses. It falls on every healthy machine, since the kernel fills "
            "free memory with page cache: by itself it decides nothing.",
        ),
        FieldText(
            "MemAvailable",
            "An estimate of what programs could get without swapping: MemFree and most of the "
            "page cache and SReclaimable. When this falls for good, something is lost.",
        ),
        FieldText("Buffers, Cached", "Page cache, given back on demand. Cached holds Shmem too."),
        FieldText("Shmem", "tmpfs and shared memory: in Cached, but not given back by dropping."),
        FieldText("AnonPages", "Memory of processes. It goes when they end."),
        FieldText(
            "Slab",
            "SReclaimable and SUnreclaim together: which of the two grew decides what it means.",
        ),
        FieldText("SReclaimable", "Slab that shrinkers give back: dentries, inodes."),
        FieldText(
            "SUnreclaim",
            "Slab that is in use until somebody frees it: leaks of kmalloc and kmem_cache_alloc "
            "are here.",
            "From 5.10 on it also counts kmalloc of more than 8 kB, which takes whole pages and "
            "is in no line of /proc/slabinfo.",
        ),
        FieldText(
            "VmallocUsed",
            "Pages of vmalloc regions; ioremap and vmap do not count.",
            "5.10 to 6.18 count them in one place, 7.3 by node.",
        ),
        FieldText("VmallocTotal, VmallocChunk", "Address space, and always 0: of no use here."),
        FieldText(
            "Percpu",
            "Pages of the per-CPU allocator. A leak of a few bytes shows multiplied by the "
            "number of possible CPUs. Chunks are given back late.",
        ),
        FieldText(
            "KernelStack",
            "Stacks of all tasks: it grows with tasks that do not end. With CONFIG_VMAP_STACK "
            "the same pages are in VmallocUsed as well; do not add the two.",
        ),
        FieldText(
            "PageTables, SecPageTables",
            "Page tables of processes; of KVM and IOMMUs.",
            "SecPageTables is there in 6.1 and later.",
        ),
        FieldText(
            "KReclaimable",
            "SReclaimable and what drivers registered as reclaimable besides.",
        ),
        FieldText("Bounce, WritebackTmp", "Of no interest.", "Always 0 in 6.18 and later."),
        FieldText("Balloon", "Pages that the hypervisor took back.", "A field of its own by 6.18."),
        FieldText(
            "(unaccounted)",
            "No field: MemTotal less all classes. alloc_pages() by drivers, page pools, page "
            "fragments. Pages on the CPUs' lists of free pages count here by mistake, several "
            "MB and more; kleak takes them off where /proc/zoneinfo was saved.",
        ),
    ),
)  # fmt: skip

_FREE = Explanation(
    name="free",
    path="free(1)",
    needs="nothing",
    shows="/proc/meminfo, with columns that changed their meaning. Two versions on two machines "
    "give different figures for the same memory; compare /proc/meminfo instead.",
    fields=(
        FieldText(
            "used",
            "What is left after subtraction, so it depends on what is subtracted.",
            'procps up to 3.3.9: total - free, page cache included; the line "-/+ buffers/cache" '
            "has it without. 3.3.10 and later: total - free - buffers - cache. 4.0.2: total - "
            "available. busybox 1.35: total - free - buff/cache.",
        ),
        FieldText(
            "cached, buff/cache",
            "Page cache and, in newer versions, slab.",
            'procps up to 3.3.9: "cached" is Cached alone. From 3.3.10 on: Buffers + Cached + '
            "slab; first all of Slab (then a leak of kmalloc is hidden in it), later "
            "SReclaimable only, as in 4.0.2.",
        ),
        FieldText(
            "available",
            "MemAvailable; estimated by free itself on kernels before 3.14.",
            "A column from procps 3.3.10 on.",
        ),
        FieldText("shared", "Shmem."),
    ),
)

_VMALLOCINFO = Explanation(
    name="vmallocinfo",
    path="/proc/vmallocinfo",
    needs="root; kernel.kptr_restrict=1 for real addresses",
    shows="Every region of vmalloc, vmap and ioremap with its caller: what appeared and stays is "
    'a leak or a set-up. Only rows with "vmalloc" hold memory of their own.',
    fields=(
        FieldText(
            "start-end",
            "Addresses. Hashed with kptr_restrict 0 (the default; not with no_hash_pointers, and "
            "not with slub_debug on 6.1 and 6.12), real with 1, zero with 2. Hashed ones compare "
            "equal within one boot.",
            "Sorted by address up to 6.6, grouped by an internal node from 6.12 on.",
        ),
        FieldText("size", "In bytes, a guard page included: pages= is one page less."),
        FieldText(
            "caller",
            "Who called vmalloc(), as symbol+offset/size [module]. A bare 0xffffffffc... is text "
            "that is gone: a module that was unloaded, or the init text of a loaded one.",
        ),
        FieldText("pages=, N0=", "Pages held, and on which node. 7.3 prints pages= unsigned."),
        FieldText("phys=, ioremap", "A mapping of a device: no memory, no leak of memory."),
        FieldText("vmap", "A mapping of pages that somebody else holds."),
        FieldText("vpages", "The array of pages is itself vmalloc'ed: one more row, same caller."),
        FieldText("unpurged vm_area", "Freed already; only its address space is waiting. No leak."),
        FieldText(
            "vm_map_ram",
            "Short-lived mappings.",
            "Up to 6.1 also regions that are just being torn down.",
        ),
        FieldText("sparse", "An area whose pages come one by one.", "By 6.12."),
    ),
)

_KMEMLEAK = Explanation(
    name="kmemleak",
    path="/sys/kernel/debug/kmemleak",
    needs="root, CONFIG_DEBUG_KMEMLEAK; kmemleak=on at boot where it is off by default",
    shows="Objects to which the last scan found no pointer. To ask: sleep 5; echo scan; sleep 5; "
    "echo scan; read. The first scan only records a checksum, the second can report. What is "
    "gone at a later scan was a false alarm.",
    fields=(
        FieldText(
            "unreferenced object 0x... (size N)",
            "The object's real address.",
            '6.12 knows per-CPU objects; 6.18 prints "(percpu)" and "(phys)".',
        ),
        FieldText("comm, pid", "Who ran when it was allocated: seldom who is to blame."),
        FieldText("jiffies, age", "When it was allocated.", "No age from 6.8 on."),
        FieldText("hex dump", "The first 32 bytes: often enough to recognise the structure."),
        FieldText(
            "backtrace",
            "At most 16 frames, innermost first. Symbols of an unloaded module are bare "
            "addresses, or the name of whatever was loaded there since.",
            "A checksum (crc) from 6.8 on. Bracketed addresses: hashed up to 6.1, by "
            "kptr_restrict 6.2 to 6.8, none from 6.12 on.",
        ),
        FieldText(
            "echo clear",
            "Hides all that is reported now; what hangs on it is hidden with it.",
        ),
        FieldText("EPERM on write", "kmemleak is off or has failed; it is off until reboot."),
    ),
)

_SLABINFO = Explanation(
    name="slabinfo",
    path="/proc/slabinfo",
    needs="root",
    shows="Objects by slab cache. Growth of a cache names a size or a type, not the code.",
    fields=(
        FieldText(
            "active_objs",
            "Objects in use, overstated: a CPU's own slab counts as used altogether. Write 1 to "
            "/sys/kernel/slab/CACHE/shrink before reading for a better figure.",
            "From 6.18 on objects in sheaves count too.",
        ),
        FieldText("num_objs", "All objects there is room for: num_slabs * objperslab."),
        FieldText("objsize", "Bytes that one object takes, padding and debugging included."),
        FieldText(
            "(merged caches)",
            "Caches of like size share one line under one name; ls -l /sys/kernel/slab shows who "
            "shares. slab_nomerge at boot keeps them apart. kmem_cache_destroy() of a merged "
            "cache does not complain about objects left.",
        ),
        FieldText("(kmalloc > 8 kB)", "Not here at all: whole pages, in SUnreclaim only."),
    ),
)

_ALLOCINFO = Explanation(
    name="allocinfo",
    path="/proc/allocinfo",
    needs="root, CONFIG_MEM_ALLOC_PROFILING and sysctl vm.mem_profiling=1 (6.10 and later)",
    shows="Exact bytes and calls by line of source and module, no stacks: where a kernel has it, "
    "the cheapest good witness.",
    fields=(
        FieldText("size, calls", "Bytes and objects that are outstanding from this line now."),
        FieldText("file:line [module] func:", "The line that called the allocator."),
        FieldText(
            "accurate:no",
            "The counter may have missed something.",
            "Version 2.0 of the format (6.18 and 7.3); 6.12 has 1.0.",
        ),
        FieldText(
            "(at rmmod)",
            'The kernel log says "FILE:LINE module M func:F has N allocated at module unload".',
            "A warning in 6.12, a plain line in 6.18.",
        ),
    ),
)

_PAGE_OWNER = Explanation(
    name="page_owner",
    path="/sys/kernel/debug/page_owner, /sys/kernel/debug/page_owner_stacks/show_stacks",
    needs="root, CONFIG_PAGE_OWNER and page_owner=on at boot",
    shows="Who allocated each page that is in use: for what meminfo has in no class.",
    fields=(
        FieldText("order", "2^order pages were allocated together."),
        FieldText("mask", "The GFP flags of the allocation."),
        FieldText("pid, tgid, ts, free_ts", "Who and when.", "5.10 has none; 6.1 has free_ts."),
        FieldText("PFN", "Number of the page frame.", "Decimal before 6.12, hexadecimal since."),
        FieldText("nr_base_pages", "Pages outstanding from one stack.", "Stacks form, 6.12 on."),
    ),
)

_ALLOC_TRACES = Explanation(
    name="alloc_traces",
    path="/sys/kernel/debug/slab/CACHE/alloc_traces",
    needs="root; slub_debug=U,CACHE at boot (costs memory for each object)",
    shows="Objects of one cache by allocating stack: how many are alive, and how old. "
    "free_traces is the same for who freed the object before.",
    fields=(
        FieldText("count", "Objects alive from this caller and stack."),
        FieldText("waste=", "Bytes unused in them, all together/in one.", "In 6.1 and 6.12."),
        FieldText("age=", "Least/mean/greatest, in jiffies."),
        FieldText("pid=, cpus=, nodes=", "Ranges of who allocated, and where."),
        FieldText("<not-available>", "No record: in free_traces, objects that were never freed."),
    ),
)

_ZONES = Explanation(
    name="zoneinfo",
    path="/proc/zoneinfo, /proc/buddyinfo",
    needs="nothing",
    shows="Free pages by zone and order. They do not show a leak; they correct the figure for "
    "unaccounted memory, and tell fragmentation from want.",
    fields=(
        FieldText(
            "pagesets: count",
            "Free pages on a CPU's own list: neither MemFree nor used.",
        ),
        FieldText("buddyinfo columns", "Free blocks of 1, 2, 4 ... pages."),
        FieldText("nr_slab_unreclaimable", "SUnreclaim by node, in pages."),
    ),
)

_LOG = Explanation(
    name="dmesg",
    path="the kernel log: dmesg, /dev/kmsg, syslog",
    needs="root where kernel.dmesg_restrict is 1",
    shows="Lines in which the kernel itself says that something was left over.",
    fields=(
        FieldText(
            "Objects remaining in ... on __kmem_cache_shutdown()",
            "A cache was destroyed with objects in it. Not for merged caches.",
            "Up to 6.6 with the cache's name inside; from 6.12 on it stands before only.",
        ),
        FieldText(
            "has N allocated at module unload",
            "N bytes of that line of a module are left.",
            "With memory allocation profiling, 6.12 and later.",
        ),
        FieldText(
            "unregister_netdevice: waiting for ... Usage count = N",
            "A reference to the device was not dropped; printed every 10 s while it waits.",
        ),
        FieldText("kmemleak: N new suspected memory leaks", "Read /sys/kernel/debug/kmemleak."),
    ),
)

_DUMP = Explanation(
    name="oom",
    path="the kernel log: OOM, a failed allocation, or SysRq-M",
    needs="root where kernel.dmesg_restrict is 1",
    shows="All memory at the moment when it ran out: often all that remains of a leak. kleak "
    "triage reads it out of a log. Counts are pages.",
    fields=(
        FieldText("invoked oom-killer", "Who asked for memory: seldom who took it."),
        FieldText(
            "order=N",
            "2^N pages in one piece. With 4 and more it may be fragmentation, not want.",
        ),
        FieldText("slab_unreclaimable", "SUnreclaim, in pages: leaks of kmalloc are here."),
        FieldText(
            "Unreclaimable slab info",
            "Used and total of each such cache.",
            "From 4.15 on, where slab exceeds the memory of programs.",
        ),
        FieldText("pages RAM, pages reserved", "RAM less reserved is about MemTotal."),
        FieldText("Tasks state, rss", "Resident pages of each task; shared ones in each."),
        FieldText(
            "(in no count)",
            "vmalloc, per-CPU memory, huge pages and what drivers took with alloc_pages(): RAM "
            "less all counts.",
        ),
        FieldText("Memory cgroup out of memory", "A cgroup's limit, not the machine's memory."),
    ),
)

_REF_TRACKER = Explanation(
    name="ref_tracker",
    path="the kernel log, /sys/kernel/debug/ref_tracker",
    needs="CONFIG_NET_DEV_REFCNT_TRACKER or CONFIG_NET_NS_REFCNT_TRACKER (5.17 and later)",
    shows="Who took the references that were not given back, with stacks.",
    fields=(
        FieldText("NAME@ADDRESS has N/M users at", "N of M references were taken in this stack."),
    ),
)

EXPLANATIONS: dict[str, Explanation] = {
    item.name: item
    for item in (
        _MEMINFO, _FREE, _VMALLOCINFO, _KMEMLEAK, _SLABINFO, _ALLOCINFO, _PAGE_OWNER,
        _ALLOC_TRACES, _ZONES, _LOG, _DUMP, _REF_TRACKER,
    )
}  # fmt: skip
