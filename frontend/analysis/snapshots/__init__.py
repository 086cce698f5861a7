"""From snapshots of the kernel's text reports to suspects and a ranked report.

One module a report, each with one function ``judge(snapshots, places) -> list[Suspect]``.
Everything here is pure; kleak.snapshot_files reads the files.
"""
