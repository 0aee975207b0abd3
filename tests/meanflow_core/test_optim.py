"""Adam against torch's own class, bit for bit, and what a worker does not import for it."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from meanflow_core.components import AdamParams
from meanflow_core.optim import Adam
from tests.homes import MICRO, environment


def networks() -> tuple[nn.Module, nn.Module]:
    made = []
    for _ in range(2):
        torch.manual_seed(3)
        made.append(nn.Sequential(nn.Linear(7, 33), nn.SiLU(), nn.Linear(33, 5), nn.Linear(5, 2)))
    return made[0], made[1]


@pytest.mark.parametrize("clip", [None, 0.5])
def test_it_is_torchs_fused_adam(clip: float | None) -> None:
    """Also where a parameter has no gradient at first, and where state is saved and restored on the way."""
    params = AdamParams(lr=0.01, beta1=0.8, beta2=0.99, warmup_steps=3, clip_norm=clip)
    ours, theirs = networks()
    adam = Adam(params, ours.named_parameters())
    reference = torch.optim.Adam(theirs.parameters(), lr=0.01, betas=(0.8, 0.99), eps=params.eps, fused=True)
    for step in range(8):
        x = torch.randn(11, 7, generator=torch.Generator().manual_seed(step))
        for network in (ours, theirs):
            depth = 3 if step < 2 else 4  # the last layer comes later
            network[:depth](x).square().mean().backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(theirs.parameters(), clip)
        reference.param_groups[0]["lr"] = 0.01 * min(1.0, (step + 1) / 3)
        reference.step()
        reference.zero_grad(set_to_none=True)
        adam.step(step)
        adam.zero_grad()
        if step == 4:
            state = adam.state_dict()
            adam = Adam(params, ours.named_parameters())
            adam.load_state_dict(state)
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert torch.equal(mine, other)
    states = [reference.state[p] for p in theirs.parameters()]
    expected = {f"{moment}/{name}": value for name, state in zip(adam.named, states, strict=True)
                for moment, value in state.items()}  # fmt: skip
    found = adam.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_without_gradients_nothing_happens() -> None:
    network, same = networks()
    adam = Adam(AdamParams(), network.named_parameters())
    adam.step(0)
    assert adam.state_dict() == {}
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), same.parameters(), strict=True))


@pytest.mark.slow
def test_training_loads_no_compiler() -> None:
    """It takes seconds to import, in every worker."""
    code = (
        "import sys, tempfile\n"
        "from pathlib import Path\n"
        "from results.layout import Home\n"
        "from studies.loader import load_source, resolve\n"
        "from sweeps.plan import Inventory\n"
        "from sweeps.session import open_session\n"
        "from sweeps.worker import run_job\n"
        "session = open_session([resolve(load_source(sys.argv[1]), 'cpu')])\n"
        "jobs = [job for job in session.jobs(Inventory()) if job.kind == 'train']\n"
        "with tempfile.TemporaryDirectory() as home:\n"
        "    assert [run_job(Home(Path(home)), job)[0] for job in jobs] == ['done'] * len(jobs)\n"
        "print(sorted({'torch._dynamo', 'torch._inductor', 'sklearn', 'pandas'} & set(sys.modules)))\n"
    )
    command = [sys.executable, "-c", code, str(MICRO)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout
