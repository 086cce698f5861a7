"""A real module of several code sections against binutils: names, places, functions, lines."""

import gzip
import lzma
import random
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from kleak.errors import TargetError, UnsupportedError
from kleak.model.session import Source
from kleak.symbols.module_image import ModuleImage, Parameter


def tool(*command):
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]} to compare with")
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="session")
def image(module_path):
    return ModuleImage(module_path)


def functions(path):
    """(section name, start, size, symbol) of every function, by readelf."""
    names = dict(re.findall(r"\[ *(\d+)\] (\.\S+)", tool("readelf", "-SW", path)))
    pattern = r"^ *\d+: ([0-9a-f]+) +(\d+) FUNC +\S+ +\S+ +(\d+) (\S+)"
    for value, size, section, name in re.findall(pattern, tool("readelf", "-sW", path), re.M):
        yield names[section], int(value, 16), int(size), name


def where(image, section, at):
    """Region and offset of the return address after the byte at ``at`` of a section."""
    region, offset = image.section_offsets()[section]
    return region, offset + at + 1


def line_of(path, text):
    """Number of the only line of a source file that contains ``text``."""
    lines = path.read_text().splitlines()
    (number,) = [n for n, line in enumerate(lines, 1) if text in line]
    return number


# --- what it is called ------------------------------------------------------------------------


def test_names_and_numbers(image, module_path):
    assert image.name == "sections"
    assert image.version == "1.3.7"
    assert "mod_unload" in image.vermagic
    assert set(image.parameters) == {
        Parameter("width", "int", "bytes of each object"),
        Parameter("label", "charp", ""),
    }
    notes = tool("readelf", "-n", module_path)
    assert image.build_id == re.search(r"Build ID: ([0-9a-f]+)", notes)[1]


def test_name_without_the_tag_comes_from_this_module(module_path, tmp_path):
    plain = module_path.read_bytes().replace(b"\0name=sections\0", b"\0nope=sections\0")
    renamed = tmp_path / "other-file.ko"
    renamed.write_bytes(plain)
    assert ModuleImage(renamed).information["nope"] == ("sections",)
    assert ModuleImage(renamed).name == "sections"


# --- where the kernel puts it -----------------------------------------------------------------


def test_every_executable_section_is_placed_once_in_order(image, module_path):
    headers = re.findall(
        r"\[ *\d+\] (\S+) +\w+ +[0-9a-f]+ [0-9a-f]+ ([0-9a-f]+) \S+ +AX +\d+ +\d+ +(\d+)",
        tool("readelf", "-SW", module_path),
    )
    assert [name for name, _, _ in headers] == [s.name for s in image.text_sections]
    assert {".text", ".text.unlikely", ".init.text", ".exit.text"} <= {h[0] for h in headers}
    ends = {"core": 0, "init": 0}
    for (name, size, alignment), section in zip(headers, image.text_sections, strict=True):
        assert section.region == ("init" if name.startswith(".init") else "core")
        assert section.size_bytes == int(size, 16)
        assert section.offset % int(alignment) == 0
        assert 0 <= section.offset - ends[section.region] < int(alignment)
        ends[section.region] = section.offset + section.size_bytes
    assert {region: image.text_size(region) for region in ends} == ends


def test_exit_code_is_init_code_on_a_kernel_that_cannot_unload(module_path, tmp_path):
    patched = tmp_path / "sections.ko"
    patched.write_bytes(module_path.read_bytes().replace(b"mod_unload", b"mod_xxload"))
    assert ModuleImage(patched).section_offsets()[".exit.text"][0] == "init"
    assert ModuleImage(module_path).section_offsets()[".exit.text"][0] == "core"


# --- functions --------------------------------------------------------------------------------


def test_every_byte_of_every_function(image, module_path):
    checked = 0
    for section, start, size, name in functions(module_path):
        for at in range(start, start + size):
            found = image.resolve(*where(image, section, at))
            # Of two names at one address either is right here; the next test is stricter.
            assert found.offset == at + 1 - start
            if found.symbol != name:
                assert {found.symbol, name} in (
                    {"sections_init", "init_module"},
                    {"sections_exit", "cleanup_module"},
                    {"__pfx_sections_init", "__pfx_init_module"},
                    {"__pfx_sections_exit", "__pfx_cleanup_module"},
                )
            checked += 1
    assert checked > 350


def test_the_static_name_wins_over_its_alias(image, module_path):
    places = {name: (section, start) for section, start, _, name in functions(module_path)}
    assert image.resolve(*where(image, *places["init_module"])).symbol == "sections_init"
    assert image.resolve(*where(image, *places["cleanup_module"])).symbol == "sections_exit"


