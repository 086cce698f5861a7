"""Running a plan for network devices, through netlink, in namespaces of its own.

A child process does it: what kleak itself allocates does not count. The namespaces have no name
and no holder but that process, so they go with it, and with them what is left of the devices,
however it ends. The only module that imports pyroute2.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from kleak.capture.target.modules import MODULES_ROOT
from kleak.capture.target.net_plan import (
    AddAddress,
    AddLink,
    AddNetdevsim,
    DeleteLink,
    DeleteNetdevsim,
    MoveLink,
    NetPlan,
    SetLinkState,
    SetMaster,
    Step,
)
from kleak.errors import TargetError, UnsupportedError

_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_NETDEVSIM = Path("/sys/bus/netdevsim")
# Attributes whose value is the number of another device; a plan gives its name.
_DEVICES = frozenset({"link", "vxlan_link", "geneve_link", "gre_link", "ipip_link", "sit_link"})
_NUMBER = re.compile(r"0x[0-9a-fA-F]+|[0-9]+")

libc = ctypes.CDLL(None, use_errno=True)


def check_needs(plan: NetPlan) -> None:
    """Raise UnsupportedError where this kernel lacks a module that the plan needs.

    Where nothing lists the kernel's modules, what is built in cannot be told: then the step that
    makes the device will tell.
    """
    release = os.uname().release
    if not (MODULES_ROOT / release / "modules.dep").exists():
        return
    for module in plan.needs:
        if (Path("/sys/module") / module.replace("-", "_")).is_dir():
            continue
        answer = subprocess.run(
            ["modinfo", "-k", release, module], stdin=subprocess.DEVNULL, capture_output=True
        )
        if answer.returncode != 0:
            raise UnsupportedError(
                f"{plan.name}: needs module {module}, which kernel {release} does not have"
            )


def run_plan(plan: NetPlan) -> None:
    """Run all steps of ``plan``, as often as it says. Needs root.

    Raises TargetError, which names the step, where one fails or the time is over. Devices and
    namespaces are gone, or on their way, however it ends.
    """
    import pyroute2  # noqa: F401  (once, before the forks; it takes half a second)

    before = _netdevsims()
    read_end, write_end = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        _be_child(plan, write_end)
    os.close(write_end)
    ended = False
    try:
        said = _read_all(read_end, plan.timeout_s)
        ended = said is not None
    finally:
        os.close(read_end)
        if not ended:
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        for device in _netdevsims() - before:
            (_NETDEVSIM / "del_device").write_text(device.removeprefix("netdevsim"))
    if said is None:
        raise TargetError(f"net plan has not ended after {plan.timeout_s:g} s: {plan.name}")
    if said or status:
        raise TargetError(f"net plan: {said or 'its process was killed'}")


def _read_all(fd: int, seconds: float) -> str | None:
    """Return what comes until the other end closes; None if that takes longer than ``seconds``."""
    readable, _, _ = select.select([fd], [], [], seconds)
    if not readable:
        return None
    with open(fd, "rb", closefd=False) as pipe:
        return pipe.read().decode(errors="replace")


def _netdevsims() -> set[str]:
    devices = _NETDEVSIM / "devices"
    return {path.name for path in devices.iterdir()} if devices.is_dir() else set()


# --- in the child -------------------------------------------------------------------------------


def _be_child(plan: NetPlan, report_to: int) -> NoReturn:
    """Run the plan, write what went wrong to ``report_to``, and end the process."""
    status = 70
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        failure = _Runner(plan).run()
        os.write(report_to, (failure or "").encode())
        status = 0 if failure is None else 1
    except BaseException as error:
        os.write(report_to, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(status)


class _Runner:
    """Runs a plan in the namespaces that it makes."""

    def __init__(self, plan: NetPlan) -> None:
        self._plan = plan
        self._namespaces: dict[str | None, int] = {}
        self._sockets: dict[str | None, Any] = {}

    def run(self) -> str | None:
        """Run all steps; return which one failed, and why, or None."""
        from pyroute2 import IPRoute

        for name in (*self._plan.namespaces, None):  # the last one made is the one it stays in
            if libc.unshare(_CLONE_NEWNET):
                return f"no network namespace: {os.strerror(ctypes.get_errno())}"
            self._namespaces[name] = os.open("/proc/self/ns/net", os.O_RDONLY)
            self._sockets[name] = IPRoute()
        for round_number in range(1, self._plan.repeat + 1):
            for number, step in enumerate(self._plan.steps, start=1):
                try:
                    self._take(step)
                except Exception as error:
                    of = f", round {round_number}" if self._plan.repeat > 1 else ""
                    return (
                        f"step {number} of {len(self._plan.steps)}{of} ({step.text}): "
                        f"{_reason(error)}"
                    )
        return None

    def _take(self, step: Step) -> None:
        action = step.action
        link = self._sockets[step.namespace].link
        match action:
            case AddLink():
                self._add_link(step, action)
            case SetLinkState():
                state = "up" if action.up else "down"
                link("set", index=self._index(step, action.name), state=state)
            case SetMaster():
                master = 0 if action.master is None else self._index(step, action.master)
                link("set", index=self._index(step, action.name), master=master)
            case MoveLink():
                fd = self._namespaces[action.namespace]
                link("set", index=self._index(step, action.name), net_ns_fd=fd)
            case DeleteLink():
                link("del", index=self._index(step, action.name))
            case AddAddress():
                self._sockets[step.namespace].addr(
                    "add",
                    index=self._index(step, action.name),
                    address=action.address,
                    prefixlen=action.prefix_length,
                )
            case AddNetdevsim():
                self._inside(
                    step.namespace,
                    lambda: (_NETDEVSIM / "new_device").write_text(
                        f"{action.number} {action.ports}"
                    ),
                )
            case DeleteNetdevsim():
                (_NETDEVSIM / "del_device").write_text(str(action.number))

    def _add_link(self, step: Step, action: AddLink) -> None:
        attributes = self._attributes(step, action)
        try:
            self._sockets[step.namespace].link(
                "add", ifname=action.name, kind=action.kind, **attributes
            )
        except Exception as error:
            if getattr(error, "code", None) == errno.EOPNOTSUPP:
                raise ValueError(
                    f"this kernel makes no devices of kind {action.kind}, or not by netlink"
                ) from error
            raise

    def _attributes(self, step: Step, action: AddLink) -> dict[str, Any]:
        known = _attribute_types(action.kind)
        found: dict[str, Any] = {}
        for key, word in action.attributes:
            if key not in known:
                raise ValueError(f"no attribute of {action.kind}: {key}")
            number = _NUMBER.fullmatch(word) is not None and known[key] != "asciiz"
            if number:
                found[key] = int(word, 16 if word.startswith("0x") else 10)
            else:
                found[key] = self._index(step, word) if key in _DEVICES else word
        return found

    def _index(self, step: Step, name: str) -> int:
        found = self._sockets[step.namespace].link_lookup(ifname=name)
        if not found:
            where = "" if step.namespace is None else f" in namespace {step.namespace}"
            raise ValueError(f"no device {name}{where}")
        return int(found[0])

    def _inside(self, namespace: str | None, do: Callable[[], object]) -> None:
        """Do something that belongs to the namespace of the process, not of a socket."""
        libc.setns(self._namespaces[namespace], _CLONE_NEWNET)
        try:
            do()
        finally:
            libc.setns(self._namespaces[None], _CLONE_NEWNET)


def _attribute_types(kind: str) -> dict[str, str]:
    """What pyroute2 knows for a kind of device, by name: others it leaves out without a word."""
    from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

    maps = [ifinfmsg.nla_map]
    if kind in ifinfmsg.ifinfo.data_map:
        maps.append(ifinfmsg.ifinfo.data_map[kind].nla_map)
    types = {row[0].removeprefix("IFLA_").lower(): row[1] for rows in maps for row in rows}
    return types | {"peer": "asciiz"} if kind == "veth" else types


def _reason(error: Exception) -> str:
    """What the kernel or pyroute2 said, in a few words."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    code = getattr(error, "code", None)  # pyroute2's NetlinkError
    return os.strerror(code) if isinstance(code, int) else str(error)
