"""The report as a pprof profile: profile.proto, gzipped, for ``pprof`` and Pyroscope."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from typing import Any

from kleak.model.report import JudgedSite, Report
from kleak.model.session import Frame
from kleak.render.escape import printable
from kleak.render.profile_proto import profile_class
from kleak.render.renderer import Look, Material, Renderer
from kleak.render.sentences import kernels
from kleak.render.stack_text import whole_stack
from kleak.wording import counted

SAMPLE_TYPES = (("outstanding_objects", "count"), ("outstanding_space", "bytes"))
KERNEL = "vmlinux"


def render(material: Material, look: Look) -> bytes:
    """One sample a site, with its objects and bytes, and its verdict and allocator as labels.

    So is why it is no finding by itself, where it is none: "parent" and "excuse" say by what; and
    which call failed on purpose, "injected".

    Each module is a mapping with its build-id. Addresses are 0: a module lies elsewhere at each
    load, and the frames are named.
    """
    profile = _Profile(material.report, _build_ids(material))
    started = [capture.session.circumstances.started_at for capture in material.captures]
    known = [moment for moment in started if moment is not None]
    if known:
        profile.message.time_nanos = int(min(known) * 1e9)
    for site in material.report.sites:
        profile.add_sample(
            [profile.location(frame) for frame in whole_stack(site)],
            (site.outstanding.count, site.outstanding.size_bytes),
            _labels(site),
        )
    # Without a time, so that the same report gives the same file.
    return gzip.compress(profile.message.SerializeToString(deterministic=True), mtime=0)


def _labels(site: JudgedSite) -> dict[str, str]:
    labels = {"verdict": site.verdict.label, "allocator": printable(site.allocator)}
    if site.parent is not None:
        labels["parent"] = site.parent.by
    if site.excuse is not None:
        labels["excuse"] = site.excuse.by
    if site.injected is not None:
        labels["injected"] = printable(site.injected.when)
    return labels


def _build_ids(material: Material) -> Mapping[str | None, str]:
    """Build-ids by module, None for the kernel; those of the newest capture if they differ."""
    found: dict[str | None, str] = {}
    for capture in material.captures:
        found.update(capture.session.circumstances.build_ids)
        target, kernel = capture.report.target, capture.report.kernel
        if target.kind == "module" and target.build_id is not None:
            found[target.name] = target.build_id
        if kernel.build_id is not None:
            found[None] = kernel.build_id
    return found


class _Profile:
    """A profile with its tables of strings, mappings, functions and locations."""

    def __init__(self, report: Report, build_ids: Mapping[str | None, str]) -> None:
        self.message = profile_class()()
        self._build_ids = build_ids
        self._strings: dict[str, int] = {}
        self._mappings: dict[str | None, int] = {}
        self._functions: dict[tuple[str, str], int] = {}
        self._locations: dict[tuple[Frame, int], int] = {}
        self._string("")  # the format wants it first
        for kind, unit in SAMPLE_TYPES:
            self.message.sample_type.add(type=self._string(kind), unit=self._string(unit))
        self.message.default_sample_type = self._string(SAMPLE_TYPES[1][0])
        self.message.comment.append(
            self._string(
                printable(f"kleak: {report.target.name}, {report.cycles} cycles, {kernels(report)}")
            )
        )
        if report.not_shown:
            left_out = f"{len(report.not_shown)} more sites are not in this profile"
            self.message.comment.append(self._string(left_out))
        if not report.trust.complete:
            lost = printable(", ".join(counted(report.trust.lost)))
            self.message.comment.append(self._string(f"INCOMPLETE, lost: {lost}"))
        self._mapping(None)  # pprof takes the first one for the main binary

    def add_sample(
        self, locations: list[int], values: tuple[int, int], labels: Mapping[str, str]
    ) -> None:
        """Add a stack, innermost location first."""
        sample: Any = self.message.sample.add(location_id=locations, value=values)
        for key, text in labels.items():
            sample.label.add(key=self._string(key), str=self._string(text))

    def location(self, frame: Frame) -> int:
        """Return the id of the location of a frame."""
        line = 0 if frame.source is None else frame.source.line
        key = (frame, line)
        number = self._locations.get(key)
        if number is None:
            number = self._locations[key] = len(self._locations) + 1
            location = self.message.location.add(id=number, mapping_id=self._mapping(frame.module))
            location.line.add(function_id=self._function(frame), line=line)
        return number

    def _string(self, text: str) -> int:
        number = self._strings.setdefault(text, len(self._strings))
        if number == len(self.message.string_table):
            self.message.string_table.append(text)
        return number

    def _mapping(self, module: str | None) -> int:
        number = self._mappings.get(module)
        if number is None:
            number = self._mappings[module] = len(self._mappings) + 1
            name = KERNEL if module is None else f"{printable(module)}.ko"
            self.message.mapping.add(
                id=number,
                filename=self._string(name),
                build_id=self._string(self._build_ids.get(module, "")),
                has_functions=True,
                has_filenames=True,
                has_line_numbers=True,
            )
        return number

    def _function(self, frame: Frame) -> int:
        name = printable(frame.symbol) if frame.symbol is not None else f"{frame.offset:#x}"
        file = "" if frame.source is None else printable(frame.source.file)
        key = (f"{frame.module or ''} {name}", file)
        number = self._functions.get(key)
        if number is None:
            number = self._functions[key] = len(self._functions) + 1
            self.message.function.add(
                id=number,
                name=self._string(name),
                system_name=self._string(name),
                filename=self._string(file),
            )
        return number


RENDERER = Renderer("pprof", (".pb.gz", ".pprof"), "for pprof and Pyroscope", render, binary=True)