def test_a_call_as_the_last_instruction_stays_in_its_function(image, module_path):
    ((section, start, size, name),) = [
        row for row in functions(module_path) if row[3].startswith("ends_in_call")
    ]
    found = image.resolve(*where(image, section, start + size - 1))
    assert (found.symbol, found.offset) == (name, size)
    assert found.source == Source(
        "entry.c", line_of(module_path.parent / "entry.c", 'panic("sections')
    )


def test_outside_every_section_there_is_no_name(image):
    for region in ("core", "init"):
        for offset in (0, -5, image.text_size(region) + 1, 1 << 40):
            found = image.resolve(region, offset)
            assert (found.symbol, found.offset, found.source) == (None, offset, None)


# --- lines ------------------------------------------------------------------------------------


def call_sites(path):
    """(section, offset of the call, callee) of every call, from the disassembly."""
    section = None
    for line in tool("objdump", "-drw", path).splitlines():
        section = (re.match(r"Disassembly of section (\S+):", line) or [0, section])[1]
        call = re.match(r" *([0-9a-f]+):.*\tcall .*R_X86_64_PLT32\t(\w+)", line)
        if call:
            yield section, int(call[1], 16), call[2]


@pytest.mark.parametrize(
    ("function", "section", "text", "file"),
    [
        ("plain", None, "void *p = kmalloc(size, GFP_KERNEL);\n\n\treturn", "entry.c"),
        ("from_header", None, "return kzalloc(size, GFP_KERNEL)", "other.h"),
        ("unlikely_text", ".text.unlikely", None, "entry.c"),
        ("other_text", ".text", None, "src/other.c"),
        ("sections_init", ".init.text", "kept[5] = kmalloc(width", "entry.c"),
        ("sections_exit", ".exit.text", "kfree(kept[i])", "entry.c"),
    ],
)
def test_allocations_have_the_line_of_the_module(image, module_path, function, section, text, file):
    calls = []
    for at_section, at, callee in call_sites(module_path):
        if not re.match(r"_*(kmalloc|kfree)", callee):
            continue
        found = image.resolve(*where(image, at_section, at + 4))
        if found.symbol == function:
            calls.append((at_section, found.source))
    assert calls, "the function has no allocator call"
    source = (module_path.parent / file).read_text()
    for at_section, found in calls:
        assert found.file == file
        if section is not None:
            assert at_section == section
        if text is None:
            text = "void *p = kmalloc(size, GFP_KERNEL);"
            body = source.index(f"*{function}(")
        else:
            body = 0
        assert found.line == source.count("\n", 0, source.index(text, body)) + 1


def test_every_byte_agrees_with_addr2line(image, module_path):
    checked = 0
    for section in image.text_sections:
        covered = sorted(
            at
            for name, start, size, symbol in functions(module_path)
            if name == section.name and not symbol.startswith("__pfx_")
            for at in range(start, start + size)
        )
        if not covered:
            continue
        text = tool(
            "addr2line", "-aife", module_path, "-j", section.name, *(hex(at) for at in covered)
        )
        answers = re.split(r"^0x[0-9a-f]+\n", text, flags=re.MULTILINE)[1:]
        for at, answer in zip(covered, answers, strict=True):
            rows = answer.splitlines()
            levels = image.inline_levels(*where(image, section.name, at))
            assert [level.function for level in levels] == rows[::2]
            for level, row in zip(levels, rows[1::2], strict=True):
                path, line = re.sub(r" \(discriminator.*", "", row).rsplit(":", 1)
                assert level.source.line == int(line)
                assert Path(path).resolve().as_posix().endswith("/" + level.source.file)
                assert not level.source.file.startswith("/")
            checked += 1
    assert checked > 350


def files_of(image):
    """Source files of all instructions in the module's text."""
    found = set()
    for region in ("core", "init"):
        for offset in range(1, image.text_size(region) + 1):
            source = image.resolve(region, offset).source
            if source is not None:
                found.add(source.file)
    return found


def test_names_of_an_in_tree_module(build_with_paths):
    path = build_with_paths("{here}=drivers/misc")
    assert files_of(ModuleImage(path)) == {
        "drivers/misc/entry.c",
        "drivers/misc/other.h",
        "drivers/misc/src/other.c",
    }


def test_names_of_an_installed_in_tree_module_built_in_a_directory_of_its_own(
    build_with_paths, tmp_path
):
    # As with make O=: sources are absolute, and only the generated .mod.c is relative.
    built = build_with_paths(
        "{here}=/home/dev/linux/drivers/misc", "{here}/sections.mod.c=drivers/misc/sections.mod.c"
    )
    installed = tmp_path / "lib/modules/6.12.0/kernel/drivers/misc/sections.ko"
    installed.parent.mkdir(parents=True)
    built.rename(installed)
    assert "drivers/misc/entry.c" in files_of(ModuleImage(installed))


def test_names_of_an_external_module_that_was_moved(module_path, tmp_path):
    moved = tmp_path / "sections.ko"
    shutil.copy(module_path, moved)
    assert files_of(ModuleImage(moved)) == {"entry.c", "other.h", "src/other.c"}


