"""Study files are read strictly, and every error says where it stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies.arms import expand_seed
from studies.cli.choose import study_of_figure
from studies.dynamics import stage_dynamics
from studies.errors import StudyError
from studies.loader import builtin_names, load_source, resolve, validate
from studies.merging import merge
from studies.schema import ResolvedStudy
from studies.yamlfile import parse_value


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize("name", builtin_names())
def test_every_builtin_study_is_valid_at_every_scale(name: str) -> None:
    source = load_source(name)
    validate(source)
    for scale in source.scales:
        study = resolve(source, scale)
        assert ResolvedStudy.model_validate(study.model_dump(mode="json")) == study


def test_merge_lays_keys_over_and_replaces_lists_and_other_components() -> None:
    base = {"a": {"x": 1, "y": 2}, "l": [1, 2], "network": {"name": "mlp", "width": 8}}
    over = {"a": {"y": 3}, "l": [9], "network": {"name": "dit", "size": "B/4"}}
    assert merge(base, over) == {"a": {"x": 1, "y": 3}, "l": [9], "network": {"name": "dit", "size": "B/4"}}
    assert merge(base, {"network": {"name": "mlp", "depth": 2}})["network"] == {
        "name": "mlp",
        "width": 8,
        "depth": 2,
    }
    assert base["a"] == {"x": 1, "y": 2}, "the inputs are left alone"


def test_yaml_is_1_2() -> None:
    assert parse_value("1e-4", "here") == pytest.approx(1e-4)
    assert parse_value("on", "here") == "on"
    assert parse_value("{a: [1, 2.5, null, true]}", "here") == {"a": [1, 2.5, None, True]}


MINE = "study: mine\nextends: obs_v_then_u\n"


def test_extends_merges_over_the_extended_study(tmp_path: Path) -> None:
    name = write(tmp_path, MINE + "scales:\n  tiny:\n    scale_text: t\n    seeds: [7]\n    steps_per_epoch: 1\n"
                 "    primary: frechet_pixel\n    dynamics: {network: {name: mlp, width: 8}, data: digits}\n"
                 "    measure: [{metric: {name: frechet, features: pixel}}]\n")  # fmt: skip
    source = load_source(name)
    assert "cpu" in source.scales and "tiny" in source.scales
    study = resolve(source, "tiny")
    assert study.study == "mine"
    assert study.seeds == (7,)
    assert [c.id for c in study.claims] == [c.id for c in resolve(load_source("obs_v_then_u"), "cpu").claims]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (MINE + "tilte: x\n", 3, ["tilte", "unknown key", "title"]),
        (MINE + "title: a\ntitle: b\n", 4, ["duplicate key", "title"]),
        (MINE + "scales:\n  cpu:\n    steps_per_epoch: many\n", 5, ["steps_per_epoch", "integer"]),
        (MINE + "scales:\n  cpu:\n    steps_per_epoch: true\n", 5, ["steps_per_epoch: true is no number"]),
        (MINE + "stages:\n  - {name: v, epochs: true}\n", 4, ["epochs", "takes a whole number from 0", "not true"]),
        (MINE + "scales:\n  cpu:\n    seeds: [0, 0]\n", None, ["seeds", "differ"]),
        (MINE + "panels:\n  top:\n    arms: {v_epochs: [1, 2], u_epochs: [3]}\n", 4, ["equally long"]),
        (MINE + "title: [unclosed\n", None, ["not valid YAML"]),
        (MINE + "scales:\n  cpu:\n    measure:\n      - {metric: nonsense}\n", 6, ["nonsense", "frechet"]),
    ],
)
def test_errors_name_file_line_and_key(tmp_path: Path, text: str, line: int | None, words: list[str]) -> None:
    name = write(tmp_path, text)
    with pytest.raises(StudyError) as caught:
        resolve(load_source(name), "cpu")
    said = str(caught.value)
    assert name in said
    for word in words:
        assert word in said
    if line is not None:
        assert f"{name}:{line}:" in said


def test_unknown_study_suggests_the_nearest() -> None:
    with pytest.raises(StudyError, match="did you mean 'obs_v_then_u'"):
        load_source("obs_v_thenu")


def test_a_circle_of_extends_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "study: a\nextends: ./b.yaml\n", "a.yaml")
    write(tmp_path, "study: b\nextends: ./a.yaml\n", "b.yaml")
    with pytest.raises(StudyError, match="circle"):
        load_source(str(tmp_path / "a.yaml"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("steps_per_epoch", "key=value"),
        ("steps_per_epochs=3", "did you mean 'steps_per_epoch'"),
        ("measure.9.nfe=2", "not one of the"),
        ("steps_per_epoch.x=2", "has no parts"),
        ("seeds=[1]", "use the option"),
        ("dynamics=3", "dynamics"),
        ("primary=frechet_nothing", "no measured metric 'frechet_nothing'"),
        ("figure.stage=u", "no stage 'u'"),
        ("figure.colour_by=v", "no attribute 'v'"),
        ("claims.0.stage=u", "no stage 'u'"),
        ("claims.2.arms=[v20, v1]", "no arm of panel 'bottom' 'v1'"),
        ("claims.0.metric=fid", "no measured metric 'fid'"),
        ("measure.0.stages=[u]", "no stage 'u'"),
    ],
)
def test_bad_overrides(override: str, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        resolve(load_source("obs_v_then_u"), "cpu", [override])


def test_overrides_reach_into_lists_and_components() -> None:
    study = resolve(
        load_source("obs_v_then_u"),
        "cpu",
        [
            "measure.0.samples=77",
            "dynamics.network.width=32",
            "panels.top.arms.v_epochs=[0, 20]",
            "dynamics.data=gmm",
        ],
    )
    assert study.measure[0].samples == 77
    assert study.dynamics["network"]["width"] == 32
    assert study.dynamics["data"] == "gmm"
    assert study.panels["top"].attributes() == [
        {"v_epochs": 0, "u_epochs": 60},
        {"v_epochs": 20, "u_epochs": 60},
    ]


def gap_study(*overrides: str) -> ResolvedStudy:
    return resolve(load_source("obs_gap_restriction"), "cpu", overrides)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stages.1.transforms.0.lo=$low", r"stage 'u_finetune': \$low is no attribute of the arm .*lo"),
        ("panels.main.arms.lo=[0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0]", r"lo \(0.9\) must not exceed hi"),
        ("controls.continue_v.stages.1.fm_ratio=$v_epochs", "available: none"),
        ("claims.3.among={start: nowhere}", "no arm of 'main' has start = nowhere"),
        ("claims.3.among={begin: random}", "have no attribute 'begin'"),
        ("claims.0.margin=null", "an equivalence needs a 'margin'"),
        ("claims.1.direction=null", "needs a 'direction'"),
        ("claims.1.truth=v_eror", "no metric 'v_eror'"),
        ("truth=v_error", "no measured metric 'v_error'"),
        ("figure.nfe=7", r"'frechet_pixel' is not measured at 7 NFE \(euler\), but at 32 NFE \(euler\)"),
        ("claims.0.solver=jump", r"not measured at 32 NFE \(jump\), but at"),
        ("figure.x=range", "no attribute 'range'"),
        ("figure.reference=v", "no arm 'v'"),
        ("figure.metrics=[frechet_pixel]", "along x stands either"),
    ],
)
def test_bad_overrides_of_figure_4(override: str, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        gap_study(override)


@pytest.mark.parametrize("label", ["{sigma.real.foo}", "{sigma[0]}", "{sigam}", "{sigma"])
def test_a_label_that_is_no_format_is_refused(label: str) -> None:
    with pytest.raises(StudyError, match="not a format of the arms' attributes"):
        resolve(load_source("obs_v_corruption"), "cpu", [f'figure.label="{label}"'])


@pytest.mark.parametrize("name", ["{arm.foo}", "{arm[x]}", "{amr}"])
def test_an_arm_name_that_is_no_format_is_refused(name: str) -> None:
    with pytest.raises(StudyError, match="arm_name"):
        expand_seed(gap_study(f'arm_name="{name}"', "claims=[]", "figure=null"), 0)


@pytest.mark.parametrize("measure", ["{every_epochs: 10, from_epoch: 500}", "{from_epoch: 41}"])
def test_a_measure_without_a_point_is_refused(measure: str) -> None:
    entry = "{metric: {name: frechet, features: pixel}, nfe: 32, solver: euler, " + measure[1:]
    study = gap_study(f"measure=[{entry}]", "claims=[]", "figure=null")
    with pytest.raises(StudyError, match="no arm has a stage with a point of it"):
        expand_seed(study, 0)


def test_what_an_observer_measures_is_of_the_weights_in_training() -> None:
    with pytest.raises(StudyError, match="write 'weights: online'"):
        resolve(load_source("obs_task_affinity"), "cpu", ["measure.0.weights=ema"])


def test_a_setting_of_a_transform_can_be_overridden() -> None:
    for policy in ("clamp", "resample_t"):
        study = gap_study(f"stages.1.transforms.0.negative_r={policy}")
        (arm,) = [a for a in study.panels["main"].attributes() if a["arm"] == "random_03_05"]
        (transform,) = stage_dynamics(study, study.stages[1], arm).transforms
        assert (transform.params.lo, transform.params.hi, transform.params.negative_r) == (0.3, 0.5, policy)


def test_null_removes_an_inherited_scale(tmp_path: Path) -> None:
    name = write(tmp_path, MINE + "scales: {gpu: null}\n")
    assert set(load_source("obs_v_then_u").scales) - set(load_source(name).scales) == {"gpu"}


def test_a_figure_of_one_scale_is_found_with_it() -> None:
    assert study_of_figure(2) == ("obs_v_then_u", None)
    assert study_of_figure(10) == ("obs_gap_restriction", "paper-ffhq")
    with pytest.raises(StudyError, match="no study makes figure 99"):
        study_of_figure(99)


@pytest.mark.parametrize("name", ["obs_v_then_u", "obs_v_corruption", "obs_gap_restriction"])
def test_where_v_and_u_are_known_every_point_is_measured_against_them(name: str) -> None:
    """At every point with a distance of 1 NFE or of v stand v_error and u_error in every bin."""
    errors = {"v_error", *(f"u_error[{gap}]" for gap in ("0.1,0.3", "0.3,0.5", "0.5,0.7", "0.7,0.9", "1,1"))}
    for scale in ("truth", "gpu"):
        study = resolve(load_source(name), scale, (), [0])
        assert study.truth in errors
        for arm in expand_seed(study, 0):
            at: dict[tuple[str, int], set[str]] = {}
            for point in arm.points:
                at.setdefault((point.stage, point.epoch), set()).add(point.protocol.metric_label)
            assert at and all(labels >= errors for labels in at.values())


def flags(name: str, scale: str, *overrides: str) -> tuple[bool, bool]:
    study = resolve(load_source(name), scale, overrides)
    return study.as_in_paper, study.paper_values


@pytest.mark.parametrize(
    ("overrides", "kept"),
    [
        ((), True),
        (("device=cpu", "threads=2", "log_every_steps=7", "checkpoint_every_epochs=2"), True),
        (("sweep.space.schedule_power=[1, 4]", "sweep.strategy=grid", "claims=[]"), True),
        (("claims=[]",), True),
        (("dynamics.batch_size=8",), False),
        (("constants.epochs=2",), False),
        (("sweep.base.method=u_weight",), False),
        (("sweep.space.schedule_power=[1]", "steps_per_epoch=1", "claims=[]"), False),
        (("sweep={base: {method: u_weight}, space: {schedule_power: [1]}, arm_name: 'k{schedule_power}'}", "claims=[]",
          "table=null", "figure=null"), False),
        (("measure.0.samples=10",), False),
        (("dynamics.batch_size=256", "as_in_paper=true"), None),
    ],
)  # fmt: skip
def test_a_study_that_is_changed_has_the_papers_numbers_no_longer(
    overrides: tuple[str, ...], kept: bool | None
) -> None:
    assert flags("k_schedule", "paper", *overrides) == ((True, False) if kept is None else (kept, kept))


def test_a_study_of_ones_own_has_them_only_if_it_says_so(tmp_path: Path) -> None:
    mine = "study: mine\nextends: components\n"
    assert flags("components", "paper") == (True, True) and flags("components", "smoke") == (False, True)
    assert flags(write(tmp_path, mine), "paper") == (False, False)
    assert flags(write(tmp_path, mine + "as_in_paper: true\n"), "paper") == (True, False)
    mine += "scales: {paper: {as_in_paper: true, paper_values: true}}\n"
    assert flags(write(tmp_path, mine), "paper") == (True, True)
    assert flags(write(tmp_path, mine), "smoke") == (False, False)
    above = write(tmp_path, f"study: above\nextends: {tmp_path}/mine.yaml\n", "above.yaml")
    assert flags(above, "paper") == (True, True)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("settings: 5\n", "mine.yaml:3: settings: scale 'smoke' has a mapping there"),
        ("table: null\n", "scales: {smoke: {table: ...}}"),
        ("sweep:\n  space: {schedule_power: [0]}\n", "mine.yaml:4: stage 'train'"),
        (
            "sweep:\n  space: {schedule_power: {low: 2, high: 1}}\n",
            "mine.yaml:4: sweep.space.schedule_power: takes",
        ),
        (
            "panels:\n  ratio75: {arms: {method: [[1]]}}\n",
            "mine.yaml:4: panels.ratio75.arms.method: takes a value, or",
        ),
    ],
)
def test_what_stands_in_ones_own_file_is_found_there(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(StudyError) as caught:
        resolve(load_source(write(tmp_path, "study: mine\nextends: k_schedule\n" + text)), "smoke")
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_scale_says_goes_over_what_the_same_file_says_of_all() -> None:
    assert resolve(load_source("k_schedule"), "smoke").table is not None


def test_a_scale_extends_another(tmp_path: Path) -> None:
    """It has what the other says at last, whichever file says it, and errors are found where they stand."""
    name = write(tmp_path, MINE + "scales:\n  cpu: {steps_per_epoch: 7}\n  mine: {extends: cpu, seeds: [3]}\n"
                 "  wide: {extends: mine, dynamics: {network: {width: 128}}}\n")  # fmt: skip
    cpu, mine, wide = (resolve(load_source(name), scale) for scale in ("cpu", "mine", "wide"))
    assert (mine.seeds, mine.steps_per_epoch, mine.measure) == ((3,), 7, cpu.measure)
    assert (wide.seeds, wide.dynamics["network"]["width"]) == ((3,), 128)
    bad = write(tmp_path, MINE + "scales:\n  cpu:\n    seeds: [a]\n  mine: {extends: cpu}\n")
    with pytest.raises(StudyError, match=r"mine\.yaml:5: seeds"):
        resolve(load_source(bad), "mine")


@pytest.mark.parametrize(
    ("scales", "words"),
    [
        ("{a: {extends: b}, b: {extends: a}}", "scale 'b' extends 'a': goes round in a circle"),
        ("{a: {extends: cqu}}", r"mine\.yaml:3: scale 'a' extends 'cqu': there is no scale 'cqu'.*did you mean 'cpu'"),
        ("{a: {extends: [cpu]}}", "there is no scale"),
    ],
)
def test_a_scale_extends_no_other(tmp_path: Path, scales: str, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        load_source(write(tmp_path, MINE + f"scales: {scales}\n"))
