"""Keys: what moves them, what must not, and that configurations survive being written down."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from meanflow_core.config import (
    Checkpoint,
    Dynamics,
    Protocol,
    evaluation_key,
    key_of,
    trajectory_key,
)
from meanflow_core.registry import Params, parse_spec
from tests.meanflow_core import registered

BASE: dict[str, Any] = {"network": "mlp", "data": "digits"}
IMPL = "tests.meanflow_core.test_registry:build"


class Slope(Params):
    """A toy transform's parameters."""

    slope: float = 1.0


def key(**changes: Any) -> str:
    return trajectory_key(None, Dynamics.model_validate({**BASE, **changes}), seed=0)


# --- pinned: results made today must be found again by later versions --------------------------------------


def test_pinned_keys() -> None:
    assert key_of({"b": [1, 2.5, None], "a": "ü"}) == "703dceec79c30480a5c3"
    assert key() == "ae6b4cac3119b971f62d"
    paper = {"network": {"name": "dit", "size": "B/4"}, "data": "latents", "label_dropout": 0.1}
    root = Checkpoint(key(**paper), 5004)
    child = Dynamics.model_validate({**BASE, **paper, "fm_ratio": 0.0, "reset": ["optimiser"]})
    assert trajectory_key(root, child, seed=3) == "470a8c3260a5f341e8d5"
    protocol = Protocol(metric={"name": "frechet", "features": "pixel"}, reference="digits", nfe=2)
    assert protocol.key == "5187212bcb7c7587a131"
    assert evaluation_key(root, protocol) == "df89944ae1521f5f8544"


def test_keys_do_not_depend_on_the_process() -> None:
    """No hash seed, no dictionary order, no torch; and the registry knows the built-in components by itself."""
    code = (
        "import sys; from meanflow_core.registry import components, parse_spec; parse_spec('network', 'mlp');"
        "assert 'digits' in [c.name for c in components('data')];"
        "from meanflow_core.config import *;"
        "print(trajectory_key(None, Dynamics(network='mlp', data='digits'), 0)); assert 'torch' not in sys.modules"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == key()


# --- what does not move a key ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spelled",
    [
        {"network": {"name": "mlp"}},
        {"network": {"name": "mlp", "width": 128, "max_frequency": 4}},
        {"network": {"name": "mlp", "width": 128.0}},
        {"optimiser": {"name": "adam", "lr": 0.0001, "clip_norm": None}},
        {"fm_ratio": 0.75, "batch_size": 256, "precision": "fp32"},
        {"label_dropout": 0, "transforms": [], "reset": [], "guidance": None},
        {"objective": {"name": "meanflow", "adaptive_p": 1}},
    ],
)
def test_spelling_out_a_default_moves_nothing(spelled: dict[str, Any]) -> None:
    assert key(**spelled) == key()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"label_dropout": 1}, {"label_dropout": 1.0}),
        ({"optimiser": {"name": "adam", "lr": 1}}, {"optimiser": {"name": "adam", "lr": 1.0}}),
        ({"network": {"name": "mlp", "width": 96}}, {"network": {"name": "mlp", "width": 96.0}}),
        ({"optimiser": {"name": "adam", "lr": 1e-3}}, {"optimiser": {"name": "adam", "lr": 0.001}}),
        ({"reset": ["ema", "online"]}, {"reset": ["online", "ema", "ema"]}),
    ],
)
def test_equal_values_have_equal_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert key(**one) == key(**other) != key()


def test_order_of_fields_is_irrelevant() -> None:
    items = list({**BASE, "fm_ratio": 0.5, "batch_size": 64}.items())
    a, b = (Dynamics.model_validate(dict(order)) for order in (items, items[::-1]))
    assert trajectory_key(None, a, 0) == trajectory_key(None, b, 0)


def test_key_has_no_length_in_it() -> None:
    d = Dynamics.model_validate(BASE)
    assert not d.uses_horizon
    assert len({trajectory_key(None, d, 0, horizon) for horizon in (None, 1, 800)}) == 1


# --- what moves it -----------------------------------------------------------------------------------------


