"""Reports read back: the JSON that kleak writes, or a saved session, judged again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kleak.analysis.judge import judge
from kleak.errors import UsageError
from kleak.model.report import (
    ClassGrowth,
    Evidence,
    Excuse,
    JudgedSite,
    MemoryAccount,
    Parent,
    Report,
    Verdict,
)
from kleak.model.session import Frame, Kernel, Source, StackSample, Tally, Target, Trust
from kleak.model.witnesses import WitnessState
from kleak.render.report_json import SCHEMA
from kleak.store.reader import read_session
from kleak.store.writer import is_session

_T = TypeVar("_T")
_VERDICTS = {verdict.label: verdict for verdict in Verdict}


def read_report(path: Path) -> Report:
    """Read a report that was written as JSON, or judge a session.

    Of what was merged or grouped only the sites come back. Raises UsageError where the file is
    neither, is damaged, or lacks sites that it had.
    """
    try:
        if is_session(path):
            return judge(read_session(path))
        text = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is neither a report in JSON nor a session: {error}") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema != SCHEMA:
        raise UsageError(f"{path}: its schema is {schema!r}, and {SCHEMA!r} is needed")
    try:
        if "not_shown" in document and _number(_object(document, "not_shown"), "sites"):
            raise UsageError(
                f"{path} lacks sites, which --top left out: make it again without --top"
            )
        return _report(document)
    except KeyError as error:
        raise UsageError(f"{path} is damaged: no key {error}") from error
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path} is damaged: {error}") from error


def _report(document: Any) -> Report:
    kernel, target, trust = (_object(document, key) for key in ("kernel", "target", "trust"))
    return Report(
        kernel=Kernel(_text(kernel, "release"), _text(kernel, "machine")),
        target=Target(
            _text(target, "kind"),
            _text(target, "name"),
            _maybe(_text, target, "path"),
            tuple(str(one) for one in _list(target, "parameters")),
            _maybe(_text, target, "version"),
            _maybe(_text, target, "build_id"),
        ),
        cycles=_number(document, "cycles"),
        trust=Trust(
            _numbers(trust, "lost"),
            _numbers(trust, "repaired"),
            _numbers(trust, "observed"),
            _texts(trust, "means"),
            {name: WitnessState.parse(state) for name, state in _texts(trust, "witnesses").items()},
            tuple(str(one) for one in _list(trust, "notes")),
        ),
        sites=tuple(_site(site) for site in _list(document, "sites")),
        memory=_memory(_object(document, "memory")) if "memory" in document else None,
    )


def _memory(found: dict[str, Any]) -> MemoryAccount:
    percent = found["explained_percent"]
    return MemoryAccount(
        None if percent is None else float(percent),
        tuple(
            ClassGrowth(
                _text(one, "name"),
                int(one["growth_bytes"]),
                int(one["held_bytes"]),
                _number(one, "noise_bytes"),
                bool(one["grew"]),
                bool(one["unexplained"]),
            )
            for one in _list(found, "classes")
        ),
    )


def _site(site: Any) -> JudgedSite:
    requested = _maybe(_number, site, "requested_bytes")
    per_cycle = _maybe(_list, site, "per_cycle")
    verdict = _text(site, "verdict")
    if verdict not in _VERDICTS:
        raise ValueError(f"no verdict is called {verdict!r}")
    return JudgedSite(
        rank=_number(site, "rank"),
        verdict=_VERDICTS[verdict],
        score=float(site["score"]),
        allocator=_text(site, "allocator"),
        outstanding=_tally(_object(site, "outstanding")),
        per_cycle=None if per_cycle is None else tuple(_tally(one) for one in per_cycle),
        frames=tuple(_frame(one) for one in _list(site, "frames")),
        evidence=tuple(
            Evidence(_text(one, "witness"), _text(one, "says"), float(one["weight"]))
            for one in _list(site, "evidence")
        ),
        requested_bytes=requested,
        allocator_frames=tuple(_frame(one) for one in _list(site, "allocator_frames")),
        parent=_parent(_object(site, "parent")) if "parent" in site else None,
        excuse=_excuse(_object(site, "excuse")) if "excuse" in site else None,
        stacks=_stacks(_object(site, "stacks")) if "stacks" in site else None,
    )


def _stacks(found: dict[str, Any]) -> StackSample:
    return StackSample(
        _frame(_object(found, "call_site")),
        _number(found, "walked"),
        _number(found, "different"),
        _number(found, "shown"),
    )


def _parent(found: dict[str, Any]) -> Parent:
    return Parent(_number(found, "rank"), _text(found, "by"), _text(found, "says"))


def _excuse(found: dict[str, Any]) -> Excuse:
    return Excuse(_text(found, "by"), _text(found, "says"))


def _tally(found: Any) -> Tally:
    return Tally(_number(found, "count"), _number(found, "bytes"))


def _frame(found: Any) -> Frame:
    source = _maybe(_object, found, "source")
    return Frame(
        _maybe(_text, found, "module"),
        _maybe(_text, found, "symbol"),
        _number(found, "offset"),
        None if source is None else Source(_text(source, "file"), _number(source, "line")),
    )


def _maybe(read: Callable[[Any, str], _T], found: Any, key: str) -> _T | None:
    """What ``read`` reads, or None where null stands."""
    return None if found[key] is None else read(found, key)


def _text(found: Any, key: str) -> str:
    value = found[key]
    if not isinstance(value, str):
        raise TypeError(f"{key} is no text: {value!r:.40}")
    return value


def _number(found: Any, key: str) -> int:
    value = found[key]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{key} is no number: {value!r:.40}")
    return value


def _list(found: Any, key: str) -> list[Any]:
    value = found[key]
    if not isinstance(value, list):
        raise TypeError(f"{key} is no list: {value!r:.40}")
    return value


def _object(found: Any, key: str) -> dict[str, Any]:
    value = found[key]
    if not isinstance(value, dict):
        raise TypeError(f"{key} is no object: {value!r:.40}")
    return value


def _numbers(found: Any, key: str) -> dict[str, int]:
    inner = _object(found, key)
    return {name: _number(inner, name) for name in inner}


def _texts(found: Any, key: str) -> dict[str, str]:
    inner = _object(found, key)
    return {name: _text(inner, name) for name in inner}
