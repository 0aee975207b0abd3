"""`study sweep`: a run, its ranking and its figure; spaces replaced; what it refuses."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest

from reports.stored import load
from results.layout import Home
from studies.cli.choose import choose
from studies.cli.store import opened
from studies.cli.sweeping import choose_sweep
from studies.errors import StudyError
from studies.fitting import OWN_KEYS, in_sweep, name_of_points
from studies.schema import ResolvedStudy
from studies.sweep import Sweep, sweep_points
from tests.homes import attempts, study, succeeds

pytestmark = pytest.mark.slow  # whole commands that train

SWEEP = Path(__file__).parent.parent / "assets" / "sweep.yaml"
PANEL = 'panels={wide: {title: "width 16", arms: {method: [plain], width: 16}}}'  # one panel is enough here
QUICK = ("-o", PANEL, "-o", "controls={}", "-o", "measure.0.every_epochs=4")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sweep")
    succeeds("sweep", SWEEP, "--out", place / "report", home=place / "home")
    return place / "home"


def ranking(folder: Path, stem: str) -> list[dict[str, str]]:
    with (folder / f"{stem}_ranking.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_sweep_is_run_ranked_and_drawn(home: Path, tmp_path: Path) -> None:
    before = attempts(home)
    out = succeeds("sweep", SWEEP, "--out", tmp_path, home=home)
    assert "everything is there already: 20 segments and 60 evaluations" in out and attempts(home) == before
    assert "Points of tiny_sweep at scale cpu by 1-NFE Fréchet distance" in out and "numbers mean nothing" in out
    assert {path.name for path in tmp_path.iterdir()} == {
        f"tiny_sweep_cpu{end}" for end in (".png", ".pdf", ".svg", ".csv", "_ranking.md", "_ranking.csv")
    }
    rows = ranking(tmp_path, "tiny_sweep_cpu")
    results = list(csv.DictReader(succeeds("results", "--study", SWEEP, home=home).splitlines()))
    for panel in ("wide", "narrow"):
        own = [row for row in rows if row["panel"] == panel]
        assert [row["rank"] for row in own] == ["1.0", "2.0", "3.0", "", ""] and own[3]["arm"] == "plain"
        means = [float(row["mean"]) for row in own[:3]]
        assert means == sorted(means)
        for row in own:
            last = [
                float(r["value"]) for r in results if (r["panel"], r["arm"], r["epoch"]) == (panel, row["arm"], "4.0")
            ]
            assert len(last) == 2 and float(row["mean"]) == pytest.approx(sum(last) / 2)
    assert (tmp_path / "tiny_sweep_cpu_ranking.md").read_text(encoding="utf-8").count("| tuned_lr") == 6


def test_report_shows_the_ranking_too(home: Path, tmp_path: Path) -> None:
    out = succeeds("report", SWEEP, "--out", tmp_path, home=home)
    assert "Points of tiny_sweep" in out and (tmp_path / "tiny_sweep_cpu_ranking.md").exists()
    made = json.loads(succeeds("report", SWEEP, "--out", tmp_path, "--json", home=home))
    assert str(tmp_path / "tiny_sweep_cpu_ranking.csv") in made["files"] and made["missing"] == []


def test_a_replaced_space_reuses_points_and_leaves_out_what_it_lacks(home: Path, tmp_path: Path) -> None:
    out = succeeds("sweep", SWEEP, *QUICK, "-o", "space.lr=[0.002, 0.016]", "--as", "two", "--out", tmp_path, home=home)
    assert "left out, since there is no arm of panel 'wide' 'tuned_lr0.008': claim fast_over_slow\n" in out
    assert "to do: 2 segments and 4 evaluations; already there: 4 segments and 8 evaluations" in out
    rows = ranking(tmp_path, "tiny_sweep_cpu_two")
    assert {row["lr"] for row in rows if row["rank"]} == {"0.002", "0.016"}
    claims = json.loads(succeeds("claims", SWEEP, "--as", "two", "--json", home=home))
    assert [claim["claim"] for claim in claims["claims"]] == ["faster_is_better"]
    again = (*QUICK, "-o", "sweep.space.lr=[0.002, 0.016]", "--as", "two")
    out = succeeds("run", SWEEP, *again, home=home)
    assert "left out, since there is no arm of panel 'wide' 'tuned_lr0.008'" in out and "nothing to compute" in out
    assert "study claims" in out and "left out" in succeeds("plan", SWEEP, *again, home=home)
    with opened(Home(home)) as engine:
        command = load(engine, Home(home), study="tiny_sweep", variant="two").command
    assert shlex.split(command)[:2] == ["study", "run"] and "'sweep.space.lr=[0.002, 0.016]'" in command


def test_a_run_without_claims_says_so_and_proposes_none(home: Path) -> None:
    changes = (*QUICK, "-o", "space.lr=[0.002]", "-o", "claims=[]", "--as", "silent")
    out = succeeds("run", SWEEP, *changes, home=home)
    assert "(this run declares no claims)" in out and "study claims" not in out
    for form in ((), ("--md",)):
        said = succeeds("claims", SWEEP, "--as", "silent", *form, home=home)
        assert "This run declares no claims." in said and "Effect:" not in said


def test_all_commands_resolve_an_overridden_sweep_alike() -> None:
    for key in ("space", "sweep.space"):
        (study_,), said = choose(["k_schedule"], "smoke", None, [f"{key}.schedule_power=[0.25, 4]"], "wide")
        assert study_.claims == () and study_.table is not None and "left out" in said
        assert study_ == choose_sweep("k_schedule", "smoke", None, [f"{key}.schedule_power=[0.25, 4]"], "wide")[0]
    another = "sweep={space: {fm_ratio: [1]}, arm_name: a}"
    _, said = choose(["k_schedule", "components"], "smoke", None, [another], "x")
    assert "k_schedule: left out, since" in said


@pytest.mark.parametrize(
    ("override", "where", "says"),
    [
        (
            "space.schedule_power=0.25",
            "sweep.space.schedule_power",
            "takes a list of values, or {low: ..., high: ...}, n",
        ),
        (
            "space.schedule_power=[1, .nan]",
            "sweep.space.schedule_power",
            "entry 1: takes a finite number or a text, not NaN",
        ),
        (
            "space.schedule_power=[true]",
            "sweep.space.schedule_power",
            "entry 0: takes a finite number or a text, not true",
        ),
        ("space.schedule_power={low: 3, high: 1}", "sweep.space.schedule_power", r"low (3.0) must be below high (1.0)"),
        ("space.schedule_power=[0]", "sweep.space.schedule_power", "schedule_power: Input should be greater than 0"),
        ("space.schedule_power=[a]", "sweep.space.schedule_power", "schedule_power: Input should be a valid number"),
        ("base.method=foo", "sweep.base.method", "settings.method does not say what 'foo' stands for"),
        ("base.method=[a]", "sweep.base.method", 'takes a finite number or a text, not ["a"]'),
        ("constants.dtd_patience=0", "constants.dtd_patience", "patience: Input should be greater than 0"),
        ("sweep=3", "sweep", "mapping of keys"),
    ],
)
def test_a_wrong_value_is_blamed_on_who_gave_it_in_one_line(override: str, where: str, says: str) -> None:
    with pytest.raises(StudyError) as caught:
        choose_sweep("k_schedule", "smoke", None, [override], "x")
    said = str(caught.value)
    assert said.startswith(f"-o {where}: ") and says in said
    assert "\n" not in said and "function-" not in said and "list[" not in said


def test_a_sweep_that_is_not_there() -> None:
    with pytest.raises(StudyError, match=r"'k_schedule' has no sweep left by the overrides; `study run"):
        choose_sweep("k_schedule", "smoke", None, ["sweep=null"], "x")
    with pytest.raises(
        StudyError, match=r"-o sweep\.points: study 'obs_v_then_u' has no sweep \(there is one in: k_sch"
    ):
        choose(["obs_v_then_u"], "smoke", None, ["points=3"], "x")


def test_a_random_sweep_over_another_attribute(home: Path, tmp_path: Path) -> None:
    space = "space={mean: {low: -1.0, high: 1.0}}"
    more = ("-o", "stages.0.time_sampler={name: logit_normal, mean: $mean}", "-o", "constants.mean=-0.4")
    changes = (space, "strategy=random", "points=2", "seed=5", "figure.x=mean", "figure.log_x=false")
    drawn = ("--seeds", "0", *(part for change in changes for part in ("-o", change)), "--as", "drawn")
    out = succeeds("sweep", SWEEP, *QUICK, *more, *drawn, "--out", tmp_path, home=home)
    assert "left out, since arms of 'wide' have no attribute 'lr': claim faster_is_better" in out
    rows = [row for row in ranking(tmp_path, "tiny_sweep_cpu_drawn") if row["rank"]]
    means = [float(row["mean"]) for row in rows]
    assert len(rows) == 2 and means == sorted(means)
    assert {row["arm"] for row in rows} == {f"mean{value}" for value in _drawn(5)}
    assert (tmp_path / "tiny_sweep_cpu_drawn.png").stat().st_size > 500


def _drawn(seed: int) -> list[float]:
    """The points that the sweep draws, drawn again."""
    space = {"mean": {"low": -1.0, "high": 1.0}}
    drawn = Sweep.model_validate({"space": space, "strategy": "random", "points": 2, "seed": seed, "arm_name": "x"})
    return [float(point["mean"]) for point in sweep_points(drawn)]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("obs_v_then_u",), ("'obs_v_then_u' has no sweep", "there is one in: k_schedule", "study run obs_v_then_u")),
        (("k_shedule",), ("did you mean 'k_schedule'",)),
        ((SWEEP, "-o", "space.lr=[0.1]"), ("--as NAME",)),
        ((SWEEP, "--as", "x"), ("nothing to name",)),
        ((SWEEP, "-o", "space.lr=[]", "--as", "x"), ("-o sweep.space.lr", "empty")),
        (
            (SWEEP, "-o", "space.rl=[1]", "--as", "x"),
            ("-o sweep.space.rl", "nothing depends on it", "$rl", "have: lr, width"),
        ),
        ((SWEEP, "-o", "space=3", "--as", "x"), ("-o sweep.space", "mapping")),
        ((SWEEP, "-o", "panels=3", "-o", "space.lr=[0.1]", "--as", "x"), ("-o panels", "mapping")),
        ((SWEEP, "-o", "strategy=random", "--as", "x"), ("needs 'points'",)),
        ((SWEEP, "-o", "points=3", "--as", "x"), ("'points' goes with 'strategy: random'",)),
        ((SWEEP, "-o", "sweep.arm_name='{q}'", "--as", "x"), ("arm_name '{q}'", "attributes: ")),
        ((SWEEP, "-o", "sweep.arm_name=same", "--as", "x"), ("two arms", "'same'")),
        ((SWEEP, "-o", "space.lr=[0.1]", "-o", "figure.x=nope", "--as", "x"), ("-o figure.x", "'nope'")),
        ((SWEEP, "--scale", "huge"), ("no scale 'huge'",)),
    ],
    ids=lambda value: " ".join(str(getattr(v, "name", v)) for v in value) if isinstance(value, tuple) else None,
)
def test_a_bad_sweep_is_refused_before_anything_is_made(
    args: tuple[str, ...], says: tuple[str, ...], tmp_path: Path
) -> None:
    done = study("sweep", *args, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    for words in says:
        assert words in done.stderr, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_points_that_are_one_training_are_named() -> None:
    """A transform that changes nothing vanishes, so noise of size 0 is the same however it is written."""
    overrides = ("space.size=[0, 0.0]", "sweep.arm_name='{lr}_{size!r}'", "claims=[]", "constants.size=0.5",
                 "stages.0.transforms=[{name: target_corruption, relative_noise: $size}]")  # fmt: skip
    resolved, said = choose_sweep(str(SWEEP), None, None, overrides, "x")
    assert "note: in panel wide the points 0.0005_0, 0.0005_0.0 are one and the same training" in said
    assert len(resolved.arms_of("wide")) == 7 and said.count("note:") == 6


def test_points_that_failed_are_not_one_training() -> None:
    failed = (
        "[{point: {lr: 1.0e+30}, state: failed, until_epoch: 0}, {point: {lr: 2.0e+30}, state: failed, until_epoch: 0}]"
    )
    overrides = ("strategy=asha", "points=2", f"drawn={failed}", "space={lr: [1.0e+30, 2.0e+30]}")
    _, said = choose_sweep(str(SWEEP), None, None, overrides, "x", "wide")
    assert "one and the same training" not in said


def test_overrides_of_the_sweep_need_no_prefix() -> None:
    assert set(Sweep.model_fields) - set(ResolvedStudy.model_fields) == OWN_KEYS
    assert in_sweep("space.k=[1]") == "sweep.space.k=[1]" and in_sweep(" points=3") == "sweep.points=3"
    for override in ("sweep.points=3", "arm_name=x", "dynamics.ema_decay=0.9", "seeds=1", "spaces=1"):
        assert in_sweep(override) == override


@pytest.mark.parametrize(
    ("pattern", "space", "name"),
    [
        ("k{k:g}", {"k": [1]}, "k{k:g}"),
        ("k{k:g}", {"k": [1], "gamma": [5]}, "k{k:g}_gamma{gamma}"),
        ("k{k:g}", {"gamma": [5], "lr": [1]}, "gamma{gamma}_lr{lr}"),
        ("{method}_{width}", {"k": [1]}, "{method}_{width}_k{k}"),
        ("{broken", {"k": [1]}, "{broken"),
        ("k", 3, "k"),
    ],
)
def test_points_get_names_that_tell_them_apart(pattern: str, space: object, name: str) -> None:
    panels = {"p": {"arms": {"width": 3}}, "q": 7}
    data = {"panels": panels, "sweep": {"arm_name": pattern, "space": space, "base": {"method": "x"}}}
    assert name_of_points(data) == name
