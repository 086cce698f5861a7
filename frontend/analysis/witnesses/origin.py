"""Witness: how directly the target asked for the memory."""

from __future__ import annotations

import re
from collections.abc import Sequence

from kleak.analysis.attribution import modules_on
from kleak.analysis.findings import Finding
from kleak.analysis.weights import Fact
from kleak.analysis.witnesses.called import hands_out, name_of, names_an_object, sets_up
from kleak.frames.scope import in_scope
from kleak.frames.stacks import is_page_fragment, split_allocator
from kleak.model.session import Frame, Session, TracedSite

NAME = "origin"

# Where the kernel keeps things of its own: freed after grace periods, cached, or shared.
_REGISTRY = re.compile(
    r"_*(?:"
    r"kernfs_\w+|sysfs_\w+|kobject_(?:add|init_and_add|uevent)\w*|kset_\w+|add_uevent_var"
    r"|d_alloc\w*|d_add\w*|lookup_\w+|alloc_inode\w*|new_inode\w*|iget\w*|simple_start_creating"
    r"|debugfs_\w+|tracefs_\w+|proc_\w+|pde_\w+|devtmpfs_\w+|inode_init_always\w*"
    r"|(?:do_)?kmem_cache_create\w*|create_cache|create_kmalloc_cache\w*|init_cache_random_seq"
    r"|register_\w*sysctl\w*|sysctl_\w+|new_dir"
    r"|copy_process|dup_task_struct|kernel_clone|kernel_thread|call_usermodehelper\w*"
    r"|alloc_pid|prepare_creds|security_\w+|lsm_\w+|request_module|module_\w+"
    r"|debug_objects?_\w+|debug_object_\w+|fill_pool|ftrace_\w+|jump_label_\w+|tracepoint_\w+"
    r"|netlink_\w+|nlmsg_\w+|rtmsg_\w+|rtnl_\w*notify\w*|mm_\w+|vm_area_\w+|do_mmap|mmap_region"
    r")"
)
# Trees and tables: whose they are, who called them decides.
_INDEX = re.compile(
    r"_*(?:ida_\w+|idr_\w+|xas?_\w+|radix_tree_\w+|mas_\w+|mt_\w+|mtree_\w+|rhashtable_\w+"
    r"|rhltable_\w+|bucket_table_alloc|list_lru_\w+)"
)
SKB_DEPTH = 2
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
        return Finding(
            NAME, Fact.DIRECT_SYMBOL, f"allocated by a call in {name_of(rest[0])} itself"
        )
    between = rest[:where]
    if is_page_fragment(site.frames):  # a module with a cache of its own calls the allocator itself
        return Finding(NAME, Fact.REGISTRY, "for the kernel's own cache of page fragments")
    if _is_skb(between[0]):
        if _is_head(site.allocator, allocator_frames):
            return Finding(
                NAME, Fact.SKB_HEAD, "a socket buffer's head, whose free may have no event"
            )
        if len(between) <= SKB_DEPTH:
            return Finding(NAME, Fact.SKB_DATA, f"data of a socket buffer that {subject} asked for")
    other = next((frame.module for frame in between if frame.module is not None), None)
    if names_an_object(between):
        return Finding(NAME, Fact.CONSTRUCTOR, f"the name of an object that {subject} made")
    own = _own_of_the_kernel(between, session)
    if own is not None:
        says = f"{name_of(own)}() allocated it for the kernel's own registers"
        return Finding(NAME, Fact.REGISTRY, says)
    called = between[-1]
    if other is not None:
        return Finding(NAME, Fact.OTHER_MODULE, f"module {other} allocated it for {subject}")
    undo = hands_out(between, session)
    if undo is not None:
        back = f", {undo}() takes it back" if undo else ""
        says = f"made by {name_of(called)}() for {subject}{back}"
        return Finding(NAME, Fact.CONSTRUCTOR, says)
    return Finding(
        NAME,
        Fact.DEEP,
        f"allocated by the kernel, {where} calls below {subject}"
        if where > 1
        else f"allocated by {name_of(called)}(), which {subject} called",
    )


def _own_of_the_kernel(between: Sequence[Frame], session: Session) -> Frame | None:
    """The function on the way that keeps things of the kernel's own, if there is one.

    A tree or table that the target itself set up, through a function that has a counterpart, is
    the target's.
    """
    registry = next((one for one in between if _is(one, _REGISTRY)), None)
    if registry is not None or sets_up(between, session):
        return registry
    return next((one for one in between if _is(one, _INDEX)), None)


def _is(frame: Frame, pattern: re.Pattern[str]) -> bool:
    return frame.module is None and pattern.fullmatch(name_of(frame)) is not None


def _is_skb(inner: Frame) -> bool:
    return _is(inner, _SKB)


def _is_head(allocator: str, allocator_frames: tuple[Frame, ...]) -> bool:
    """Heads come from a cache of their own; the data has kmalloc_reserve() in its stack."""
    return allocator == "kmem_cache" and not any(
        "kmalloc_reserve" in name_of(frame) for frame in allocator_frames
    )
