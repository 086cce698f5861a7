"""What a kernel's types said once is not asked again, of the same kernel."""

from __future__ import annotations

import inspect
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kleak.capture.engine.btf_cache import RememberedBtf
from kleak.model.session import Kernel
from kleak.parsers.btf import Btf, Member
from tests.parsers.test_btf import elf_btf

SOURCE = """
struct module { long state; char name[56]; struct { int a; unsigned bits : 3; }; };
enum flags { FIRST, LATER = 7 };
typedef void (*btf_trace_kfree)(void *, const void *ptr);
struct module anything; enum flags flag; btf_trace_kfree trace;
int __traceiter_kfree(void *data, unsigned long call_site, const void *ptr) { return 0; }
int main(void) { return 0; }
"""
KERNEL = Kernel("6.18.0", "x86_64", "c0ffee")
ASKED: tuple[tuple[Any, ...], ...] = (
    ("struct_size", "module"),
    ("struct_size", "nothing"),
    ("member", "module", "name"),
    ("member", "module", "bits"),
    ("member", "module", "nothing"),
    ("member_offset", "module", "a"),
    ("path_at", "module", 0),
    ("path_at", "nothing", 0),
    ("enumerator", "LATER"),
    ("enumerator", "NOTHING"),
    ("has_function", "__traceiter_kfree"),
    ("has_function", "nothing"),
    ("function_id", "__traceiter_kfree"),
    ("typedef_id", "btf_trace_kfree"),
    ("function_parameters", "__traceiter_kfree"),
    ("function_parameters", "nothing"),
    ("function_result_bytes", "__traceiter_kfree"),
    ("function_result_bytes", "nothing"),
)


@pytest.fixture(scope="module")
def types(tmp_path_factory: pytest.TempPathFactory) -> Btf:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc")
    place = tmp_path_factory.mktemp("types")
    (place / "types.c").write_text(SOURCE)
    subprocess.run(["gcc", "-gbtf", "-o", "types", "types.c"], cwd=place, check=True)
    return Btf(elf_btf(place / "types"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "kleak" / "programs"


def ask(btf: Btf) -> list[Any]:
    return [getattr(btf, question)(*names) for question, *names in ASKED]


def refuse() -> Btf:
    raise AssertionError("the types were read again")


def test_second_run_reads_no_types(types: Btf, cache: Path) -> None:
    first = RememberedBtf(KERNEL, 1000, lambda: types)
    assert ask(first) == ask(types)
    assert not cache.exists() or not list(cache.iterdir())
    first.remember()
    second = RememberedBtf(KERNEL, 1000, refuse)
    assert ask(second) == ask(types)
    assert isinstance(second.member("module", "name"), Member)
    second.remember()
    with pytest.raises(AssertionError, match="read again"):
        second.enumerator("ANOTHER")
    (kept,) = cache.iterdir()
    assert kept.stat().st_mode & 0o777 == 0o600


def test_new_questions_are_added(types: Btf) -> None:
    for question in ("FIRST", "LATER"):
        btf = RememberedBtf(KERNEL, 1000, lambda: types)
        assert btf.enumerator(question) == types.enumerator(question)
        btf.remember()
    both = RememberedBtf(KERNEL, 1000, refuse)
    assert (both.enumerator("FIRST"), both.enumerator("LATER")) == (0, 7)


@pytest.mark.parametrize(
    ("kernel", "size_bytes"),
    [(Kernel("6.18.0", "x86_64", "decaf"), 1000), (KERNEL, 1001)],
    ids=["build-id", "size"],
)
def test_another_kernel_is_asked_itself(types: Btf, kernel: Kernel, size_bytes: int) -> None:
    first = RememberedBtf(KERNEL, 1000, lambda: types)
    ask(first)
    first.remember()
    with pytest.raises(AssertionError, match="read again"):
        RememberedBtf(kernel, size_bytes, refuse).enumerator("LATER")


def test_nothing_is_kept_of_a_kernel_without_build_id(types: Btf, cache: Path) -> None:
    btf = RememberedBtf(Kernel("6.18.0", "x86_64", None), 1000, lambda: types)
    ask(btf)
    btf.remember()
    assert not cache.exists()


def test_damaged_answers_are_not_believed(types: Btf, cache: Path) -> None:
    first = RememberedBtf(KERNEL, 1000, lambda: types)
    ask(first)
    first.remember()
    (kept,) = cache.iterdir()
    kept.write_bytes(kept.read_bytes().replace(b" 7", b" 8").replace(b":7", b":8"))
    assert RememberedBtf(KERNEL, 1000, lambda: types).enumerator("LATER") == 7


def test_every_question_is_remembered() -> None:
    """One that is not would be put to types that were never read."""
    questions = {
        name for name, _ in inspect.getmembers(Btf, inspect.isfunction) if not name.startswith("_")
    }
    assert questions == {question for question, *_ in ASKED}
    own = set(vars(RememberedBtf)) & questions
    assert questions - own == {"member_offset"}  # which asks member()
