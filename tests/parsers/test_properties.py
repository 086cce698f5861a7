"""Reports that hypothesis writes as the kernel would: what goes in must come out."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st

from kleak.parsers import kmemleak, meminfo, slabinfo, vmallocinfo
from kleak.parsers.code_location import AddressKind, CodeLocation, parse_code_location
from kleak.parsers.errors import ParseError
from tests.parsers.samples import READERS

names = st.from_regex(r"[a-z_][a-z0-9_]{0,20}(\.(part|isra|constprop)\.[0-9])?", fullmatch=True)
offsets = st.integers(0, 1 << 20)
symbolic = st.builds(CodeLocation, names, offsets, offsets, st.none() | names)
bare = st.builds(
    lambda address: CodeLocation(None, None, None, None, address),
    st.integers(1 << 63, (1 << 64) - 1),
)
locations = symbolic | bare


@given(locations)
def test_a_location_survives(location):
    assert parse_code_location(str(location)) == location


@st.composite
def rows(draw):
    start = draw(st.integers(1 << 51, (1 << 52) - (1 << 19))) << 12
    pages = draw(st.integers(1, 1 << 18))
    caller = draw(st.none() | locations)
    return start, pages, caller


@given(st.lists(rows(), max_size=20))
def test_vmallocinfo_survives(drawn):
    text = ""
    for start, pages, caller in drawn:
        size = (pages + 1) * 4096
        who = "" if caller is None else f" {caller}"
        text += f"0x{start:016x}-0x{start + size:016x} {size:7d}{who}"
        text += f" pages={pages} vmalloc N0={pages}\n"
    regions = vmallocinfo.parse(text).regions
    assert [(r.start, r.pages, r.caller) for r in regions] == drawn
    assert all(r.size_bytes == (r.pages + 1) * 4096 for r in regions)
    assert all(r.address_kind is AddressKind.REAL for r in regions)


@st.composite
def objects(draw):
    size = draw(st.integers(1, 1 << 30))
    contents = draw(st.binary(min_size=min(size, 32), max_size=min(size, 32)))
    # the kernel's comm: up to 15 bytes, anything but a newline
    comm = draw(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=15))
    frames = draw(st.lists(locations, min_size=1, max_size=16))
    return draw(st.integers(1, (1 << 64) - 1)), size, comm, contents, tuple(frames)


@given(st.lists(objects(), max_size=5), st.booleans())
def test_kmemleak_survives(drawn, new_format):
    text = ""
    for address, size, comm, contents, frames in drawn:
        text += f"unreferenced object 0x{address:x} (size {size}):\n"
        text += f'  comm "{comm}", pid 1, jiffies 5' + ("\n" if new_format else " (age 1.500s)\n")
        text += f"  hex dump (first {len(contents)} bytes):\n"
        for start in range(0, len(contents), 16):
            part = contents[start : start + 16]
            shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
            text += f"    {part.hex(' '):<47}  {shown}\n"
        text += "  backtrace (crc 1f):\n" if new_format else "  backtrace:\n"
        text += "".join(
            f"    {frame}\n" if new_format else f"    [<00000000deadbeef>] {frame}\n"
            for frame in frames
        )
    found = kmemleak.parse(text).objects
    assert [(o.address, o.size_bytes, o.comm, o.contents, o.frames) for o in found] == drawn
    assert all((o.age_seconds is None) is new_format for o in found)


@given(st.dictionaries(st.sampled_from(sorted(meminfo._ATTRIBUTES)), st.integers(0, 1 << 45)))
def test_meminfo_survives(values):
    text = "".join(
        f"{name}:{value:8d}{' kB' if meminfo._ATTRIBUTES[name].endswith('_bytes') else ''}\n"
        for name, value in values.items()
    )
    if "MemTotal" in values:
        lines = text.splitlines(keepends=True)
        text = "".join(sorted(lines, key=lambda line: not line.startswith("MemTotal:")))
    if not values:
        return
    report = meminfo.parse(text)
    for name, attribute in meminfo._ATTRIBUTES.items():
        unit = 1024 if attribute.endswith("_bytes") else 1
        expected = values[name] * unit if name in values else None
        assert getattr(report, attribute) == expected


@given(st.text("abc -_:()", min_size=1, max_size=30).map(str.strip).filter(bool))
def test_a_cache_may_have_any_name(name):
    row = f"{name:<17} 3 16 2048 16 8 : tunables 0 0 0 : slabdata 1 1 0\n"
    if name.startswith("#"):
        return
    [cache] = slabinfo.parse("slabinfo - version: 2.1\n" + row).caches
    assert cache.name == name
    assert cache.active_objects == 3


@settings(max_examples=300)
@given(st.sampled_from(sorted(READERS)), st.text(max_size=200) | st.binary(max_size=200))
def test_no_text_raises_anything_but_a_parse_error(report, text):
    with suppress(ParseError):
        READERS[report](text, "raise", [])
    READERS[report](text, "collect", [])
