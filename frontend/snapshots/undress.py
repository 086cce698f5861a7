"""What stands around the kernel's words within a line: loggers, quotes, bullets, prompts.

``peel()`` takes one layer off after the other, from the outside, so that whoever looks for a
report can stop at the first layer in which it reads one: what is a prefix in one line is the
report itself in another ("/sys/kernel/slab/kmalloc-2k/objects:3300000", "12:30 up 3 days").
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_MAX_LAYERS = 12
_DAYS = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTHS = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_CLOCK = r"\d{1,2}:\d\d:\d\d(?:[.,]\d+)?"
_ISO = rf"(?:{_DAYS}[ ])?\d{{4}}-\d\d-\d\d[T ]{_CLOCK}(?:[ ]?(?:Z|UTC|GMT|[+-]\d\d:?\d\d))?"
# date(1) in the C locale and in the others' usual forms, also with AM and PM
_DATE = (
    rf"{_DAYS},?[ ]+(?:{_MONTHS}[ ]+\d{{1,2}}|\d{{1,2}}[ ]+{_MONTHS}(?:[ ]+\d{{4}})?)[ ]+{_CLOCK}"
    r"(?:[ ][AP]M)?(?:[ ][A-Z]{2,5}|[ ][+-]\d{2,4})?(?:[ ]+\d{4})?"
)
_ANY_TIME = rf"(?:{_ISO}|{_DATE})"

# A line that is a time and nothing more: what a loop prints before each reading.
_TIME_ALONE = re.compile(
    rf"(?:[-=#*_+~ ]*)(?:date|time|timestamp|at|taken)?[:= ]*(?P<time>{_ANY_TIME}"
    rf"|\d{{1,2}}[./]\d{{1,2}}[./]\d{{2,4}},?[ ]{_CLOCK}|{_CLOCK}|\d{{10}}(?:\.\d+)?"
    rf"|\d{{4}}[-/]\d\d[-/]\d\d[-_ T]\d\d[:.-]?\d\d(?:[:.-]?\d\d)?)[-=#*_+~: ]*",
    re.IGNORECASE,
)
# watch(1) has the time at the end of its first line.
_WATCH = re.compile(r"Every \d+[.,]\d+s: (?P<command>.*?)(?:\s{2,}\S*:?\s*(?P<time>\S.*))?")
_COMMAND_PROMPT = re.compile(
    r"(?:\[?[\w.+-]+@[\w.-]+(?:[: ][^\]#$%>]*)?\]?[#$%>]"  # root@box:~#, [root@box ~]#
    r"|[~/][\w./-]*[ ]?[#$%]|[A-Za-z][\w.-]*[#$>]|[#$%>]|crash>|sh(?:-\d[\d.]*)?[#$])"
    r"[ ]+(?P<command>(?:sudo[ ]|su[ ]|adb[ ]|watch[ ]|while[ ]|for[ ])*(?:cat|grep|egrep|head|tail"
    r"|sort|awk|sed|less|more|dmesg|journalctl|slabtop|free|top|ps|smem|kmem|vmstat|date|echo"
    r"|uname|lsmod|page_owner_sort|\./page_owner_sort|slabinfo|\./slabinfo|memleak\S*"
    r"|\S*/memleak\S*|bpftrace|zcat|logread|tee|od|cp|ls|adb|ssh|kubectl|docker|watch|mount|\./\S+)"
    r"(?:[ ].*|$))"
)
_BARE_PROMPT = re.compile(
    r"(?:\[?[\w.+-]+@[\w.-]+(?:[: ][^\]#$%>]*)?\]?[#$%>]|[~/][\w./-]*[ ]?[#$%]|[#$%]|crash>)[ ]*"
)

_SECONDS = r"\[[ ]*(?P<seconds>\d+\.\d{3,})(?:@\d+|[ ]+<[ ]*[\d.+-]+>)?\]"
_CALLER = r"(?:[ ]?\[[ ]*[TC]\d+\]|\(\d+\)\[\d+:[^\]]*\])*"
_FACILITY = r"(?:kern|user|mail|daemon|auth|syslog|lpr|news|uucp|cron|authpriv|ftp|local\d)"
_LEVEL = (
    r"(?:emerg|alert|crit|err|error|warn|warning|notice|info|debug|EMERG|ALERT|CRIT|ERR|ERROR"
    r"|WARN|WARNING|NOTICE|INFO|DEBUG|[EWIDVF])"
)
# A prefix that says that the line went through a log: its name begins with "log".
_LAYERS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern))
    for name, pattern in (
        ("log_kmsg", r"(?P<priority>\d{1,4}),\d+,(?P<micros>\d+),[^;]{0,80};"),
        ("log_5424", rf"<\d{{1,3}}>1[ ](?P<time>{_ISO})[ ]\S+[ ]\S+[ ]\S+[ ]\S+[ ]"
                     r"(?:-|(?:\[[^\]]*\])+)[ ]?"),
        ("log_priority", r"<(?P<priority>\d{1,3})>[ ]?"),
        ("log_dmesg_x", rf"{_FACILITY}[ ]*:[ ]?{_LEVEL}[ ]*:[ ]?"),
        ("log_seconds", rf"{_SECONDS}{_CALLER}[ ]?(?:c\d[ ]+\d*[ ]?)?"),
        ("log_dmesg_T", rf"\[[^\]\[<>]{{0,16}}?(?P<time>{_DATE}|{_ISO})\]{_CALLER}[ ]?"),
        # other languages' names of days and months
        ("log_dmesg_T", r"\[\w{2,6}\.?[ ]+(?:\w{3,9}\.?[ ]+\d{1,2}|\d{1,2}\.?[ ]+\w{3,9}\.?)"
                        rf"[ ]+(?P<time>{_CLOCK})(?:[ ]+\d{{4}})?\]{_CALLER}[ ]?"),
        ("log_dmesg_H", rf"\[(?:{_MONTHS}[ ]?\d{{1,2}}[ ]\d\d:\d\d|[ ]*[+<][ ]*\d+\.\d+>?)\]"
                        rf"{_CALLER}[ ]?"),
        ("log_clock", rf"\[(?P<time>{_CLOCK})\][ ]?"),
        ("log_caller", r"\[[ ]*[TC]\d+\][ ]?"),
        # ISO with a comma is dmesg --time-format iso
        ("log_logread", rf"(?P<time>{_DATE})[ ]{_FACILITY}\.{_LEVEL}[ ](?:kernel|\S+\[\d+\]):[ ]?"),
        ("log_kernel", r"(?:[\w.-]+[ ])?kernel(?:\[\d+\])?:[ ]?"),
        ("log_ident", r"[\w./@-]+\[\d+\]:[ ]?"),
        ("log_logcat", rf"\d\d-\d\d[ ]{_CLOCK}(?:[ ]+\d+){{0,2}}[ ]+[VDIWEF][ /](?:\(?[ ]*\d*\)?)?"
                       r"\S*[ ]*(?:\([ ]*\d+\))?:[ ]?"),
        ("log_cri", rf"(?P<time>{_ISO})[ ](?:stdout|stderr)[ ][FP][ ]"),
        ("log_stamp", rf"(?P<time>{_ISO}|{_DATE}|{_MONTHS}[ ]+\d{{1,2}}(?:[ ]\d{{4}})?[ ]{_CLOCK}"
                      r"|\d{10}\.\d+)[ :|]{1,3}"),
        ("log_stamp", rf"\[(?P<time>\d{{4}}[-/]\d\d[-/]\d\d[T ]{_CLOCK}[^\]]{{0,8}})\][ ]?"),
        ("log_stamp", rf"(?P<time>{_CLOCK})[ ]+(?:\|[ ]?)?"),
        ("log_kmemleak", r"kmemleak:[ ]"),
        ("log_level", rf"{_FACILITY}\.{_LEVEL}[ ]+"),
        ("after_host", r"[\w./@-]+:[ ]"),
        ("after_time", r"[\w.:-]+[ ]+"),
        ("quote", r"(?:[A-Za-z]{0,4}(?:>[ ]?)+|[|!][ ]?|[}%][ ])"),
        ("bullet", r"(?:[-*+•◦‣][ ]+|\d{1,3}[.)][ ]+|\(\d{1,3}\)[ ]+|//[ ]?|;[ ]+)"),
        ("bold", r"(?:\*\*|__|`{1,3}|~~|\*(?=\S))"),
        ("diff", r"[+-](?=[A-Za-z_])"),
        ("prefix", r"\[[\w./@:-]+\][ ]+"),  # kubectl --prefix, stern, tio
        ("prefix", r"[\w./@-]+[ ]*\|[ ]?"),  # docker compose, xargs, "node-1 | "
        ("file", r"(?:[\w.-]*/)*[\w.+-]+:(?:\d+:)?[ ]?(?=\S)"),  # grep's file names, pdsh's hosts
        ("number", r"\d{1,7}(?:\t|:|[ ]\|)[ ]?"),  # cat -n, grep -n
        ("prompt", r"(?:\[?[\w.+-]+@[\w.-]+(?:[: ][^\]#$%>]*)?\]?[#$%>]|crash>)[ ]*"),
    )
)  # fmt: skip
# A host's name is any word, and a program's too: only a time before them tells.
_ONLY_BEHIND = {"after_time": "log_stamp", "after_host": "after_time"}
_TAIL = re.compile(
    r"\s*(?:\*\*|__|`+|~~|\\|<br\s*/?>|<[-=]{2,}.*|[-=]{2,}>.*|<<+.*|<==.*|\[snip\].*|!!+|\|)\s*$"
)
_FENCE = re.compile(
    r"(?:`{3,}|~{3,})[\w+-]*|\[/?(?:code|quote|pre|noformat)[^\]]*\]"
    r"|\{(?:code|noformat|quote)[^}]*\}"
)


@dataclass(frozen=True, slots=True)
class Layer:
    """A line with some layers taken off, and what these told.

    ``logged`` is whether one of them was a logger's. ``seconds`` is since boot, ``severity``
    as in include/linux/kern_levels.h, ``time`` as printed; None where no layer tells.
    """

    text: str
    logged: bool = False
    seconds: float | None = None
    severity: int | None = None
    time: str | None = None
    name: str = ""


def peel(line: str) -> Iterator[Layer]:
    """The line, then what is left of it under each layer. Blanks at either end are no layer."""
    layer = Layer(line.strip())
    yield layer
    for _ in range(_MAX_LAYERS):
        inner = _take_one(layer)
        if inner is None:
            return
        layer = inner
        yield layer


def _take_one(layer: Layer) -> Layer | None:
    for name, pattern in _LAYERS:
        if _ONLY_BEHIND.get(name, layer.name) != layer.name:
            continue
        match = pattern.match(layer.text)
        if match is None or not match.end():
            continue
        told = match.groupdict()
        logged = layer.logged or name.startswith("log")
        seconds, severity, time = layer.seconds, layer.severity, layer.time
        if told.get("seconds"):
            seconds = float(told["seconds"])
        if told.get("micros"):
            seconds = int(told["micros"]) / 1e6
        if told.get("priority"):
            severity = int(told["priority"]) % 8
        time = told.get("time") or time
        rest = layer.text[match.end() :].strip()
        if not rest:
            return None
        if name == "bold":
            rest = rest.removesuffix(match[0]).rstrip()
        return Layer(rest, logged, seconds, severity, time, name)
    return None


def without_tail(text: str) -> str:
    """The text without a remark, an arrow or mark-up behind it: "6800000 kB <----"."""
    match = _TAIL.search(text)
    return text if match is None else text[: match.start()].rstrip()


def time_alone(text: str) -> str | None:
    """The time that a line consists of, None where it is something else."""
    match = _TIME_ALONE.fullmatch(text)
    return None if match is None else match["time"]


def watch_head(text: str) -> tuple[str, str | None] | None:
    """Command and time of the line that watch(1) prints first."""
    match = _WATCH.fullmatch(text)
    return None if match is None else (match["command"], match["time"])


def command(text: str) -> str | None:
    """The command behind a shell prompt, "" for a prompt alone, None for anything else."""
    match = _COMMAND_PROMPT.fullmatch(text)
    if match is not None:
        return match["command"]
    return "" if _BARE_PROMPT.fullmatch(text) else None


def is_fence(text: str) -> bool:
    """Whether the line is mark-up alone: a fence of code, BBCode, Jira."""
    return _FENCE.fullmatch(text) is not None
