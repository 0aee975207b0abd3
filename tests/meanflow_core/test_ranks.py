"""Two processes that train one network together, over gloo, against one that trains alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from meanflow_core.checkpoint import load_checkpoint
from meanflow_core.config import Dynamics, trajectory_key
from meanflow_core.ranks import Ranks, RanksDiffer, joined
from meanflow_core.trainer import Trainer
from results.layout import Home
from sweeps.jobs import Job
from sweeps.logs import log_to
from sweeps.ranked import main
from sweeps.worker import run_job
from tests.homes import environment

pytestmark = pytest.mark.slow

STEPS = 20
DYNAMICS = {
    "plain": {"fm_ratio": 0.75},
    "all u": {"fm_ratio": 0.0, "transforms": [{"name": "gap_restriction", "lo": 0.1, "hi": 0.3}]},
    "all v": {"fm_ratio": 1.0, "transforms": [{"name": "target_corruption", "relative_noise": 0.5}]},
    "the method": {
        "fm_ratio": 0.5,
        "transforms": [
            {"name": "dtd", "patience": 1, "clusters": 4}, "min_snr", {"name": "progressive_weight"},
            {"name": "target_corruption", "relative_noise": 0.5},
        ],
        "label_dropout": 0.2,
        "guidance": {"cfg_omega": 1.0, "cfg_kappa": 0.5},
    },
}  # fmt: skip


def job_of(changes: dict[str, object]) -> Job:
    base = {
        "network": {"name": "mlp", "width": 16, "depth": 1},
        "data": "digits",
        "batch_size": 16,
        "optimiser": {"name": "adam", "lr": 0.002, "clip_norm": 1.0},
        "ema_decay": 0.9,
    }
    dynamics = Dynamics.model_validate({**base, **changes})
    horizon = STEPS if any(spec.uses_horizon for spec in dynamics.transforms) else None
    return Job(
        kind="train",
        trajectory=trajectory_key(None, dynamics, 3, horizon),
        dynamics=dynamics,
        seed=3,
        horizon_steps=horizon,
        start_step=0,
        stop_step=STEPS,
        full_steps=(STEPS,),
        log_every_steps=1,
        observers=({"name": "grad_norm"},),  # type: ignore[arg-type]
        device="cpu",
    )


# Ranks are forked off a server that has imported torch once.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["sweeps.ranked"])


def as_rank(body: Callable[..., object], args: Sequence[str], out: str, variables: dict[str, str]) -> None:
    """Body of a process: call something as one of the ranks that the environment names, its output in a file."""
    os.environ.clear()
    os.environ.update(variables)
    log_to(Path(out))
    sys.exit(body(*args))


def ranks_of(body: Callable[..., object], *args: str, folder: Path, size: int = 2) -> list[tuple[int | None, str]]:
    """(exit status, output) of ranks that each call ``body``."""
    outputs = [folder / f"rank{rank}.txt" for rank in range(size)]
    ranks = []
    for rank, out in enumerate(outputs):
        shared = {"WORLD_SIZE": str(size), "STUDY_RENDEZVOUS": f"file://{folder / 'rendezvous'}"}
        variables = environment(RANK=str(rank), LOCAL_RANK=str(rank), **shared)
        ranks.append(SERVER.Process(target=as_rank, args=(body, args, str(out), variables)))
        ranks[-1].start()
    for process in ranks:
        process.join(200)
    return [(process.exitcode, out.read_text()) for process, out in zip(ranks, outputs, strict=True)]


def together(home: Home, job: Job, size: int = 2) -> list[tuple[int | None, str]]:
    """The same of a job, as torchrun starts it."""
    home.root.mkdir(parents=True, exist_ok=True)
    path = home.root / "job.json"
    path.write_text(job.model_dump_json())
    return ranks_of(main, str(home.root), str(path), folder=home.root, size=size)


def logged(home: Home, job: Job) -> list[dict[str, float]]:
    lines = []
    for path in sorted(home.trajectory(job.trajectory).attempts.glob("*/metrics.jsonl")):
        lines += [json.loads(line)["values"] for line in path.read_text().splitlines()]
    return lines


@pytest.mark.parametrize("name", list(DYNAMICS))
def test_two_ranks_train_what_one_does(name: str, tmp_path: Path) -> None:
    """The same losses, curriculum and weights, but for the order of summation."""
    job = job_of(DYNAMICS[name])
    alone, shared = Home(tmp_path / "alone"), Home(tmp_path / "shared")
    assert run_job(alone, job)[0] == "done"
    ended = together(shared, job)
    assert [status for status, _ in ended] == [0, 0], ended
    ours, theirs = logged(alone, job), logged(shared, job)
    assert len(ours) == len(theirs) == STEPS
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for key, value in one.items():
            if key != "gap_out_of_range":  # said of a rank's own rows would be something else
                assert other[key] == pytest.approx(value, rel=2e-4, abs=1e-6), key
            assert not (key.startswith("dtd") and other[key] != value)
    parts = [load_checkpoint(h.trajectory(job.trajectory).checkpoint(STEPS)).parts for h in (alone, shared)]
    for part in ("online", "ema"):
        for weight, value in parts[0][part].items():
            torch.testing.assert_close(parts[1][part][weight], value, rtol=1e-3, atol=2e-5)
    done = json.loads(next(shared.trajectories.glob("*/attempts/0001/DONE.json")).read_text())
    assert (done["status"], done["ranks"]) == ("done", 2)


def differ() -> None:
    with joined("cpu") as ranks:
        ranks.check_equal({"a": torch.ones(3), "b": torch.ones(2)})
        assert ranks.agree(ranks.rank == 1, False) == [True, False]
        assert ranks.tell("von vorn: ε" if ranks.first else "") == "von vorn: ε"
        with pytest.raises(RanksDiffer, match="the ranks hold different values of b"):
            ranks.check_equal({"a": torch.ones(3), "b": torch.ones(2) + ranks.rank})
        norm = torch.nn.BatchNorm1d(2)
        norm(torch.randn(4, 2) + ranks.rank)  # each has counted on its own rows
        ranks.share(norm)
        ranks.check_equal(norm.state_dict())


def test_ranks_that_hold_different_weights_are_found_out(tmp_path: Path) -> None:
    """Before anything is published."""
    ended = ranks_of(differ, folder=tmp_path)
    assert [status for status, _ in ended] == [0, 0], ended


def test_shares_are_the_whole_batch_once() -> None:
    job = job_of(DYNAMICS["the method"])
    trainer = Trainer(job.dynamics, 3, horizon_steps=STEPS)
    batch = trainer.draw_batch(5)
    for size in (2, 3, 5):
        shares = [Ranks(rank, size).rows_of(batch) for rank in range(size)]
        rows = torch.cat([share.rows for share in shares if share.rows is not None])
        assert sorted(rows.tolist()) == list(range(16))
        assert sum(share.v_rows for share in shares) == batch.v_rows
        for share in shares:
            assert share.rows is not None
            assert torch.equal(share.r[: share.v_rows], share.t[: share.v_rows])
            assert torch.equal(share.x, batch.x[share.rows])
            assert torch.equal(share.t, batch.t[share.rows])
        rng = [torch.Generator().manual_seed(1) for _ in range(size + 1)]
        noise = torch.cat([share.v_noise(g) for share, g in zip(shares, rng[1:], strict=True)])
        assert torch.equal(noise, batch.v_noise(rng[0]))


def test_alone_nothing_is_shared_or_changed() -> None:
    alone, batch = Ranks(), Trainer(job_of({"fm_ratio": 0.75}).dynamics, 3).draw_batch(0)
    assert alone.rows_of(batch) is batch
    assert (alone.agree(True, False), alone.tell("word")) == ([True, False], "word")


def test_a_batch_that_leaves_a_rank_idle_is_refused() -> None:
    with pytest.raises(ValueError, match="leaves ranks of 32 idle"):
        Trainer(job_of({"fm_ratio": 0.75}).dynamics, 3, ranks=Ranks(0, 32))
