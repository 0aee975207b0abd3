"""Training on the ranks that write nothing: step by step the same as the first rank, which speaks for all."""

from __future__ import annotations

import json

from threadpoolctl import threadpool_limits

from meanflow_core.config import Checkpoint
from meanflow_core.ranks import Ranks
from results.layout import Home
from sweeps.jobs import Job, ShouldStop
from sweeps.training import kept, new_trainer, restore

TRAIN, END = "train", "end"


def follow(home: Home, job: Job, should_stop: ShouldStop, ranks: Ranks) -> None:
    """Train whenever the first rank begins to, until it says that it has ended."""
    while ranks.tell() == TRAIN:
        with threadpool_limits(job.threads):
            _train(home, job, should_stop, ranks)


def _train(home: Home, job: Job, should_stop: ShouldStop, ranks: Ranks) -> None:
    """The counterpart of `sweeps.training.Training.run`: the same collective calls, in the same order."""
    trainer = new_trainer(job, ranks)
    said = json.loads(ranks.tell())
    restore(trainer, home, job, Checkpoint(*said) if said else None)
    first_step = trainer.step
    if kept(job, trainer.step, first_step):
        trainer.check()
    while trainer.step < job.stop_step:
        stop, save = ranks.agree(should_stop(), False)
        if stop:
            if trainer.step > first_step:
                trainer.check()
            return
        if save:
            trainer.check()
        trainer.advance((trainer.step + 1) % job.log_every_steps == 0)
        if kept(job, trainer.step, first_step):
            trainer.check()
