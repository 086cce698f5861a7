"""BTF: against bpftool on whole kernels, against the compiler's own offsetof, and damaged."""

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from kleak.parsers.btf import AmbiguousTypeError, Btf, Member
from kleak.parsers.errors import ParseError

RUNNING = Path("/sys/kernel/btf/vmlinux")
VMLINUXES = [RUNNING, *sorted(Path("/usr/src").glob("linux-headers-*/vmlinux"))]

PROGRAM = r"""
#include <stddef.h>
#include <stdio.h>
struct inner { int x, y; };
struct outer {
    int a;
    union { long b; struct { char c; short d[5][2]; }; };
    unsigned f1 : 3, f2 : 13;
    int *p;
    struct inner in, many[7];
    const char name[11];
    enum colour { RED = 3, GREEN = 1000 } tint;
    char tail[];
};
struct outer instance;
int fun(int first, char *second) { return first + *second + instance.a; }
#define SHOW(m) printf("%s %zu %zu\n", #m, offsetof(struct outer, m), sizeof instance.m)
int main(void)
{
    SHOW(a); SHOW(b); SHOW(c); SHOW(d); SHOW(p); SHOW(in); SHOW(in.y); SHOW(many); SHOW(name);
    SHOW(tint);
    printf("outer %zu\n", sizeof(struct outer));
    return 0;
}
"""


