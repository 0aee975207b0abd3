"""The studies of Tables 1 to 6 and Figures 1, 6 and 7: which arms they have, and which they share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

from meanflow_core.config import Dynamics
from studies.arms import Arm, expand_seed
from studies.errors import StudyError
from studies.loader import load_source, resolve
from studies.schema import ResolvedStudy
from sweeps.plan import Inventory
from sweeps.session import open_session

STUDIES = (
    "cfg_configs",
    "components",
    "components_ffhq",
    "convergence",
    "k_schedule",
    "model_sizes",
    "multistep_v",
    "samples_over_training",
)
SMALL = ("smoke", "cpu", "truth")


@cache
def study(name: str, scale: str, *overrides: str) -> ResolvedStudy:
    return resolve(load_source(name), scale, overrides)


@cache
def arms(name: str, scale: str) -> dict[tuple[str, str], Arm]:
    return {(arm.panel, arm.name): arm for arm in expand_seed(study(name, scale), 0)}


def key(arm: Arm) -> str:
    (stage,) = arm.stages
    return stage.trajectory.key


def dynamics(arm: Arm) -> Dynamics:
    return arm.stages[-1].trajectory.dynamics


def keys(name: str, scale: str) -> set[str]:
    return {key(arm) for arm in arms(name, scale).values()}


def transforms(arm: Arm) -> list[tuple[str, dict[str, Any]]]:
    return [(spec.name, spec.params.model_dump()) for spec in dynamics(arm).transforms]


@pytest.mark.parametrize("name", STUDIES)
def test_every_scale_expands_and_is_measured_at_the_end(name: str) -> None:
    source = load_source(name)
    assert source.scales == ["smoke", "cpu", "truth", "truth_multi", "paper"]
    for scale in source.scales:
        resolved = study(name, scale)
        length = {
            "smoke": 12,
            "cpu": 60,
            "truth": 60,
            "truth_multi": 60,
            "paper": 400 if name == "components_ffhq" else 240,
        }[scale]
        for arm in arms(name, scale).values():
            assert arm.epochs == length
            assert max(point.epoch for point in arm.points) == length
        assert resolved.as_in_paper == (scale == "paper")
        assert bool(resolved.controls) == (
            scale in (*SMALL, "truth_multi") and name in {"components", "k_schedule", "multistep_v"}
        )


def test_epochs_of_the_ablations_on_one_model() -> None:
    """14 arms of 240 epochs, of which 9 are distinct."""
    names = ("components", "k_schedule", "multistep_v")
    epochs = open_session([study(name, "paper") for name in names]).epochs()
    assert (epochs.naive, epochs.planned, epochs.probe, epochs.control) == (3360, 2160, 0, 0)
    wider = open_session([study(name, "paper") for name in (*names, "model_sizes")]).epochs()
    assert (wider.naive, wider.planned) == (3360 + 11 * 240, 2160 + 8 * 240), "those of B/4 are there already"


def test_what_each_method_does_to_training() -> None:
    min_snr = ("min_snr", {"gamma": 5.0, "reading": "v_prediction", "normalise": False})
    dtd = ("dtd", {"clusters": 20, "patience": 200, "spacing": "uniform"})
    falling = ("progressive_weight", {"schedule_power": 1.0, "schedule": "falling"})
    expected = {
        "meanflow": [],
        "min_snr": [min_snr],
        "dtd": [dtd],
        "u_weight": [falling],
        "min_snr_u_weight": [min_snr, falling],
        "dtd_u_weight": [dtd, falling],
    }
    found = {name: arm for (_, name), arm in arms("components", "paper").items()}
    assert {name: transforms(arm) for name, arm in found.items()} == expected
    for arm in found.values():
        d = dynamics(arm)
        assert (d.fm_ratio, d.batch_size, d.label_dropout, d.ema_decay) == (0.75, 256, 0.1, 0.9999)
        assert d.uses_horizon == any(name == "progressive_weight" for name, _ in transforms(arm))


@pytest.mark.parametrize("scale", SMALL)
def test_two_regimes_and_their_controls_at_the_small_scales(scale: str) -> None:
    found = arms("components", scale)
    patience = 2 if scale == "smoke" else 10
    for panel, ratio in (("ratio75", 0.75), ("small", 0.25)):
        own = {name: arm for (p, name), arm in found.items() if p == panel}
        assert {dynamics(arm).fm_ratio for arm in own.values()} == {ratio}
        controls = {name: transforms(arm) for name, arm in own.items() if arm.control}
        kinds = {"dtd_constant": "constant", "dtd_reversed": "rising"}
        suffix = "" if panel == "ratio75" else "_small"
        assert {dynamics(arm).network.params.width for arm in own.values()} == {64 if suffix else 96}
        assert set(controls) == {kind + suffix for kind in kinds}
        for name, ((first, curriculum), (second, weight)) in controls.items():
            assert (first, second, curriculum["patience"]) == ("dtd", "progressive_weight", patience)
            assert weight["schedule"] == kinds[name.removesuffix(suffix)]
        assert len(own) == 8
    assert len(keys("components", scale)) == 16


@pytest.mark.parametrize("scale", [*SMALL, "paper"])
def test_studies_of_one_model_share_their_arms(scale: str) -> None:
    components = arms("components", scale)
    panels = ("ratio75",) if scale == "paper" else ("ratio75", "small")
    for panel in panels:
        k1 = arms("k_schedule", scale)[panel, "k1"]
        assert key(k1) == key(components[panel, "dtd_u_weight"])
        powers = {name: dict(transforms(arms("k_schedule", scale)[panel, name]))["progressive_weight"] for name in
                  ("k0.5", "k1", "k2", "k3")}  # fmt: skip
        assert [p["schedule_power"] for p in powers.values()] == [0.5, 1.0, 2.0, 3.0]
    for name in ("k_schedule", "multistep_v"):
        shared = {where for where in arms(name, scale) if where in components}
        assert all(key(arms(name, scale)[where]) == key(components[where]) for where in shared)
    assert len(keys("k_schedule", scale) - keys("components", scale)) == 3 * len(panels)
    assert not keys("multistep_v", scale) - keys("components", scale)
    for method in ("meanflow", "min_snr_u_weight", "dtd_u_weight"):
        assert key(arms("model_sizes", scale)["b", f"{method}_b"]) == key(components["ratio75", method])


@pytest.mark.parametrize("scale", [*SMALL, "paper"])
def test_what_is_measured_along_the_way_trains_nothing_new(scale: str) -> None:
    assert keys("convergence", scale) == keys("model_sizes", scale)
    pictures = arms("samples_over_training", scale)
    assert {name for _, name in pictures} == {"meanflow", "dtd_u_weight"}
    assert all(key(arm) == key(arms("convergence", scale)[where]) for where, arm in pictures.items())
    quarters = sorted({p.epoch for arm in pictures.values() for p in arm.points if p.protocol.metric_label == "images"})
    length = next(iter(pictures.values())).epochs
    assert quarters == [length // 4, length // 2, 3 * length // 4, length]
    assert study("samples_over_training", scale).seeds == (0,)


@cache
def of_one_seed(name: str, scale: str) -> ResolvedStudy:
    return resolve(load_source(name), scale, (), [0])


def trained(names: Sequence[str], scale: str) -> list[float]:
    """Epochs of seed 0 that each of some studies trains when they are run one after the other."""
    have, epochs = Inventory(), []
    for name in names:
        one = of_one_seed(name, scale)
        jobs = open_session([one]).jobs(have)
        epochs.append(sum(job.steps for job in jobs if job.kind == "train") / one.steps_per_epoch)
        for job in jobs:
            have.full.setdefault(job.trajectory, set()).update(job.full_steps)
            have.snapshots.setdefault(job.trajectory, set()).update(job.snapshot_steps)
            have.evaluated.update(one.evaluation for one in job.evaluations)
    return epochs


@pytest.mark.parametrize("scale", [*SMALL, "paper"])
@pytest.mark.parametrize(
    "order",
    [
        (
            "components",
            "model_sizes",
            "convergence",
            "samples_over_training",
            "cfg_configs",
            "k_schedule",
            "multistep_v",
        ),
        (
            "samples_over_training",
            "multistep_v",
            "convergence",
            "cfg_configs",
            "model_sizes",
            "k_schedule",
            "components",
        ),
        (
            "k_schedule",
            "cfg_configs",
            "model_sizes",
            "multistep_v",
            "convergence",
            "components",
            "samples_over_training",
        ),
    ],
)
def test_no_arm_is_trained_twice_in_whatever_order_studies_are_run(order: tuple[str, ...], scale: str) -> None:
    together = open_session([of_one_seed(name, scale) for name in order]).epochs()
    assert sum(trained(order, scale)) == together.planned + together.control


def test_guidance_of_every_model_in_the_paper() -> None:
    """(effective ω′, κ, from, to) by model."""
    small, large = (2.0, 0.5, 0.0, 1.0), (2.5, 0.92, 0.0)
    expected = {"b": small, "m": small, "l": (*large, 0.8), "xl": (*large, 0.75)}
    widths = {"b": (12, 768, 4), "m": (16, 1024, 2), "l": (24, 1024, 2), "xl": (28, 1152, 2)}
    for (panel, _), arm in arms("model_sizes", "paper").items():
        d = dynamics(arm)
        assert d.guidance is not None
        found = (d.guidance.effective_omega, d.guidance.cfg_kappa, d.guidance.lo, d.guidance.hi)
        assert found == pytest.approx(expected[panel])
        assert (d.network.params.depth, d.network.params.width, d.network.params.patch) == widths[panel]


def test_the_two_guidance_settings() -> None:
    found = arms("cfg_configs", "paper")
    assert len(found) == 8
    for (panel, _), arm in found.items():
        guidance = dynamics(arm).guidance
        assert guidance is not None
        own = {"l_kappa92": 0.8, "xl_kappa92": 0.75}
        wanted = (2.5, 0.92, 0.0, own[panel]) if panel in own else (2.0, 0.5, 0.0, 1.0)
        values = (guidance.effective_omega, guidance.cfg_kappa, guidance.lo, guidance.hi)
        assert values == pytest.approx(wanted)
    shared = {panel for (panel, _), arm in found.items() if key(arm) in keys("model_sizes", "paper")}
    assert shared == {"l_kappa92", "xl_kappa92"}
    assert len(keys("cfg_configs", "paper") & keys("model_sizes", "paper")) == 4


@pytest.mark.parametrize("scale", SMALL)
def test_models_played_by_mlps(scale: str) -> None:
    sizes = {"b": (96, 3), "m": (128, 3), "l": (128, 5), "xl": (160, 6)}
    for (panel, _), arm in arms("model_sizes", scale).items():
        d, title = dynamics(arm), study("model_sizes", scale).panels[panel].title
        assert (d.network.name, d.network.params.width, d.network.params.depth) == ("mlp", *sizes[panel])
        assert d.guidance is None and d.label_dropout == 0
        assert f"MLP {sizes[panel][0]}×{sizes[panel][1]}" in title
        assert arm.attributes["network"] in title
    for (panel, _), arm in arms("cfg_configs", scale).items():
        d = dynamics(arm)
        assert (d.network.params.width, d.network.params.depth) == sizes[panel.partition("_")[0]]
        assert d.guidance is not None and d.label_dropout == 0.1


def test_table_6_trains_as_figures_8_to_10_do() -> None:
    """The paper's FFHQ dynamics, unconditional at every scale."""
    ffhq = dynamics(next(iter(expand_seed(study("obs_v_corruption", "paper-ffhq"), 0))))
    plain = dynamics(arms("components_ffhq", "paper")["ratio75", "meanflow"])
    assert plain.canonical() == ffhq.canonical()
    assert study("components_ffhq", "paper").steps_per_epoch == 273
    for scale in (*SMALL, "paper"):
        assert not any(dynamics(arm).network.params.conditional for arm in arms("components_ffhq", scale).values())


