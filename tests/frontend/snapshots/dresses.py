"""Ways in which a report is dressed on its way from a kernel to whoever reads it."""

from __future__ import annotations

import html
import json
import quopri
from collections.abc import Callable

Dress = Callable[[str], str]


def _each(before: str, after: str = "") -> Dress:
    return lambda text: "".join(f"{before}{line}{after}\n" for line in text.splitlines())


PREFIXES: dict[str, Dress] = {
    "none": lambda text: text,
    "dmesg": _each("[  123.456789] "),
    "dmesg caller": _each("[  123.456789][ T1234] "),
    "dmesg caller apart": _each("[  123.456789] [   T1234] "),
    "dmesg -T": _each("[Mon Jan  1 12:00:00 2024] "),
    "dmesg -x": _each("kern  :warn  : [  123.456789] "),
    "dmesg iso": _each("2024-01-01T12:00:00,123456+00:00 "),
    "raw priority": _each("<4>[  123.456789] "),
    "kmsg": _each("4,1234,123456789,-;"),
    "journal": _each("Jan 01 12:00:00 box kernel: "),
    "journal precise": _each("Jan 01 12:00:00.123456 box kernel: "),
    "journal iso": _each("2024-01-01T12:00:00+0100 box kernel: "),
    "journal full": _each("Mon 2024-01-01 12:00:00 UTC box kernel: "),
    "journal monotonic": _each("[  123.456789] box kernel: "),
    "journal of a program": _each("Jan 01 12:00:00 box dump.sh[4711]: "),
    "syslog": _each("Jan  1 12:00:00 box kernel: [  123.456789] "),
    "syslog without host": _each("Jan  1 12:00:00 kernel: [  123.456789] "),
    "syslog 5424": _each("<4>1 2024-01-01T12:00:00.123456Z box kernel - - - [  123.456789] "),
    "logread": _each("Mon Jan  1 12:00:00 2024 kern.warn kernel: [  123.456789] "),
    "busybox syslogd": _each("Jan  1 12:00:00 box kern.warn kernel: [  123.456789] "),
    "docker": _each("2024-01-01T12:00:00.123456789Z "),
    "cri": _each("2024-01-01T12:00:00.123456789+00:00 stdout F "),
    "docker json": lambda text: "".join(
        json.dumps({"log": f"{line}\n", "stream": "stdout", "time": "2024-01-01T12:00:00.1Z"})
        + "\n"
        for line in text.splitlines()
    ),
    "compose": _each("board-1  | "),
    "kubectl prefix": _each("[pod/board-0/main] "),
    "ts": _each("[2024-01-01 12:00:00] "),
    "clock": _each("12:00:00.123 "),
    "logcat": _each("01-01 12:00:00.123     0     0 W kernel  : "),
}
QUOTES: dict[str, Dress] = {
    "none": lambda text: text,
    "quoted": _each("> "),
    "quoted twice": _each("> > "),
    "quoted tight": _each(">>"),
    "pipe": _each("| "),
    "indented": _each("        "),
    "tab": _each("\t"),
    "bullets": _each(" * "),
    "fence": lambda text: f"Hello,\n\n```text\n{text}```\n\nregards\n",
    "bbcode": lambda text: f"[code]\n{text}[/code]\n",
    "trailing blanks": _each("", "   "),
    "prompt": lambda text: f"root@box:~# cat it\n{text}root@box:~# \n",
    "colours": _each("\x1b[1;31m", "\x1b[0m"),
    "no-break spaces": lambda text: text.replace("  ", "\u00a0 "),
    "html": lambda text: f"<html><body><pre>{html.escape(text)}</pre></body></html>\n",
    "entities": html.escape,
    "quoted-printable": lambda text: quopri.encodestring(text.encode()).decode(),
    "flowed": lambda text: "".join(f" {line}\n" for line in text.splitlines()),
    "grep -n": lambda text: "".join(f"{n}:{line}\n" for n, line in enumerate(text.splitlines(), 1)),
    "cat -n": lambda text: "".join(
        f"{n:6}\t{line}\n" for n, line in enumerate(text.splitlines(), 1)
    ),
}
ENCODINGS: dict[str, Callable[[str], bytes]] = {
    "utf-8": lambda text: text.encode(),
    "utf-8 with mark": lambda text: text.encode("utf-8-sig"),
    "utf-16": lambda text: text.encode("utf-16"),
    "utf-16-le": lambda text: text.encode("utf-16-le"),
    "utf-16-be": lambda text: text.encode("utf-16-be"),
    "utf-32": lambda text: text.encode("utf-32"),
    "utf-32-be": lambda text: text.encode("utf-32-be"),
    "dos": lambda text: text.replace("\n", "\r\n").encode(),
    "serial": lambda text: text.replace("\n", "\r\r\n").encode(),
    "mac": lambda text: text.replace("\n", "\r").encode(),
    "no last newline": lambda text: text.rstrip("\n").encode(),
    "latin-1 beside it": lambda text: f"gr\u00fc\u00dfe\n\n{text}".encode("latin-1", "replace"),
}


def wrap(text: str, width: int) -> str:
    """As a mail program wraps: at the last blank that fits, which it eats."""
    lines = []
    for line in text.splitlines():
        while len(line) > width and " " in line[1:width].strip():
            at = line.rfind(" ", 0, width + 1)
            if not line[:at].strip():
                break
            lines.append(line[:at])
            line = line[at + 1 :]
        lines.append(line)
    return "".join(f"{line}\n" for line in lines)
