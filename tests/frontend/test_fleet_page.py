"""The query of docs/fleet.md, as the page has it, over real sessions of two kernels."""

import re
from pathlib import Path

import pytest

from kleak.render.formats import BY_NAME
from kleak.render.renderer import Look
from kleak.store.reader import read_session
from tests.support.paths import TOP
from tests.support.samples import session
from tests.support.saved import material, saved_files

PAGE = (TOP / "docs" / "fleet.md").read_text()


def queries():
    return re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def rows(tmp_path, monkeypatch):
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    leaky = [read_session(path) for path in saved_files() if path.stem.endswith("--leaky")]
    clean = session(cycles=5)
    what = material(*leaky, clean, names=("one", "two", "clean"))
    Path("sites.parquet").write_bytes(BY_NAME["parquet"].render(what, Look()))
    # As text, because DuckDB wants another package to make a datetime of it.
    query = queries()[0].rstrip().rstrip(";")
    result = duckdb.sql(f"SELECT * REPLACE (since::VARCHAR AS since) FROM ({query})")
    return [dict(zip(result.columns, row, strict=True)) for row in result.fetchall()]


def test_the_query_finds_every_leak_on_both_kernels(rows):
    functions = {row["function"].split(".")[0] for row in rows}
    assert functions == {"forget_rings", "lose_sessions", "forget_buffers", "leaky_init"}
    for row in rows:
        assert row["seen_in"] == 2
        assert row["sessions"] == 3
        assert row["kernels"].count(",") == 1
        assert row["since"] is not None
    (rings,) = [row for row in rows if row["function"] == "forget_rings"]
    assert rings["place"] == "buffers.c:48"
    assert rings["bytes_per_cycle"] == 122880 / 5


def test_every_column_of_the_file_is_on_the_page():
    parquet = pytest.importorskip("pyarrow.parquet")
    import io

    data = BY_NAME["parquet"].render(material(session(cycles=1)), Look())
    for name in parquet.read_table(io.BytesIO(data)).column_names:
        assert f"`{name}`" in PAGE, name


def test_the_other_engines_are_asked_the_same():
    answers = [re.findall(r"AS (\w+),?\n", query.split("SELECT", 1)[1]) for query in queries()]
    wanted = {"place", "seen_in", "sessions", "kernels", "since", "bytes_per_cycle"}
    assert len(answers) == 3
    for names in answers:
        assert wanted <= set(names)
