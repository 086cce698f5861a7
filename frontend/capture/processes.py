"""Following the process tree of a command, by the kernel's own events of forks and exits.

bpf/processes.c keeps the tree. Nothing is polled: the kernel wakes kleak when the last task of
a tree has exited.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kleak.capture.tracer import Tracer
from kleak.errors import TargetError, UsageError
from kleak.names import readable

# Signals to kleak that are the command's while it runs. Those that stop and continue a process
# reach both by way of the terminal.
_FORWARDED = frozenset(
    {
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
        signal.SIGWINCH,
    }
)
_SENT_BY_KERNEL = 0x80  # SI_KERNEL of include/uapi/asm-generic/siginfo.h: the terminal's Ctrl-C


class CommandFailedError(TargetError):
    """The command failed; kleak ends with its status, or as a shell does for its signal."""

    def __init__(self, command: str, status: int) -> None:
        """``status`` as subprocess gives it: negative for a signal."""
        command = readable(command)
        if status < 0:
            super().__init__(f"{command} died of {signal.Signals(-status).name}")
        else:
            super().__init__(f"{command} failed with exit status {status}")
        self.status = 128 - status if status < 0 else status


class ProcessTree:
    """The process trees of a command's runs. The tracer's plan must have the process events."""

    def __init__(self, tracer: Tracer) -> None:
        """``tracer`` is started. Raises UnsupportedError where the kernel's buffers are refused."""
        self._tracer = tracer
        self._ended = tracer.bell("tree_ended")

    def start(self, command: Sequence[str], generation: int) -> subprocess.Popen[bytes]:
        """Start the command, whose tree gets the number ``generation``.

        Its input, output and signal mask are those of kleak's caller. Raises UsageError for a
        command that cannot be executed.
        """
        following = self._tracer.table("following")
        state = following[ctypes.c_int(0)]
        state.armed, state.generation = 1, generation
        following[ctypes.c_int(0)] = state
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})
        try:
            return subprocess.Popen(
                command,
                preexec_fn=lambda: _restore_mask(blocked),  # one thread
            )
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            raise UsageError(f"{command[0]}: {error.strerror}") from error

    def wait_for_command(self, process: subprocess.Popen[bytes]) -> int:
        """Wait until the command itself has ended; hand it the signals that kleak gets meanwhile.

        What the terminal sends reaches the command anyway. Returns its status.
        """
        waiting = _FORWARDED | {signal.SIGCHLD}
        try:
            while (status := process.poll()) is None:
                received = signal.sigwaitinfo(waiting)
                if received.si_signo != signal.SIGCHLD and received.si_code != _SENT_BY_KERNEL:
                    process.send_signal(received.si_signo)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, waiting)
        return status

    def wait_for_end(self, generation: int, patience_s: float) -> bool:
        """Wait until every task of the tree has exited, for ``patience_s`` seconds at most.

        Returns whether it has. Ctrl-C raises KeyboardInterrupt.
        """
        give_up = time.monotonic() + patience_s
        while self._alive(generation):
            left = give_up - time.monotonic()
            if left <= 0:
                return False
            self._ended.wait(left)
        return True

    def describe_rest(self, generation: int) -> str:
        """Name the processes of the tree that still run: "2 (sleep 411, sh 402)"."""
        tasks = sorted(
            task for task, of in self._tracer.table("followed").rows() if of == generation
        )
        processes = {task: name for task in tasks if (name := _process_name(task)) is not None}
        named = [f"{name} {task}" for task, name in list(processes.items())[:5]]
        more = ["..."] if len(processes) > len(named) else []
        return f"{len(processes)} ({', '.join(named + more)})"

    @property
    def refused(self) -> int:
        """Tasks that were not followed, because the map was full."""
        return tasks_refused(self._tracer)

    def _alive(self, generation: int) -> int:
        tree: Any = self._tracer.table("trees")[ctypes.c_int(generation)]
        return int(tree.alive)


def tasks_refused(tracer: Tracer) -> int:
    """Return how many tasks were not followed, because the map was full."""
    return int(tracer.table("following")[ctypes.c_int(0)].refused)


def follow_running(tracer: Tracer, pid: int) -> None:
    """Follow a process that runs already: its threads, its descendants, and all that they start.

    Raises TargetError if there is none.
    """
    followed = tracer.table("followed")
    known: set[int] = set()
    # What a task starts that is followed, the kernel adds; look again for what came before.
    while new := _tasks_of_tree(pid) - known:
        for task in new:
            followed[followed.Key(task)] = followed.Leaf(1)
        known |= new
    if not known:
        raise TargetError(f"there is no process {pid}")


def _tasks_of_tree(root: int) -> set[int]:
    """Ids of all threads of a process and its descendants."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text(errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            continue
        children.setdefault(parent, []).append(int(stat.parent.name))
    tree, tasks = [root], set()
    for process in tree:
        tree.extend(children.get(process, ()))
        try:
            tasks |= {int(task.name) for task in Path(f"/proc/{process}/task").iterdir()}
        except OSError:
            continue
    return tasks


def _restore_mask(mask: set[signal.Signals | int]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _process_name(task: int) -> str | None:
    """Name of the process that ``task`` leads; None for another thread of one, or one gone."""
    place = Path(f"/proc/{task}")
    try:
        status = dict(
            line.split(":\t", 1)
            for line in (place / "status").read_text(errors="replace").splitlines()[:5]
        )
    except OSError:
        return None
    return status["Name"] if status.get("Tgid") == str(task) else None
