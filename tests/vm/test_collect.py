"""Snapshots taken in a guest, by busybox ash alone and by kleak, and analysed outside it.

tests/modules/classic leaks 17 vmalloc regions of 40000 bytes, 1009 objects of kmalloc-2k and 127
blocks of 4 pages at each load. No BPF is involved.
"""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from kleak.commands.analyze import analyze
from kleak.commands.triage import triage
from kleak.snapshots.collect import script
from kleak.snapshots.snapshot_files import read_snapshots
from tests.support.guest import Guest, GuestJob
from tests.support.paths import TOP

SCRIPT = TOP / "frontend" / "snapshots" / "collect.sh"
LOADS = 4

# Only busybox's applets from here on: what a board has that has nothing else.
BUSYBOX = f"""
/usr/bin/busybox mkdir applets && /usr/bin/busybox --install -s applets || exit 90
PATH=$PWD/applets
export PATH
umount /sys/kernel/debug/tracing 2>/dev/null; umount /sys/kernel/debug
state() {{ cat /proc/sys/kernel/kptr_restrict; sort /proc/mounts; }}
state >state-before
collect="ash {SCRIPT}"
"""

LEAK = f"""
{BUSYBOX}
$collect --drop-caches snaps || exit 91
for load in 1 2 3 4; do
    insmod $1 vmalloc=17 kmalloc=1009 pages=127 || exit 92
    [ $load = 1 ] && $collect --drop-caches snaps
    rmmod classic || exit 93
    $collect --drop-caches snaps || exit 94
done
state >state-after
mount -t debugfs debugfs /sys/kernel/debug
rm -r applets
"""

SETTINGS = f"""
{BUSYBOX}
echo 2 >/proc/sys/kernel/kptr_restrict
state >state-before
$collect --tar tars || exit 91
state >state-after
$collect --drop-caches killed & job=$!
sleep 0.5
kill -TERM $job; wait $job; echo $? >status
ls killed >left
state >state-killed
echo 0 >/proc/sys/kernel/kptr_restrict
mkdir /tmp/collected-by-nobody && chmod 777 /tmp/collected-by-nobody
su -s "$PATH/ash" nobody -c "PATH=$PATH ash {SCRIPT} /tmp/collected-by-nobody" || exit 92
cp -r /tmp/collected-by-nobody nobody
rm -r /tmp/collected-by-nobody
mount -t debugfs debugfs /sys/kernel/debug
rm -r applets
"""

JOBS = [
    GuestJob("collect-script", ["sh", "-c", LEAK, "sh", "{classic.ko}"]),
    GuestJob("collect-settings", ["sh", "-c", SETTINGS]),
    GuestJob("collect-python", ["sh", "-c", 'cat /proc/sys/kernel/kptr_restrict >before; '
        'python3 -m kleak collect --drop-caches snaps; echo $? >status; '
        "cat /proc/sys/kernel/kptr_restrict >after"]),
]  # fmt: skip


def test_the_script_finds_a_planted_vmalloc_leak(guest: Guest, tmp_path: Path) -> None:
    job = guest["collect-script"]
    assert job.status == 0, job.stderr
    report_file = tmp_path / "report.json"
    arguments = [str(job.file("snaps")), "--json", str(report_file)]
    result = CliRunner().invoke(analyze, arguments, standalone_mode=False)
    assert result.exception is None, result.output
    assert result.return_value == 1
    report = json.loads(report_file.read_text())
    assert report["kernel"]["release"] == guest.release
    assert report["trust"]["complete"]
    site = report["sites"][0]
    assert site["verdict"] in ("likely", "confirmed")
    assert site["allocator"] == "vmalloc"
    assert site["outstanding"] == {"count": 17 * LOADS, "bytes": 17 * LOADS * 45056}
    # loaded, unloaded (nothing new), then one load after the other
    assert [step["count"] for step in site["per_cycle"]] == [17, 0, 17, 17, 17]
    frame = site["frames"][0]
    assert (frame["module"], frame["symbol"]) == ("classic", "classic_leak_vmalloc")
    # nothing else is likely: the slab growth names no code, the stacks of tasks are no leak
    assert [s["allocator"] for s in report["sites"] if s["verdict"] in ("likely", "confirmed")] == [
        "vmalloc"
    ]


