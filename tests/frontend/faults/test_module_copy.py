"""Copies of real modules: what changes is what should, and all the rest is as before."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kleak.errors import KleakError, TargetError, UnsupportedError
from kleak.faults.elf_file import ElfFile, without_signature
from kleak.faults.known_failures import KNOWN, OTHERWISE, Returns
from kleak.faults.module_copy import COUNTERS, STUBS, ModuleCopy, find_calls, read_module
from kleak.faults.prototypes import (
    Failing,
    Forbids,
    KernelTypes,
    contradiction,
    how_to_fail,
    nofail_mask,
)
from kleak.faults.stubs import ARCHITECTURES, EM_AARCH64, EM_X86_64
from kleak.symbols.module_image import ModuleImage
from kleak.vm.kernels import find_kernel, release_of

SERIES = ("5.10", "6.1", "6.12", "7.3")
NAMES = ("zram", "null_blk", "loop", "nbd", "dummy", "veth", "ext4", "bridge")


def modules(series: str) -> list[Path]:
    try:
        kernel = find_kernel(series)
    except KleakError as error:
        pytest.skip(str(error))
    top = kernel.parent.parent / "lib/modules" / release_of(kernel) / "kernel"
    return [path for name in NAMES for path in sorted(top.rglob(f"{name}.ko*"))]


def copied(path: Path) -> tuple[ElfFile, ElfFile, int, Path]:
    """The module, its copy with every second call's GFP flags looked at, and how many calls."""
    elf = read_module(ModuleImage(path).data)
    before = ElfFile(bytes(elf.data))
    calls = [call for call in find_calls(elf) if call.function in KNOWN]
    how = [
        Failing(call.function, KNOWN[call.function], Forbids(i % 6, 0x8000) if i % 2 else None)
        for i, call in enumerate(calls)
    ]
    copy = ModuleCopy(elf, calls, how)
    return before, ElfFile(bytes(copy._data)), len(calls), path


@pytest.mark.parametrize("series", SERIES)
def test_only_the_chosen_relocations_change(series: str) -> None:
    for path in modules(series):
        before, after, count, _ = copied(path)
        assert count, path
        first = len(before.symbols)
        changed = 0
        for number, section in enumerate(before.sections):
            name = before.section_names[number]
            assert after.section_names[number] == name
            old, new = before.contents(number), after.contents(number)
            if name in (".symtab", ".strtab", ".shstrtab"):
                assert new.startswith(old)
                assert after.sections[number].link == section.link
                continue
            assert after.sections[number].offset == section.offset
            if old == new:
                continue
            for one, other in zip(
                before.relocations(number), after.relocations(number), strict=True
            ):
                kept = (one.offset, one.kind, one.addend, one.section)
                assert (other.offset, other.kind, other.addend, other.section) == kept
                if one.symbol != other.symbol:
                    assert other.symbol > first
                    assert before.symbols[one.symbol].name in KNOWN
                    changed += 1
        assert changed == count
        added = after.section_names[len(before.sections) :]
        assert added == [COUNTERS, STUBS, f".rela{STUBS}"]


@pytest.mark.parametrize("series", SERIES)
def test_each_stub_goes_on_to_what_was_called(series: str) -> None:
    for path in modules(series)[:3]:
        before, after, count, _ = copied(path)
        calls = [call for call in find_calls(before) if call.function in KNOWN]
        relocations = after.relocations(len(after.sections) - 1)
        assert len(relocations) == 2 * count
        for number, call in enumerate(calls):
            counter, target = relocations[2 * number : 2 * number + 2]
            assert after.symbols[counter.symbol].name == "kleak_calls"
            assert counter.addend == 4 * number - 4  # x86 counts from behind the field
            assert after.symbols[target.symbol].name == call.function
            stub = after.symbols[len(before.symbols) + 1 + number]
            assert stub.name == f"kleak_fail_{number + 1}"
            assert stub.value <= counter.offset < target.offset < stub.value + stub.size


def test_a_copy_is_armed_by_four_bytes(tmp_path: Path) -> None:
    path = next(iter(modules("6.12")))
    elf = read_module(ModuleImage(path).data)
    calls = [call for call in find_calls(elf) if call.function in KNOWN]
    copy = ModuleCopy(elf, calls, [Failing(call.function, KNOWN[call.function]) for call in calls])
    copy.write(tmp_path / "rest.ko")
    copy.write(tmp_path / "armed.ko", (1, 3))
    rest, armed = (ElfFile((tmp_path / name).read_bytes()) for name in ("rest.ko", "armed.ko"))
    number = rest.section_names.index(COUNTERS)
    assert rest.contents(number) == bytes(4 * len(calls))
    assert struct.unpack_from("<2i", armed.contents(number)) == (0, 3)
    difference = sum(a != b for a, b in zip(rest.data, armed.data, strict=True))
    assert difference == 1


