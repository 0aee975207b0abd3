"""A table as Markdown, LaTeX, CSV and in the terminal, all from the same numbers."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from reports import tablebuild
from reports.errors import NothingToReport, ReportError
from reports.latex import latex
from reports.othermethods import other_methods
from reports.paper import paper_values
from reports.report import build_report
from reports.tablebuild import TableReport, build_table
from reports.tablefill import fill
from reports.tableformats import markdown, plain, show
from reports.tablewords import count, document, writer
from results.layout import Home

from .synthetic import FakeRun, measured, noisy
from .synthetic import study as builtin
from .tabled import ARMS, PAPER, case, some_values, study, told, without, worded
from .test_build import Store

ENGINE: Any = None
STEM = "made_cpu"


def test_what_verdicts_imply_stands_below_the_table() -> None:
    said = replace(told(), implied=("k = 1 is better than k → ∞. Contradicted: *never* annealing is better.",))
    for text in (plain(said), markdown(said)):
        assert text.count("What the verdicts imply:") == 1
    assert "- k = 1 is better than k → ∞. Contradicted: *never* annealing is better." in plain(said)
    assert "Contradicted: \\*never\\* annealing" in markdown(said)
    terminal = io.StringIO()
    show(said, Console(file=terminal, force_terminal=True, width=160))
    assert "Contradicted: *never* annealing is better." in terminal.getvalue()
    assert "imply" not in plain(told()) and "imply" not in markdown(told())


def test_the_controls_of_table_4_are_explained_below_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    resolved = builtin("cpu", range(3), "k_schedule")
    size = {"dtd_constant": 0.5, "dtd_reversed": 2.0}
    made = resolved, *measured(resolved, lambda arm, p: size.get(arm.name, 1.0) * noisy(arm, p, 0.01))
    Store(monkeypatch, made=made)
    said = build_table(ENGINE, Home(tmp_path), study="k_schedule", out=tmp_path / "out").document.implied
    assert len(said) == 4
    assert any("Contradicted: " in line and "never annealing, the end of its axis, is better" in line for line in said)
    assert any("Supported: " in line and "the same weights in reverse are worse" in line for line in said)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(tablebuild, "paper_values", lambda study: PAPER)
    return Store(monkeypatch, made=case(some_values()))


def rows_of(text: str, heading: str) -> list[list[str]]:
    """The cells of the first Markdown table below a heading, without its head and rule."""
    lines = text[text.index(heading) :].splitlines()
    table = [line for line in lines[2:] if line.startswith("|")]
    end = next((i for i, line in enumerate(table) if i > 1 and "---" in line), None)
    assert end is None or end > 1
    split = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in table[: None if end is None else end - 1]
    ]
    assert len({len(row) for row in split}) == 1, "as many cells in every row"
    return split[2:]


def test_markdown_holds_every_number_and_its_marks() -> None:
    text = markdown(told())
    values = some_values()
    rows = {row[0]: row for row in rows_of(text, "**on_the left & 50 %**")}
    assert list(rows) == ["method base", "method a", "method b", "*our controls*", "backwards"]
    for arm, label in zip((*ARMS, "back"), ("method base", "method a", "method b", "backwards"), strict=True):
        assert f"{np.mean(values[arm]):.2f} ± " in rows[label][2]
    assert rows["method a"][2].startswith("**") and rows["method a"][2].endswith("**")
    assert rows["method b"][2].startswith("<ins>") and "<ins>" not in rows["method base"][2]
    assert [rows[f"method {arm}"][3] for arm in ARMS] == ["10.00", "**9.00**", "<ins>9.50</ins>"]
    assert rows["backwards"][3] == "–" and "**" not in rows["backwards"][2]


def test_what_every_format_says(capsys: pytest.CaptureFixture[str]) -> None:
    said = told()
    show(said, Console(highlight=False, force_terminal=True, width=400, no_color=True))
    texts = {"md": markdown(said), "tex": latex(said), "plain": plain(said), "rich": capsys.readouterr().out}
    for kind, text in texts.items():
        flat = " ".join(text.replace("\\", "").split())
        for phrase in ("A made-up table. Scale cpu", "20261120T120501-1a2b3c", "configuration 01234567", "over 4 seeds",
                       "Student-t 95 % interval", "Values are not compared", "backwards", "After Table 3"):  # fmt: skip
            assert phrase in flat, (kind, phrase)
        assert "MEANINGLESS" not in text
    for kind in ("md", "plain", "rich"):
        assert "rows minus method base" in texts[kind] and "Kendall" in texts[kind] and "Holm" in texts[kind]


def test_a_meaningless_scale_is_marked_in_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    said = told(meaningless=True)
    show(said, Console(force_terminal=True, width=200))
    for text in (markdown(said), latex(said), plain(said), capsys.readouterr().out):
        assert "MEANINGLESS" in text
    assert "undecided: the numbers of this scale mean nothing" in plain(said)
    assert "Values are not compared" not in markdown(said) + latex(said) + plain(said)


def test_the_terminal_shows_the_orders_at_the_end_and_markdown_all(capsys: pytest.CaptureFixture[str]) -> None:
    said = replace(told(), orders_file="made_cpu_orders.csv")
    show(said, Console(force_terminal=True, width=250))
    for text in (plain(said), capsys.readouterr().out):
        orders = text[text.index("rows minus method base") :]
        assert orders.count("1-NFE, 25 %") == 0 and orders.count("method a  ") == 2
        assert "Orders of the other columns: made_cpu_orders.csv" in text
    assert [row[1] for row in rows_of(markdown(said), "rows minus method base")] == [
        *["1-NFE, 25 %"] * 3, *["1-NFE"] * 3, *["2-NFE"] * 3
    ]  # fmt: skip
    assert "other columns" not in markdown(said)
    table = study().table
    assert table is not None
    at_the_end = told(table={**table.model_dump(), "columns": table.model_dump()["columns"][1:]})
    assert "other columns" not in plain(replace(at_the_end, orders_file="made_cpu_orders.csv"))


def test_what_is_measured_stands_in_the_order_of_columns() -> None:
    """128 steps after 32 and 64, not before them as text."""
    resolved = builtin("cpu", [0, 1], "multistep_v")
    table = fill(resolved, *measured(resolved, lambda arm, p: 1.0 + arm.seed), {})
    caption = document(table, [], [], FakeRun(), None).caption
    assert [caption.index(f"{n}-NFE (euler)") for n in (32, 64, 128)] == sorted(
        caption.index(f"{n}-NFE (euler)") for n in (32, 64, 128)
    )
    assert "the values of its Table 5 (“Comparison of multi-step generation" not in caption, "none stand beside"


def test_the_papers_caption_and_the_sweep_are_named() -> None:
    resolved = builtin("cpu", [0], "k_schedule")
    table = fill(resolved, *measured(resolved, lambda arm, p: 1.0 + arm.seed), paper_values(resolved))
    caption = document(table, [], [], FakeRun(), None).caption
    assert "Paper: the values of its Table 4 (“Effect of k”), in its setting" in caption
    assert "Rows k…: the points of the sweep over schedule_power, method dtd_u_weight." in caption
    assert "points of the sweep" not in told().caption


def test_values_are_compared_only_where_the_scale_is_the_papers() -> None:
    assert "(within)" not in markdown(told()) and "(outside" not in markdown(told())
    text = markdown(told(as_in_paper=True))
    assert "(outside: ours higher)" in text and "Values are not compared" not in text


def test_plain_text_lines_up_and_rules_off_controls() -> None:
    block = plain(told()).split("\n\n")[1].splitlines()
    assert block[0] == "on_the left & 50 %"
    assert block[2] == block[6] == "  " + "-" * (len(block[2]) - 2)
    assert (
        block[4].split("  ")[-1] and "*" in block[4] and "_" in block[5] and block[7].lstrip().startswith("backwards")
    )
    starts = [line.index("±") for line in (block[3], block[7])]
    assert starts[0] == starts[1]


def test_fewer_seeds_and_missing_cells_show() -> None:
    resolved, frame, protocols = case(some_values())
    frame = without(without(frame, arm="a", seed=[1, 2]), arm="b", nfe=2)
    text = markdown(told((resolved, frame, protocols)))
    assert "(n = 2)" in text and "left b (2-NFE): not measured" in text and "over 2 to 4 seeds" in text
    rows = {row[0]: row for row in rows_of(text, "**on_the left & 50 %**")}
    assert rows["method b"][4] == "–"
    assert "No best is marked while arms of a part differ in seeds: 1-NFE, 25 %; 1-NFE; 2-NFE." in text
    assert not any(rows[f"method {arm}"][2].startswith(("*", "<")) for arm in ARMS)
    assert "1-NFE 1 (3 rows, 2 seeds), 2-NFE −1 (2 rows, 2 seeds)" in text
    assert "No best is marked" not in markdown(told())


def test_one_seed_gives_no_interval() -> None:
    text = markdown(told(case({arm: v[:1] for arm, v in some_values().items()}, 1)))
    assert "One seed: no interval can be given, and no difference is resolved" in text and "±" not in text
    assert "one seed is never a verdict" in text and "One seed resolves nothing" in text
    orders = rows_of(text, "rows minus method base")
    assert [row[8] for row in orders] == ["unknown with one seed"] * 9
    assert "with one seed" not in markdown(told()) and "One seed" not in markdown(told())


def test_assumptions_and_text_are_escaped_in_markdown() -> None:
    assert r"- what was \*assumed\*" in markdown(told())


@pytest.mark.parametrize(
    "values, said",
    [([11.58, 9.87], ["11.58", "9.87"]), ([0.0986, 0.01], ["0.09860", "0.01000"]), ([245.32], ["245.3"]),
     ([12345.6], ["12346"]), ([-1.5], ["−1.500"]), ([0.0], ["0.00"]), ([2e-9], ["2.000e−09"])],
)  # fmt: skip
def test_four_digits_of_the_largest_in_a_column(values: Sequence[float], said: list[str]) -> None:
    write = writer(values)
    assert [write(value) for value in values] == said


def test_counts() -> None:
    assert [count(n) for n in (130_600_000, 1_250_000, 215_300, 9_500, 80)] == ["131M", "1.2M", "215k", "9.5k", "80"]


def read(report: TableReport, ending: str) -> str:
    (path,) = [path for path in report.files if path.name.endswith(ending)]
    return path.read_bytes().decode()


def test_files(home: Home, stored: Store, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = build_table(ENGINE, home, study="made", out=out)
    names = [f"{STEM}_table.md", f"{STEM}_table.tex", f"{STEM}_table.csv", f"{STEM}_orders.csv"]
    assert [path.name for path in report.files] == names == sorted(names, key=names.index)
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    before = {path: path.read_bytes() for path in report.files}
    assert {path: path.read_bytes() for path in build_table(ENGINE, home, study="made", out=out).files} == before
    assert report.run.run in report.chosen and report.missing == []


def test_csv_has_a_line_a_cell_and_a_line_an_order(home: Home, stored: Store, tmp_path: Path) -> None:
    report = build_table(ENGINE, home, study="made", out=tmp_path)
    cells = pd.read_csv(io.StringIO(read(report, "_table.csv")))
    assert len(cells) == 4 * 3 and cells.groupby(["arm", "column"]).ngroups == 12
    values = some_values()
    for arm, own in cells[cells["column"] == "one"].groupby("arm"):
        assert own["mean"].item() == pytest.approx(np.mean(values[str(arm)])) and own["n"].item() == 4
    assert cells.query("best")[["arm", "column"]].to_numpy().tolist() == [["a", c] for c in ("quarter", "one", "two")]
    assert set(cells["run"]) == {FakeRun().run} and set(cells["config_hash"]) == {FakeRun().config_hash}
    assert set(cells["scale"]) == {"cpu"} and cells.query("control")["paper"].isna().all()
    orders = pd.read_csv(io.StringIO(read(report, "_orders.csv")))
    assert len(orders) == 3 * 3 and set(orders["reference"]) == {"base"}
    assert (orders["p_holm"] >= orders["p"]).all() and orders["low_percent"].lt(orders["high_percent"]).all()


def test_rows_without_another_to_be_compared_with_have_no_file_of_orders(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = [{"id": "one", "label": "1-NFE"}, {"id": "two", "label": "2-NFE", "nfe": 2}]
    Store(monkeypatch, made=case(some_values(), table={"row": "{method}", "reference": "{method}", "columns": columns}))
    report = build_table(ENGINE, home, study="made", out=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(path.name for path in report.files)
    assert not any("orders" in path.name for path in report.files)
    assert "_orders" not in plain(report.document)


def test_records_for_programs(home: Home, stored: Store, tmp_path: Path) -> None:
    records = json.loads(json.dumps(build_table(ENGINE, home, study="made", out=tmp_path).records, allow_nan=False))
    assert {len(records["cells"]), len(records["orders"])} == {12, 9} and len(records["rankings"]) == 2
    first = records["cells"][0]
    assert list(first["values"]) == ["0", "1", "2", "3"]
    assert np.mean(list(first["values"].values())) == pytest.approx(first["mean"])


def test_nothing_measured_writes_nothing(home: Home, stored: Store, tmp_path: Path) -> None:
    stored.frame["value"] = np.nan
    with pytest.raises(NothingToReport, match=r"no measured point of its table yet: continue it with `study run made"):
        build_table(ENGINE, home, study="made", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_study_reports_what_it_declares(home: Home, stored: Store, tmp_path: Path) -> None:
    only_table = build_report(ENGINE, home, study="made", out=tmp_path / "a")
    assert len(only_table.files) == 4 and only_table.table is not None and only_table.run.run == FakeRun().run
    with pytest.raises(ReportError, match="declares no figure"):
        build_report(ENGINE, home, study="made", only="figure", out=tmp_path / "b")
    with pytest.raises(NothingToReport, match="no run of 'other'"):
        build_report(ENGINE, home, study="other", out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


CURVES = {"kind": "curves", "colour_by": "method", "colour_label": "method", "stage": "train"}


def test_figure_and_table_together(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: Store) -> None:
    store = Store(monkeypatch, made=case(some_values(), figure=CURVES))
    both = build_report(ENGINE, home, study="made", out=tmp_path / "both")
    assert [path.name for path in both.files] == [
        *(f"{STEM}.{kind}" for kind in ("png", "pdf", "svg", "csv")),
        *(f"{STEM}_table.{kind}" for kind in ("md", "tex", "csv")),
        f"{STEM}_orders.csv",
    ]
    assert all(path.stat().st_size for path in both.files)
    assert len(build_report(ENGINE, home, study="made", only="table", out=tmp_path / "t").files) == 4
    assert len(build_report(ENGINE, home, study="made", nfe=2, out=tmp_path / "f").files) == 4
    store.frame["value"] = store.frame["value"].where(store.frame["nfe"] == 2)
    half = build_report(ENGINE, home, study="made", out=tmp_path / "half")
    assert len(half.files) == 4 and half.table is not None
    assert any(phrase.startswith("the figure: run") and "no measured point" in phrase for phrase in half.missing)


def test_a_part_that_cannot_be_made_does_not_take_the_others_along(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stored: Store
) -> None:
    Store(monkeypatch, made=case(some_values(), figure={**CURVES, "label": "{nothing}"}))
    with pytest.raises(ReportError, match="nothing"):
        build_report(ENGINE, home, study="made", only="figure", out=tmp_path)
    made = build_report(ENGINE, home, study="made", out=tmp_path)
    assert made.table is not None and any(phrase.startswith("the figure: ") for phrase in made.missing)


def test_a_study_without_a_table_is_reported_as_ever(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store(monkeypatch, seeds=2)
    made = build_report(ENGINE, home, study="obs_v_then_u", out=tmp_path)
    assert made.table is None and len(made.files) == 4
    with pytest.raises(ReportError, match="declares no table"):
        build_report(ENGINE, home, study="obs_v_then_u", only="table", out=tmp_path)


def test_other_methods_stand_apart_as_printed() -> None:
    """Table 1 has 19 rows that are no arm of ours; their values are the paper's, dashes stay dashes."""
    sizes = builtin("cpu", [0], "model_sizes")
    frame, protocols = measured(sizes, lambda arm, p: 1.0 + arm.seed)
    filled = fill(sizes, frame, protocols, paper_values(sizes))
    others = other_methods(sizes)
    assert others is not None and len(others.rows) == 19
    told = replace(worded(filled), others=others)
    assert "| Few-step models, trained end to end | Shortcut-XL/2 | 675M | 160 | – | 10.60 | – | – |" in markdown(told)
    assert "BigGAN" in plain(told) and "6.95" in plain(told)
    assert latex(told).count(r"\begin{tabular}") == latex(told).count(r"\end{tabular}") == 2
    assert other_methods(builtin("cpu", [0], "components")) is None