def test_without_debug_information_there_are_names_and_no_lines(module_path, tmp_path):
    stripped = tmp_path / "sections.ko"
    tool("strip", "--strip-debug", "-o", stripped, module_path)
    image = ModuleImage(stripped)
    found = image.resolve("core", image.section_offsets()[".text.unlikely"][1] + 20)
    assert found.symbol is not None
    assert found.source is None
    assert "without debug information" in image.lines.missing


def test_compressed_debug_information_is_read(image, module_path, tmp_path):
    packed = tmp_path / "sections.ko"
    tool("objcopy", "--compress-debug-sections=zlib", module_path, packed)
    assert packed.stat().st_size < module_path.stat().st_size
    other = ModuleImage(packed)
    for region in ("core", "init"):
        for offset in range(1, image.text_size(region)):
            assert other.resolve(region, offset) == image.resolve(region, offset)
    assert other.lines.missing is None


def test_damaged_debug_information_is_named_and_ends_nothing(module_path, tmp_path):
    header = re.search(
        r"\.debug_line +PROGBITS +[0-9a-f]+ ([0-9a-f]+) ([0-9a-f]+)",
        tool("readelf", "-SW", module_path),
    )
    start, size = int(header[1], 16), int(header[2], 16)
    data = bytearray(module_path.read_bytes())
    data[start : start + size] = b"\xff" * size
    damaged = tmp_path / "sections.ko"
    damaged.write_bytes(data)
    image = ModuleImage(damaged)
    found = image.resolve("core", image.section_offsets()[".text.unlikely"][1] + 20)
    assert found.symbol is not None
    assert found.source is None
    assert "damaged" in image.lines.missing


# --- files ------------------------------------------------------------------------------------


def test_compressed_modules(image, module_path, tmp_path, monkeypatch):
    data = module_path.read_bytes()
    (tmp_path / "sections.ko.xz").write_bytes(lzma.compress(data, preset=0))
    (tmp_path / "sections.ko.gz").write_bytes(gzip.compress(data, 1))
    assert ModuleImage(tmp_path / "sections.ko.xz").build_id == image.build_id
    assert ModuleImage(tmp_path / "sections.ko.gz").build_id == image.build_id
    tool("zstd", "-q", module_path, "-o", tmp_path / "sections.ko.zst")
    assert ModuleImage(tmp_path / "sections.ko.zst").build_id == image.build_id
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnsupportedError, match="zstd"):
        ModuleImage(tmp_path / "sections.ko.zst")


@pytest.mark.parametrize("name", ["x.ko", "x.ko.xz", "x.ko.gz", "x.ko.zst"])
@pytest.mark.parametrize("data", [b"", b"no module", b"\x7fELF\x02\x01\x01" + bytes(9)])
def test_files_that_are_no_modules(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    if name.endswith("zst") and shutil.which("zstd") is None:
        pytest.skip("no zstd")
    with pytest.raises(TargetError, match=re.escape(str(path))):
        ModuleImage(path)


def test_missing_file(tmp_path):
    with pytest.raises(TargetError, match="No such file"):
        ModuleImage(tmp_path / "none.ko")


def test_a_program_is_no_module():
    with pytest.raises(TargetError, match="not a"):
        ModuleImage(Path(shutil.which("true")))


def test_truncated_modules_are_refused_or_read(module_path, tmp_path):
    data = module_path.read_bytes()
    path = tmp_path / "sections.ko"
    for length in range(0, len(data), len(data) // 41):
        path.write_bytes(data[:length])
        with pytest.raises(TargetError):
            ModuleImage(path)


def test_damage_anywhere_is_refused_or_harmless(module_path, tmp_path):
    good = module_path.read_bytes()
    choose = random.Random(11)
    path = tmp_path / "sections.ko"
    refused = 0
    for attempt in range(60):
        data = bytearray(good)
        for _ in range(20):
            # The headers and the symbol table are the last part of the file.
            low = len(data) - 8192 if attempt % 2 else 0
            data[choose.randrange(low, len(data))] = choose.randrange(256)
        path.write_bytes(data)
        try:
            image = ModuleImage(path)
        except TargetError:
            refused += 1
            continue
        for region in ("core", "init"):
            for offset in range(1, min(image.text_size(region), 500), 13):
                assert image.resolve(region, offset).offset >= 0
    assert 0 < refused < 60


def test_symbol_reader_agrees_with_readelf(image, module_path):
    rows = re.findall(
        r"^ *\d+: ([0-9a-f]+) +\d+ \w+ +\w+ +\w+ +\w+", tool("readelf", "-sW", module_path), re.M
    )
    assert [symbol.value for symbol in image.symbols] == [int(row, 16) for row in rows]
    assert struct.calcsize("<IBBHQQ") * len(rows) == image._section(".symtab")["sh_size"]
