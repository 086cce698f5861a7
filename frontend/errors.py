"""The errors that end a command with one line on standard error, and their exit statuses."""

from __future__ import annotations

from enum import IntEnum


class ExitStatus(IntEnum):
    """What a command that judges tells its caller.

    70 is EX_SOFTWARE of sysexits.h, for a defect of kleak itself. 130 is 128 + SIGINT, as shells
    expect it of a program that the user interrupted: neither "clean" nor "found" would be true.
    141 is 128 + SIGPIPE, what shells show for a program whose reader went away.
    """

    CLEAN = 0
    FOUND = 1
    USAGE = 2
    UNSUPPORTED = 3
    TARGET_FAILED = 4
    INCOMPLETE = 5
    INTERNAL = 70
    INTERRUPTED = 130
    CLOSED_PIPE = 141


class KleakError(Exception):
    """An expected failure. Its text is one line that says what is wrong and what mends it."""

    exit_status = ExitStatus.USAGE


class UsageError(KleakError):
    """The command line asks for something that makes no sense."""

    exit_status = ExitStatus.USAGE


class UnsupportedError(KleakError):
    """This machine cannot do it: privilege, kernel feature, missing package."""

    exit_status = ExitStatus.UNSUPPORTED


class TargetError(KleakError):
    """The target failed: the module does not load or unload, the command failed."""

    exit_status = ExitStatus.TARGET_FAILED


class IncompleteError(KleakError):
    """The result has losses and ``--strict`` was given."""

    exit_status = ExitStatus.INCOMPLETE


class StoppedError(KleakError):
    """The user ended it (SIGINT, or SIGTERM and SIGHUP, which are treated alike)."""

    exit_status = ExitStatus.INTERRUPTED


class StoppedWaitingError(StoppedError):
    """The user ended it after its last cycle, while it waited for late frees."""


class ClosedPipeError(KleakError):
    """Who read the output went away before its end (kleak ... | head)."""

    exit_status = ExitStatus.CLOSED_PIPE
