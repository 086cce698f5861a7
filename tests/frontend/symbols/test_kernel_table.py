"""Addresses of a kernel: real snapshots with a module loaded, ranges, and traps made by hand."""

import random
from itertools import pairwise
from pathlib import Path

import pytest

from kleak.frames.names import base_name
from kleak.model.session import Frame
from kleak.parsers.errors import ParseError
from kleak.parsers.kallsyms import HiddenAddressesError
from kleak.parsers.proc_modules import parse_modules
from kleak.symbols.kernel_table import KernelTable, TextRange
from tests.support.paths import TESTS

DATA = TESTS / "data"
SAMPLES = sorted(path.name for path in (DATA / "kallsyms").glob("*--module-loaded.txt"))
assert SAMPLES


def table_of(kallsyms, modules=""):
    return KernelTable(kallsyms.encode(), parse_modules(modules))


@pytest.fixture(params=SAMPLES)
def snapshot(request):
    kallsyms = (DATA / "kallsyms" / request.param).read_text()
    modules = (DATA / "proc_modules" / request.param).read_text()
    return kallsyms, table_of(kallsyms, modules)


def listed(kallsyms, owner):
    for line in kallsyms.splitlines():
        address, kind, name, *brackets = line.split()
        if kind in "tTwW" and brackets == ([f"[{owner}]"] if owner else []):
            yield int(address, 16), name


def test_every_symbol_of_the_snapshot(snapshot):
    kallsyms, table = snapshot
    first = {}
    for owner in (None, "sections", "ccp", "sr_mod"):
        for address, name in listed(kallsyms, owner):
            first.setdefault(address, (owner, name))
    assert len(first) > 300
    for address, (owner, name) in first.items():
        if owner is None and not table.text.start <= address < table.text.end:
            assert table.resolve(address + 1) == Frame(None, None, address + 1)
        else:
            assert table.resolve(address + 1) == Frame(owner, name, 1)