def test_the_classes_of_memory_that_leak_grow_and_no_other(guest: Guest) -> None:
    from kleak.snapshots.witnesses.meminfo import follow

    shots = read_snapshots([guest["collect-script"].file("snaps")])
    # the second was taken while the module was loaded: each of the others is one load further
    trends = follow([shots[0], *shots[2:]])
    assert trends is not None
    growing = {item.name for item in trends.classes if item.owner == "kernel" and item.grows}
    assert growing == {"SUnreclaim", "VmallocUsed", "unaccounted"}
    vmalloc = trends.get("VmallocUsed")
    assert vmalloc is not None
    assert 0.9 <= vmalloc.trend.per_step / (17 * 10 * 4096) <= 1.3
    pages = trends.get("unaccounted")
    assert pages is not None
    assert 0.8 <= pages.trend.per_step / (127 * 4 * 4096) <= 1.3


def test_the_script_leaves_the_machine_as_it_was(guest: Guest) -> None:
    for name in ("collect-script", "collect-settings"):
        job = guest[name]
        assert job.status == 0, job.stderr
        before = job.file("state-before").read_text()
        assert "/sys/kernel/debug debugfs" not in before
        assert job.file("state-after").read_text() == before
    killed = guest["collect-settings"]
    assert killed.file("status").read_text() == "143\n"
    assert killed.file("state-killed").read_text() == killed.file("state-before").read_text()
    assert killed.file("left").read_text() == ""


def test_a_tar_is_a_snapshot_with_real_addresses_though_they_were_forbidden(guest: Guest) -> None:
    [shot] = read_snapshots([guest["collect-settings"].file("tars")])
    assert shot.kernel is not None
    assert shot.kernel.release == guest.release
    assert shot.vmallocinfo is not None
    assert {kind.value for kind in shot.vmallocinfo.address_kinds} == {"real"}
    assert shot.module_symbols
    assert shot.missing["kmemleak"] == "absent"


def test_without_privilege_it_says_what_was_refused(guest: Guest) -> None:
    [shot] = read_snapshots([guest["collect-settings"].file("nobody")])
    assert shot.meminfo is not None
    assert shot.vmallocinfo is None
    assert shot.missing["vmallocinfo"] == "refused: Permission denied"
    assert shot.missing["slabinfo"] == "refused: Permission denied"


def test_kleak_collect_makes_the_same_snapshot_as_the_script(guest: Guest) -> None:
    job = guest["collect-python"]
    assert job.file("status").read_text() == "0\n", job.stderr
    assert job.file("before").read_text() == job.file("after").read_text()

    def manifest(path: Path) -> dict[str, str]:
        lines = (path / "001" / "manifest").read_text().splitlines()
        return dict(line.split(": ", 1) for line in lines)

    by_script = manifest(guest["collect-script"].file("snaps"))
    by_kleak = manifest(job.file("snaps"))
    assert set(by_kleak) == set(by_script)
    for key in by_script:
        if key.startswith("report ") or key in ("kernel", "machine", "boot_id", "addresses", "uid"):
            assert by_kleak[key] == by_script[key], key


def test_triage_points_at_the_regions_of_an_unloaded_module(guest: Guest) -> None:
    snaps = str(guest["collect-script"].file("snaps"))
    result = CliRunner().invoke(triage, [snaps], standalone_mode=False)
    assert result.exception is None
    assert "ABNORMAL vmallocinfo: 68 regions" in result.output


def test_the_script_that_is_printed_is_the_one_that_was_run() -> None:
    assert script() == SCRIPT.read_text()
