"""Samplers against the exact flow of a Gaussian."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import meanflow_core.components  # noqa: F401  (registers the built-in components)
from meanflow_core.data.exact import ExactFields
from meanflow_core.registry import parse_spec
from meanflow_core.samplers import euler_sample, in_batches, jump_sample, sample


def gaussian(dim: int = 3) -> ExactFields:
    fields: ExactFields = parse_spec("data", {"name": "gaussian", "dim": dim}).build().exact
    return fields


class Recorder:
    """An exact u that writes down at which (r, t) it was asked."""

    def __init__(self) -> None:
        self.calls: list[tuple[float, float]] = []
        self.rows: list[int] = []
        self.fields = gaussian()

    def __call__(self, z: Tensor, r: Tensor, t: Tensor, y: Tensor | None) -> Tensor:
        assert r.shape == t.shape == (len(z),)
        assert r.dtype == t.dtype == z.dtype
        assert len(r.unique()) == len(t.unique()) == 1
        self.calls.append((float(r[0]), float(t[0])))
        self.rows.append(len(z))
        return self.fields.u(z, r, t).to(z.dtype)


@pytest.mark.parametrize("nfe", [1, 2, 3, 7])
def test_jumps_of_the_exact_u_are_the_exact_flow(nfe: int) -> None:
    """From t = 1 to 0 the flow of N(1, 0.5²) is z ↦ 1 + z/2, in one jump or in many."""
    fields, z = gaussian(), torch.randn(10, 3, dtype=torch.float64)
    x = jump_sample(lambda z, r, t, y: fields.u(z, r, t), z, None, nfe)
    torch.testing.assert_close(x, 1 + z / 2)


def test_euler_converges_at_first_order() -> None:
    fields, z = gaussian(), torch.randn(10, 3, dtype=torch.float64)
    errors = [
        float((euler_sample(lambda z, r, t, y: fields.u(z, r, t), z, None, n) - (1 + z / 2)).norm()) for n in (64, 128)
    ]
    assert 1.7 < errors[0] / errors[1] < 2.3


def test_intervals_have_equal_length_and_never_none() -> None:
    net, z = Recorder(), torch.randn(4, 3)
    jump_sample(net, z, None, 2)
    assert net.calls == [(0.5, 1.0), (0.0, 0.5)]
    net.calls.clear()
    jump_sample(net, z, None, 3)
    assert [t for _, t in net.calls][1:] == [r for r, _ in net.calls][:-1]
    assert net.calls[0][1] == 1.0
    assert net.calls[-1][0] == 0.0
    assert all(t > r for r, t in net.calls)


def test_euler_asks_for_v_only() -> None:
    net = Recorder()
    euler_sample(net, torch.randn(4, 3), None, 2)
    assert net.calls == [(1.0, 1.0), (0.5, 0.5)]


def test_batches_do_not_change_samples() -> None:
    net, z = Recorder(), torch.randn(10, 3, dtype=torch.float64)
    torch.testing.assert_close(
        sample(net, z, None, 2, "jump", batch_size=4), sample(net, z, None, 2, "jump"), rtol=1e-14, atol=0
    )
    assert max(net.rows) == 10
    assert net.rows[:6] == [4, 4, 4, 4, 2, 2]


def test_labels_stay_with_their_rows() -> None:
    z, y = torch.zeros(5, 1), torch.arange(5)
    x = sample(lambda z, r, t, y: -y[:, None].float(), z, y, 1, "jump", batch_size=2)  # type: ignore[index]
    assert x[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert in_batches(lambda a, b: a if b is None else b, y, None, batch_size=2).tolist() == y.tolist()


def test_samples_carry_no_graph() -> None:
    w = torch.ones((), requires_grad=True)
    assert not jump_sample(lambda z, r, t, y: w * z, torch.randn(2, 3), None, 1).requires_grad


@pytest.mark.parametrize(("nfe", "solver"), [(0, "jump"), (1, "heun")])
def test_nonsense_is_refused(nfe: int, solver: str) -> None:
    with pytest.raises(ValueError, match=r"nfe|unknown solver"):
        sample(Recorder(), torch.randn(2, 3), None, nfe, solver)  # type: ignore[arg-type]
