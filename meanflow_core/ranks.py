"""Several processes that train one network together: data parallelism in which only the order of summation changes.

Every rank draws the global batch of a step, which is a pure function of (seed, step), and takes its share of the rows.
Gradients are summed over the ranks, errors put together again; so the losses, the log, transforms that look at errors
and the optimiser see what one process would see, up to rounding. The JVP stays inside a rank: nothing is wrapped, and
nothing depends on how torch's DistributedDataParallel treats forward AD.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from meanflow_core.hooks import Batch
from meanflow_core.objectives import Terms

BUCKET = 2**24  # numbers summed at once
TIMEOUT = timedelta(hours=2)  # the others wait while the first writes checkpoints or measures


class RanksDiffer(RuntimeError):
    """The ranks no longer hold the same weights; what they made must not be used."""


@dataclass(frozen=True)
class Ranks:
    """This process among ``size`` that train together. With one, every method is the identity."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this rank writes files and speaks for all."""
        return self.rank == 0

    def check_shares(self, batch_size: int, v_rows: int) -> None:
        """Raises: ValueError if some rank would have no rows."""
        if v_rows // self.size + (batch_size - v_rows) // self.size == 0:
            raise ValueError(f"a batch of {batch_size} ({v_rows} of them with r = t) leaves ranks of {self.size} idle")

    def rows_of(self, batch: Batch) -> Batch:
        """This rank's share: of the rows that train v and of those that train u a contiguous part each."""
        if self.size == 1:
            return batch
        every = torch.arange(len(batch.t), device=batch.t.device)
        v, u = (part.tensor_split(self.size)[self.rank] for part in (every[: batch.v_rows], every[batch.v_rows :]))
        rows = torch.cat([v, u])
        x, eps, r, t = (value[rows] for value in (batch.x, batch.eps, batch.r, batch.t))
        y = None if batch.y is None else batch.y[rows]
        return replace(batch, x=x, eps=eps, r=r, t=t, y=y, v_rows=len(v), rows=rows, of=batch)

    def loss(self, terms: Terms, batch: Batch) -> Tensor:
        """This rank's part of the mean over the global batch, so that the ranks' gradients sum to its gradient."""
        return terms.loss.mean() if batch.of is None else terms.loss.sum() / len(batch.of.t)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """∂L/∂θ of the global batch, on every rank."""
        if self.size == 1:
            return
        for bucket in _buckets(parameters):
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
            dist.all_reduce(flat)
            for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = part.view_as(p)

    def whole(self, terms: Terms, batch: Batch) -> Terms:
        """The terms of the global batch, without gradient, from the shares of all ranks."""
        if batch.of is None or batch.rows is None:
            return terms
        rows, total = batch.rows, len(batch.of.t)
        whole = torch.zeros(3, total, dtype=terms.squared_error.dtype, device=rows.device)
        whole[0, rows], whole[1, rows] = terms.loss.detach(), terms.squared_error
        whole[2, rows] = terms.target_power.expand(len(rows))  # a mean over the share: the same for all of its rows
        dist.all_reduce(whole)  # each number beside zeros only, so nothing is rounded
        return Terms(whole[0], whole[1], batch.of.v_rows, whole[2].mean())

    def any(self, said: bool) -> bool:
        """Whether any rank says so."""
        if self.size == 1:
            return said
        answer = torch.tensor([float(said)], device=_device())
        dist.all_reduce(answer, op=dist.ReduceOp.MAX)
        return bool(answer.item())

    def tell(self, text: str = "") -> str:
        """What the first rank says, on all ranks."""
        if self.size == 1:
            return text
        data = torch.tensor(list(text.encode()), dtype=torch.uint8, device=_device())
        length = torch.tensor([len(data)], device=_device())
        dist.broadcast(length, 0)
        if not self.first:
            data = torch.empty(int(length), dtype=torch.uint8, device=_device())
        dist.broadcast(data, 0)
        return bytes(data.tolist()).decode()

    def check_equal(self, tensors: Mapping[str, Tensor]) -> None:
        """Raises: RanksDiffer, on every rank, unless all hold the same numbers."""
        if self.size == 1:
            return
        sums = torch.stack([value.detach().double().sum() for value in tensors.values()])
        high, low = sums.clone(), sums.clone()
        dist.all_reduce(high, op=dist.ReduceOp.MAX)
        dist.all_reduce(low, op=dist.ReduceOp.MIN)
        if not torch.equal(high, low):
            odd = next(name for name, differs in zip(tensors, (high != low).tolist(), strict=True) if differs)
            raise RanksDiffer(f"the ranks hold different values of {odd}: they no longer train one network")


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for p in parameters:
        if bucket and sum(q.numel() for q in bucket) + p.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket


def _device() -> torch.device:
    return torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The ranks that the environment names (RANK, WORLD_SIZE, LOCAL_RANK: as torchrun sets them, or submitit in SLURM),
    for as long as one is inside. They meet as torch's ``env://`` says, or at ``STUDY_RENDEZVOUS``, e.g.
    file:///shared/new; that opens no port, and then gloo keeps to loopback.

    Args:
        device: "cpu" (gloo) or "cuda" (NCCL, and each local rank takes the GPU of its number).
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    cuda = device != "cpu" and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    meeting = os.environ.get("STUDY_RENDEZVOUS")
    if meeting:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "nccl" if cuda else "gloo", meeting, timeout=TIMEOUT, rank=int(os.environ["RANK"]), world_size=size
    )
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()