def test_every_part_of_the_dynamics_moves_the_key() -> None:
    changes: list[dict[str, Any]] = [
        {},
        {"network": {"name": "mlp", "width": 96}},
        {"data": "gmm"},
        {"objective": {"name": "meanflow", "adaptive_p": 0}},
        {"time_sampler": {"name": "logit_normal", "mean": 0}},
        {"optimiser": {"name": "adam", "lr": 1e-3}},
        {"fm_ratio": 0.5},
        {"batch_size": 128},
        {"ema_decay": 0.999},
        {"label_dropout": 0.1},
        {"guidance": {"cfg_omega": 0.5, "cfg_kappa": 0.5}},
        {"guidance": {"cfg_omega": 0.5, "cfg_kappa": 0.5, "hi": 0.75}},
        {"precision": "bf16"},
        {"precision": "tf32"},
        {"reset": ["optimiser"]},
        {"stream": 1},
        {"trainer": {"command": ["x", "{segment}"], "resume": "exact"}},
        {"trainer": {"command": ["x", "{segment}"], "resume": "exact", "options": {"lr": 1}}},
    ]
    named = {name for change in changes for name in change}
    assert named == set(Dynamics.model_fields) - {"transforms"}
    assert len({key(**change) for change in changes}) == len(changes)


def test_transforms_move_the_key_and_their_order_counts() -> None:
    with (
        registered("transform", "toy", Slope, IMPL),
        registered("transform", "toz", Slope, IMPL),
    ):
        lists = [[], ["toy"], ["toz"], ["toy", "toz"], ["toz", "toy"], [{"name": "toy", "slope": 2}]]
        assert len({key(transforms=transforms) for transforms in lists}) == len(lists)
        assert key(transforms=[{"name": "toy", "slope": 1}]) == key(transforms=["toy"])


def test_a_transform_stands_once() -> None:
    with (
        registered("transform", "toy", Slope, IMPL),
        pytest.raises(ValidationError, match="a transform may stand only once"),
    ):
        key(transforms=["toy", {"name": "toy", "slope": 2}])


def test_parent_and_seed_move_the_key() -> None:
    d = Dynamics.model_validate(BASE)
    parents = [None, Checkpoint("a" * 20, 1), Checkpoint("a" * 20, 2), Checkpoint("b" * 20, 1)]
    assert len({trajectory_key(parent, d, seed) for parent in parents for seed in (0, 1)}) == 8


def test_horizon_is_in_the_key_where_it_is_declared() -> None:
    with (
        registered("transform", "free", Slope, IMPL),
        registered("transform", "paced", Slope, IMPL, uses_horizon=True),
    ):
        free = Dynamics.model_validate({**BASE, "transforms": ["free"]})
        paced = Dynamics.model_validate({**BASE, "transforms": ["free", "paced"]})
        assert (free.uses_horizon, paced.uses_horizon) == (False, True)
        assert trajectory_key(None, free, 0, 100) == trajectory_key(None, free, 0, 200)
        assert trajectory_key(None, paced, 0, 100) != trajectory_key(None, paced, 0, 200)
        with pytest.raises(ValueError, match="give horizon_steps"):
            trajectory_key(None, paced, 0)


def test_protocol_keys() -> None:
    base: dict[str, Any] = {"metric": "frechet", "reference": "digits"}
    changes: list[dict[str, Any]] = [
        {},
        {"metric": {"name": "frechet", "features": "pixel"}},
        {"metric": "kid"},
        {"nfe": 2},
        {"solver": "euler"},
        {"samples": 50_000},
        {"seed": 1},
        {"weights": "online"},
        {"precision": "tf32"},
        {"reference": "gmm"},
    ]
    assert {name for change in changes for name in change} == set(Protocol.model_fields)
    protocols = [Protocol.model_validate({**base, **change}) for change in changes]
    assert len({p.key for p in protocols}) == len(changes)
    assert Protocol.model_validate({**base, "nfe": 1.0, "samples": 5000}).key == protocols[0].key
    point = Checkpoint("a" * 20, 800)
    keys = {evaluation_key(point, p) for p in protocols} | {
        evaluation_key(Checkpoint("a" * 20, 801), protocols[0]),
        evaluation_key(Checkpoint("b" * 20, 800), protocols[0]),
    }
    assert len(keys) == len(changes) + 2


def test_more_of_the_same_is_no_branch() -> None:
    d = Dynamics.model_validate(BASE)
    assert d.carries_over(d)
    assert not d.carries_over(d.model_copy(update={"reset": ("ema",)}))
    assert not d.carries_over(Dynamics.model_validate({**BASE, "fm_ratio": 1.0}))
    branched = d.model_copy(update={"reset": ("ema",)})
    assert branched.carries_over(d), "a branch resets once, at its start"


