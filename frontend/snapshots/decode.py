"""Bytes of any encoding as lines of plain text: the outermost layer of what somebody sent.

Undone here, for a text as a whole: UTF-16 and UTF-32 in either order, with or without a mark;
Latin-1; quoted-printable; HTML; terminal colours and overstriking; every kind of line end, of
space and of dash. What stands before and after the kernel's own words within a line is undone in
undress.py.
"""

from __future__ import annotations

import codecs
import html
import json
import quopri
import re
from collections.abc import Iterator
from dataclasses import dataclass

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # begins as UTF-16's does: it has to come first
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SNIFFED_BYTES = 4096
# A text in UTF-16 without a mark has a zero in nearly every second byte; so much of that half.
_ZERO_SHARE = 0.8

_LINE_END = re.compile(r"\r+\n|\n\r(?!\n)|\r|\u2028|\u2029")
_ESCAPE = re.compile(
    r"(?:\x1b|\^\[|\\e|\\033|\\x1b|\u241b)\[[0-9;?]*[A-Za-z]"  # CSI, also as cat -v shows it
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # OSC: titles, links
    r"|\x1b[()][0-9A-B]|\x1b[=>78cDEHM]|\x0e|\x0f"
)
_OVERSTRUCK = re.compile(r"[^\n]\x08")
_SPACES = {ord(c): " " for c in "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007"
           "\u2008\u2009\u200a\u202f\u205f\u3000"}  # fmt: skip
_NOTHING = dict.fromkeys(
    map(ord, "\0\u00ad\u200b\u200c\u200d\u200e\u200f\u2060\u2061\u2062\u2063\u202a\u202b\u202c"
             "\u202d\u202e\ufeff\x07"), None)  # fmt: skip
_TYPOGRAPHY = {
    **dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d"), "-"),
    0x2014: "--",
    **dict.fromkeys(map(ord, "\u2018\u2019\u201a\u2032\u02bc"), "'"),
    **dict.fromkeys(map(ord, "\u201c\u201d\u201e\u2033\u00ab\u00bb"), '"'),
    0x2026: "...",
    0x00D7: "x",
    0xFF1A: ":",
    0x2502: "|",
    0x2503: "|",
}
_CLEANED = str.maketrans({**_SPACES, **_NOTHING, **_TYPOGRAPHY})

