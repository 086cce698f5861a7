"""Following the process tree of a command, by the kernel's own events of forks and exits.

bpf/processes.c keeps the tree. Nothing is polled: the kernel wakes kleak when the last process of
a tree has ended.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from kleak.capture.engine.tracer import Tracer
from kleak.errors import TargetError, UnsupportedError, UsageError
from kleak.files.names import readable

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
_PF_EXITING = 0x4  # of include/linux/sched.h, and of the flags in /proc/PID/stat
_NAMED = 5
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
        command that cannot be executed, UnsupportedError where its start was not seen.
        """
        following = self._tracer.table("following")
        state = following[ctypes.c_int(0)]
        state.armed, state.generation = 1, generation
        state.level = self._tracer.proc_level
        following[ctypes.c_int(0)] = state
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        signal.pthread_sigmask(signal.SIG_BLOCK, _FORWARDED | {signal.SIGCHLD})
        try:
            process = subprocess.Popen(
                command,
                preexec_fn=lambda: _restore_mask(blocked),  # one thread
            )
        except OSError as error:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            raise UsageError(f"{command[0]}: {error.strerror}") from error
        if following[ctypes.c_int(0)].armed:
            process.kill()
            process.wait()
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
            raise UnsupportedError(
                "the kernel did not announce the command's process, which cannot be followed so: "
                "it was ended; please report the kernel's version"
            )
        return process

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
        """Wait until every process of the tree has ended, for ``patience_s`` seconds at most.

        Returns whether it has. Ctrl-C raises KeyboardInterrupt.
        """
        give_up = time.monotonic() + patience_s
        while self._tracer.table("alive")[ctypes.c_int(generation)].value:
            left = give_up - time.monotonic()
            if left <= 0:
                return False
            self._ended.wait(left)
        return True

    def describe_rest(self, generation: int) -> str:
        """Name the processes of the tree that still run: "2 (sleep 411, sh 402)"."""
        processes = sorted(
            process.id
            for _, process in self._tracer.table("followed").rows()
            if process.generation == generation
        )
        named = [
            f"{status['Name']} {process}" for process in processes if (status := _status(process))
        ]
        more = ["..."] if len(named) > _NAMED else []
        return f"{len(named)} ({', '.join(named[:_NAMED] + more)})"

    @property
    def refused(self) -> int:
        """Processes that were not followed, because the map was full."""
        return processes_refused(self._tracer)


def processes_refused(tracer: Tracer) -> int:
    """Return how many processes were not followed, because the map was full."""
    return int(tracer.table("following")[ctypes.c_int(0)].refused)


def follow_running(tracer: Tracer, pid: int) -> None:
    """Follow a process that runs already (any thread names it), its descendants, and all that
    they start.

    Raises TargetError if there is none, UnsupportedError where /proc has other ids than events.
    """
    if tracer.proc_level:
        raise UnsupportedError(
            f"--pid {pid}: in a pid namespace the ids of processes are not those that the kernel's "
            "events have; run kleak outside of it (a container: with the host's pid namespace)"
        )
    status = _status(pid)
    if not status:
        raise TargetError(f"there is no process {pid}")
    followed = tracer.table("followed")
    known: set[int] = set()
    # What a process starts that is followed, the kernel adds; look again for what came before.
    while new := _tree_of(int(status["Tgid"])) - known:
        for process in new:
            followed[followed.Key(process)] = followed.Leaf(1, process)
            # Its end may have been announced before it was added, and its id go to another.
            if _is_exiting(process):
                with suppress(KeyError):
                    del followed[followed.Key(process)]
        known |= new


def _tree_of(root: int) -> set[int]:
    """Ids of a process and its descendants."""
    children: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        if fields := _stat(process):
            children.setdefault(int(fields[1]), []).append(int(process.name))
    tree = [root]
    for process_id in tree:
        tree.extend(children.get(process_id, ()))
    return set(tree)


def _is_exiting(process: int) -> bool:
    """Whether no thread of a process will go on; true of one that is gone."""
    threads = [_stat(thread) for thread in Path(f"/proc/{process}/task").glob("*")]
    return all(int(fields[6]) & _PF_EXITING for fields in threads if fields)


def _stat(place: Path) -> list[str]:
    """Fields of a stat file behind the name: state, parent, ...; none where the task is gone."""
    try:
        return (place / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _restore_mask(mask: set[signal.Signals | int]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _status(task: int) -> dict[str, str]:
    """Return the first lines of a task's status by their names; nothing where it is gone."""
    try:
        text = Path(f"/proc/{task}/status").read_text(errors="replace")
        lines = text.splitlines()[:5]
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in lines)
