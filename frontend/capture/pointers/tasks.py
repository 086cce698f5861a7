"""Tasks and where their stacks are."""

from __future__ import annotations

from dataclasses import dataclass

from kleak.capture.engine.hooks import offset
from kleak.capture.pointers.programs import ScanPrograms
from kleak.parsers.btf import Btf

STACK_OF = "stack of task "
_MOST_TASKS = 1 << 20


@dataclass(frozen=True, slots=True)
class Task:
    """A task. What is on its stack below ``top`` is left over; None where it runs just now."""

    tgid: int
    name: str
    stack: int
    top: int | None


class Tasks:
    """Reads the list of all tasks."""

    def __init__(self, programs: ScanPrograms, btf: Btf) -> None:
        """Raises UnsupportedError where this kernel's tasks have other members."""
        self._programs = programs
        self._at = {
            name: offset(btf, "task_struct", name)
            for name in (
                *("stack", "thread.sp", "tgid", "comm"),
                *("tasks", "thread_node", "signal", "group_leader"),
            )
        }
        self._on_cpu = btf.member_offset("task_struct", "on_cpu")  # with CONFIG_SMP
        self._threads = offset(btf, "signal_struct", "thread_head")

    def by_stack(self) -> dict[int, Task] | None:
        """Return the tasks by the start of their stacks; None where the list changed too much."""
        for _ in range(3):
            found = self._walk()
            if found is not None:
                return found
        return None

    def _walk(self) -> dict[int, Task] | None:
        found: dict[int, Task] = {}
        leader_at, thread_at = self._at["tasks"], self._at["thread_node"]
        read = self._programs
        leader = read.word(read.current_task() + self._at["group_leader"])
        leaders = self._circle(leader + leader_at)
        if leaders is None:
            return None
        for link in leaders:
            signal = read.word(link - leader_at + self._at["signal"])
            head = signal + self._threads
            threads = self._circle(head) if signal else None
            if threads is None:
                return None
            # The head itself is in signal_struct. Where a leader has just ended, none is there.
            for thread in threads:
                if thread != head:
                    self._add(thread - thread_at, found)
            self._add(link - leader_at, found)
        return found

    def _circle(self, start: int) -> list[int] | None:
        """The links of a circular list from one of them on; None where it is no circle."""
        links, at = [start], self._programs.word(start)
        while at != start:
            if not at or len(links) > _MOST_TASKS:
                return None
            links.append(at)
            at = self._programs.word(at)
        return links

    def _add(self, task: int, found: dict[int, Task]) -> None:
        read, at = self._programs, self._at
        stack = read.word(task + at["stack"])
        if not stack or stack in found:
            return
        running = self._on_cpu is not None and read.half(task + self._on_cpu) != 0
        top = None if running else read.word(task + at["thread.sp"])
        name = read.text(task + at["comm"], 16)
        found[stack] = Task(read.half(task + at["tgid"]), name, stack, top)


def describe(task: Task) -> str:
    """Return how a report names the stack of a task."""
    name = "".join(one if one.isprintable() else "?" for one in task.name)
    return f"{STACK_OF}{name}"
