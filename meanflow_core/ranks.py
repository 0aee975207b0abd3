"""Several processes that train one network together: data parallelism in which only the order of summation changes.

Every rank draws the global batch of a step, which is a pure function of (seed, step), and takes its share of the rows.
Gradients are summed over the ranks, errors put together again; so the losses, the log, transforms that look at errors
and the optimiser see what one process would see, up to rounding. The JVP stays inside a rank: nothing is wrapped, and
nothing depends on how torch's DistributedDataParallel treats forward AD.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from meanflow_core.hooks import Batch
from meanflow_core.objectives import Terms
from meanflow_core.rankwatch import Failure, RanksBroken, Watch, end
from meanflow_core.state import buffers_of

BUCKET = 2**24  # numbers summed at once
TIMEOUT = timedelta(hours=2)  # the others wait while the first writes checkpoints or measures
MEETING = timedelta(minutes=10)  # until all have come: they start together, but import from a slow disk


class RanksDiffer(RuntimeError):
    """The ranks no longer hold the same weights; what they made must not be used."""


@dataclass(frozen=True)
class Ranks:
    """This process among ``size`` that train together, over ``group``; ``watch`` hears of failures of the others. With
    one, every method is the identity.

    What all do together raises RanksBroken where one of them is gone.
    """

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None
    watch: Watch | None = None

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
        for bucket in _buckets(p for p in parameters if p.requires_grad):
            flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in bucket])
            self._reduce(flat)
            for p, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = part.view_as(p)

    def share(self, network: nn.Module) -> None:
        """The first rank's buffers, on every rank, as each has counted on its own rows: `broadcast_buffers` of torch's
        DistributedDataParallel."""
        if self.size == 1:
            return
        for buffer in buffers_of(network).values():
            self._broadcast(buffer)

    def whole(self, terms: Terms, batch: Batch) -> Terms:
        """The terms of the global batch, without gradient, from the shares of all ranks."""
        if batch.of is None or batch.rows is None:
            return terms
        rows, total = batch.rows, len(batch.of.t)
        whole = torch.zeros(3, total, dtype=terms.squared_error.dtype, device=rows.device)
        whole[0, rows], whole[1, rows] = terms.loss.detach(), terms.squared_error
        whole[2, rows] = terms.target_power.expand(len(rows))  # a mean over the share: the same for all of its rows
        self._reduce(whole)  # each number beside zeros only, so nothing is rounded
        return Terms(whole[0], whole[1], batch.of.v_rows, whole[2].mean())

    def agree(self, *said: bool) -> list[bool]:
        """Of each thing that ranks may say, whether any of them says so."""
        if self.size == 1:
            return list(said)
        answer = torch.tensor([float(one) for one in said], device=self._device())
        self._reduce(answer, dist.ReduceOp.MAX)
        return [bool(one) for one in answer.tolist()]

    def tell(self, text: str = "") -> str:
        """What the first rank says, on all ranks."""
        if self.size == 1:
            return text
        data = torch.tensor(list(text.encode()), dtype=torch.uint8, device=self._device())
        length = torch.tensor([len(data)], device=self._device())
        self._broadcast(length)
        if not self.first:
            data = torch.empty(int(length), dtype=torch.uint8, device=self._device())
        self._broadcast(data)
        return bytes(data.tolist()).decode()

    def check_equal(self, tensors: Mapping[str, Tensor]) -> None:
        """Raises: RanksDiffer, on every rank, unless all hold the same numbers."""
        if self.size == 1:
            return
        sums = torch.stack([value.detach().double().sum() for value in tensors.values()])
        high, low = sums.clone(), sums.clone()
        self._reduce(high, dist.ReduceOp.MAX)
        self._reduce(low, dist.ReduceOp.MIN)
        if not torch.equal(high, low):
            odd = next(name for name, differs in zip(tensors, (high != low).tolist(), strict=True) if differs)
            raise RanksDiffer(f"the ranks hold different values of {odd}: they no longer train one network")

    def on_failure(self, record: Callable[[Failure], None]) -> None:
        """Before a failure of another rank ends this process, which it does whatever this rank is doing, call this."""
        if self.watch:
            self.watch.on_failure(record)

    def settle(self) -> None:
        """The work has ended. From now on no failure of another rank ends this process."""
        if self.watch:
            self.watch.settle()

    def failed(self, reason: str, error: BaseException) -> str:
        """This rank has failed and takes part no more; the others hear of it and end.

        Returns: why the first to fail did, with its rank where that is another.
        """
        if self.watch is None:
            return reason
        return said_of(self.watch.fail(reason, isinstance(error, RanksBroken)))

    def end(self, text: str) -> None:
        """Tell the others that no more is to be done, unless they have heard of a failure."""
        if self.watch is None or self.watch.failed is None:
            with suppress(RanksBroken):  # what they were needed for is done
                self.tell(text)

    def _reduce(self, values: Tensor, operation: dist.ReduceOp.RedOpType = dist.ReduceOp.SUM) -> None:
        with _together():
            dist.all_reduce(values, operation, self.group)

    def _broadcast(self, values: Tensor) -> None:
        with _together():
            dist.broadcast(values, 0, self.group)

    def _device(self) -> torch.device:
        return torch.device("cuda" if dist.get_backend(self.group) == "nccl" else "cpu")


def said_of(failure: Failure) -> str:
    """Why all ranks ended."""
    return failure.reason if failure.rank == 0 or failure.lost else f"{failure.reason} (on rank {failure.rank})"


@contextmanager
def _together() -> Iterator[None]:
    try:
        yield
    except RanksBroken:
        raise
    except RuntimeError as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise RanksBroken(f"the ranks lost each other: {said}") from error


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    bucket: list[nn.Parameter] = []
    for p in parameters:
        if bucket and sum(q.numel() for q in bucket) + p.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(p)
    if bucket:
        yield bucket


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """The ranks that the environment names (RANK, WORLD_SIZE, LOCAL_RANK: as torchrun sets them, or submitit in SLURM),
    for as long as one is inside. They meet as torch's ``env://`` says, or at ``STUDY_RENDEZVOUS``, e.g.
    file:///shared/new; that opens no port, and then gloo keeps to loopback.

    A failure of any of them ends all of their processes with status 1, an exception that leaves this block included.

    Args:
        device: "cpu" (gloo) or "cuda" (NCCL, and each local rank takes the GPU of its number).
    Raises: RanksBroken if they do not all come.
    """
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    group = _meet(device != "cpu" and torch.cuda.is_available(), rank, size)
    ranks = Ranks(rank, size, group, watch := Watch(rank, size))
    try:
        yield ranks
    except BaseException as error:
        consequence = isinstance(error, RanksBroken)
        sys.stderr.write(f"{error}\n" if consequence else traceback.format_exc())
        sys.stderr.flush()
        watch.fail(f"{type(error).__name__}: {error}", consequence)
    if watch.failed:
        end()
    watch.part()
    dist.destroy_process_group()


def _meet(cuda: bool, rank: int, size: int) -> dist.ProcessGroup:
    """Wait until all ranks are there. Returns: the group in which they train; the default one is the watch's.

    Raises: RanksBroken with the reason if one cannot come, or does not within `MEETING`.
    """
    meeting = os.environ.get("STUDY_RENDEZVOUS")
    if meeting:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    with _together():
        store, _, _ = next(rendezvous(meeting or "env://", rank, size, timeout=MEETING))
    try:
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    except RuntimeError as error:
        store.set("failed", f"{error} (on rank {rank})")
        raise
    with _together():
        _await(store, rank, size)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=MEETING)
        group = dist.new_group(backend="nccl" if cuda else "gloo", timeout=TIMEOUT)
    assert isinstance(group, dist.ProcessGroup)  # every rank is a member
    return group


def _await(store: Store, rank: int, size: int) -> None:
    deadline = time.monotonic() + MEETING.total_seconds()
    store.set(f"here/{rank}", "")
    while absent := [other for other in range(size) if not store.check([f"here/{other}"])]:
        if store.check(["failed"]):
            raise RanksBroken(store.get("failed").decode())
        if time.monotonic() > deadline:
            raise RanksBroken(f"rank {absent[0]} of {size} has not come within {MEETING.total_seconds():.0f} s")
        time.sleep(0.1)
