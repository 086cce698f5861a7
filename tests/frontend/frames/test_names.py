"""One function has one name, whatever compilers and linkers append to it."""

from kleak.frames.names import base_name


def test_base_name_drops_what_compiler_linker_and_profiling_append():
    for symbol, expected in {
        "plain": "plain",
        "vfree.part.0": "vfree",
        "f.constprop.0.isra.0": "f",
        "f.part.0.cold": "f",
        "f.12": "f",
        "f.llvm.123456": "f",
        "f.lto_priv.0": "f",
        "f.lto_priv.0.cold": "f",
        "f.__uniq.301893": "f",
        "__kmalloc_noprof": "__kmalloc",
        "kvmalloc_node_noprof.part.0": "kvmalloc_node",
        "f_noprof.lto_priv.3": "f",
        "cold": "cold",
        ".Lbegin": ".Lbegin",
    }.items():
        assert base_name(symbol) == expected
