"""What is in scope: for analysis, and for capture, which asks the kernel's symbols."""

from kleak.frames.scope import in_scope
from kleak.model.session import Frame, Target
from kleak.symbols.kernel_table import KernelTable
from tests.support.samples import KERNFS, frame

LEAKY = Target("module", "leaky")
UNKNOWN = Frame(None, None, 0xFFFFFFFFC0A9201F)


def test_scope_of_a_module_does_not_mind_the_dash():
    assert in_scope(frame("f+1 [snd_hda]"), Target("module", "snd-hda"))
    assert not in_scope(frame("f+1 [snd_hda_intel]"), Target("module", "snd-hda"))
    assert not in_scope(frame("leaky+1"), LEAKY)


def test_scope_of_symbols():
    target = Target("symbols", "pipe_*,alloc_pipe_info")
    assert in_scope(frame("pipe_write+1"), target)
    assert in_scope(frame("alloc_pipe_info.isra.0+1"), target)
    assert not in_scope(frame("pipe_write+1 [leaky]"), target)
    assert not in_scope(UNKNOWN, target)
    assert not in_scope(KERNFS[0], target)


def test_scope_of_symbols_with_a_loaded_module():
    target = Target("symbols", "pipe_*,[snd-hda]")
    assert in_scope(frame("f+1 [snd_hda]"), target)
    assert in_scope(frame("pipe_write+1"), target)
    assert not in_scope(frame("pipe_write+1 [leaky]"), target)
    assert not in_scope(frame("f+1 [snd]"), target)
    assert not in_scope(frame("s+1"), target)  # the brackets are no set of letters


def test_scope_of_several_modules():
    target = Target("module", "lib,user")
    assert in_scope(frame("f+1 [lib]"), target)
    assert in_scope(frame("f+1 [user]"), target)
    assert not in_scope(frame("f+1 [other]"), target)
    assert not in_scope(frame("lib+1"), target)


def test_capture_and_analysis_call_the_same_functions_in_scope():
    names = [
        "foo", "foo.lto_priv.0", "foo.constprop.0.isra.0", "foo.part.0.cold", "foo.llvm.77",
        "foo.__uniq.5", "foo_noprof", "foo_noprof.part.0", "food", "foo_bar", "bar.foo.1",
    ]  # fmt: skip
    rows = [(0xFFFFFFFF81000000, "_stext")]
    rows += [(0xFFFFFFFF81000100 + 16 * i, name) for i, name in enumerate(names)]
    rows.append((0xFFFFFFFF81001000, "_etext"))
    table = KernelTable("".join(f"{at:016x} t {name}\n" for at, name in rows).encode())
    for scope in ("foo", "foo*", "*", "foo.lto_priv.0", "bar", "foo_noprof", "fo?"):
        target = Target("symbols", scope)
        captured = set(table.functions(scope)) - {"_stext", "_etext"}
        judged = {name for name in names if in_scope(Frame(None, name, 1), target)}
        assert captured == judged, scope
    assert "foo.lto_priv.0" in table.functions("foo")
