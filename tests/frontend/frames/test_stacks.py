import pytest

from kleak.frames.names import is_allocator, is_interrupt
from kleak.frames.scope import before_dispatch, only_interrupted
from kleak.frames.stacks import (
    before_interrupt,
    is_bookkeeping,
    is_vmalloc_bookkeeping,
    split_allocator,
    strip_tracer,
    vmap_kind,
)
from kleak.model.session import Frame, Target
from tests.support.samples import LEAK, frame, stack

LEAKY = Target("module", "leaky")
UNKNOWN = Frame(None, None, 0xFFFFFFFFC0A9201F)
AREA = "alloc_vmap_area+0x8f <- __get_vm_area_node+0xe5 <- __vmalloc_node_range_noprof+0xf1"


def text(frames):
    return [f.symbol for f in frames]


@pytest.mark.parametrize(
    ("head", "left"),
    [
        # The heads that kernel-facts measured on 6.18 and 6.12, raw tracepoint and others.
        (
            "bpf_prog_6deef7357e7b4530_kmalloc+0x3c [bpf] <- bpf_trace_run6+0x80 <- "
            "__traceiter_kmalloc+0x40 <- __kmalloc_cache_noprof+0x1 <- f+0x1",
            2,
        ),
        (
            "bpf_prog_6deef7357e7b4530+0x3c <- bpf_trace_run4+0x80 <- "
            "__alloc_pages_noprof+0x1 <- f+0x1",
            2,
        ),
        ("__traceiter_kmalloc+0x40 <- __kmalloc_noprof+0x1 <- f+0x1", 2),
        (
            "bpf_prog_1+0x3c [bpf] <- bpf_trampoline_6442+0x47 [bpf] <- "
            "__get_vm_area_node+0x9 <- f+0x1",
            2,
        ),
        (
            "kprobe_ftrace_handler+0x1 <- ftrace_trampoline+0x3 [__builtin__ftrace] <- "
            "__get_vm_area_node+0x1 <- f+0x1",
            2,
        ),
        ("kmem_cache_alloc_noprof+0x9 <- f+0x1", 2),
        ("f+0x1", 1),
    ],
)
def test_strip_tracer_leaves_what_the_kernel_would_have_without_it(head, left):
    frames = stack(head)
    assert strip_tracer(frames) == frames[-left:]


def test_strip_tracer_drops_unnamed_frames_in_front_of_the_tracers():
    rest = stack("__kmalloc_noprof+0x1 <- leak_it+0x1 [leaky]")
    assert strip_tracer((UNKNOWN, frame("bpf_trace_run6+0x80"), *rest)) == rest


def test_strip_tracer_drops_an_unnamed_program_that_an_allocator_called():
    rest = stack("__get_vm_area_node+0x9 <- leak_it+0x1 [leaky]")
    assert strip_tracer((UNKNOWN, UNKNOWN, *rest)) == rest


def test_strip_tracer_keeps_unnamed_frames_that_are_the_callers():
    frames = (UNKNOWN, frame("do_one_initcall+0x58"))
    assert strip_tracer(frames) == frames


def test_strip_tracer_drops_a_trampoline_behind_a_hooked_function():
    frames = stack(
        "bpf_prog_1+0x3c [bpf] <- bpf_trace_run6+0x80 <- __kmalloc_noprof+0x1 <- "
        "__get_vm_area_node+0x60 <- bpf_trampoline_6442+0x60 [bpf] <- vmalloc_noprof+0x5f <- "
        "leak_it+0x1 [leaky]"
    )
    assert text(strip_tracer(frames)) == [
        "__kmalloc_noprof",
        "__get_vm_area_node",
        "vmalloc_noprof",
        "leak_it",
    ]


def test_strip_tracer_drops_an_unnamed_trampoline_between_allocators():
    """Made after the symbols were read, as those of kleak itself are."""
    inner, outer = (
        stack("__kmalloc_node_track_caller_noprof+0x1 <- krealloc_noprof+0x60"),
        (
            *stack("krealloc_noprof+0x9"),
            frame("leak_it+0x1 [leaky]"),
        ),
    )
    assert strip_tracer((*inner, UNKNOWN, *outer)) == (*inner, *outer)