def test_memory_between_modules_has_no_name(snapshot):
    kallsyms, table = snapshot
    ends = {}
    for owner in ("sections", "ccp", "sr_mod"):
        ends[owner] = max(address for address, _ in listed(kallsyms, owner))
    for end in ends.values():
        beyond = (end // 4096 + 1) * 4096
        assert table.resolve(end + 1).module is not None
        assert table.resolve(beyond + 1) == Frame(None, None, beyond + 1)
    assert table.resolve(table.text.end + 1).symbol is None
    assert table.resolve(table.text.start).symbol is None
    assert table.resolve(0x1000) == Frame(None, None, 0x1000)


def test_running_kernel_agrees_with_a_linear_search():
    kallsyms = Path("/proc/kallsyms").read_text()
    try:
        table = table_of(kallsyms)
    except HiddenAddressesError:
        pytest.skip("the kernel hides its addresses: needs root")
    symbols = list(listed(kallsyms, None))
    choose = random.Random(7)
    for _ in range(60):
        address = choose.randrange(table.text.start, table.text.end) + 1
        start = max(a for a, _ in symbols if a <= address - 1)
        name = next(name for a, name in symbols if a == start)
        assert table.resolve(address) == Frame(None, name, address - start)


# --- traps ------------------------------------------------------------------------------------

HAND = """\
0000000000000000 A fixed_percpu_data
ffffffff80fff000 D before_text
ffffffff81000000 T _stext
ffffffff81000000 T first
ffffffff81000100 t pipe_read
ffffffff81000180 t pipe_write
ffffffff81000200 T other
ffffffff81000200 T alias_of_other
ffffffff81000300 t pipe_read.part.0
ffffffff81000380 t pipe_poll.constprop.0.isra.0
ffffffff81000400 t __pfx_pipe_close
ffffffff81000410 t pipe_close
ffffffff81000500 t unrelated
ffffffff81000900 t pipe_read.cold
ffffffff81000a00 T _etext
ffffffff82000000 D pipe_data
ffffffffc0001000 t a_one\t[a]
ffffffffc0001f80 t a_last\t[a]
ffffffffc0001800 d a_data\t[a]
ffffffffc0009000 t a_init\t[a]
ffffffffc0009200 t a_init_last\t[a]
ffffffffc0005000 t b_long\t[b]
ffffffffc0007000 t b_last\t[b]
ffffffffc000b000 t bpf_prog_1_x\t[bpf]
ffffffffc000c000 t ftrace_trampoline\t[__builtin__ftrace]
ffffffffc000d000 t kprobe_insn_page\t[__builtin__kprobes]
"""
MODULES = """\
a 32768 1 - Loading 0xffffffffc0001000 (OE+)
b 16384 0 - Live 0xffffffffc0005000
"""


@pytest.fixture
def by_hand():
    return table_of(HAND, MODULES)


@pytest.mark.parametrize(
    ("address", "module", "symbol", "offset"),
    [
        (0xFFFFFFFF81000001, None, "_stext", 1),
        (0xFFFFFFFF81000180, None, "pipe_read", 0x80),  # its last instruction is a call
        (0xFFFFFFFF81000201, None, "other", 1),  # the first of two names
        (0xFFFFFFFFC0001801, "a", "a_one", 0x801),  # data symbols name no code
        (0xFFFFFFFFC0001FFF, "a", "a_last", 0x7F),
        (0xFFFFFFFFC0002000, "a", "a_last", 0x80),
        (0xFFFFFFFFC0009080, "a", "a_init", 0x80),
        (0xFFFFFFFFC0006800, "b", "b_long", 0x1800),  # longer than a page
        (0xFFFFFFFFC000B123, None, "bpf_prog_1_x", 0x123),
        (0xFFFFFFFFC000C010, None, "ftrace_trampoline", 0x10),
        (0xFFFFFFFFC000D010, None, "kprobe_insn_page", 0x10),
    ],
)
def test_named(by_hand, address, module, symbol, offset):
    assert by_hand.resolve(address) == Frame(module, symbol, offset)


@pytest.mark.parametrize(
    "address",
    [
        0xFFFFFFFF80FFF010,  # below _stext
        0xFFFFFFFF81000A01,  # behind _etext
        0xFFFFFFFF82000010,  # data
        0xFFFFFFFFC0000800,  # below all modules
        0xFFFFFFFFC0002001,  # behind a's last page, inside its base + size
        0xFFFFFFFFC0004FFF,  # before b
        0xFFFFFFFFC0008500,  # behind b's last page
        0xFFFFFFFFC000A800,  # behind a's init code
        0xFFFFFFFFC000E000 + 1,
    ],
)
def test_unnamed(by_hand, address):
    assert by_hand.resolve(address) == Frame(None, None, address)


def test_an_unloaded_module_does_not_get_the_name_of_its_neighbour(by_hand):
    # A page between the core and the init code of "a", where another module once was.
    assert by_hand.resolve(0xFFFFFFFFC0003010) == Frame(None, None, 0xFFFFFFFFC0003010)
    # Without /proc/modules nothing past a symbol's page is certain.
    bare = table_of(HAND)
    assert bare.resolve(0xFFFFFFFFC0006800).symbol is None
    assert bare.resolve(0xFFFFFFFFC0005800) == Frame("b", "b_long", 0x800)


def test_ranges(by_hand):
    base = 0xFFFFFFFF81000000
    assert by_hand.ranges_of_glob("pipe_*") == (
        TextRange(base + 0x100, base + 0x200),  # pipe_read and pipe_write touch
        TextRange(base + 0x300, base + 0x400),
        TextRange(base + 0x410, base + 0x500),
        TextRange(base + 0x900, base + 0xA00),
    )
    assert by_hand.ranges_of_function("pipe_read") == (
        TextRange(base + 0x100, base + 0x180),
        TextRange(base + 0x300, base + 0x380),
        TextRange(base + 0x900, base + 0xA00),
    )
    assert by_hand.ranges_of_function("pipe_read.part.0") == by_hand.ranges_of_function("pipe_read")
    assert by_hand.ranges_of_function("alias_of_other") == (TextRange(base + 0x200, base + 0x300),)
    assert by_hand.functions("pipe_*l") == ("pipe_poll.constprop.0.isra.0",)
    assert by_hand.functions("pipe_w[re]*") == ("pipe_write",)
    assert by_hand.ranges_of_glob("nothing*") == ()
    assert by_hand.ranges_of_function("pipe") == ()
    assert by_hand.ranges_of_function("pipe_data") == ()
    assert by_hand.ranges_of_functions(["alias_of_other", "pipe_read", "nothing"]) == (
        TextRange(base + 0x100, base + 0x180),
        TextRange(base + 0x200, base + 0x380),
        TextRange(base + 0x900, base + 0xA00),
    )
    assert by_hand.address_of("pipe_data") == 0xFFFFFFFF82000000
    assert by_hand.address_of("pipe_read") == base + 0x100
    assert by_hand.address_of("nothing") is None


@pytest.mark.parametrize(
    ("pattern", "name"), [("alias_*", "alias_of_other"), ("*other", "other"), ("o*", "other")]
)
def test_a_function_is_called_as_the_scope_calls_it(by_hand, pattern, name):
    by_hand.prefer(pattern)
    assert by_hand.resolve(0xFFFFFFFF81000201) == Frame(None, name, 1)
    assert by_hand.resolve(0xFFFFFFFF81000101) == Frame(None, "pipe_read", 1)


def test_ranges_of_the_running_kernel_hold_their_functions():
    try:
        table = KernelTable(Path("/proc/kallsyms").read_bytes())
    except HiddenAddressesError:
        pytest.skip("the kernel hides its addresses: needs root")
    ranges = table.ranges_of_glob("pipe_*")
    assert ranges == tuple(sorted(ranges, key=lambda r: r.start))
    assert all(one.end < two.start for one, two in pairwise(ranges))
    for one in ranges:
        for address in range(one.start + 1, one.end, 7):
            assert base_name(table.resolve(address).symbol).startswith("pipe_")
        assert not base_name(table.resolve(one.end + 1).symbol).startswith("pipe_")


def test_symbols_out_of_order_and_data_within_text_change_nothing(by_hand):
    lines = HAND.splitlines()
    own, owned = lines[:16], lines[16:]
    own.insert(6, "ffffffff81000190 r table_in_text")
    random.Random(3).shuffle(owned)
    mixed = "\n".join([*own[9:], *own[:9], *owned]) + "\n"
    table = table_of(mixed, MODULES)
    for address in range(0xFFFFFFFF81000001, 0xFFFFFFFF81000A20, 31):
        if by_hand.resolve(address).symbol not in ("other", "_stext"):
            assert table.resolve(address) == by_hand.resolve(address)
    assert table.resolve(0xFFFFFFFFC0006800) == by_hand.resolve(0xFFFFFFFFC0006800)


def test_existence(by_hand):
    assert by_hand.has_function("pipe_read")
    assert not by_hand.has_function("pipe_poll")  # only a specialised copy
    assert not by_hand.has_function("pipe_data")
    assert not by_hand.has_function("a_one")


@pytest.mark.parametrize("missing", ["_stext", "_etext"])
def test_without_bounds_of_the_text_it_is_refused(missing):
    with pytest.raises(ParseError, match=missing):
        table_of(HAND.replace(f" {missing}\n", " renamed\n"))
