"""Tables and the seeds that their comparisons need, through the real command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tests.homes import TINY, study, succeeds

pytestmark = pytest.mark.slow  # whole commands that train

MINE = f"""
study: tabled
extends: {TINY}
table:
  row: "{{v_epochs}} epochs of v & 4 of u"
  reference: v0
  about: [parameters, epochs]
  columns:
    - {{id: half, label: "1-NFE, 50 %", percent: 50}}
    - {{id: fid_1nfe, label: "1-NFE"}}
claims:
  - {{id: v_helps, text: "", where: "", panel: left, test: difference, arms: [v4, v0], direction: decreasing}}
scales:
  cpu: {{measure: [{{metric: {{name: frechet, features: pixel}}, samples: 100, every_epochs: 1}}]}}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mine") / "tabled.yaml"
    path.write_text(MINE)
    return path


@pytest.fixture(scope="module")
def home(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tables")
    succeeds("run", file, "--seeds", "0-2", home=place)
    return place


def test_report_makes_the_table_beside_the_figure(file: Path, home: Path, tmp_path: Path) -> None:
    text = succeeds("report", file, "--out", tmp_path, home=home)
    wrote = [Path(line.removeprefix("wrote ")).name for line in text.splitlines() if line.startswith("wrote ")]
    assert wrote == [
        "tabled_cpu.png", "tabled_cpu.pdf", "tabled_cpu.svg", "tabled_cpu.csv",
        "tabled_cpu_table.md", "tabled_cpu_table.tex", "tabled_cpu_table.csv", "tabled_cpu_orders.csv",
    ]  # fmt: skip
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(wrote)
    assert "MEANINGLESS" in text and "4 epochs of v & 4 of u" in text and "rows minus 0 epochs of v & 4 of u" in text
    latex = (tmp_path / "tabled_cpu_table.tex").read_text()
    assert r"4 epochs of v \& 4 of u" in latex
    rows = list(csv.DictReader(io.StringIO((tmp_path / "tabled_cpu_table.csv").read_text())))
    assert {(r["panel"], r["arm"]) for r in rows if r["control"] == "True"} == {("right", "joint")}
    assert {r["arm"]: r["epochs"] for r in rows if r["panel"] == "left"} == {"v0": "4", "v2": "6", "v4": "8"}


def test_values_are_those_of_the_store(file: Path, home: Path, tmp_path: Path) -> None:
    report = json.loads(succeeds("report", file, "--out", tmp_path, "--json", home=home))
    stored = list(csv.DictReader(io.StringIO(succeeds("results", "--study", file, home=home))))
    cells = report["table"]["cells"]
    assert len(cells) == 7 * 2 and report["missing"] == []
    for cell in cells:
        own = [r for r in stored if (r["panel"], r["arm"]) == (cell["panel"], cell["arm"])]
        end = max(float(r["epoch"]) for r in own)
        at = {r["seed"]: float(r["value"]) for r in own if float(r["epoch"]) == end * cell["percent"] / 100}
        assert cell["values"] == at and len(at) == 3
    orders = report["table"]["orders"]
    assert len(orders) == (2 + 3) * 2 and {o["verdict"] for o in orders} == {"undecided"}, "a meaningless scale"


def test_power_says_how_many_seeds_are_needed(file: Path, home: Path, tmp_path: Path) -> None:
    power = json.loads(succeeds("plan", file, "--power", "--json", home=home))
    assert (power["studies"], power["scale"]) == (["tabled"], "cpu")
    claim, *rows = power["power"]
    assert (claim["claim"], claim["arms"], claim["n"], claim["planned_n"]) == ("v_helps", ["v4", "v0"], 3, 1)
    assert claim["sd_percent"] > 0 and claim["resolvable_planned_percent"] is None, "one seed resolves nothing"
    assert claim["effect_percent"] == 10 and claim["paper_percent"] is None
    assert [row["arms"][0] for row in rows] == ["v2", "v2", "v4", "joint"]
    text = succeeds("plan", file, "--power", "--seeds", "0-5", home=home)
    assert "v4 − v0" in text and "(6)" in text and "seeds needed" in text


def test_power_without_a_store_is_unknown(file: Path, tmp_path: Path) -> None:
    text = succeeds("plan", file, "--power", home=tmp_path / "none")
    assert text.count("unknown: no spread in the store yet") == 5
    power = json.loads(
        succeeds("plan", "components", "k_schedule", "--power", "--scale", "cpu", "--json", home=tmp_path)
    )
    assert {p["n"] for p in power["power"]} == {0} and {p["study"] for p in power["power"]} == {
        "components",
        "k_schedule",
    }
    helped = next(p for p in power["power"] if p["claim"] == "dtd_u_weight_helps")
    assert helped["paper_percent"] == pytest.approx(100 * (10.20 - 11.58) / 11.58)
    assert list(tmp_path.iterdir()) == [], "nothing is made"
    nothing = succeeds("plan", TINY, "--power", home=tmp_path)
    assert "there is nothing to compare" in nothing


@pytest.mark.parametrize(
    "args, said",
    [(("--table", "99"), "no study makes table 99 (available: 1, 2, 3, 4, 5, 6)"),
     (("--table", "3", "--metric", "v_error"), "leave them out with --table"),
     (("components", "--table", "3"), "say which"),
     (("--figure", "2", "--table", "3"), "say which"),
     ((), "say which"),
     (("--table", "3"), "no run of 'components'"),
     (("--table", "6", "--scale", "cpu"), "no run of 'components_ffhq' at scale 'cpu'")],
)  # fmt: skip
def test_what_cannot_be_reported_says_so(args: tuple[str, ...], said: str, home: Path, tmp_path: Path) -> None:
    done = study("report", *args, "--out", tmp_path / "out", home=home)
    assert done.returncode == 2 and said in done.stderr
    assert not (tmp_path / "out").exists()