def test_the_copy_is_read_as_the_same_module(tmp_path: Path) -> None:
    path = next(iter(modules("6.12")))
    elf = read_module(ModuleImage(path).data)
    calls = [call for call in find_calls(elf) if call.function in KNOWN]
    copy = ModuleCopy(elf, calls, [Failing(call.function, KNOWN[call.function]) for call in calls])
    copy.write(tmp_path / "copy.ko")
    one, other = ModuleImage(path), ModuleImage(tmp_path / "copy.ko")
    assert (one.name, one.build_id, one.vermagic) == (other.name, other.build_id, other.vermagic)
    assert other.text_sections[: len(one.text_sections)] == one.text_sections


def test_a_signature_is_cut_off() -> None:
    data = b"\x7fELF module"
    signed = (
        data + b"sig!" * 5 + bytes(8) + struct.pack(">I", 20) + b"~Module signature appended~\n"
    )
    assert without_signature(signed) == data
    assert without_signature(data) == data


@pytest.mark.parametrize("data", [b"", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(200), b"no" * 99])
def test_what_is_no_module_is_refused(data: bytes) -> None:
    with pytest.raises(TargetError):
        ElfFile(data)


def test_a_module_that_is_cut_short_is_refused_at_any_length() -> None:
    data = without_signature(ModuleImage(next(iter(modules("6.12")))).data)
    for length in range(0, len(data) - 1, max(len(data) // 97, 1)):
        with pytest.raises((TargetError, UnsupportedError)):
            find_calls(ElfFile(data[:length]))


def test_arm64_stubs_are_the_instructions_that_are_meant() -> None:
    """As objdump of aarch64 reads them: checked by hand against the encodings of the manual."""
    plain = ARCHITECTURES[EM_AARCH64].stub(Failing("f", Returns.NULL))
    words = struct.unpack(f"<{len(plain.code) // 4}I", plain.code)
    assert words[1:6] == (0x885F7E11, 0x51000631, 0x88097E11, 0x35FFFFA9, 0x34000051)
    counter, target = plain.patches
    assert counter.offset % 8 == 0
    # ldr x16 reads the word that the relocation of the counter fills in.
    assert words[0] == 0x58000010 | counter.offset // 4 << 5
    assert words[target.offset // 4] == 0x14000000
    assert words[target.offset // 4 + 1 : target.offset // 4 + 3] == (0xD2800000, 0xD65F03C0)
    checked = ARCHITECTURES[EM_AARCH64].stub(Failing("f", Returns.ERRNO, Forbids(2, 0x8000)))
    words = struct.unpack(f"<{len(checked.code) // 4}I", checked.code)
    on = checked.patches[1].offset // 4
    assert words[0] == 0x37000000 | 15 << 19 | on << 5 | 2  # tbnz w2, #15, on
    assert words[on + 1] == 0x92800160  # mov x0, #-12
    assert checked.patches[0].offset % 8 == 0


def test_x86_stubs_look_at_the_flags_of_any_register() -> None:
    stub = ARCHITECTURES[EM_X86_64].stub
    for argument, test in enumerate((b"\xf7\xc7", b"\xf7\xc6", b"\xf7\xc2", b"\xf7\xc1",
                                     b"\x41\xf7\xc0", b"\x41\xf7\xc1")):  # fmt: skip
        made = stub(Failing("f", Returns.ERR_PTR, Forbids(argument, 0x8000)))
        code = made.code[made.entry :]
        assert code.startswith(test + b"\x00\x80\x00\x00\x75")
        jump = len(test) + 6
        # Over the counting, and to the jump to the function itself.
        assert made.code[made.entry + jump + code[jump - 1] - 0] == 0xE9


# --- the table


def test_no_function_is_in_the_table_twice_and_exceptions_are_in_it() -> None:
    source = Path(__file__).parents[3] / "frontend/faults/known_failures.py"
    words = source.read_text().split()
    twice = {name for name in KNOWN if words.count(name) > 1}
    assert not twice
    assert OTHERWISE.keys() <= KNOWN.keys()


@pytest.mark.host
def test_the_table_agrees_with_this_kernels_types() -> None:
    types = KernelTypes()
    known = [(name, types.btf.prototype(name)) for name in KNOWN]
    found = [(name, prototype) for name, prototype in known if prototype is not None]
    assert len(found) > 100
    wrong = {name: contradiction(name, prototype) for name, prototype in found}
    assert not {name: why for name, why in wrong.items() if why is not None}
    possible, _ = how_to_fail(KNOWN, types)
    allocators = [name for name in possible if "kmalloc" in name and "devm" not in name]
    assert allocators
    assert all(possible[name].forbids is not None for name in allocators)


@pytest.mark.parametrize(
    "text",
    [
        '{(unsigned long)((( gfp_t)0x8000u)), "__GFP_NOFAIL"}, {',
        '{ (unsigned long)0x8000UL, "__GFP_NOFAIL" }',
    ],
)
def test_the_flag_is_read_from_a_trace_event(text: str, tmp_path: Path) -> None:
    class NoEnum:
        def enumerator(self, name: str) -> None:
            return None

    path = tmp_path / "format"
    path.write_text(f'print fmt: "%s", {{(unsigned long)0x400u, "__GFP_IO"}}, {text}')
    assert nofail_mask(NoEnum(), [path]) == 0x8000  # type: ignore[arg-type]
    assert nofail_mask(NoEnum(), [tmp_path / "none"]) is None  # type: ignore[arg-type]
