"""/proc/kallsyms: real excerpts, invariants of the format, damaged and hidden input."""

from pathlib import Path

import pytest

from kleak.parsers.errors import ParseError
from kleak.parsers.kallsyms import HiddenAddressesError, Symbol, parse_columns, parse_symbols
from tests.support.paths import TESTS

DATA = TESTS / "data" / "kallsyms"
SAMPLES = sorted(DATA.glob("*.txt"))
assert SAMPLES

SMALL = (
    "ffffffff81000000 T _stext\n"
    "ffffffff81000010 t do_one\n"
    "ffffffff81000020 T _etext\n"
    "ffffffffc0001000 t work\t[leaky]\n"
    "ffffffffc0009000 t bpf_prog_1\t[bpf]\n"
    "ffffffffc0001010 T done\t[leaky]\n"
)


def by_line(text):
    """The obvious parser, as an oracle for the fast one."""
    for line in text.splitlines():
        address, kind, rest = line.split(" ", 2)
        name, _, owner = rest.partition("\t")
        yield int(address, 16), kind, name, owner.strip("[]") or None


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_agrees_with_a_parser_by_line(sample):
    text = sample.read_text()
    parsed = [(s.address, s.kind, s.name, s.module) for s in parse_symbols(text)]
    assert len(parsed) == text.count("\n")
    assert sorted(parsed, key=str) == sorted(by_line(text), key=str)


def test_running_kernel_agrees_with_a_parser_by_line():
    text = Path("/proc/kallsyms").read_text()
    try:
        parsed = [(s.address, s.kind, s.name, s.module) for s in parse_symbols(text)]
    except HiddenAddressesError:
        pytest.skip("the kernel hides its addresses: needs root")
    assert sorted(parsed, key=str) == sorted(by_line(text), key=str)


def test_owners_keep_their_own_order_even_when_listed_twice():
    parsed = parse_columns(SMALL.encode())
    assert parsed.owned["leaky"].names == [b"work", b"done"]
    assert parsed.owned["bpf"].addresses == [b"ffffffffc0009000"]
    assert parsed.kernel.kinds == [b"T", b"t", b"T"]
    assert next(parse_symbols(SMALL)) == Symbol(0xFFFFFFFF81000000, "T", "_stext", None)


def test_hidden_addresses_are_an_error_of_their_own():
    hidden = "".join("0" * 16 + line[16:] + "\n" for line in SMALL.splitlines())
    with pytest.raises(HiddenAddressesError, match="kptr_restrict"):
        parse_columns(hidden.encode())


def test_a_few_zero_addresses_are_not_hidden_addresses():
    text = "0000000000000000 A fixed_percpu_data\n" + SMALL
    assert parse_columns(text.encode()).kernel.names[0] == b"fixed_percpu_data"


@pytest.mark.parametrize(
    ("number", "bad"),
    [
        (2, "ffffffff8100001 t short_address"),
        (2, "ffffffff8100001g t no_hex"),
        (2, "ffffffff81000010 tt two_letters"),
        (2, "ffffffff81000010 t"),
        (2, "ffffffff81000010 t name extra"),
        (2, ""),
        (5, "ffffffffc0009000 t no_owner"),
        (5, "ffffffffc0009000 t name\tleaky"),
    ],
)
def test_a_damaged_line_is_named(number, bad):
    lines = SMALL.splitlines()
    lines[number - 1] = bad
    with pytest.raises(ParseError) as caught:
        parse_columns(("\n".join(lines) + "\n").encode())
    assert caught.value.line_number == number
    assert caught.value.line == bad


@pytest.mark.parametrize("data", [b"", SMALL.encode()[:-9], SMALL.encode()[:-1]])
def test_empty_or_cut_short(data):
    with pytest.raises(ParseError):
        parse_columns(data)


def test_symbols_of_a_module_that_is_loading() -> None:
    text = "ffffffff81000000 T _stext\nff4b7ec402731363 ? __UNIQUE_ID_depends197\t[leaky]\n"
    (symbol,) = [symbol for symbol in parse_symbols(text) if symbol.module == "leaky"]
    assert (symbol.kind, symbol.name) == ("?", "__UNIQUE_ID_depends197")
