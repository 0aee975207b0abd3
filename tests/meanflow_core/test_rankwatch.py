"""Two ranks of which one fails: both end soon, whatever they do, and the record says why the first did."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from meanflow_core.ranks import Ranks, joined
from meanflow_core.rankwatch import Failure, first_of
from meanflow_core.trainer import Trainer
from results.layout import Home
from sweeps import rolling, training
from sweeps.lease import holder
from sweeps.plan import checkpoint_steps
from sweeps.ranked import main
from tests.meanflow_core.test_ranks import job_of, ranks_of

pytestmark = pytest.mark.slow

FOREVER_S = 1000.0
KILLED = -signal.SIGKILL


def at_step(step: int, do: Any) -> None:
    """Do something instead of a step, on this rank alone."""
    real = Trainer.advance

    def advance(trainer: Trainer, log: bool = False) -> dict[str, float]:
        if trainer.step == step:
            do(trainer)
        return real(trainer, log)

    Trainer.advance = advance  # type: ignore[method-assign]


def fails(*_: Any) -> None:
    raise LookupError("no such thing")


def is_killed(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def is_spoilt(trainer: Trainer) -> None:
    trainer.online[0].fill_(float("nan"))


def disk_is_full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def hangs(*_: Any) -> None:
    time.sleep(FOREVER_S)


def together(home: str, job: str, how: str) -> int:
    """As torchrun starts it, with something wrong on one of the ranks."""
    first = os.environ["RANK"] == "0"
    rolling.SHARE = 1e9
    if how == "a full disk on the first" and first:
        training.write_checkpoint = disk_is_full
    if how == "an error on the first" and first:
        at_step(5, fails)
    if how in {"an error on the second", "an error while the first hangs"} and not first:
        at_step(5, fails)
    if how == "an error while the first hangs" and first:
        at_step(5, hangs)  # as NCCL does, which no rank leaves by itself
    if how == "kill -9 of the second" and not first:
        at_step(5, is_killed)
    if how == "kill -9 of the first" and first:
        at_step(5, is_killed)
    if how == "NaN on the second" and not first:
        at_step(19, is_spoilt)
    if how == "an error before the second has joined":
        torch.cuda.is_available = lambda: True
        torch.cuda.device_count = lambda: 2
        torch.cuda.set_device = (lambda number: None) if first else no_device
    return main(home, job)


def no_device(*_: Any) -> None:
    raise RuntimeError("CUDA error: invalid device ordinal")


ENDS = {
    "a full disk on the first": ([1, 1], "the disk is full: free some space"),
    "an error on the first": ([1, 1], "LookupError: no such thing"),
    "an error on the second": ([1, 1], "LookupError: no such thing (on rank 1)"),
    "an error while the first hangs": ([1, 1], "LookupError: no such thing (on rank 1)"),
    "kill -9 of the second": ([1, KILLED], "rank 1 ended without a word: it was killed"),
    "NaN on the second": ([1, 1], "Diverged: loss is nan at step 20"),
    "kill -9 of the first": ([KILLED, 1], None),
    "an error before the second has joined": ([1, 1], None),
}


@pytest.mark.parametrize("how", list(ENDS))
def test_a_rank_that_fails_ends_all_with_its_reason(how: str, tmp_path: Path) -> None:
    home, job = Home(tmp_path), job_of({"fm_ratio": 0.75})
    if "joined" in how:
        job = job.model_copy(update={"device": "auto"})
    (tmp_path / "job.json").write_text(job.model_dump_json())
    began = time.monotonic()
    ended = ranks_of(together, str(tmp_path), str(tmp_path / "job.json"), how, folder=tmp_path)
    assert time.monotonic() - began < FOREVER_S / 4, "nobody waited for what cannot come"
    statuses, reason = ENDS[how]
    assert [status for status, _ in ended] == statuses, ended
    if how == "a full disk on the first":
        assert "rank 1 ends, since rank 0 failed: the disk is full" in ended[1][1] and "Traceback" not in ended[1][1]
    records = [json.loads(path.read_text()) for path in home.trajectories.glob("*/attempts/*/DONE.json")]
    if reason is None:
        assert records == []
        assert "on rank 1" in ended[0][1] if "joined" in how else "rank 0 ended without a word" in ended[1][1], ended
    else:
        assert [(one["status"], reason in one["reason"]) for one in records] == [("failed", True)], records
        assert list(home.trajectories.glob("*/checkpoints/*")) == []
    assert holder(home.trajectory(job.trajectory).lease("train")) is None


def test_two_ranks_go_on_at_the_rolling_checkpoint_of_those_that_were_killed(tmp_path: Path) -> None:
    """Which the first rank's clock decides on, and which is published only if both hold the same weights."""
    weights = []
    for name, how in (("undisturbed", "nothing"), ("killed", "kill -9 of the second"), ("killed", "nothing")):
        home, job = Home(tmp_path / name), job_of({"fm_ratio": 0.75}).model_copy(update={"rolling_s": 1e-9})
        home.root.mkdir(exist_ok=True)
        (home.root / "job.json").write_text(job.model_dump_json())
        (meet := tmp_path / f"{name} {how}").mkdir()
        ended = ranks_of(together, str(home.root), str(home.root / "job.json"), how, folder=meet)
        folder = home.trajectory(job.trajectory)
        saved = checkpoint_steps(folder.checkpoints)
        if how == "nothing":
            assert [status for status, _ in ended] == [0, 0], ended
            weights.append((folder.checkpoint(job.stop_step) / "online.safetensors").read_bytes())
        else:
            assert saved <= {4, 5} and saved, ended
            rolled = max(saved)
    assert json.loads((folder.attempt(2) / "DONE.json").read_text())["start_step"] == rolled
    assert weights[0] == weights[1]


def leaves_by_itself() -> None:
    with joined("cpu") as ranks:
        ranks.on_failure(lambda failure: sys.stdout.write(f"recorded {failure.reason}\n"))
        ranks.agree(True)
        if not ranks.first:
            raise KeyError("a word")
        time.sleep(FOREVER_S)


def test_an_exception_that_leaves_the_block_is_a_failure_of_the_rank(tmp_path: Path) -> None:
    (first, said), (second, trace) = ranks_of(leaves_by_itself, folder=tmp_path)
    assert (first, second) == (1, 1)
    assert "recorded KeyError: 'a word'" in said
    assert "Traceback" in trace


def test_of_several_failures_the_earliest_is_the_reason() -> None:
    late, early = Failure(0, 2.0, "Diverged: b"), Failure(1, 1.0, "OSError: a")
    assert first_of([late, early]) is early
    same = Failure(1, 1.0, "Diverged: b")
    assert first_of([late, same]) is late, "the first rank found it, too"


def test_alone_nobody_watches() -> None:
    alone = Ranks()
    alone.on_failure(fails)
    alone.settle()
    alone.end("end")
    assert alone.failed("why", ValueError()) == "why"
    assert not dist.is_initialized()
