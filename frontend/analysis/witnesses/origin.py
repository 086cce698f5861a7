"""Witness: how directly the target asked for the memory."""

from __future__ import annotations

import re

from kleak.analysis.attribution import modules_on
from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.frames.names import base_name
from kleak.frames.scope import in_scope
from kleak.frames.stacks import is_page_fragment, split_allocator
from kleak.model.session import Frame, Session, TracedSite

NAME = "origin"

# A kernel function with such a word in its name makes an object that its caller gives back.
_MAKING = frozenset({"alloc", "zalloc", "create", "new", "dup", "clone", "copy"})
# So does one that names an object, and one that makes a device and registers it.
_NAMING = re.compile(r"\w*_set_name(?:_vargs)?|_*(?:root|platform)_device_register\w*")
CONSTRUCTOR_DEPTH = 2

# Where the kernel keeps things of its own: freed after grace periods, cached, or shared.
_REGISTRY = re.compile(
    r"_*(?:"
    r"kernfs_\w+|sysfs_\w+|kobject_(?:add|init_and_add|uevent)\w*|kset_\w+|add_uevent_var"
    r"|d_alloc\w*|d_add\w*|lookup_\w+|alloc_inode\w*|new_inode\w*|iget\w*|simple_start_creating"
    r"|debugfs_\w+|tracefs_\w+|proc_\w+|pde_\w+|devtmpfs_\w+|inode_init_always\w*"
    r"|(?:do_)?kmem_cache_create\w*|create_cache|create_kmalloc_cache\w*|init_cache_random_seq"
    r"|ida_\w+|idr_\w+|xas?_\w+|radix_tree_\w+|mas_\w+|mt_\w+|mtree_\w+|rhashtable_\w+"
    r"|bucket_table_alloc|list_lru_\w+|register_\w*sysctl\w*|sysctl_\w+|new_dir"
    r"|copy_process|dup_task_struct|kernel_clone|kernel_thread|call_usermodehelper\w*"
    r"|alloc_pid|prepare_creds|security_\w+|lsm_\w+|request_module|module_\w+"
    r"|debug_objects?_\w+|debug_object_\w+|fill_pool|ftrace_\w+|jump_label_\w+|tracepoint_\w+"
    r"|netlink_\w+|nlmsg_\w+|rtmsg_\w+|rtnl_\w*notify\w*|mm_\w+|vm_area_\w+|do_mmap|mmap_region"
    r")"
)
_SKB = re.compile(
    r"_*(?:alloc_skb\w*|build_skb\w*|napi_build_skb|napi_alloc_skb|netdev_alloc_skb"
    r"|slab_build_skb|skb_clone|napi_skb_cache_get\w*)"
)


def judge(site: TracedSite, session: Session) -> Finding:
    """Judge by the frames between the allocator and the target's innermost frame.

    Other modules of the target that are on the stack as well are named.
    """
    finding = _judge(site, session)
    callers = modules_on(site.frames, session.target)[1:]
    if not callers:
        return finding
    return Finding(NAME, finding.fact, f"{finding.says}; shared: called by {', '.join(callers)}")


def _judge(site: TracedSite, session: Session) -> Finding:
    allocator_frames, rest = split_allocator(site.frames)
    target = session.target
    where = next((i for i, frame in enumerate(rest) if in_scope(frame, target)), None)
    if where is None:
        return Finding(
            NAME, Fact.NO_SCOPE_FRAME, f"no frame of {target.name} in its stack has a name"
        )
    subject = rest[where].module or target.name
    if where == 0:
        if target.kind == "module":
            return Finding(NAME, Fact.DIRECT, f"allocated by a call in {subject} itself")
        return Finding(NAME, Fact.DIRECT_SYMBOL, f"allocated by a call in {_name(rest[0])} itself")
    between = rest[:where]
    if is_page_fragment(site.frames):  # a module with a cache of its own calls the allocator itself
        return Finding(NAME, Fact.REGISTRY, "for the kernel's own cache of page fragments")
    if _is_skb(between[0]):
        if _is_head(site.allocator, allocator_frames):
            return Finding(
                NAME, Fact.SKB_HEAD, "a socket buffer's head, whose free may have no event"
            )
        if len(between) <= CONSTRUCTOR_DEPTH:
            return Finding(NAME, Fact.SKB_DATA, f"data of a socket buffer that {subject} asked for")
    registry = next((frame for frame in between if _is_registry(frame)), None)
    if registry is not None:
        return Finding(
            NAME, Fact.REGISTRY, f"{_name(registry)}() allocated it for the kernel's own registers"
        )
    called = between[-1]
    other = next((frame.module for frame in between if frame.module is not None), None)
    if other is not None:
        return Finding(NAME, Fact.OTHER_MODULE, f"module {other} allocated it for {subject}")
    if len(between) <= CONSTRUCTOR_DEPTH and _is_constructor(called):
        return Finding(NAME, Fact.CONSTRUCTOR, f"made by {_name(called)}() for {subject}")
    return Finding(
        NAME,
        Fact.DEEP,
        f"allocated by the kernel, {where} calls below {subject}"
        if where > 1
        else f"allocated by {_name(called)}(), which {subject} called",
    )


def _name(frame: Frame) -> str:
    return f"{frame.offset:#x}" if frame.symbol is None else base_name(frame.symbol)


def _is_registry(frame: Frame) -> bool:
    return frame.module is None and _REGISTRY.fullmatch(_name(frame)) is not None


def _is_constructor(frame: Frame) -> bool:
    name = _name(frame)
    return _NAMING.fullmatch(name) is not None or not _MAKING.isdisjoint(name.split("_"))


def _is_skb(inner: Frame) -> bool:
    return inner.module is None and _SKB.fullmatch(_name(inner)) is not None


def _is_head(allocator: str, allocator_frames: tuple[Frame, ...]) -> bool:
    """Heads come from a cache of their own; the data has kmalloc_reserve() in its stack."""
    return allocator == "kmem_cache" and not any(
        "kmalloc_reserve" in _name(frame) for frame in allocator_frames
    )