def test_strip_tracer_keeps_an_unnamed_caller_of_an_allocator():
    inner = stack("__kmalloc_noprof+0x1 <- krealloc_noprof+0x60")
    for outer in ((UNKNOWN,), (UNKNOWN, frame("leak_it+0x1 [leaky]")), (UNKNOWN, UNKNOWN)):
        assert strip_tracer((*inner, *outer)) == (*inner, *outer)


def test_strip_tracer_keeps_another_bpf_program_that_allocates():
    frames = stack("__kmalloc_noprof+0x1 <- bpf_prog_9_xdp+0x9 [bpf] <- net_rx_action+0x1")
    assert strip_tracer(frames) == frames


def test_strip_tracer_does_not_believe_a_modules_own_function_of_such_a_name():
    frames = stack("bpf_trace_run_mine+0x1 [leaky] <- leaky_init+0x1 [leaky]")
    assert strip_tracer(frames) == frames


@pytest.mark.parametrize(
    "name",
    [
        "__kmalloc",
        "kmalloc_trace",
        "__kmalloc_noprof",
        "__kmalloc_node_track_caller_noprof",
        "kmalloc_large",
        "__kmalloc_large_node_noprof",
        "__do_kmalloc_node",
        "kmem_cache_alloc",
        "kmem_cache_alloc_lru_noprof",
        "kmem_cache_alloc_node_noprof",
        "kmem_cache_alloc_bulk_noprof",
        "kmem_cache_alloc_trace",
        "krealloc",
        "dma_alloc_attrs",
        "dma_pool_alloc",
        "krealloc_noprof",
        "krealloc_node_align_noprof",
        "__kvmalloc_node_noprof",
        "kvmalloc_node",
        "kvrealloc",
        "kmemdup_noprof",
        "kmemdup_nul",
        "kstrdup",
        "kstrdup_const",
        "kstrndup",
        "kasprintf",
        "kvasprintf",
        "kvasprintf_const",
        "vmalloc",
        "vmalloc_noprof",
        "vzalloc_node",
        "__vmalloc",
        "__vmalloc_node_range_noprof",
        "__vmalloc_node_range",
        "__get_vm_area_node",
        "alloc_vmap_area",
        "vmap",
        "vmap_pfn",
        "vm_map_ram",
        "ioremap",
        "ioremap_wc",
        "__ioremap_caller.isra.0",
        "memremap",
        "devm_kmalloc",
        "devm_kzalloc",
        "devm_kstrdup",
        "devm_kasprintf",
        "devm_kvasprintf",
        "mempool_alloc_noprof",
        "mempool_kmalloc",
        "___slab_alloc.part.0",
        "new_slab",
        "allocate_slab",
        "execmem_alloc",
        "module_alloc",
        "kmalloc_reserve",
        "memdup_user",
    ],
)
def test_allocators(name):
    assert is_allocator(Frame(None, name, 1))
    assert not is_allocator(Frame("leaky", name, 1)), "a module's function is no allocator"


@pytest.mark.parametrize(
    "name",
    [
        "alloc_netdev_mqs",
        "__alloc_skb",
        "alloc_workqueue",
        "kobject_set_name_vargs",
        "do_one_initcall",
        "kernfs_new_node",
        "d_alloc",
        "device_add",
        "vmap_reader",
        "krealm",
        "kstrtoint",
        "leak_it",
        "crypto_alloc_tfm",
        "proc_create_data",
        "kernel_clone",
    ],
)
def test_functions_that_allocate_for_a_purpose_are_no_allocators(name):
    assert not is_allocator(Frame(None, name, 1))


def test_split_allocator_takes_only_the_innermost_run():
    frames = stack("__kmalloc_noprof+1 <- kvasprintf+1 <- kasprintf+1 <- f+1 [leaky] <- vmalloc+1")
    inner, rest = split_allocator(frames)
    assert text(inner) == ["__kmalloc_noprof", "kvasprintf", "kasprintf"]
    assert text(rest) == ["f", "vmalloc"]


