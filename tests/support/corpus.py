"""The truth about tests/modules/corpus, and modules of the kernel that leak nothing.

What a function leaks is told by load, as the kernel sizes it: kmalloc rounds up to its caches.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

PAGE = 4096
CYCLES = 3


@dataclass(frozen=True, slots=True)
class Leak:
    """What ``function`` leaks: objects and their bytes in each load of the module.

    ``count`` may be one number for each cycle. ``size_bytes`` is of one object, None where
    kernels differ, or where the kernel makes an object of several pieces.
    """

    function: str
    allocator: str
    count: int | Sequence[int]
    size_bytes: int | None = None

    def counts(self, cycles: int) -> list[int]:
        """Objects that each of so many cycles leaks."""
        return [self.count] * cycles if isinstance(self.count, int) else list(self.count)


@dataclass(frozen=True, slots=True)
class Case:
    """One case of the corpus, or (``module`` set) a module of the kernel's own."""

    name: str
    leak: Leak | None = None
    cycles: int = CYCLES
    exercise: str | None = None
    init_may_fail: bool = False
    keeper: bool = False
    module: str | None = None
    parameters: tuple[str, ...] = ()
    source: str = "corpus"


def _leak(
    name: str,
    function: str,
    allocator: str,
    count: int | Sequence[int],
    size_bytes: int | None = None,
    **more: object,
) -> Case:
    case = Case(name, Leak(function, allocator, count, size_bytes))
    return dataclasses.replace(case, **more)  # type: ignore[arg-type]


# Each third run leaks; the file is in the job's own directory.
_EVERY_THIRD = (
    "n=$(cat runs 2>/dev/null || echo 0); echo $((n + 1)) >runs; "
    "[ $((n % 3)) != 0 ] || echo 1 >/sys/module/corpus/parameters/poke"
)
_SYSFS = "/sys/module/corpus/parameters/poke"
_IOCTL = 'python3 -c \'import fcntl; fcntl.ioctl(open("/dev/corpus", "wb", 0), 1)\''

