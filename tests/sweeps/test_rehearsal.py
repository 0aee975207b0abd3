"""A step in small before training: what components of your own must be refused for, and what must pass and be kept."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from meanflow_core.checkpoint import load_checkpoint, write_checkpoint
from meanflow_core.config import Dynamics, Protocol
from meanflow_core.evaluation.context import EvaluationContext
from meanflow_core.own import use
from meanflow_core.state import load_state
from meanflow_core.trainer import Trainer, build_network
from sweeps.rehearsal import rehearse
from sweeps.verify import differing
from tests.homes import MICRO, succeeds

NETWORK = """
from meanflow_core.registry import Params, component

MADE = []

@component("network", version=1)
class Net(Params):
    def build(self, context):
        import torch
        from torch import nn
        from torch.nn.utils import parametrizations

        class Doubled(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2

            @staticmethod
            def backward(ctx, g):
                return 2 * g

        class Reversed(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x

            @staticmethod
            def backward(ctx, g):
                return -g

        class Network(nn.Module):
            conditional = False

            def __init__(self):
                super().__init__()
                self.first = nn.Linear(66, 16)
                self.middle = nn.Identity()
                self.last = nn.Linear(16, 64)
                {init}

            def forward(self, z, r, t, y=None):
                h = self.middle(self.first(torch.cat([z.flatten(1), r[:, None], t[:, None]], 1)))
                {forward}
                return self.last(h).reshape(z.shape)
        {after}
        return Network()
"""


def network(folder: Path, init: str = "pass", forward: str = "pass", after: str = "") -> str:
    file = folder / "net.py"
    file.write_text(NETWORK.format(init=init, forward=forward, after=after))
    return use(str(file) + ":Net", folder)


def dynamics(name: str, **changes: Any) -> Dynamics:
    return Dynamics.model_validate(
        {"network": name, "data": "digits", "batch_size": 16, "fm_ratio": 0.5, "ema_decay": 0.5, **changes}
    )


def said(name: str, **changes: Any) -> list[str]:
    protocol = Protocol(metric={"name": "frechet", "features": "pixel"}, samples=16, reference="digits", nfe=1)
    return rehearse(dynamics(name, **changes), None, [], [protocol])


KEPT: dict[str, dict[str, str]] = {
    "batch norm": {"init": "self.middle = nn.BatchNorm1d(16)"},
    "tied": {"init": "self.again = self.first"},
    "tied buffer": {"init": "self.register_buffer('a', torch.ones(2)); self.register_buffer('b', self.a)"},
    "buffers of all kinds": {
        "init": "[self.register_buffer('of_' + str(d)[6:], torch.zeros(2, dtype=d)) "
        "for d in (torch.bfloat16, torch.float16, torch.bool, torch.int8, torch.complex64)]"
    },
    "constants": {"init": "self.register_buffer('mask', torch.full((2,), -torch.inf), persistent=False)"},
    "frozen": {"init": "self.first.requires_grad_(False)"},
    "without gradient": {"init": "self.idle = nn.Linear(3, 3)"},
    "weight norm": {"init": "self.last = parametrizations.weight_norm(self.last)"},
    "spectral norm": {"init": "self.last = parametrizations.spectral_norm(self.last)"},
    "dropout": {"init": "self.middle = nn.Dropout(0.5)"},
    "float64": {
        "init": "self.wide = nn.Parameter(torch.zeros(16, dtype=torch.float64))",
        "forward": "h = h + self.wide.float()",
    },
    "in place": {"forward": "h = h.mul(2); h += 1"},
    "replaced buffer": {"init": "self.register_buffer('n', torch.zeros(()))", "forward": "self.n = self.n + 1"},
    "labels": {
        "init": "self.conditional = True; self.label = nn.Embedding(11, 16)",
        "forward": "h = h if y is None else h + self.label(y)",
    },
    "not finite beside its start": {
        "init": "self.variance = nn.Parameter(torch.full((16,), 1e-3))",
        "forward": "h = h * self.variance.sqrt()",
    },
    "rows by eights": {"forward": "h = h.reshape(len(h) // 8, 8, 16).flatten(0, 1)"},
    "the labels' shape": {"forward": "h = h if y is None else h * y.size(0) / len(y) + torch.zeros_like(y)[:, None]"},
    "labels unseen": {
        "init": "self.conditional = True; self.label = nn.Embedding(11, 16)",
        "forward": "h = h if y is None else h + self.label(y.data)",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", KEPT)
def test_what_is_kept_is_measured_as_it_was_trained(name: str, tmp_path: Path) -> None:
    """Saved and restored, the state is bitwise the one that was trained, and so are the samples of its weights."""
    own = network(tmp_path, **KEPT[name])
    assert said(own) == []
    d = dynamics(own)
    whole, before, after = Trainer(d, 0), Trainer(d, 0), Trainer(d, 0)
    for trainer, steps in ((whole, 3), (before, 2)):
        for _ in range(steps):
            trainer.advance()
    write_checkpoint(tmp_path / "checkpoint", before.parts(), {})
    parts = load_checkpoint(tmp_path / "checkpoint").parts
    torch.rand(3)  # what others draw meanwhile is nothing to it
    after.restore(parts, 2)
    after.advance()
    assert differing(whole.parts(), after.parts()) == []
    measured = build_network(d, before.data, 0).eval()
    load_state(measured, parts["online"])
    expected = EvaluationContext(before.network, before.data).drawn(8, 1, "jump", 0)
    assert torch.equal(EvaluationContext(measured, before.data).drawn(8, 1, "jump", 0), expected)


def test_buffers_are_copied_and_weights_averaged(tmp_path: Path) -> None:
    trainer = Trainer(dynamics(network(tmp_path, **KEPT["batch norm"])), 0)
    trainer.advance()
    parts = trainer.parts()
    assert parts["ema"].keys() == parts["online"].keys()
    names = {"middle.running_mean", "middle.running_var", "middle.num_batches_tracked"}
    equal = {name for name, value in parts["ema"].items() if torch.equal(value, parts["online"][name])}
    assert names == equal & set(dict(trainer.network.named_buffers())) and "first.weight" not in equal
    assert int(parts["ema"]["middle.num_batches_tracked"]) == 2  # of the rows that train v, and of those that train u


REFUSED: dict[str, tuple[dict[str, str], str]] = {
    "lazy": ({"init": "self.middle = nn.LazyLinear(16)"}, "'middle.weight' is lazy and has no shape yet"),
    "bf16": ({"init": "self.last.to(torch.bfloat16)"}, "the parameter 'last.weight' is bfloat16: weights are float32"),
    "complex": ({"init": "self.c = nn.Parameter(torch.zeros(2, dtype=torch.complex64))"}, "'c' is complex64"),
    "shared": ({"init": "self.b = nn.Parameter(self.last.weight.data)"}, "'b' and 'last.weight' share memory"),
    "extra": (
        {"init": "self.middle = type('E', (nn.Identity,), {'get_extra_state': lambda s: {}})()"},
        "the module 'middle' keeps an extra state",
    ),
    "nothing": ({"init": "self.requires_grad_(False)"}, "no parameter that requires a gradient"),
    "not kept": (
        {"init": "self.register_buffer('n', torch.zeros(()), persistent=False)", "forward": "self.n += 1"},
        "changes its buffer 'n', which is not kept: register it with persistent=True",
    ),
    "attribute": ({"init": "self.n = 0", "forward": "self.n += 1; h = h * self.n"}, "other values for the same input"),
    "other random": ({"forward": "import random; h = h * random.random()"}, "other values for the same input"),
    "function": ({"forward": "h = Doubled.apply(h)"}, "du/dt cannot be taken through it"),
    "identity": ({"forward": "h = Reversed.apply(h)"}, "its gradient is not that of its forward pass"),
    "argument": ({"forward": "z.mul_(2)"}, "changes its argument z in place"),
    "shape": ({"forward": "return h"}, "returns float32 (8, 16) for z of (8, 1, 8, 8)"),
    "dtype": ({"forward": "return z.double()"}, "returns float64 (8, 1, 8, 8) for z in float32"),
    "unsaid": (
        {"init": "self.label = nn.Embedding(11, 16)", "forward": "h = h + self.label(y)"},
        "takes labels and does not say so",
    ),
    "no null label": (
        {"init": "self.conditional = True; self.label = nn.Embedding(10, 16)", "forward": "h = h + self.label(y)"},
        "fails on a dropped label, which is 10: ",
    ),
    "unused": ({"init": "self.conditional = True"}, "says that it takes labels and does not look at them"),
    "no module": ({"after": "return lambda z, r, t, y: z"}, "returns no torch.nn.Module"),
    "NaN": ({"forward": "h = h * torch.nan"}, "returns NaN before anything is trained"),
    "infinite": ({"forward": "return z / 0.0"}, "returns infinite values before anything is trained"),
    "gradient": (
        {"forward": "h = h + (h * 0).square().sum().sqrt()"},
        "the gradient of its weights holds NaN before anything is trained",
    ),
    "exit": ({"forward": "raise SystemExit"}, "fails on z float32 (8, 1, 8, 8), "),
    "rows by threes": ({"forward": "h = h.reshape(-1, 3, 16).flatten(0, 1)"}, "fails on z float32 (8, 1, 8, 8), "),
    "a mistake": ({"forward": "h = h @ h"}, "net.py:43: RuntimeError"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_not_be_kept_or_measured_is_refused(name: str, tmp_path: Path) -> None:
    change, message = REFUSED[name]
    (why,) = said(network(tmp_path, **change), label_dropout=0.1)
    assert message in why and "'Net'" in why


@pytest.mark.parametrize("fm_ratio", [0.0, 0.5, 1.0])
def test_the_study_s_own_numbers_of_rows_decide(fm_ratio: float, tmp_path: Path) -> None:
    """That is what training and sampling ask for: here 32 rows or 64, and 16."""

    def refused(forward: str) -> str:
        return "".join(said(network(tmp_path, forward=forward), batch_size=64, fm_ratio=fm_ratio))

    assert refused("assert len(z) >= 16") == ""
    for rows in (8, 64):
        assert "fails on z float32 (" in refused(f"h = h.reshape({rows}, 16)")
    assert "fails on z float32 (" in refused("h = h + torch.zeros(16, 16)[: len(h)]")


def test_what_is_too_large_for_its_own_batch_must_go_with_a_few_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 3,248 parameters; what is too large for a few rows, too, is left to training."""
    monkeypatch.setattr("sweeps.rehearsal.MOST_PARAMETERS", 4000)
    (why,) = said(network(tmp_path, forward="assert len(z) >= 8"))
    assert why.endswith("AssertionError (tried on 8 rows; 16 are too many to be tried here)")
    monkeypatch.setattr("sweeps.rehearsal.MOST_PARAMETERS", 2000)
    assert said(network(tmp_path, forward="assert len(z) >= 8")) == []


def test_du_dt_is_asked_for_where_rows_train_u(tmp_path: Path) -> None:
    own = network(tmp_path, forward="h = Doubled.apply(h)")
    assert said(own, fm_ratio=1.0) == [] != said(own)


def test_a_network_is_built_twice_and_what_its_module_keeps_stays_good(tmp_path: Path) -> None:
    """Once to be looked at and trained, once to be restored and measured."""
    own = network(tmp_path, init="MADE.append(torch.ones(16))", forward="h = h * MADE[0]")
    assert said(own) == []
    made = sys.modules[f"meanflow_study_own_{own.partition('@')[2]}"].MADE
    assert [table.device.type for table in made] == ["cpu", "cpu"]
    Trainer(dynamics(own), 0).advance()


def test_what_fails_here_is_no_proof_for_another_device(tmp_path: Path) -> None:
    failing, lazy = ({"forward": "raise RuntimeError('only on my GPU')"}, REFUSED["lazy"][0])
    assert rehearse(dynamics(network(tmp_path, **failing)), None, [], [], "cuda") == []
    assert rehearse(dynamics(network(tmp_path, **failing)), None, [], [], "cpu") != []
    assert rehearse(dynamics(network(tmp_path, **lazy)), None, [], [], "cuda") != []


OTHERS = """
from meanflow_core.registry import Params, component

@component("data", version=1)
class Data(Params):
    def class_count(self): return {classes}
    def build(self, context):
        import torch
        from meanflow_core.data.base import DataSet
        class Two(DataSet):
            shape, num_classes = (2,), 2
            def batch(self, seed, step, n, device): return {x}, torch.zeros(n, dtype=torch.{labels})
            def labels(self, n, rng): return torch.zeros(n, dtype=torch.int64)
            def reference_samples(self, n): return torch.zeros({rows}, 2)
        return Two()

def fail(said):
    from meanflow_core.evaluation.errors import EvaluationError
    raise EvaluationError(said)

@component("metric", version=1)
class Metric(Params):
    def build(self, context):
        class It:
            def compute(self, context, protocol):
                import os, sys, numpy as np, torch
                return {value}
        return It()
"""


TRAINED = "context.samples(protocol).abs().max() == 0"  # as the data


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, None),
        ({"value": "context.samples(protocol).mean()"}, None),  # a number in a tensor is one
        ({"x": "torch.ones(n, 3)"}, "a batch is float32 (16, 3), where float32 (16, 2) is wanted"),
        ({"x": "torch.ones(8, 2)"}, "a batch is float32 (8, 2), where float32 (16, 2) is wanted"),
        ({"classes": "exit()"}, "Data fails: SystemExit"),
        ({"rows": "1"}, "reference_samples() gives float32 (1, 2), where float32 (at least 2, 2) is wanted"),
        ({"x": "torch.full((n, 2), torch.nan)"}, "a batch holds values that are not finite"),
        ({"x": "torch.rand(n, 2)"}, "the batch of a step is another when asked again"),
        ({"labels": "int32"}, "the labels of a batch are int32 (16,), where int64 (16,) is wanted"),
        ({"value": "context.samples(protocol)"}, "Metric returns float32 (16, 2), where a real number is wanted"),
        ({"value": "context.nothing"}, "it.py:27: AttributeError"),
        ({"value": "sys.exit()"}, "it.py:27: SystemExit"),
        ({"value": "os.chdir('/') or 0.5"}, None),
        ({"value": f"0.5 if {TRAINED} else fail('too far')"}, None),
        ({"value": f"0.5 if {TRAINED} else np.linalg.inv(np.zeros((2, 2)))"}, None),
        ({"value": f"0.5 if {TRAINED} else torch.nan"}, None),
        ({"value": "fail('too bad') if context.network else 0.5"}, None),
        (
            {"value": "fail('no images') if len(protocol.reference.build().shape) < 3 else 0.5"},
            "'Metric': no images (of",
        ),
        ({"value": "torch.nan"}, "Metric is not finite (of samples of the data, too)"),
        ({"value": f"0.5 if {TRAINED} else '0.5'"}, "Metric returns a str, where a real number is wanted"),
    ],
)
def test_data_and_metrics_of_ones_own(change: dict[str, str], message: str | None, tmp_path: Path) -> None:
    given = {"x": "torch.ones(n, 2)", "labels": "int64", "rows": "n", "value": "0.5", "classes": "2", **change}
    folder = Path.cwd()
    (tmp_path / "it.py").write_text(OTHERS.format(**given))
    data, metric = (use(f"{tmp_path / 'it.py'}:{name}", tmp_path) for name in ("Data", "Metric"))
    d = dynamics("mlp", data=data)
    found = rehearse(d, None, [], [Protocol(metric=metric, samples=16, reference=d.data, nfe=1)])
    assert len(found) == (message is not None) and (message or "") in "".join(found)
    assert Path.cwd() == folder


@pytest.mark.slow
def test_a_study_of_a_network_with_buffers_and_tied_weights_is_measured(tmp_path: Path) -> None:
    network(tmp_path, init="self.middle = nn.BatchNorm1d(16); self.again = self.first")
    used = f"dynamics.network={{use: {tmp_path / 'net.py'}:Net}}"
    home = tmp_path / "home"
    succeeds("run", MICRO, "-o", used, "--as", "own", home=home)
    rows = list(csv.DictReader(succeeds("results", "--study", MICRO, "--as", "own", home=home).splitlines()))
    assert len(rows) == 6 and all(float(row["value"]) > 0 for row in rows)
    assert "sample" in succeeds("sample", "micro/left/v2", "--as", "own", "--out", tmp_path / "out", home=home)