def test_split_allocator_of_nothing_but_allocators():
    frames = stack("__kmalloc_noprof+1 <- vmalloc+1")
    assert split_allocator(frames) == (frames, ())


@pytest.mark.parametrize(
    ("tail", "kind"),
    [
        ("__vmalloc_node_range_noprof+1 <- vmalloc_noprof+1 <- f+1 [leaky]", "vmalloc"),
        ("__vmalloc_node_range+1 <- dup_task_struct+1 <- copy_process+1", "vmalloc"),
        ("__vmalloc_node_range_noprof+1 <- __kvmalloc_node_noprof+1 <- f+1 [leaky]", "vmalloc"),
        ("__vmalloc_node_range+1 <- module_alloc+1 <- move_module+1", "execmem"),
        ("__vmalloc_node_range_noprof+1 <- execmem_vmalloc+1 <- execmem_alloc+1 <- f+1", "execmem"),
        ("vmap+1 <- f+1 [leaky]", "vmap"),
        ("get_vm_area_caller+1 <- vmap_pfn+1 <- f+1 [leaky]", "vmap"),
        ("__ioremap_caller.constprop.0+1 <- ioremap+1 <- f+1 [leaky]", "ioremap"),
        ("__ioremap_caller+1 <- ioremap_cache+1 <- memremap+1 <- f+1 [leaky]", "ioremap"),
        ("f+1 [leaky]", "vmap"),
    ],
)
def test_vmap_kind(tail, kind):
    frames = stack(f"alloc_vmap_area+1 <- __get_vm_area_node+1 <- {tail}")
    assert vmap_kind(frames) == kind


def test_vmap_kind_without_an_area_node():
    assert vmap_kind(stack("alloc_vmap_area+1 <- vm_map_ram+1 <- f+1 [leaky]")) == "vm_map_ram"
    assert vmap_kind(stack("alloc_vmap_area+1 <- new_vmap_block+1 <- f+1")) == "vm_map_ram"
    assert vmap_kind(LEAK) is None


@pytest.mark.parametrize(
    ("allocator", "frames", "expected"),
    [
        # The four items that one leaked vmalloc(10000) leaves on 6.12 (kernel-facts X2).
        ("vmalloc", f"{AREA} <- vmalloc_noprof+1 <- f+1 [leaky]", False),
        (
            "kmalloc",
            "__kmalloc_cache_node_noprof+1 <- __get_vm_area_node+1 <- "
            "__vmalloc_node_range_noprof+1 <- vmalloc_noprof+1 <- f+1 [leaky]",
            True,
        ),
        ("kmem_cache", f"kmem_cache_alloc_node_noprof+1 <- {AREA} <- f+1 [leaky]", True),
        (
            "kmalloc",
            "__kmalloc_node_noprof+1 <- __vmalloc_node_range_noprof+1 <- "
            "vmalloc_noprof+1 <- f+1 [leaky]",
            True,
        ),
        # More than 512 pages: the array is a vmalloc of its own.
        (
            "vmalloc",
            f"{AREA} <- __vmalloc_node_noprof+1 <- __vmalloc_node_range_noprof+1 <- "
            "vmalloc_noprof+1 <- f+1 [leaky]",
            True,
        ),
        (
            "vmalloc",
            f"{AREA} <- __vmalloc_node+1 <- __vmalloc_area_node+1 <- "
            "__vmalloc_node_range+1 <- vmalloc+1 <- f+1 [leaky]",
            True,
        ),
        ("kmalloc", "__kmalloc_noprof+1 <- purge_vmap_node+1 <- f+1 [leaky]", True),
        ("vmap", "alloc_vmap_area+1 <- __get_vm_area_node+1 <- vmap+1 <- f+1 [leaky]", False),
        # Slab memory by way of kvmalloc, and a caller that happens to be beyond vmalloc.
        ("kmalloc", "__kmalloc_node_noprof+1 <- __kvmalloc_node_noprof+1 <- f+1 [leaky]", False),
        ("kmalloc", "__kmalloc_noprof+1 <- f+1 [leaky] <- __vmalloc_node_range_noprof+1", False),
    ],
)
def test_is_vmalloc_bookkeeping(allocator, frames, expected):
    assert is_vmalloc_bookkeeping(stack(frames), allocator) is expected
    assert is_bookkeeping(stack(frames), allocator) is expected


