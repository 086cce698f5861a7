"""kleak run on the running kernel: what a command leaves behind, exactly, and nothing in its way.

Pipes are counted: alloc_pipe_info() allocates two objects for one, itself.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from kleak.capture.engine.events import make_plan, read_btf
from kleak.capture.engine.headers import find_headers
from kleak.capture.engine.tracer import Tracer
from kleak.capture.machine.kernel_state import read_kernel_table
from kleak.capture.scope import NamedScope
from kleak.capture.target.processes import ProcessTree
from kleak.errors import UnsupportedError
from kleak.store.reader import read_session
from tests.host import pid_namespaces, uring_daemon
from tests.support.build_modules import TOP
from tests.support.lost import lost_in

PIPES, FILES = 41, 137
DAEMON = str(TOP / "tests" / "host" / "pipe_daemon.py")
THREAD_EXEC = str(TOP / "tests" / "host" / "thread_exec.py")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "kleak", "run", *arguments]


def run(
    *arguments: str, cwd: Path, within: Sequence[str] = (), **how: Any
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*within, *command(*arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        **how,
    )


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory for daemons, which are ended at the end."""
    yield tmp_path
    daemons = tmp_path / "daemons"
    for line in daemons.read_text().split() if daemons.exists() else ():
        try:
            os.kill(int(line), signal.SIGKILL)
        except ProcessLookupError:
            continue  # its time was over


def pipe_sites(report: dict[str, Any]) -> list[dict[str, Any]]:
    return [s for s in report["sites"] if s["frames"][0]["symbol"] == "alloc_pipe_info"]


def test_whole_kernel_by_process_in_every_run(place: Path) -> None:
    result = run(
        "--by-process", "--repeat", "3", "--tree-timeout", "0.1", "--json", "report.json", "--",
        sys.executable, DAEMON, str(PIPES), "600",
        cwd=place,
    )  # fmt: skip
    report = json.loads((place / "report.json").read_text())
    sites = pipe_sites(report)
    assert len(sites) == 2
    for site in sites:
        assert site["per_cycle"] == [{"count": PIPES, "bytes": site["per_cycle"][0]["bytes"]}] * 3
    notes = [note for note in report["trust"]["notes"] if "had not ended" in note]
    daemons = (place / "daemons").read_text().split()
    assert [note.rpartition(": ")[2] for note in notes] == [
        f"1 ({Path(sys.executable).name[:15]} {daemon})" for daemon in daemons
    ]
    assert result.stdout == ""