LEAKS: tuple[Case, ...] = (
    _leak("kmalloc", "leak_kmalloc", "kmalloc", 3, 128),
    _leak("kcalloc", "leak_kcalloc", "kmalloc", 2, 128),
    _leak("kmalloc_node", "leak_kmalloc_node", "kmalloc", 7, 256),
    _leak("kmalloc_atomic", "leak_kmalloc_atomic", "kmalloc", 5, 96),
    _leak("kmalloc_large", "leak_kmalloc_large", "kmalloc", 2, 65536),
    _leak("kmalloc_large_variable", "leak_kmalloc_large_variable", "kmalloc", 3, 32768),
    _leak("cache_left_behind", "leak_kmem_cache", "kmem_cache", 5, 112),
    _leak("cache_merged", "leak_kmem_cache", "kmem_cache", 5, 104),
    _leak("cache_itself", "leak_cache_itself", "kmem_cache", 1),
    _leak("bulk", "leak_bulk", "kmem_cache", 5, 104),
    _leak("bulk_freed", "leak_bulk_freed", "kmem_cache", 2, 104),
    _leak("krealloc_in_place", "leak_krealloc_in_place", "kmalloc", 3, 64),
    _leak("krealloc_moved", "leak_krealloc_moved", "kmalloc", 3, 512),
    _leak("kvmalloc_slab", "leak_kvmalloc_slab", "kmalloc", 2, 4096),
    _leak("kmalloc_nolock", "leak_kmalloc_nolock", "kmalloc", 5, 512),
    _leak("mempool", "leak_mempool", "kmalloc", 7, 256),
    _leak("kstrdup", "leak_kstrdup", "kmalloc", 3, 32),
    _leak("kasprintf", "leak_kasprintf", "kmalloc", 7, 16),
    _leak("kmemdup", "leak_kmemdup", "kmalloc", 2, 8),
    _leak("kobject_name", "leak_kobject_name", "kmalloc", 1, 16),
    _leak("device", "leak_device", "kmalloc", 1),
    _leak("managed", "leak_managed", "kmalloc", 7),
    _leak("alloc_pages", "leak_alloc_pages", "pages", 2, 4 * PAGE),
    _leak("free_page", "leak_free_page", "pages", 3, PAGE),
    _leak("compound", "leak_compound", "pages", 1, 8 * PAGE),
    _leak("pages_exact", "leak_pages_exact", "pages", 2, 3 * PAGE),
    _leak("split_page", "leak_split_page", "pages", 1, PAGE),
    _leak("pages_bulk", "leak_pages_bulk", "pages", 4, PAGE),
    _leak("pages_bulk_list", "leak_pages_bulk_list", "pages", 5, PAGE),
    _leak("page_frag", "leak_page_frag", "pages", 1, 8 * PAGE),
    _leak("percpu", "leak_percpu", "percpu", 3),
    _leak("percpu_large", "leak_percpu_large", "percpu", 1),
    _leak("vmalloc", "leak_vmalloc", "vmalloc", 3, 3 * PAGE),
    _leak("vzalloc_large", "leak_vzalloc_large", "vmalloc", 2, 3 << 20),
    _leak("vmalloc_user", "leak_vmalloc_user", "vmalloc", 5, 2 * PAGE),
    _leak("vmalloc_huge", "leak_vmalloc_huge", "vmalloc", 2, 4 << 20),
    _leak("kvmalloc_area", "leak_kvmalloc_area", "vmalloc", 2, 6 << 20),
    _leak("kvrealloc", "leak_kvrealloc", "vmalloc", 3, 6 << 20),
    _leak("vmap_pages", "leak_vmap_pages", "vmap", 1, 2 * PAGE),
    _leak("ioremap", "leak_ioremap", "ioremap", 2, PAGE),
    _leak("dma", "leak_dma", "dma", 2, 12000),
    _leak("dma_pool", "leak_dma_pool", "dma_pool", 3, 64),
    _leak("netdev", "leak_netdev", "kmalloc", 2),
    _leak("workqueue", "leak_workqueue", "kmalloc", 1),
    _leak("skb", "leak_skb", "kmalloc", 3, 2048),
    _leak("proc_entry", "leak_proc_entry", "kmem_cache", 1),
    _leak("debugfs_entry", "leak_debugfs_entry", "reclaimable_cache", 1),
    _leak("timer", "leak_in_context", "kmalloc", 3, 192),
    _leak("work", "leak_in_context", "kmalloc", 5, 192),
    _leak("softirq", "leak_in_context", "kmalloc", 7, 192),
    _leak("interrupt", "leak_in_context", "kmalloc", 2, 192),
    _leak("kthread", "leak_in_context", "kmalloc", 3, 192),
    _leak("sysfs", "leak_poke", "kmalloc", 2, 192,
          exercise=f"echo 1 >{_SYSFS}; echo 2 >{_SYSFS}"),
    _leak("procfs", "leak_write", "kmalloc", 1, 192, exercise="echo 1 >/proc/corpus"),
    _leak("debugfs", "leak_write", "kmalloc", 1, 192,
          exercise="echo 1 >/sys/kernel/debug/corpus"),
    _leak("ioctl", "leak_ioctl", "kmalloc", 1, 192, exercise=_IOCTL),
    _leak("probe", "leak_in_probe", "kmalloc", 1, 192),
    _leak("notifier", "leak_in_notifier", "kmalloc", 5, 192),
    _leak("every_third_cycle", "leak_poke", "kmalloc", (1, 0, 0, 1, 0, 0, 1), 192,
          cycles=7, exercise=_EVERY_THIRD, parameters=("case=sysfs",)),
    _leak("error_path", "leak_on_error", "kmalloc", 7, 128),
    _leak("failing_init", "leak_in_failing_init", "kmalloc", 1, 128, init_may_fail=True),
    _leak("one_of_many", "leak_one_of_many", "kmalloc", 1, 96),
    _leak("reference", "leak_reference", "kmalloc", 3, 192),
    _leak("half_list", "leak_in_list", "kmalloc", 7, 64),
    _leak("half_tree", "leak_in_tree", "kmalloc", 5, 64),
    _leak("tail_call", "leak_through_tail_call", "kmalloc", 3, 256),
    _leak("inlined", "leak_through_inline", "kmalloc", 3, 192),
    _leak("recursive", "leak_recursively", "kmalloc", 1, 128),
    _leak("other_module", "leak_of_other_module", "kmalloc", 3, 256, keeper=True),
)  # fmt: skip

