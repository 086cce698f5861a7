"""/proc/modules: real files and each form of each field."""

import pytest

from kleak.parsers.errors import ParseError
from kleak.parsers.proc_modules import LoadedModule, parse_modules
from tests.support.paths import TESTS

SAMPLES = sorted((TESTS / "data" / "proc_modules").glob("*.txt"))
assert SAMPLES


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_real_files(sample):
    text = sample.read_text()
    modules = parse_modules(text)
    assert [module.name for module in modules] == [line.split()[0] for line in text.splitlines()]
    # Memory of a module is handed out in pages.
    assert all(module.size_bytes % 4096 == 0 for module in modules)
    assert all(module.address % 4096 == 0 and module.address for module in modules)
    loaded = {module.name for module in modules}
    assert {user for module in modules for user in module.used_by} <= loaded
    assert all((module.reference_count or 0) >= len(module.used_by) for module in modules)
    assert next(m for m in modules if m.name == "sections").flags == "OE"


@pytest.mark.parametrize(
    ("line", "module"),
    [
        (
            "leakx 24576 1 - Loading 0xffffffffc071a000 (OE+)",
            LoadedModule("leakx", 24576, 1, (), "Loading", 0xFFFFFFFFC071A000, "OE+"),
        ),
        (
            "leakx 12288 -1 - Unloading 0x0000000000000000 (OE-)",
            LoadedModule("leakx", 12288, -1, (), "Unloading", 0, "OE-"),
        ),
        (
            "x_tables 65536 2 xt_tcpudp,xt_nat, Live 0xffffffffc0a01000",
            LoadedModule(
                "x_tables", 65536, 2, ("xt_tcpudp", "xt_nat"), "Live", 0xFFFFFFFFC0A01000, ""
            ),
        ),
        (
            "fixed 4096 1 [permanent], Live 0xffffffffc0a01000",
            LoadedModule("fixed", 4096, 1, ("[permanent]",), "Live", 0xFFFFFFFFC0A01000, ""),
        ),
        (
            "no_unload 4096 - - Live 0xffffffffc0a01000",
            LoadedModule("no_unload", 4096, None, (), "Live", 0xFFFFFFFFC0A01000, ""),
        ),
    ],
)
def test_forms(line, module):
    assert parse_modules(line + "\n") == (module,)


def test_empty():
    assert parse_modules("") == ()


@pytest.mark.parametrize(
    "bad",
    ["leakx 12288 0 - Live", "leakx x 0 - Live 0xffffffffc0a01000", "leakx 1 0 - Dead 0x1000", " "],
)
def test_a_damaged_line_is_named(bad):
    with pytest.raises(ParseError) as caught:
        parse_modules(f"ok 4096 0 - Live 0xffffffffc0a01000\n{bad}\n")
    assert caught.value.line_number == 2