def test_the_tree_is_waited_for(place: Path) -> None:
    """The daemon outlives its parent and its grandparent; its pipes are closed when it ends."""
    result = run(
        "--scope", "alloc_pipe_info", "--tree-timeout", "60", "--by-process", "--json", "-", "--",
        sys.executable, DAEMON, str(PIPES), "3",
        cwd=place,
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert report["trust"]["observed"]["allocations"] >= 2 * PIPES
    assert report["sites"] == []
    assert not [note for note in report["trust"]["notes"] if "had not ended" in note]
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("daemon", "timeout"), [(("600",), "0.1"), (("0",), "60")], ids=["holds", "ends"]
)
def test_exec_by_a_thread(place: Path, daemon: tuple[str, ...], timeout: str) -> None:
    result = run(
        "--scope", "alloc_pipe_info", "--tree-timeout", timeout, "--by-process", "--json", "-",
        "--", sys.executable, THREAD_EXEC, DAEMON, str(PIPES), *daemon,
        cwd=place,
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert report["trust"]["observed"]["allocations"] >= 2 * PIPES
    stayed = [note for note in report["trust"]["notes"] if "had not ended" in note]
    if daemon == ("0",):
        assert report["sites"] == stayed == []
    else:
        assert [site["outstanding"]["count"] for site in pipe_sites(report)] == [PIPES] * 2
        (note,) = stayed
        assert note.endswith(f" {(place / 'daemons').read_text().strip()})")


def test_workers_of_io_uring_are_the_process(place: Path) -> None:
    try:
        os.close(uring_daemon.set_up(1)[0])
    except OSError as error:
        pytest.skip(f"this kernel sets up no io_uring: {error.strerror}")
    result = run(
        "--scope", "alloc_empty_file*", "--tree-timeout", "0.1", "--by-process", "--json", "-",
        "--", sys.executable, uring_daemon.__file__, str(FILES),
        cwd=place,
    )  # fmt: skip
    report = json.loads(result.stdout)
    opened = [
        site["outstanding"]["count"]
        for site in report["sites"]
        if site["allocator"] == "kmem_cache"
        and any("io_wq" in str(frame["symbol"]) for frame in site["frames"])
    ]
    assert set(opened) == {FILES}  # a file, and what the security modules keep of it
    (note,) = [note for note in report["trust"]["notes"] if "had not ended" in note]
    assert note.rpartition(": ")[2].startswith("1 (")  # workers do not count as processes


@pid_namespaces.both
def test_in_a_pid_namespace(place: Path, within: list[str]) -> None:
    """The kernel's events have other ids than kleak and /proc have there."""
    result = run(
        "--scope", "alloc_pipe_info", "--tree-timeout", "0.1", "--by-process", "--json", "-", "--",
        sys.executable, DAEMON, str(PIPES), "600",
        cwd=place, within=within,
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert [site["outstanding"]["count"] for site in pipe_sites(report)] == [PIPES] * 2
    (note,) = [note for note in report["trust"]["notes"] if "had not ended" in note]
    (daemon,) = (place / "daemons").read_text().split()
    (place / "daemons").unlink()  # it ended with its namespace, and the id is another's here
    rest = note.rpartition(": ")[2]
    seen = re.fullmatch(r"1 \((\S+) (\d+)\)", rest)
    assert seen, rest
    assert seen[1] == Path(sys.executable).name[:15]
    assert (seen[2] == daemon) == (within == pid_namespaces.OWN_PROC)


def test_threads_are_no_processes(place: Path) -> None:
    """The tree ends once, with the last thread and not with the leader."""
    script = (
        "import ctypes, os, threading, time\n"
        "def last():\n"
        "    time.sleep(1)\n"
        f"    kept = [os.pipe() for _ in range({PIPES})]\n"
        "for _ in range(3): threading.Thread(target=last).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    result = run(
        "--scope", "alloc_pipe_info", "--by-process", "--json", "-", "--",
        sys.executable, "-c", script,
        cwd=place,
    )  # fmt: skip
    report = json.loads(result.stdout)
    assert report["trust"]["observed"]["allocations"] >= 6 * PIPES
    assert report["sites"] == []
    assert not [note for note in report["trust"]["notes"] if "had not ended" in note]


def test_a_command_whose_start_was_not_seen_is_ended(tmp_path: Path) -> None:
    table = read_kernel_table()
    plan = make_plan(read_btf(), table, modules=False, processes=True)
    symbols = NamedScope(("alloc_pipe_info",)).find(table).symbols
    with Tracer(plan, find_headers(), symbols=symbols, by_process=True) as tracer:
        scopes = tracer.table("scopes")
        scope = scopes[ctypes.c_int(0)]
        assert scope.tracer_tgid == os.getpid()
        scope.tracer_tgid += 1
        scopes[ctypes.c_int(0)] = scope
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        with pytest.raises(UnsupportedError, match="did not announce the command's process"):
            ProcessTree(tracer).start(["sleep", "600"], 1)
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == blocked
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, 0)


def test_own_calls_are_those_that_the_scope_makes(place: Path) -> None:
    """create_pipe_files() has inodes and files made, alloc_pipe_info() makes its objects itself."""
    scope = ("alloc_pipe_info", "create_pipe_files")
    arguments = [word for glob in scope for word in ("--scope", glob)]
    found, walks = [], []
    for own_calls in ([], ["--own-calls"]):
        result = run(
            *arguments, *own_calls, "--tree-timeout", "0.1", "--json", "-", "--",
            sys.executable, DAEMON, str(PIPES), "600",
            cwd=place,
        )  # fmt: skip
        report = json.loads(result.stdout)
        notes = [note for note in report["trust"]["notes"] if "--own-calls" in note]
        assert len(notes) == len(own_calls)
        assert lost_in(report["trust"]["lost"]) == {}
        walks.append(report["trust"]["observed"]["stack_walks"])
        found.append(
            sorted(
                (site["allocator"], site["outstanding"]["count"], site["frames"][0]["symbol"])
                for site in report["sites"]
                if site["allocator"] != "pages"  # their event has no call site
            )
        )
    whole, own = found
    assert own == [site for site in whole if site[2] in scope]
    assert own == [("kmalloc", PIPES, "alloc_pipe_info")] * 2
    assert len(whole) > len(own)
    assert walks[0] - walks[1] > 2 * PIPES  # the others' calls are ruled out without one


def test_own_calls_of_everything(place: Path) -> None:
    result = run("--own-calls", "--", "true", cwd=place)
    assert result.returncode == 2
    assert "--own-calls is for a scope" in result.stderr


@pytest.mark.parametrize("by_process", [True, False])
def test_whose_allocations_count(place: Path, by_process: bool) -> None:
    """Somebody else, who is no child of the command, makes pipes while it runs."""
    with subprocess.Popen(
        [sys.executable, "-c",
         "import os, sys, time\n"
         "while not os.path.exists('started'): time.sleep(0.01)\n"
         f"kept = [os.pipe() for _ in range({PIPES})]\n"
         "open('made', 'w').close(); sys.stdin.read()"],
        cwd=place, stdin=subprocess.PIPE,
    ) as other:  # fmt: skip
        result = run(
            "--scope", "alloc_pipe_info", "--json", "-", *(["--by-process"] if by_process else []),
            "--", "sh", "-c", "touch started; while ! [ -e made ]; do sleep 0.05; done",
            cwd=place,
        )  # fmt: skip
        assert other.stdin is not None
        other.stdin.close()
    sites = pipe_sites(json.loads(result.stdout))
    assert [site["outstanding"]["count"] for site in sites] == ([] if by_process else [PIPES] * 2)
    # A pipe and its buffers. How that is seen depends on whether the kernel has /proc/kcore.
    assert ["parent" in site for site in sites] == ([] if by_process else [False, True])


def test_input_and_output_are_the_commands(tmp_path: Path) -> None:
    result = run(
        "--scope", "alloc_pipe_info", "--", "sh", "-c", "cat; echo to-stderr >&2",
        cwd=tmp_path, input="through\n",
    )  # fmt: skip
    assert result.stdout == "through\n"
    assert result.stderr.startswith("to-stderr\n")
    assert "trust: " in result.stderr  # the report


@pytest.mark.parametrize(
    ("line", "status", "said"),
    [
        ("exit 7", 7, "kleak: sh failed with exit status 7"),
        ("kill -KILL $$", 137, "kleak: sh died of SIGKILL"),
    ],
)
def test_status_is_the_commands(tmp_path: Path, line: str, status: int, said: str) -> None:
    result = run("--scope", "alloc_pipe_info", "--json", "-", "--", "sh", "-c", line, cwd=tmp_path)
    assert result.returncode == status
    assert result.stderr.splitlines()[-1] == said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_signals_are_the_commands(tmp_path: Path, number: signal.Signals) -> None:
    """The command answers the signal and ends well: kleak reports as ever."""
    script = (
        f"trap 'echo got; exit 0' {number.name[3:]}; echo ready;"
        " while :; do sleep 0.1; done"
    )  # fmt: skip
    with subprocess.Popen(
        command("--scope", "alloc_pipe_info", "--", "sh", "-c", script),
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        rest, said = process.communicate(timeout=100)
    assert rest == "got\n"
    assert process.returncode == 0, said
    assert "trust: " in said


def test_interrupt_while_waiting_for_the_tree(place: Path) -> None:
    with subprocess.Popen(
        command("--scope", "alloc_pipe_info", "--tree-timeout", "600", "--",
                sys.executable, DAEMON, "1", "600"),
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while not (place / "daemons").exists():
            time.sleep(0.1)
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=100)
    assert process.returncode == 130
    assert said.splitlines()[-1] == "kleak: interrupted"
    assert "trust: INCOMPLETE; lost: 1 cycles cut off" in said


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, None)]
)
def test_fewer_runs_than_planned_are_incomplete(
    place: Path, number: signal.Signals, status: int | None
) -> None:
    """Ended while the second run's tree is waited for: the first is whole."""
    line = f"test -e first || {{ : >first; exit; }}; {sys.executable} {DAEMON} 1 600"
    with subprocess.Popen(
        command("--scope", "alloc_pipe_info", "--tree-timeout", "600", "--repeat", "5",
                "-o", "cut.kleak", "--json", "cut.json", "--", "sh", "-c", line),
        cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        while not (place / "daemons").exists():
            time.sleep(0.1)
        time.sleep(2)
        process.send_signal(number)
        process.communicate(timeout=100)
    assert process.returncode == (status or -number)
    found = read_session(place / "cut.kleak")
    assert found.trust.lost["cycles_cut_off"] == 4
    if status is not None:
        trust = json.loads((place / "cut.json").read_text())["trust"]
        assert (trust["complete"], lost_in(trust["lost"])) == (False, {"cycles_cut_off": 4})


def test_a_command_that_fails_ends_the_runs_and_that_is_incomplete(place: Path) -> None:
    scope = ("--scope", "do_signalfd4")
    result = run("--repeat", "3", *scope, "--json", "failed.json", "--", "false", cwd=place)
    assert result.returncode == 1
    trust = json.loads((place / "failed.json").read_text())["trust"]
    assert (trust["complete"], lost_in(trust["lost"])) == (False, {"cycles_cut_off": 2})


@pytest.mark.parametrize("name", ["-x", "--scope"])
def test_a_command_may_be_called_like_an_option(place: Path, name: str) -> None:
    (place / name).write_text("#!/bin/sh\necho $1\n")
    (place / name).chmod(0o700)
    environment = {**os.environ, "PATH": f"{place}:{os.environ['PATH']}"}
    result = run("--scope", "do_signalfd4", "--", name, "-y", cwd=place, env=environment)
    assert (result.returncode, result.stdout) == (0, "-y\n")


def test_arguments_and_names_that_are_no_text(place: Path) -> None:
    odd = os.fsdecode(b"\xff")
    result = run("--scope", odd, "--", "true", cwd=place)
    assert result.returncode == 2
    assert result.stderr == "kleak: no function of this kernel matches \\xff\n"

    (place / odd).write_text("#!/bin/sh\nexit 7\n")
    (place / odd).chmod(0o700)
    result = run("--scope", f"[!{odd}]o_signalfd4", "--", f"./{odd}", cwd=place)
    assert result.returncode == 7
    assert result.stderr.endswith("kleak: ./\\xff failed with exit status 7\n")

    holder = (
        "import ctypes, os, time\n"
        "if os.fork(): os._exit(0)\n"
        "os.closerange(0, 3)\n"
        "ctypes.CDLL(None).prctl(15, b'odd\\xff')\n"
        "kept = [os.pipe() for _ in range(5)]\n"
        "time.sleep(8)\n"
    )
    result = run("--scope", "alloc_pipe_info", "--by-process", "--tree-timeout", "2", "--",
                 sys.executable, "-c", holder, cwd=place)  # fmt: skip
    assert "had not ended" in " ".join(result.stderr.split())
    assert result.returncode in (0, 1), result.stderr


def test_what_the_caller_ignores_the_command_ignores(place: Path) -> None:
    line = (
        f"trap '' HUP; exec {sys.executable} -m kleak run --scope do_signalfd4 -- "
        "sh -c 'kill -HUP $PPID; grep SigIgn /proc/self/status'"
    )
    done = subprocess.run(
        ["/bin/sh", "-c", line], cwd=place, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1], 16) & 1 << signal.SIGHUP - 1