INNOCENTS: tuple[Case, ...] = (
    Case("innocent_kfree_rcu"),
    Case("innocent_headless_kfree_rcu"),
    Case("innocent_nolock"),
    Case("innocent_kfree_rcu_nolock"),
    Case("innocent_call_rcu"),
    Case("innocent_bulk"),
    Case("innocent_cache"),
    Case("innocent_krealloc"),
    Case("innocent_sensitive"),
    Case("innocent_other_cpu"),
    Case("innocent_interrupts"),
    Case("innocent_pieces"),
    Case("innocent_areas"),
    Case("innocent_percpu"),
    Case("innocent_mempool"),
    Case("innocent_skb"),
    Case("innocent_skb_passed_up"),
    Case("innocent_devm"),
    Case("innocent_dma"),
    Case("innocent_registered"),
    Case("innocent_entries"),
    Case("innocent_page_cache"),
    Case("innocent_dentries"),
    Case("innocent_set_up_once", keeper=True),
    Case("innocent_pool_that_fills", cycles=6, keeper=True),
)

_TUN = (
    'python3 -c \'import fcntl, struct; f = open("/dev/net/tun", "r+b", 0); '
    'fcntl.ioctl(f, 0x400454ca, struct.pack("16sH22x", b"corpus%d", 0x1002))\''
)
_HASH = (
    'python3 -c \'import socket; s = socket.socket(38, 5); s.bind(("hash", "sha256")); '
    'c, _ = s.accept(); c.sendall(b"x" * 5000); c.recv(32)\''
)
_EXT4 = (
    "dd if=/dev/zero of=image bs=1M count=8 2>/dev/null; mkfs.ext4 -q image; mkdir -p at; "
    "mount -o loop -t ext4 image at; mkdir at/d; head -c 300000 /dev/zero >at/d/f; sync; "
    "ls -lR at >/dev/null; umount at"
)
_MINIX = (
    "dd if=/dev/zero of=minix bs=1M count=8 2>/dev/null; mkfs.minix minix >/dev/null; "
    "mkdir -p at; mount -o loop -t minix minix at; mkdir at/d; head -c 300000 /dev/zero >at/d/f; "
    "ls -lR at >/dev/null; umount at"
)


def _block(device: str) -> str:
    return (
        f"dd if=/dev/zero of={device} bs=64k count=16 oflag=direct 2>/dev/null; "
        f"dd if={device} of=/dev/null bs=64k count=16 2>/dev/null"
    )


def _link(kind: str, words: str = "") -> str:
    return (
        f"ip link add corpus0 type {kind} {words}; ip addr add 198.51.100.1/24 dev corpus0; "
        "ip link set corpus0 up; ping -c 2 -i 0.2 -W 1 198.51.100.1 >/dev/null 2>&1; "
        "ip link del corpus0"
    )


def _driver(module: str, exercise: str, *parameters: str) -> Case:
    return Case(module, exercise=exercise, module=module, parameters=parameters, source="kernel")


DRIVERS: tuple[Case, ...] = (
    _driver("dummy", _link("dummy")),
    _driver("veth", _link("veth", "peer name corpus1")),
    _driver("vxlan", _link("vxlan", "id 7 dstport 4789 dev lo")),
    _driver("bridge", _link("bridge")),
    _driver("macvlan", "ip link add corpus1 type dummy; ip link set corpus1 up; "
            "ip link add link corpus1 name corpus0 type macvlan mode bridge; "
            "ip link set corpus0 up; sleep 0.5; ip link del corpus0 && ip link del corpus1"),
    _driver("ifb", "ip link add corpus0 type ifb; ip link set corpus0 up; ip link del corpus0",
            "numifbs=2"),
    _driver("tun", _TUN),
    _driver("brd", _block("/dev/ram0"), "rd_nr=1", "rd_size=8192"),
    _driver("null_blk", _block("/dev/nullb0"), "nr_devices=1"),
    _driver("zram", "zramctl -s 8M /dev/zram0; " + _block("/dev/zram0")
            + "; zramctl -r /dev/zram0"),
    _driver("scsi_debug", "sleep 1; cat /sys/class/scsi_host/*/proc_name >/dev/null",
            "dev_size_mb=8"),
    _driver("ext4", _EXT4),
    _driver("minix", _MINIX),
    _driver("softdog", "printf V >/dev/watchdog1 || printf V >/dev/watchdog"),
    _driver("algif_hash", _HASH),
    _driver("uinput", "test -c /dev/uinput && : </dev/uinput"),
)  # fmt: skip

CASES = LEAKS + INNOCENTS + DRIVERS