# --- refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fm_ratio": 0.3, "batch_size": 64}, "19.2 rows.*0.296875, 0.3125"),
        ({"fm_ratio": 1.5}, "less than or equal to 1"),
        ({"fm_ratio": float("nan")}, "finite"),
        ({"ema_decay": 1.0}, "less than 1"),
        ({"batch_size": 0}, "greater than 0"),
        ({"batchsize": 64}, "batchsize"),
        ({"network": "mpl"}, "unknown network 'mpl'.*dit, mlp"),
        ({"reset": ["optimizer"]}, "optimiser"),
        ({"precision": "fp16"}, "bf16"),
    ],
)
def test_wrong_dynamics(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=f"(?s){words}"):
        key(**changes)


# --- written down and read back ----------------------------------------------------------------------------

finite = st.floats(min_value=1e-6, max_value=1e3)
networks = st.one_of(
    st.just("mlp"),
    st.fixed_dictionaries(
        {"name": st.just("mlp")},
        optional={"width": st.integers(1, 512), "depth": st.integers(1, 9), "max_frequency": finite},
    ),
    st.fixed_dictionaries(
        {"name": st.just("dit"), "size": st.sampled_from(["B/4", "XL/2", "nano/2"])},
        optional={"conditional": st.booleans(), "mlp_ratio": finite},
    ),
)
optimisers = st.fixed_dictionaries(
    {"name": st.just("adam")},
    optional={"lr": finite, "warmup_steps": st.integers(0, 10**6), "clip_norm": st.none() | finite},
)


def guidance_until(hi: float) -> dict[str, float]:
    """Guidance that does not ask the network without a label, which takes label_dropout."""
    return {"cfg_omega": 0.5, "cfg_kappa": 0.5, "hi": hi}


def unguided_without_labels(d: dict[str, Any]) -> dict[str, Any]:
    network = d["network"]
    return {**d, "guidance": None} if isinstance(network, dict) and not network.get("conditional", True) else d


some_dynamics = st.integers(1, 512).flatmap(
    lambda batch: (
        st.fixed_dictionaries(
            {"network": networks, "data": st.sampled_from(["digits", "gmm", "latents"])},
            optional={
                "optimiser": optimisers,
                "batch_size": st.just(batch),
                "fm_ratio": st.integers(0, batch).map(lambda rows: rows / batch),
                "ema_decay": st.floats(0, 1, exclude_max=True),
                "label_dropout": st.floats(0, 1),
                "guidance": st.none() | st.sampled_from([0.25, 0.5, 1.0]).map(guidance_until),
                "reset": st.lists(st.sampled_from(["online", "optimiser", "ema"])),
                "precision": st.sampled_from(["fp32", "bf16"]),
            },
        )
        .map(unguided_without_labels)
        .map(lambda d: {**d, "batch_size": batch} if "fm_ratio" in d else {**d, "batch_size": 4 * batch})
    )
)


@settings(max_examples=150)
@given(some_dynamics, st.integers(0, 2**40))
def test_dump_is_read_back(given_: dict[str, Any], seed: int) -> None:
    d = Dynamics.model_validate(given_)
    again = Dynamics.model_validate(json.loads(json.dumps(d.dump())))
    assert again == d
    assert again.canonical() == d.canonical()
    assert trajectory_key(None, again, seed) == trajectory_key(None, d, seed)


@settings(max_examples=150)
@given(some_dynamics, some_dynamics)
def test_equal_keys_mean_equal_dynamics(one: dict[str, Any], other: dict[str, Any]) -> None:
    a, b = Dynamics.model_validate(one), Dynamics.model_validate(other)
    assert (trajectory_key(None, a, 0) == trajectory_key(None, b, 0)) == (a == b)


def test_a_task_affinity_is_named_by_all_that_tells_it_apart() -> None:
    base = {"name": "task_affinity", "lo": 0.1, "hi": 0.3}
    changes = [{}, {"quantity": "exact"}, {"negative_r": "clamp"}, {"quantity": "ceiling", "negative_r": "resample_t"}]
    specs = [parse_spec("metric", base | change) for change in changes]
    labels = [spec.params.label(spec.name) for spec in specs]
    assert labels == [
        "task_affinity[0.1,0.3]",
        "task_affinity_exact[0.1,0.3]",
        "task_affinity_clamp[0.1,0.3]",
        "task_affinity_ceiling_resample_t[0.1,0.3]",
    ]


def test_metrics_that_not_all_data_suit_are_looked_at_before_training() -> None:
    for metric in ({"name": "frechet", "features": "coarse"}, "frechet", "kid", "v_error", "u_error"):
        assert parse_spec("metric", metric).params.needs_check()
    assert not parse_spec("metric", {"name": "frechet", "features": "pixel"}).params.needs_check()