def test_a_closed_standard_error(place: Path) -> None:
    line = f"{sys.executable} -m kleak run --scope do_signalfd4 -- echo out 2>&-"
    done = subprocess.run(
        ["/bin/sh", "-c", line], cwd=place, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "out\n")


@pytest.mark.skipif(Path("/proc/modules").exists(), reason="needs a kernel without modules")
def test_a_kernel_that_takes_no_modules(tmp_path: Path) -> None:
    """As doctor says it, and status 3: nothing is wrong with the module."""
    done = subprocess.run(
        [sys.executable, "-m", "kleak", "module", "dummy"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr == (
        "kleak: no module can be loaded here: a kernel without modules; "
        "kleak vm --kernel 6.12 -- module ...\n"
    )


def test_progress_in_a_log_is_a_few_lines(place: Path) -> None:
    result = run("--scope", "do_signalfd4", "--repeat", "8", "--", "sleep", "2", cwd=place)
    lines = [line for line in result.stderr.splitlines() if line.startswith("progress: ")]
    assert 1 <= len(lines) <= 3
    assert re.fullmatch(r"progress: run [2-8] of 8.*", lines[0])


def test_module_that_is_not_loaded(tmp_path: Path) -> None:
    result = run("--module", "no_such", "--", "true", cwd=tmp_path)
    assert result.returncode == 4
    assert result.stderr == "kleak: module no_such is not loaded; kleak module loads it\n"


INOTIFY_INIT = 253  # x86-64
HOLD_INOTIFY = f"""
import ctypes, os, time
reader, writer = os.pipe()
if os.fork() == 0:
    call = ctypes.CDLL(None).syscall
    assert all(call({INOTIFY_INIT}) >= 0 for _ in range(31))
    with open("daemons", "w") as daemons:
        daemons.write(str(os.getpid()))
    null = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.write(writer, b"1")
    time.sleep(600)
os.close(writer)
assert os.read(reader, 1)
"""


def test_a_scope_by_another_name_of_a_function_is_found_on_stacks(place: Path) -> None:
    """The kernel's table has several names of one address; the scope's is the one to show."""
    scope = "__x64_sys_inotify_init"
    if read_kernel_table().ranges_of_glob("__do_sys_inotify_init") != (
        read_kernel_table().ranges_of_glob(scope)
    ):
        pytest.skip("this kernel's system calls have one name each")
    result = run(
        "--scope", scope, "--json", "report.json", "--", sys.executable, "-c", HOLD_INOTIFY,
        cwd=place,
    )  # fmt: skip
    assert result.returncode in (0, 1), result.stderr
    report = json.loads((place / "report.json").read_text())
    assert sum(site["outstanding"]["count"] == 31 for site in report["sites"]) >= 2
    for site in report["sites"]:
        assert scope in [frame["symbol"] for frame in site["frames"]]
        assert not [one for one in site["evidence"] if one["says"].startswith("no frame of")]
