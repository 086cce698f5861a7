"""/proc/vmallocinfo: each form of each field, addresses, growth of the format, damage."""

from __future__ import annotations

import pytest

from kleak.parsers.code_location import AddressKind, CodeLocation
from kleak.parsers.errors import ParseError
from kleak.parsers.vmallocinfo import parse, stream

ROW = (
    "0xff81959e801a9000-0xff81959e801ac000   12288 do_it+0x4e/0x190 [leakx] pages=2 vmalloc N0=2\n"
)


def one(row):
    [region] = parse(row).regions
    return region


def test_all_fields():
    region = one(ROW)
    assert (region.start, region.end) == (0xFF81959E801A9000, 0xFF81959E801AC000)
    assert region.size_bytes == 12288
    assert region.caller == CodeLocation("do_it", 0x4E, 0x190, "leakx")
    assert region.pages == 2
    assert region.kind == "vmalloc"
    assert region.is_allocation
    assert region.details.pages_by_node == ((0, 2),)


@pytest.mark.parametrize(
    ("tail", "kind", "allocates"),
    [
        ("f+0x1/0x2 pages=1 vmalloc vpages N0=1", "vmalloc", True),
        ("f+0x1/0x2 pages=1 vmalloc user N0=1", "vmalloc", True),
        ("f+0x1/0x2 phys=0x00000000febf8000 ioremap", "ioremap", False),
        ("f+0x1/0x2 vmap", "vmap", False),
        ("f+0x1/0x2 sparse", "sparse", False),
        ("f+0x1/0x2 dma-coherent", "dma-coherent", False),
        ("vm_map_ram", "vm_map_ram", False),
        ("unpurged vm_area", "unpurged", False),
        ("vmalloc", "vmalloc", True),
        ("0xffffffffc071a048 pages=1 vmalloc N0=1", "vmalloc", True),
        ("f+0x1/0x2", "unflagged", False),
    ],
)
def test_kinds(tail, kind, allocates):
    region = one(f"0xff81959e801a9000-0xff81959e801ab000    8192 {tail}\n")
    assert region.kind == kind
    assert region.is_allocation is allocates


def test_a_caller_that_is_gone_is_an_address_and_none_is_none():
    row = "0xff81959e801a9000-0xff81959e801ab000 8192 {}pages=1 vmalloc N0=1\n"
    assert one(row.format("0xffffffffc071a048 ")).caller.address == 0xFFFFFFFFC071A048
    assert one(row.format("")).caller is None
    assert one(row.format("")).pages == 1


def test_what_is_absent_is_none():
    region = one("0xff81959e801a9000-0xff81959e801ab000 8192 f+0x1/0x2 vmap\n")
    assert region.pages is None
    assert region.details.physical_address is None
    assert region.details.pages_by_node == ()


def test_words_of_a_later_kernel_are_kept():
    region = one(ROW.replace(" vmalloc", " requested=9000 vmalloc"))
    assert region.details.other == ("requested=9000",)
    assert region.kind == "vmalloc"


@pytest.mark.parametrize(
    ("span", "kind"),
    [
        ("0xff81959e801a9000-0xff81959e801ac000", AddressKind.REAL),
        ("0xffffc90000005000-0xffffc90000008000", AddressKind.REAL),
        ("0x00000000f893ea91-0x000000006fb5c64a", AddressKind.HASHED),
        ("0x0000000000000000-0x0000000000000000", AddressKind.ZERO),
        ("0x(____ptrval____)-0x(____ptrval____)", AddressKind.UNREADY),
        ("0xf0805000-0xf0808000", AddressKind.REAL),  # 32-bit
        ("0x9a31fe07-0x11c7bb21", AddressKind.HASHED),  # 32-bit
    ],
)
def test_address_kinds(span, kind):
    rest = ROW.split(None, 1)[1]
    # twice: the second row of equal details takes the fast path
    regions = parse(f"{span} {rest}{span} {rest}").regions
    assert [region.address_kind for region in regions] == [kind, kind]
    if kind in (AddressKind.ZERO, AddressKind.UNREADY):
        assert regions[0].start is None
    assert regions[0] == regions[1]


@pytest.mark.parametrize(
    "row",
    [
        ROW.replace("12288", "8192"),
        ROW.replace("pages=2", "pages=two"),
        ROW.replace("0xff81959e801a9000", "0xff81959e801a900g"),
        ROW.replace("-0xff81959e801ac000", "-0x0000000000000000"),
        ROW.replace("12288", "-1"),
        "MemTotal: 1 kB\n",
    ],
)
def test_a_known_field_that_does_not_parse_is_an_error_with_its_line(row):
    with pytest.raises(ParseError) as caught:
        parse(ROW + row)
    assert caught.value.line_number == 2
    assert caught.value.line == row.rstrip("\n")
    kept = parse(ROW + row + ROW, errors="collect")
    assert len(kept.regions) == 2
    assert [problem.line_number for problem in kept.problems] == [2]


@pytest.mark.parametrize("length", range(1, len(ROW) - 1))
def test_a_row_cut_anywhere_is_damage_or_whole(length):
    """Cut within the last row: reported, except where what is left is a whole row."""
    report = parse(ROW + ROW[:length], errors="collect")
    if len(report.regions) == 2:
        cut = report.regions[1]
        assert ROW[:length].endswith((" vmalloc", " vmalloc ", " N0=", " N0", " N", "N0=2"))
        assert cut.pages == 2
        assert cut.is_allocation
    else:
        assert len(report.problems) == (1 if ROW[:length].strip() else 0)


def test_stream_takes_lines_and_does_not_read_ahead():
    def lines():
        yield ROW
        yield ROW
        raise AssertionError("read ahead")

    rows = stream(lines())
    assert next(rows) == next(rows)


def test_errors_is_checked():
    with pytest.raises(ValueError, match="errors"):
        parse(ROW, errors="ignore")