def test_which_study_makes_which_table_and_figure() -> None:
    sources = [load_source(name) for name in STUDIES]
    made = {kind: {n: source.name for source in sources for n in source.paper(kind)} for kind in ("tables", "figures")}
    names = ("model_sizes", "cfg_configs", "components", "k_schedule", "multistep_v", "components_ffhq")
    assert made["tables"] == dict(enumerate(names, start=1))
    assert made["figures"] == {1: "convergence", 6: "convergence", 7: "samples_over_training"}


@pytest.mark.parametrize("name", STUDIES)
def test_claims_of_the_paper_and_of_ours(name: str) -> None:
    """What the paper claims is tested at every scale; ours, which say so, at the small ones."""
    paper = study(name, "paper").claims
    assert not any(claim.where.startswith("ours") for claim in paper)
    for scale in SMALL:
        claims = {claim.id: claim for claim in study(name, scale).claims}
        assert all(claims[claim.id] == claim for claim in paper)
        for ours in (claim for claim in claims.values() if claim not in paper):
            assert ours.where.startswith("ours")
            if any(arm in study(name, scale).controls for arm in ours.arms or ()):
                assert set(ours.implies) == {"supported", "contradicted", "undecided"}


@pytest.mark.parametrize("name", STUDIES)
@pytest.mark.parametrize("scale", ["cpu", "truth"])
def test_what_all_studies_assume_at_a_scale_stands_in_each(name: str, scale: str) -> None:
    """Lists replace what they extend; the budget, the times and the distance are the scale's, whatever the study."""
    _, *shared = study("obs_v_then_u", scale).scale_assumptions
    own = study(name, scale).scale_assumptions
    assert set(shared[:3]) <= set(own)
    share = "3.5 %" if name == "components_ffhq" else "0.3 %"  # 19 · 200 steps of the paper's 400 · 273, or 240 · 5004
    assert [said for said in own if "patience" in said] == [
        said.replace("0.3 %", share) for said in study("components", scale).scale_assumptions if "patience" in said
    ]
    assert len(study(name, scale).assumptions) == 10