@pytest.mark.parametrize(
    "frames",
    [
        "__kmalloc_node+1 <- memcg_alloc_slab_cgroups+1 <- allocate_slab+1 <- ___slab_alloc+1 <- "
        "kmem_cache_alloc+1 <- f+1 [leaky]",
        "__kmalloc_node_noprof+1 <- alloc_slab_obj_exts+1 <- __kmalloc_noprof+1 <- f+1 [leaky]",
        "kmem_cache_alloc_noprof+1 <- __create_object+1 <- __kmalloc_noprof+1 <- f+1 [leaky]",
        "__kmalloc_cache_noprof+1 <- __set_page_owner+1 <- post_alloc_hook+1 <- "
        "get_page_from_freelist+1 <- __alloc_pages_noprof+1 <- f+1 [leaky]",
        "__kmalloc_noprof+1 <- pcpu_create_chunk+1 <- pcpu_alloc_noprof+1 <- f+1 [leaky]",
        # A sheaf of 7.3, whose alloc_empty_sheaf() is inlined; and by names that no kernel has yet.
        "__kmalloc_flags_noprof+1 <- __pcs_replace_empty_main+1 <- kmem_cache_alloc_noprof+1 <- "
        "f+1 [leaky]",
        "__kmalloc_noprof+1 <- new_barn+1 <- fill_it+1 <- __kmalloc_cache_noprof+1 <- f+1 [leaky]",
        "kmem_cache_alloc_noprof+1 <- new_name+1 <- __alloc_frozen_pages_noprof+1 <- f+1 [leaky]",
        "__kmalloc_noprof+1 <- new_name+1 <- pcpu_alloc_noprof+1 <- f+1 [leaky]",
    ],
)
def test_allocators_own_use_is_bookkeeping_though_the_module_is_next(frames):
    assert is_bookkeeping(stack(frames), "kmalloc")
    assert not is_vmalloc_bookkeeping(stack(frames), "kmalloc")


@pytest.mark.parametrize(
    "frames",
    [
        # One allocation, by functions that all look like an entry.
        "__kmalloc_large_noprof+1 <- __do_kmalloc_node+1 <- __kmalloc_noprof+1 <- f+1 [leaky]",
        "kmem_cache_alloc_node_noprof+1 <- kmalloc_reserve+1 <- __alloc_skb+1 <- f+1 [leaky]",
        "__kmalloc_noprof+1 <- kvmalloc_node+1 <- f+1 [leaky]",
        # A constructor of the module's cache.
        "__kmalloc_noprof+1 <- construct+1 [leaky] <- setup_object+1 <- ___slab_alloc+1 <- "
        "kmem_cache_alloc_noprof+1 <- f+1 [leaky]",
        # The module's interrupt, which came while somebody allocated.
        "__kmalloc_noprof+1 <- handler+1 [leaky] <- asm_common_interrupt+1 <- "
        "kmem_cache_alloc_noprof+1 <- g+1 [other]",
        "__kmalloc_noprof+1 <- run_timer_softirq+1 <- asm_sysvec_apic_timer_interrupt+1 <- "
        "kmem_cache_alloc_noprof+1 <- f+1 [leaky]",
        # Reclaim below an allocation.
        "__kmalloc_noprof+1 <- scan+1 <- do_shrink_slab+1 <- shrink_slab+1 <- shrink_node+1 <- "
        "do_try_to_free_pages+1 <- try_to_free_pages+1 <- __alloc_pages_noprof+1 <- f+1 [leaky]",
    ],
)
def test_an_allocation_of_somebody_is_no_bookkeeping(frames):
    assert not is_bookkeeping(stack(frames), "kmalloc")


