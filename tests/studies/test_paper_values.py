"""The paper's numbers: all of them, and each where a study looks for it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from studies.arms import expand_seed
from studies.errors import StudyError
from studies.loader import StudySource, builtin_names, load_source, resolve
from studies.paper_values import PaperTable, load_paper_tables, paper_speedups

TABLES = load_paper_tables()


@cache
def source_of_table(number: int) -> StudySource:
    return next(source for source in map(load_source, builtin_names()) if number in source.paper("tables"))


def value(table: int, arm: str, column: str) -> float | None:
    return TABLES[table].by_arm(column).get(arm)


def numbers(table: PaperTable) -> list[float]:
    return [value for row in table.rows for value in row.values.values() if value is not None]


@pytest.mark.parametrize(
    ("number", "rows", "count", "total"),
    [
        (1, 30, 42, 266.46),
        (2, 8, 16, 60.96),
        (3, 6, 12, 108.91),
        (4, 5, 5, 56.37),
        (5, 3, 9, 64.08),
        (6, 5, 10, 109.48),
    ],
)
def test_every_number_of_a_table(number: int, rows: int, count: int, total: float) -> None:
    table = TABLES[number]
    assert (len(table.rows), len(numbers(table))) == (rows, count)
    assert sum(numbers(table)) == pytest.approx(total, abs=1e-6)
    assert set(TABLES) == {1, 2, 3, 4, 5, 6}


@pytest.mark.parametrize(
    ("table", "arm", "column", "printed"),
    [
        (1, "min_snr_u_weight_b", "fid_1nfe", 9.87),
        (1, "dtd_u_weight_m", "fid_2nfe", 4.10),
        (1, "dtd_u_weight_xl", "fid_1nfe", 2.87),
        (2, "meanflow_xl_kappa50", "fid_2nfe", 4.64),
        (3, "dtd", "fid_1nfe", 10.96),
        (4, "k0.5", "fid_1nfe", 11.16),
        (5, "min_snr_u_weight", "fid_128nfe", 6.86),
        (6, "dtd_u_weight", "fid_2nfe", 9.19),
        (4, "k4", "fid_1nfe", None),
        (3, "dtd", "at25", None),
    ],
)
def test_values(table: int, arm: str, column: str, printed: float | None) -> None:
    assert value(table, arm, column) == printed


def test_what_stands_in_several_tables_is_the_same() -> None:
    for column in ("fid_1nfe", "fid_2nfe"):
        for method in ("meanflow", "min_snr_u_weight", "dtd_u_weight"):
            assert value(1, f"{method}_b", column) == value(3, method, column)
        for arm in ("meanflow_l", "dtd_u_weight_l", "meanflow_xl", "dtd_u_weight_xl"):
            assert value(1, arm, column) == value(2, f"{arm}_kappa92", column)
    assert value(4, "k1", "fid_1nfe") == value(3, "dtd_u_weight", "fid_1nfe")
    assert value(4, "meanflow", "fid_1nfe") == value(3, "meanflow", "fid_1nfe")


def test_rows_of_other_methods() -> None:
    rows = {row.row: row for row in TABLES[1].rows if row.arm is None}
    assert len(rows) == 19
    assert rows["iCT-XL/2"].values == {"fid_1nfe": 34.24, "fid_2nfe": 20.30}
    assert rows["iCT-XL/2"].about == {"parameters": "675M", "epochs": None}
    assert rows["Shortcut-XL/2"].values == {"fid_1nfe": 10.60, "fid_2nfe": None}
    assert rows["MeanFlow-XL/2+"].about["epochs"] == 1000
    assert rows["SimDiff"].about == {"parameters": "2B", "nfe": "512×2"}
    assert rows["VQ-GAN"].values == {"fid": 26.52}


@pytest.mark.parametrize("number", sorted(TABLES))
def test_the_study_of_a_table_has_its_arms_and_columns(number: int) -> None:
    """Every row that names an arm is one, and every arm has a value in each of the paper's columns."""
    table, study = TABLES[number], resolve(source_of_table(number), "paper")
    assert study.table is not None
    arms = {arm.name for arm in expand_seed(study, 0) if not arm.control}
    assert {row.arm for row in table.rows if row.arm is not None} == arms
    columns = [column.id for column in study.table.columns]
    assert columns == [column for column in table.columns if column != "fid"], "'fid' is of other methods only"
    for column in columns:
        assert set(table.by_arm(column)) == arms


def test_arms_at_small_scales_are_called_as_at_the_papers() -> None:
    for number, table in TABLES.items():
        for scale in ("smoke", "cpu", "truth"):
            study = resolve(source_of_table(number), scale)
            there = {arm.name for arm in expand_seed(study, 0) if not arm.control}
            assert there == {row.arm for row in table.rows if row.arm is not None}
            assert study.table is not None
            assert {"fid"} >= set(table.columns) - {column.id for column in study.table.columns}


def test_speedups_are_those_of_claims() -> None:
    speedups = paper_speedups("convergence")
    assert speedups == {("xl", "dtd_u_weight"): 2.5, ("l", "dtd_u_weight"): 2.3, ("m", "dtd_u_weight"): 2.1}
    claims = resolve(load_source("convergence"), "paper").claims
    said = {(c.panel, c.arms[0]): c.where for c in claims if c.test == "speedup" and c.arms}
    assert all(f"{speedup}×" in said[place] for place, speedup in speedups.items())
    assert paper_speedups("components") == {}


ROW = "{row: r, arm: a, values: {x: 1.0}}"


def table(rows: str = ROW, columns: str = "{x: X}", more: str = "") -> str:
    return f"{{table: 1, caption: c, metric: FID, columns: {columns}, rows: [{rows}]{more}}}"


@pytest.mark.parametrize(
    ("tables", "words"),
    [
        (table(columns="{y: Y}"), "tables.0: table 1, row 'r': there is no column 'x'"),
        (table(f"{ROW}, {ROW}"), "tables.0: table 1: two rows are the arm 'a'"),
        (table(more=", note: n"), "tables.0.note: unknown key"),
        (table("{row: r, values: {x: -1}}"), "tables.0.rows.0.values.x: .*greater than 0"),
        (f"{table()}, {table()}", "each table may stand only once"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, tables: str, words: str) -> None:
    path = tmp_path / "values.yaml"
    path.write_text(f"tables: [{tables}]\nspeedups: []\n")
    with pytest.raises(StudyError, match=f"{path}: {words}"):
        load_paper_tables(path)
