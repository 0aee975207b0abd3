"""What a step trains on: a pure function of (seed, i), with the declared law."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats

from meanflow_core.hooks import Batch
from meanflow_core.trainer import Trainer, build_network
from tests.meanflow_core import DIT, dynamics
from tests.meanflow_core.trainers import equal_weights, train

# --- pure functions of (seed, i) ---------------------------------------------------------------------------


def same_batch(a: Batch, b: Batch) -> bool:
    return all(torch.equal(getattr(a, f), getattr(b, f)) for f in ("x", "eps", "r", "t", "y"))


def test_a_batch_has_no_history() -> None:
    d = dynamics(label_dropout=0.2)
    one, other = Trainer(d, seed=0), Trainer(d, seed=0)
    expected = [one.draw_batch(i) for i in range(5)]
    train(other, 3)
    torch.manual_seed(123)
    for i in (4, 0, 2, 2, 1, 3):
        assert same_batch(other.draw_batch(i), expected[i])
    assert not any(same_batch(expected[i], expected[i + 1]) for i in range(4))
    assert not same_batch(Trainer(d, seed=1).draw_batch(0), expected[0])


def test_arms_share_their_noise() -> None:
    """Two dynamics of one seed see the same data, noise and times, so their difference is not noise."""
    a = Trainer(dynamics(fm_ratio=0.25), seed=0).draw_batch(3)
    b = Trainer(dynamics(fm_ratio=0.75, network=DIT), seed=0).draw_batch(3)
    for f in ("x", "eps", "t", "y"):
        assert torch.equal(getattr(a, f), getattr(b, f))
    assert torch.equal(a.r[12:], b.r[12:])


def test_streams_are_apart() -> None:
    """Data, noise, times and dropped labels come from different generators: noise is not a function of the data."""
    b = Trainer(dynamics(batch_size=512, data={"name": "gaussian", "dim": 2}, fm_ratio=0.0), seed=0).draw_batch(0)
    columns = torch.stack([b.x[:, 0], b.x[:, 1], b.eps[:, 0], b.eps[:, 1], b.t.logit() + b.r.logit()])
    correlation = torch.corrcoef(columns) - torch.eye(5)
    assert correlation.abs().max() < 0.17


@pytest.mark.usefixtures("pace")
def test_global_random_numbers_are_not_touched() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    trainer = Trainer(dynamics(label_dropout=0.2, transforms=["pace"]), seed=0)
    train(trainer, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_depend_on_architecture_and_seed_alone() -> None:
    d = dynamics()
    one = Trainer(d, seed=0).online
    torch.manual_seed(77)
    assert equal_weights(one, Trainer(dynamics(fm_ratio=0.5, ema_decay=0.5), seed=0).online)
    assert not equal_weights(one, Trainer(d, seed=1).online)
    data = d.data.build()
    assert equal_weights(one, [p.data for p in build_network(d, data, 0).parameters()])
    assert equal_weights(Trainer(d, seed=0).ema, one)


# --- the law of what is drawn ------------------------------------------------------------------------------


def large(n: int = 20_000, **changes: Any) -> Batch:
    trainer = Trainer(dynamics(batch_size=n, **{"data": "gaussian", **changes}), seed=0)
    return trainer.draw_batch(0)


@pytest.mark.parametrize(("mean", "std"), [(-0.4, 1.0), (0.5, 1.6)])
def test_times_are_two_sorted_logit_normals(mean: float, std: float) -> None:
    b = large(fm_ratio=0.0, time_sampler={"name": "logit_normal", "mean": mean, "std": std})
    assert bool((b.t >= b.r).all())
    assert b.r.min() > 0
    assert b.t.max() < 1

    def normal(x: Any) -> Any:
        return stats.norm.cdf((x - mean) / std)

    assert stats.kstest(b.t.logit().numpy(), lambda x: normal(x) ** 2).pvalue > 1e-3
    assert stats.kstest(b.r.logit().numpy(), lambda x: 1 - (1 - normal(x)) ** 2).pvalue > 1e-3
    assert stats.kstest(b.t.logit().numpy(), normal).pvalue < 1e-10, "the test can tell one draw from two"
    # Sorted, they are dependent; either is the first draw with equal probability.
    first = torch.where(torch.rand(len(b.t)) < 0.5, b.r, b.t)
    assert stats.kstest(first.logit().numpy(), normal).pvalue > 1e-3


def test_rows_of_v_have_an_empty_interval_and_the_larger_time() -> None:
    b = large(fm_ratio=0.75)
    n = 15_000
    assert b.v_rows == n
    assert torch.equal(b.r[:n], b.t[:n])
    assert bool((b.r[n:] < b.t[n:]).all())
    assert b.t[:n].mean() == pytest.approx(0.535, abs=0.006)
    assert b.t[n:].mean() == pytest.approx(0.535, abs=0.01)
    assert b.delta_t[n:].mean() == pytest.approx(0.535 - (2 * 0.418 - 0.535), abs=0.01)


def test_noise_is_normal() -> None:
    b = large(fm_ratio=0.0)
    assert stats.kstest(b.eps.flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(b.x.flatten().numpy(), lambda x: stats.norm.cdf((x - 1.0) / 0.5)).pvalue > 1e-3


def test_labels_are_dropped_independently_of_everything() -> None:
    """Of the row's kind (v or u), of its class and of its times, with the probability asked for."""
    trainer = Trainer(dynamics(batch_size=64, data="gmm", label_dropout=0.3, fm_ratio=0.5), seed=0)
    plain = Trainer(dynamics(batch_size=64, data="gmm", fm_ratio=0.5), seed=0)
    kinds, dropped, classes, times = [], [], [], []
    for i in range(150):
        b, kept = trainer.draw_batch(i), plain.draw_batch(i)
        assert b.y is not None
        assert kept.y is not None
        gone = b.y == 10
        assert torch.equal(b.y[~gone], kept.y[~gone])
        kinds.append(torch.arange(64) < b.v_rows)
        dropped.append(gone)
        classes.append(kept.y)
        times.append(b.t)
    kind, gone, label, t = (torch.cat(x) for x in (kinds, dropped, classes, times))
    assert stats.binomtest(int(gone.sum()), len(gone), 0.3).pvalue > 1e-3
    for other, n in ((kind.long(), 2), (label, 10), ((t > 0.5).long(), 2)):
        table = torch.zeros(2, n)
        table.index_put_((gone.long(), other), torch.ones(len(gone)), accumulate=True)
        assert stats.chi2_contingency(table.numpy()).pvalue > 1e-3


def test_no_label_is_dropped_unless_asked() -> None:
    b = Trainer(dynamics(batch_size=256), seed=0).draw_batch(0)
    assert b.y is not None
    assert b.y.max() == 9
    all_dropped = Trainer(dynamics(batch_size=256, label_dropout=1.0), seed=0).draw_batch(0).y
    assert all_dropped is not None
    assert bool((all_dropped == 10).all())