@pytest.mark.parametrize(
    "frame",
    ["asm_fred_entrypoint_kernel+1", "fred_entry_from_kernel+1", "fred_extint+1", "fred_hwexc+1",
     "fred_sysvec_apic_timer_interrupt+1", "fred_exc_page_fault+1"],
)  # fmt: skip
def test_interrupts_of_fred_are_interrupts(frame):
    assert is_interrupt(stack(frame)[0])


@pytest.mark.parametrize("frame", ["asm_fred_entrypoint_user+1", "fred_other+1"])
def test_system_calls_of_fred_are_none(frame):
    assert not is_interrupt(stack(frame)[0])


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        (
            "__kmalloc_noprof+1 <- ep_poll_callback+1 <- __wake_up+1 <- handle_irq_event+1 <- "
            "common_interrupt+1 <- asm_common_interrupt+1 <- leak_it+1 [leaky]",
            True,
        ),
        (
            "__kmalloc_noprof+1 <- run_timer_softirq+1 <- handle_softirqs+1 <- irq_exit_rcu+1 <- "
            "sysvec_apic_timer_interrupt+1 <- asm_sysvec_apic_timer_interrupt+1 <- f+1 [leaky]",
            True,
        ),
        (
            "__kmalloc_noprof+1 <- net_rx_action+1 <- __do_softirq+1 <- do_softirq.part.0+1 <- "
            "__local_bh_enable_ip+1 <- f+1 [leaky]",
            True,
        ),
        (
            "__kmalloc_noprof+1 <- do_anonymous_page+1 <- handle_mm_fault+1 <- "
            "asm_exc_page_fault+1 <- f+1 [leaky]",
            True,
        ),
        # The module's own handler allocates.
        (
            "__kmalloc_noprof+1 <- leaky_irq+1 [leaky] <- handle_irq_event+1 <- "
            "asm_common_interrupt+1 <- default_idle+1",
            False,
        ),
        (
            "__kmalloc_noprof+1 <- leaky_irq+1 [leaky] <- asm_common_interrupt+1 <- "
            "leak_it+1 [leaky]",
            False,
        ),
        (
            "__kmalloc_noprof+1 <- f+1 [leaky] <- do_syscall_64+1 <- "
            "entry_SYSCALL_64_after_hwframe+1",
            False,
        ),
        ("__kmalloc_noprof+1 <- asm_common_interrupt+1 <- default_idle+1", False),
    ],
)
def test_only_interrupted(frames, expected):
    assert only_interrupted(stack(frames), LEAKY) is expected


def test_a_stack_that_an_interrupt_began_ends_with_its_entry() -> None:
    timer = "leak_in_timer [leaky] <- call_timer_fn <- run_timer_softirq <- handle_softirqs"
    hit = stack(f"{timer} <- irq_exit_rcu <- sysvec_apic_timer_interrupt <- do_idle")
    other = stack(f"{timer} <- irq_exit_rcu <- sysvec_apic_timer_interrupt <- vfs_read")
    assert before_interrupt(hit) == before_interrupt(other) == stack(timer)
    assert before_interrupt(LEAK) == LEAK


@pytest.mark.parametrize(
    ("frames", "kept"),
    [
        # Timers expire on the CPU that started them, or on another one.
        ("leak_in_timer [leaky] <- call_timer_fn <- run_timer_softirq <- handle_softirqs", 1),
        ("leak_in_timer [leaky] <- call_timer_fn <- timer_expire_remote <- handle_softirqs", 1),
        # A handler of a handler: the outermost frame of the target is the way in.
        ("f [leaky] <- notify <- g [leaky] <- handle_irq <- asm_common_interrupt <- h [leaky]", 3),
        # Nothing was interrupted: who called is news.
        ("f [leaky] <- do_one_initcall <- do_init_module", 3),
        # The interrupt's own allocation keeps all of its stack.
        ("wake_up <- asm_common_interrupt <- leak_it [leaky]", 2),
    ],
)
def test_how_an_interrupt_came_to_call_the_target_is_chance(frames: str, kept: int) -> None:
    called = before_interrupt(stack(frames))
    assert before_dispatch(called, LEAKY) == stack(frames)[:kept]