def elf_btf(path):
    with path.open("rb") as stream:
        section = ELFFile(stream).get_section_by_name(".BTF")
        return section.data() if section is not None else None


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """BTF written by the compiler, and what a program of the same types says of them."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    directory = tmp_path_factory.mktemp("btf")
    (directory / "types.c").write_text(PROGRAM)
    made = subprocess.run(
        ["gcc", "-gbtf", "-o", "types", "types.c"], cwd=directory, capture_output=True, check=False
    )
    data = elf_btf(directory / "types") if made.returncode == 0 else None
    if data is None:
        pytest.skip("this gcc writes no BTF (12 and later do)")
    said = subprocess.run([directory / "types"], capture_output=True, text=True, check=True).stdout
    return Btf(data), [line.split() for line in said.splitlines()]


def test_offsets_and_sizes_are_the_compilers(compiled):
    btf, said = compiled
    assert btf.struct_size("outer") == int(said.pop()[1])
    assert len(said) == 10
    for path, offset, size in said:
        member = btf.member("outer", path)
        assert (member.offset, member.size_bytes) == (int(offset), int(size)), path


def test_a_place_is_named_by_the_members_that_lead_there(compiled):
    btf, said = compiled
    for path, offset, _ in said:
        if path not in ("in", "many", "name", "c", "d"):
            assert btf.path_at("outer", int(offset)).split(".")[0] == path.split(".")[0]
    at = btf.member_offset("outer", "many") + 3 * btf.struct_size("inner")
    assert btf.path_at("outer", at + btf.member_offset("inner", "y")) == "many[3].y"
    assert btf.path_at("outer", btf.member_offset("outer", "in.y")) == "in.y"
    assert btf.path_at("outer", btf.struct_size("outer")) is None
    assert btf.path_at("nothing", 0) is None


def test_arrays_bit_fields_enumerators_functions(compiled):
    btf, _ = compiled
    assert btf.member("outer", "many").count == 7
    assert btf.member("outer", "many").element_size == btf.struct_size("inner") == 8
    assert btf.member("outer", "tail").count == 0
    assert btf.member("outer", "a").count is None
    first, second = btf.member("outer", "f1"), btf.member("outer", "f2")
    assert (first.bit_size, second.bit_size) == (3, 13)
    assert second.bit_offset == first.bit_offset + 3
    assert second.offset == first.offset
    assert (btf.enumerator("RED"), btf.enumerator("GREEN")) == (3, 1000)
    assert btf.function_parameters("fun") == ("first", "second")


def test_absent_things_are_none(compiled):
    btf, _ = compiled
    assert btf.member("outer", "nothing") is None
    assert btf.member("outer", "a.b") is None
    assert btf.member("outer", "in.z") is None
    assert btf.member("nothing", "a") is None
    assert btf.member_offset("outer", "x") is None  # a member of a named member is not its own
    assert btf.struct_size("colour") is None
    assert btf.enumerator("outer") is None
    assert btf.function_parameters("outer") is None
    assert btf.function_id("outer") is None
    assert not btf.has_function("nothing")
    assert btf.has_function("fun")
    assert not btf.has_function("un")  # no tails of other names
    assert not btf.has_function("")
    assert btf.typedef_id("outer") is None


# --- whole kernels ----------------------------------------------------------------------------


def dump(path):
    """bpftool's view: [(kind, name, type id or size, [(member, rest of line)])] by id."""
    text = subprocess.run(
        ["bpftool", "btf", "dump", "file", path, "format", "raw"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    types = {}
    for line in text.splitlines():
        head = re.match(r"\[(\d+)\] (\w+) '(.*?)' ?(.*)", line)
        if head:
            members = []
            types[int(head[1])] = (head[2], head[3], head[4], members)
        elif line.startswith("\t'"):
            name, _, rest = line[2:].partition("' ")
            members.append((name, rest))
    return types


@pytest.fixture(scope="session", params=VMLINUXES, ids=str)
def kernel(request):
    if shutil.which("bpftool") is None:
        pytest.skip("no bpftool to compare with")
    if not request.param.exists():
        pytest.skip(f"no {request.param}")
    data = request.param.read_bytes() if request.param == RUNNING else elf_btf(request.param)
    return Btf(data), dump(request.param)


def unique(types, kinds):
    """Types of these kinds whose name occurs once."""
    by_name = {}
    for kind, name, info, members in types.values():
        if kind in kinds and name != "(anon)":
            by_name.setdefault(name, []).append((info, members))
    return {name: found[0] for name, found in by_name.items() if len(found) == 1}


def test_members_agree_with_bpftool(kernel):
    btf, types = kernel
    structs = unique(types, ("STRUCT", "UNION"))
    assert len(structs) > 5000
    compared = 0
    for name in sorted(structs)[::23]:
        info, members = structs[name]
        assert btf.struct_size(name) == int(re.search(r"size=(\d+)", info)[1])
        for member, rest in members:
            if member == "(anon)":
                continue
            found = btf.member(name, member)
            bits = re.search(r"bitfield_size=(\d+)", rest)
            assert found.bit_offset == int(re.search(r"bits_offset=(\d+)", rest)[1])
            assert found.bit_size == (int(bits[1]) if bits else 0)
            array = types[int(re.search(r"type_id=(\d+)", rest)[1])]
            if array[0] == "ARRAY":
                assert found.count == int(re.search(r"nr_elems=(\d+)", array[2])[1])
            compared += 1
    assert compared > 1000


def test_enumerators_agree_with_bpftool(kernel):
    btf, types = kernel
    values = {}
    for kind, _, _, members in types.values():
        if kind in ("ENUM", "ENUM64"):
            for name, rest in members:
                values.setdefault(name, set()).add(int(re.search(r"val=(-?\d+)", rest)[1]))
    compared = 0
    for name in sorted(values)[::61]:
        if len(values[name]) == 1:
            assert {btf.enumerator(name)} == values[name], name
            compared += 1
        else:
            with pytest.raises(AmbiguousTypeError):
                btf.enumerator(name)
    assert compared > 100


def test_functions_agree_with_bpftool(kernel):
    btf, types = kernel
    functions = unique(types, ("FUNC",))
    names = [*sorted(functions)[::97], "__traceiter_kmalloc"]
    assert len(names) > 300
    for name in names:
        prototype = types[int(re.search(r"type_id=(\d+)", functions[name][0])[1])]
        wanted = tuple(member.replace("(anon)", "") for member, _ in prototype[3])
        assert btf.function_parameters(name) == wanted, name
        assert types[btf.function_id(name)][:2] == ("FUNC", name)


def test_types_have_the_numbers_that_bpftool_shows(kernel):
    btf, types = kernel
    names = [*sorted(unique(types, ("TYPEDEF",)))[::23], "btf_trace_kmem_cache_alloc"]
    assert len(names) > 100
    for name in names:
        assert types[btf.typedef_id(name)][:2] == ("TYPEDEF", name)
    assert btf.typedef_id("btf_trace_no_such_event") is None


# --- made by hand -----------------------------------------------------------------------------


def build(types, strings, order="<", version=1):
    """A BTF file of raw words."""
    words = b"".join(struct.pack(f"{order}{len(record)}I", *record) for record in types)
    blob = b"\0" + b"".join(name.encode() + b"\0" for name in strings)
    head = struct.pack(
        f"{order}HBBIIIII", 0xEB9F, version, 0, 24, 0, len(words), len(words), len(blob)
    )
    return head + words + blob


def info(kind, vlen=0, flag=0):
    return flag << 31 | kind << 24 | vlen


# Strings: int 1, s 5, old 7, flags 11, big 17, neg 21, huge 25.
STRINGS = ["int", "s", "old", "flags", "big", "neg", "huge"]
TYPES = [
    [1, info(1), 4, 0 << 16 | 32],  # 1: int
    [0, info(1), 4, 5],  # 2: five bits of an int, as before kind_flag
    [5, info(4, 2), 8, 7, 1, 0, 11, 2, 35],  # 3: struct s { int old; int flags:5 at bit 35; }
    [0, info(6, 1, 1), 4, 21, 0xFFFFFFFB],  # 4: signed enum { neg = -5 }
    [0, info(19, 2), 8, 17, 0x89ABCDEF, 0x1234567, 25, 0xFFFFFFFF, 0xFFFFFFFF],  # 5: enum64
]


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_and_old_bit_fields(order):
    btf = Btf(build(TYPES, STRINGS, order))
    assert btf.member("s", "old") == Member(0, 4, 0, 0)
    assert btf.member("s", "flags") == Member(4, 4, 35, 5)
    assert btf.enumerator("neg") == -5
    assert btf.enumerator("big") == 0x123456789ABCDEF
    assert btf.enumerator("huge") == 2**64 - 1


def test_two_layouts_of_one_name_are_refused():
    other = [5, info(4, 1), 8, 7, 1, 32]
    btf = Btf(build([*TYPES, other], STRINGS))
    assert btf.struct_size("s") == 8
    with pytest.raises(AmbiguousTypeError, match=r"s\.old"):
        btf.member("s", "old")
    assert btf.member_offset("s", "flags") == 4


def test_every_shortened_file_is_refused():
    data = build(TYPES, STRINGS)
    for length in range(len(data)):
        with pytest.raises(ParseError):
            Btf(data[:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (build(TYPES, STRINGS, version=2), "version 2"),
        (b"\x7fELF" + bytes(60), "magic"),
        (build([[1, info(23), 4]], STRINGS), "unknown kind 23"),
        (build([[5, info(4, 2), 8, 7, 1, 0]], STRINGS), "cut short"),
        (build([[5, info(4, 2)]], STRINGS), "cut short"),
    ],
)
def test_damage_is_named(data, message):
    with pytest.raises(ParseError, match=message):
        Btf(data)


@pytest.mark.parametrize(
    "types",
    [
        [[5, info(4, 1), 8, 7, 99, 0]],  # a member of a type that does not exist
        [[5, info(4, 1), 8, 7, 2, 0], [0, info(10), 2]],  # const of itself
        [[5, info(4, 1), 8, 7, 2, 0], [0, info(3), 0, 2, 2, 2]],  # array of itself
        [[5, info(4, 1), 8, 0, 1, 0]],  # anonymous member that is its own struct
    ],
)
def test_impossible_references_end(types):
    with pytest.raises(ParseError):
        Btf(build(types, STRINGS)).member("s", "old")
