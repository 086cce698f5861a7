"""Reports read back: the JSON that kleak writes, or a saved session, judged again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from kleak.analysis.error_paths import conclude
from kleak.commands.error_paths_file import read_error_paths, read_injected
from kleak.commands.json_fields import frame, items, maybe, number, numbers, table, text, texts
from kleak.errors import UsageError
from kleak.files.input_files import read_input
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
from kleak.model.session import Kernel, StackSample, Tally, Target, Trust
from kleak.model.witnesses import WitnessState
from kleak.render.report_json import SCHEMA
from kleak.store.header import is_session
from kleak.store.reader import read_session

_T = TypeVar("_T")
_MOST_BYTES = 64 << 20
_VERDICTS = {verdict.label: verdict for verdict in Verdict}


def read_report(path: Path) -> Report:
    """Read a report that was written as JSON, or judge a session.

    Of what was merged or grouped only the sites come back. Raises UsageError where the file is
    neither, is damaged, or lacks sites that it had.
    """
    try:
        if is_session(path):
            return conclude(read_session(path))
        text = read_input(path, _MOST_BYTES)
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
        if "not_shown" in document and number(table(document, "not_shown"), "sites"):
            raise UsageError(
                f"{path} lacks sites, which --top left out: make it again without --top"
            )
        return _report(document)
    except KeyError as error:
        raise UsageError(f"{path} is damaged: no key {error}") from error
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path} is damaged: {error}") from error


def _report(document: Any) -> Report:
    kernel, target, trust = (table(document, key) for key in ("kernel", "target", "trust"))
    return Report(
        kernel=Kernel(text(kernel, "release"), text(kernel, "machine")),
        target=Target(
            text(target, "kind"),
            text(target, "name"),
            maybe(text, target, "path"),
            tuple(str(one) for one in items(target, "parameters")),
            maybe(text, target, "version"),
            maybe(text, target, "build_id"),
        ),
        cycles=number(document, "cycles"),
        trust=Trust(
            numbers(trust, "lost"),
            numbers(trust, "repaired"),
            numbers(trust, "observed"),
            texts(trust, "means"),
            {name: WitnessState.parse(state) for name, state in texts(trust, "witnesses").items()},
            tuple(str(one) for one in items(trust, "notes")),
        ),
        sites=tuple(_site(site) for site in items(document, "sites")),
        memory=_memory(table(document, "memory")) if "memory" in document else None,
        error_paths=read_error_paths(document),
    )


def _memory(found: dict[str, Any]) -> MemoryAccount:
    percent = found["explained_percent"]
    return MemoryAccount(
        None if percent is None else float(percent),
        tuple(
            ClassGrowth(
                text(one, "name"),
                int(one["growth_bytes"]),
                int(one["held_bytes"]),
                number(one, "noise_bytes"),
                bool(one["grew"]),
                bool(one["unexplained"]),
            )
            for one in items(found, "classes")
        ),
    )


def _site(site: Any) -> JudgedSite:
    requested = maybe(number, site, "requested_bytes")
    per_cycle = maybe(items, site, "per_cycle")
    verdict = text(site, "verdict")
    if verdict not in _VERDICTS:
        raise ValueError(f"no verdict is called {verdict!r}")
    return JudgedSite(
        rank=number(site, "rank"),
        verdict=_VERDICTS[verdict],
        score=float(site["score"]),
        allocator=text(site, "allocator"),
        outstanding=_tally(table(site, "outstanding")),
        per_cycle=None if per_cycle is None else tuple(_tally(one) for one in per_cycle),
        frames=tuple(frame(one) for one in items(site, "frames")),
        evidence=tuple(
            Evidence(text(one, "witness"), text(one, "says"), float(one["weight"]))
            for one in items(site, "evidence")
        ),
        requested_bytes=requested,
        allocator_frames=tuple(frame(one) for one in items(site, "allocator_frames")),
        parent=_parent(table(site, "parent")) if "parent" in site else None,
        excuse=_excuse(table(site, "excuse")) if "excuse" in site else None,
        stacks=_stacks(table(site, "stacks")) if "stacks" in site else None,
        injected=read_injected(site),
    )


def _stacks(found: dict[str, Any]) -> StackSample:
    return StackSample(
        frame(table(found, "call_site")),
        number(found, "walked"),
        number(found, "different"),
        number(found, "shown"),
    )


def _parent(found: dict[str, Any]) -> Parent:
    return Parent(number(found, "rank"), text(found, "by"), text(found, "says"))


def _excuse(found: dict[str, Any]) -> Excuse:
    return Excuse(text(found, "by"), text(found, "says"))


def _tally(found: Any) -> Tally:
    return Tally(number(found, "count"), number(found, "bytes"))
