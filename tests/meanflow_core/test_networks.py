"""The networks: sizes of the paper, adaLN-zero, labels, times, dtypes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from meanflow_core.networks.dit import sincos_2d
from meanflow_core.networks.embed import TimeEmbedding
from meanflow_core.registry import ComponentError, parse_spec
from tests.meanflow_core import CLASSES, DIT, MLP, NETWORKS, SHAPE, make_inputs, make_network


def build(spec: Any, shape: tuple[int, ...] = SHAPE, classes: int | None = CLASSES) -> Any:
    return parse_spec("network", spec).build(shape=shape, num_classes=classes)


@pytest.mark.parametrize(
    ("size", "millions"), [("B/4", 131.2), ("B/2", 131.1), ("M/2", 308.0), ("L/2", 459.1), ("XL/2", 676.4)]
)
def test_parameters_of_the_papers_sizes(size: str, millions: float) -> None:
    with torch.device("meta"):
        network = build({"name": "dit", "size": size}, (4, 32, 32), 1000)
    count = sum(p.numel() for p in network.parameters())
    assert round(count / 1e6, 1) == millions


def test_parameters_in_closed_form() -> None:
    """Of a DiT of width w, depth d, with k values a token, e embedding values and n classes."""
    w, d, k, e, n = 768, 12, 64, 256, 1000
    block = 4 * w * w + 4 * w + 8 * w * w + 5 * w + 6 * (w * w + w)
    times = 2 * (e * w + w + w * w + w)
    expected = d * block + times + (n + 1) * w + (k * w + w) + 2 * (w * w + w) + (w * k + k)
    with torch.device("meta"):
        network = build({"name": "dit", "size": "B/4"}, (4, 32, 32), 1000)
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize("spec", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("shape", [SHAPE, (3, 4, 4)])
def test_output_is_zero_at_first_and_of_zs_shape(spec: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    z, r, t, y, _ = make_inputs(5, shape, torch.float32)
    out = build(spec, shape)(z, r, t, y)
    assert out.shape == z.shape
    assert torch.equal(out, torch.zeros_like(z))


@pytest.mark.parametrize("name", NETWORKS)
def test_blocks_are_the_identity_at_first(name: str) -> None:
    """adaLN-zero: with only the output layer opened, the blocks still pass their input on unchanged."""
    torch.manual_seed(0)
    network = build(NETWORKS[name]).double()
    nn.init.normal_(network.output.weight)
    z, r, t, y, _ = make_inputs(5)
    tokens = network.input(network.patchify(z)) + network.position if name == "dit" else network.input(z.flatten(1))
    expected = network.output(network.norm(tokens))
    expected = network.unpatchify(expected) if name == "dit" else expected.reshape(z.shape)
    torch.testing.assert_close(network(z, r, t, y), expected, rtol=1e-12, atol=1e-12)


def test_mlp_takes_data_of_any_shape() -> None:
    for shape in [(1,), (2,), (3, 5)]:
        z, r, t, _, _ = make_inputs(4, shape)
        assert make_network("mlp", shape, None)(z, r, t).shape == z.shape


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3))
def test_patchify_and_unpatchify_are_inverse(channels: int, patch: int, grid: int, n: int) -> None:
    side = patch * grid
    network = build({"name": "dit", "depth": 1, "width": 4, "heads": 1, "patch": patch}, (channels, side, side))
    z = torch.arange(n * channels * side * side, dtype=torch.float64).view(n, channels, side, side)
    tokens = network.patchify(z)
    assert tokens.shape == (n, grid * grid, channels * patch * patch)
    assert torch.equal(network.unpatchify(tokens), z)


def test_a_token_is_a_patch() -> None:
    network = build({"name": "dit", "depth": 1, "width": 4, "heads": 1, "patch": 4}, (2, 8, 8))
    z = torch.randn(3, 2, 8, 8)
    assert torch.equal(network.patchify(z)[:, 1], z[:, :, :4, 4:].flatten(1)), "row by row"
    assert torch.equal(network.patchify(z)[:, 2], z[:, :, 4:, :4].flatten(1))


@pytest.mark.parametrize("shape", [(1, 8, 6), (1, 9, 9), (64,), (8, 8)])
def test_dit_refuses_what_it_cannot_cut(shape: tuple[int, ...]) -> None:
    with pytest.raises(ComponentError, match="square images whose side is a multiple of 4"):
        build(DIT, shape)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_label_is_the_null_class(name: str) -> None:
    network = make_network(name)
    z, r, t, y, _ = make_inputs(6)
    null = torch.full_like(y, CLASSES)
    assert torch.equal(network(z, r, t, None), network(z, r, t, null))
    assert torch.equal(network(z, r, t), network(z, r, t, null))
    assert (network(z, r, t, None) - network(z, r, t, y)).abs().flatten(1).amax(1).min() > 1e-3


@pytest.mark.parametrize("name", NETWORKS)
def test_output_depends_on_every_argument_row_by_row(name: str) -> None:
    network = make_network(name)
    z, r, t, y, v = make_inputs(6)
    base = network(z, r, t, y)
    changed = {
        "z": network(z + 0.1 * v, r, t, y),
        "r": network(z, r * 0.5, t, y),
        "t": network(z, r, t + 0.1, y),
        "y": network(z, r, t, (y + 1) % CLASSES),
    }
    for argument, out in changed.items():
        assert (out - base).abs().flatten(1).amax(1).min() > 1e-4, f"u does not depend on {argument}"
    rows = torch.tensor([4, 1])
    torch.testing.assert_close(network(z[rows], r[rows], t[rows], y[rows]), base[rows], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_unconditional(name: str) -> None:
    z, r, t, y, _ = make_inputs(3)
    network = build({**NETWORKS[name], "conditional": False})
    assert not any("label" in n for n, _ in network.named_parameters())
    for network in (make_network(name, classes=None), build({**NETWORKS[name], "conditional": False}).double()):
        assert torch.equal(network(z, r, t, y), network(z, r, t, None))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_dtype_clean(name: str, dtype: torch.dtype) -> None:
    """Nothing inside rounds to float32: a change of the time by 1e-12 is still seen in float64."""
    network = make_network(name, dtype=dtype)
    z, r, t, y, _ = make_inputs(3)
    out = network(z.to(dtype), r.to(dtype), t.to(dtype), y)
    assert out.dtype == dtype
    if dtype == torch.float64:
        moved = (network(z, r, t + 1e-12, y) - out).abs().max()
        assert 1e-14 < moved < 1e-9


def test_frequencies_are_within_their_bounds() -> None:
    """Smooth in time: no sinusoid faster than max_frequency rad, and none slower than max_frequency / max_period."""
    for name in ("mlp", "dit"):
        spec = parse_spec("network", {"mlp": MLP, "dit": {"name": "dit", "size": "nano/4"}}[name])
        network = spec.build(shape=SHAPE, num_classes=CLASSES)
        for embedding in (network.condition.time, network.condition.gap):
            f = embedding.frequencies
            assert f.max() == spec.params.max_frequency  # type: ignore[attr-defined]
            assert f.min() > spec.params.max_frequency / spec.params.max_period  # type: ignore[attr-defined]
            assert bool((f.diff() < 0).all())


def test_time_embedding_by_hand() -> None:
    embedding = TimeEmbedding(4, 3, max_frequency=2.0, max_period=100.0).double()
    nn.init.normal_(embedding.inner.weight)
    t = torch.tensor([0.25, 1.0], dtype=torch.float64)
    waves = torch.tensor(
        [[math.cos(2.0 * s), math.cos(0.2 * s), math.sin(2.0 * s), math.sin(0.2 * s)] for s in t.tolist()],
        dtype=torch.float64,
    )
    expected = embedding.outer(nn.functional.silu(embedding.inner(waves)))
    torch.testing.assert_close(embedding(t), expected, rtol=1e-7, atol=1e-9)


def test_positions_differ() -> None:
    table = sincos_2d(32, 4)
    assert table.shape == (16, 32)
    distance = torch.cdist(table, table) + torch.eye(16) * 9
    assert distance.min() > 0.5
    columns, rows = table.view(4, 4, 2, 16).unbind(2)
    assert torch.equal(columns, columns[:1].expand_as(columns)), "the first half tells the column"
    assert torch.equal(rows, rows[:, :1].expand_as(rows)), "the second half tells the row"


@pytest.mark.parametrize("name", NETWORKS)
def test_names_of_the_parameters(name: str) -> None:
    """Checkpoints hold tensors by name: buffers are not among them, names are unique, gradients reach them all."""
    network = make_network(name)
    assert set(network.state_dict()) == {n for n, _ in network.named_parameters()}
    z, r, t, y, _ = make_inputs(6)
    network(z, r, t, y).square().sum().backward()
    for n, p in network.named_parameters():
        assert p.grad is not None, n
        assert p.grad.abs().max() > 0, n