_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
# Tags by name: "<active_objs>" and "[<ffffffff81174401>]" are the kernel's own.
_BREAK_TAG = re.compile(r"<(?:br|/p|/div|/tr|/li|/pre)\s*/?>", re.IGNORECASE)
_TAG = re.compile(
    r"</?(?:a|abbr|article|b|big|blockquote|body|code|dd|del|div|dl|dt|em|font|h[1-6]|head|hr|html"
    r"|i|img|ins|kbd|li|main|mark|meta|ol|p|pre|samp|section|small|span|strike|strong|sub|sup"
    r"|table|tbody|td|th|thead|title|tr|tt|u|ul|var)(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
_CELL_TAG = re.compile(r"</t[dh]\s*>", re.IGNORECASE)
_IS_HTML = re.compile(
    r"(?i)<(?:pre|code|html|body|br|p|div|span|td|blockquote|tt|samp)\b[^<>]*>|</(?:pre|code|span)>"
)

_QUOTED = re.compile(r"=[0-9A-F]{2}|=[ \t]*$", re.MULTILINE)
_QUOTED_FOR_SURE = re.compile(r"=3D|=C2=A0|=E2=80|=20$|=[ \t]*$", re.MULTILINE)
# The keys under which programs that log in JSON keep the line itself.
_JSON_KEYS = ("log", "MESSAGE", "message", "msg", "line", "text")


@dataclass(frozen=True, slots=True)
class TextLine:
    """A line of the text and its number in the file, from 1. One of the file may become several."""

    number: int
    text: str


def decode(data: bytes) -> str:
    """The text in ``data``. No byte is an error: what is no UTF-8 is read as Latin-1."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    guessed = _without_mark(data[:_SNIFFED_BYTES])
    if guessed is not None:
        return data.decode(guessed, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _decode_mixed(data)


def _decode_mixed(data: bytes) -> str:
    """Lines that are UTF-8 as such, the others as what Windows and old mail programs write."""
    lines = []
    for line in data.split(b"\n"):
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError:
            lines.append(line.decode("latin-1"))
    return "\n".join(lines)


def _without_mark(head: bytes) -> str | None:
    """The wide encoding that zero bytes give away, None where there is none."""
    size = len(head) // 4 * 4
    if size < 8:
        return None
    zeros = [head[offset:size:4].count(0) / (size // 4) for offset in range(4)]
    shares = {
        "utf-32-le": min(zeros[1:]) if zeros[0] < 1 - _ZERO_SHARE else 0.0,
        "utf-32-be": min(zeros[:3]) if zeros[3] < 1 - _ZERO_SHARE else 0.0,
        "utf-16-le": min(zeros[1], zeros[3]) if max(zeros[0], zeros[2]) < 0.2 else 0.0,
        "utf-16-be": min(zeros[0], zeros[2]) if max(zeros[1], zeros[3]) < 0.2 else 0.0,
    }
    best = max(shares, key=lambda name: shares[name])
    return best if shares[best] >= _ZERO_SHARE else None


def text_lines(data: bytes) -> Iterator[TextLine]:
    """The lines of ``data`` without encoding, mark-up and decoration, empty ones included."""
    text = decode(data)
    quoted = _is_quoted_printable(text)
    is_html = _IS_HTML.search(text) is not None
    pending, begun = "", 0
    # str.splitlines would also cut at form feeds, which stand inside names
    for number, line in enumerate(_LINE_END.sub("\n", text).split("\n"), 1):
        if quoted:
            body = line.rstrip(" \t")
            if body.endswith("="):
                begun = begun or number
                pending += body[:-1]
                continue
            line = quopri.decodestring((pending + line).encode()).decode("utf-8", "replace")
            number, begun, pending = begun or number, 0, ""
        for part in _parts(line, is_html=is_html):
            yield TextLine(number, part)
    if pending:
        yield TextLine(begun, pending)


def _is_quoted_printable(text: str) -> bool:
    """Whether every = of the text is an escape, and one at least that nothing else explains.

    "pages=20" looks like one: so all of them have to.
    """
    signs = text.count("=")
    if not signs or _QUOTED_FOR_SURE.search(text) is None:
        return False
    return len(_QUOTED.findall(text)) >= 0.9 * signs


def _parts(line: str, *, is_html: bool) -> Iterator[str]:
    if line.startswith("{") and line.rstrip().endswith("}"):
        message = _from_json(line)
        if message is not None:
            for part in message.rstrip("\n").split("\n"):
                yield _clean(part)
            return
    if not is_html:
        yield _clean(_unescape(line))
        return
    for part in _BREAK_TAG.sub("\n", line).split("\n"):
        yield _clean(_unescape(_TAG.sub("", _CELL_TAG.sub(" ", part))))


def _from_json(line: str) -> str | None:
    """The message of a log line in JSON, with its time before it where there is one."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if not isinstance(record, dict):
        return None
    message = next((record[key] for key in _JSON_KEYS if isinstance(record.get(key), str)), None)
    if message is None:
        return None
    stamp = record.get("time") or record.get("@timestamp") or record.get("ts")
    return f"{stamp} {message}" if isinstance(stamp, str) else message


def _unescape(line: str) -> str:
    # twice: what was escaped when it was written, and once more when it was shown
    for _ in range(2):
        if _ENTITY.search(line) is None:
            break
        line = html.unescape(line)
    return line


def _clean(line: str) -> str:
    if line.isascii() and line.isprintable():
        return _ESCAPE.sub("", line) if "[" in line and ("^[" in line or "\\" in line) else line
    while "\x08" in line and (shorter := _OVERSTRUCK.sub("", line, count=1)) != line:
        line = shorter
    line = _ESCAPE.sub("", line).removesuffix("^M")
    return line.translate(_CLEANED)