@pytest.mark.parametrize(
    ("name", "override", "words"),
    [
        ("k_schedule", "figure.x=method", "has method = meanflow, which is no number above 0"),
        (
            "k_schedule",
            "figure.x=k",
            r"no attribute in panel 'ratio75' 'k' \(available: fm_ratio, method, schedule_power",
        ),
        ("k_schedule", "panels.ratio75.arms.schedule_power=[-1]", "schedule_power = -1, which is no number above 0"),
        ("k_schedule", "figure.reference=baseline", "no arm of panel 'ratio75' 'baseline'"),
        ("k_schedule", "figure.paper_column=fid", r"no column 'fid' \(available: at25, at50, fid_1nfe, fid_2nfe\)"),
        ("k_schedule", "figure.nfe=4", r"not measured at 4 NFE \(jump\)"),
        (
            "k_schedule",
            'table.row="{label}"',
            r"table.row: not a format of the arms' attributes \(arm, fm_ratio, method\)",
        ),
        ("k_schedule", "table.reference=k{fm_ratio:g}", "no arm of panel 'ratio75' 'k0.75'"),
        ("k_schedule", "claims.0.arms=[k1, k4]", "no arm of panel 'ratio75' 'k4'"),
        ("k_schedule", "claims.0.arms=[k1, tiny/k1]", "no panel 'tiny'"),
        ("k_schedule", "claims.0.among={schedule_power: 5}", "no arm of 'ratio75' has schedule_power = 5"),
        ("samples_over_training", 'figure.label="{model.x}"', "not a format of the arms' attributes"),
        ("samples_over_training", "figure.metric=frechet_pixel", "is a number and keeps no pictures"),
        ("samples_over_training", "figure.rows=5", "5 × 4 pictures are wanted, and only 16 samples are kept"),
        ("samples_over_training", "figure.nfe=2", r"'images' is not measured at 2 NFE, but at 1 NFE \(jump\)"),
        ("convergence", "figure.reference=dtd", "no arm of panel 'b' 'dtd'"),
        ("convergence", "figure.panels_of={1: [xxl]}", "no panel 'xxl'"),
        ("convergence", "figure.panels_of={7: [xl]}", "does not make figure 7"),
        ("convergence", "measure.0.every_epochs=null", "a speed-up needs a curve"),
        ("components", "table.columns.0.metric=fid", "no measured metric 'fid'"),
        ("components", "table.columns.0.nfe=3", r"'frechet_pixel' is not measured at 3 NFE \(jump\)"),
        ("components", "table.columns.3.solver=euler", r"not measured at 2 NFE \(euler\)"),
        ("components", "table.columns.1.id=at25", "two columns are called 'at25'"),
        ("components", 'table.reference="{method"', "table.reference: not a format"),
        ("components", "settings.model={B/4: {}}", r"no attribute 'model' \(.*: fm_ratio, label, method, regime\)"),
        ("components", "constants.patience=3", r"constants.patience: nothing refers to it: .* has '\$patience'"),
        ("components", "panels.ratio75.arms.method.0=mean", "settings.method does not say what 'mean' stands for"),
        (
            "components",
            "constants={fm_ratio: 0.75, dtd_patience: 10, schedule_power: 1}",
            r"\$epochs is no attribute and no constant",
        ),
    ],
)
def test_names_that_nobody_defines(name: str, override: str, words: str) -> None:
    with pytest.raises(StudyError, match=words):
        expand_seed(resolve(load_source(name), "cpu", [override]), 0)


def test_controls_need_what_the_reference_is_made_of() -> None:
    named = [f"panels.{panel}.arms.base=meanflow" for panel in ("ratio75", "small")]
    with pytest.raises(StudyError, match=r"controls.dtd_constant.attributes: the table's .* needs more: 'base'"):
        resolve(load_source("components"), "cpu", [*named, 'table.reference="{base}"'])


def test_a_column_between_two_measurements_is_refused() -> None:
    too_early = resolve(load_source("components"), "cpu", ["table.columns.0.percent=30"])
    with pytest.raises(StudyError, match=r"'at25': arm 'meanflow' is not measured at 30 % of its 60 epochs \(18\)"):
        expand_seed(too_early, 0)
    shorter = resolve(load_source("components"), "cpu", ["constants.epochs=30", "measure.0.every_epochs=5"])
    with pytest.raises(
        StudyError, match=r"'at25': .* 25 % of its 30 epochs \(7.5\); change .*'every_epochs' of frechet_pix"
    ):
        expand_seed(shorter, 0)
