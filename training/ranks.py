"""Data parallel training: ranks are processes that share the simulations of one run.

Started by torchrun (`torch.distributed`); alone, everything here does nothing. On CPU they talk
over gloo, on GPUs over nccl.
"""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from runtime.errors import InvalidConfig
from training.config import RunConfig, TrialConfig


def under_torchrun() -> bool:
    """Whether this process is a rank already."""
    return dist.is_torchelastic_launched()


def restarted() -> bool:
    """Whether this process is a rank that torchrun started again, since one was lost."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


class RankLost(RuntimeError):
    """Another rank does not answer any more."""


@dataclass(frozen=True)
class Ranks:
    """This process among the run's processes."""

    rank: int = 0
    count: int = 1
    device: str = "cpu"

    @property
    def main(self) -> bool:
        """Whether this is the process that writes files and speaks to the user."""
        return self.rank == 0

    @classmethod
    def join(cls, device: str = "cpu") -> "Ranks":
        """Meet the other ranks, if torchrun started this process; else be the only one.

        Args:
            device: "cpu" or "cuda"; on a GPU, each rank of a host takes one of its GPUs.
        """
        if not under_torchrun():
            return cls(device=device)
        local = int(os.environ["LOCAL_RANK"])
        on_gpu = device == "cuda"
        if on_gpu:
            torch.cuda.set_device(local)
        if not dist.is_initialized():
            _meet("nccl" if on_gpu else "gloo")
        place = f"cuda:{local}" if on_gpu else "cpu"
        return cls(dist.get_rank(), dist.get_world_size(), place)

    def leave(self) -> None:
        """Part from the other ranks, all at the same time: gloo aborts one that is left alone."""
        if self.count > 1:
            self.any(False)
            dist.destroy_process_group()

    def sum_(self, tensor: Tensor) -> Tensor:
        """Add up `tensor` over all ranks, in place; every rank gets the sum.

        Raises:
            RankLost: another rank is gone; so with the others below.
        """
        return self._reduce(tensor, dist.ReduceOp.SUM)

    def max_(self, tensor: Tensor) -> Tensor:
        """The largest of `tensor` over all ranks, element by element and in place."""
        return self._reduce(tensor, dist.ReduceOp.MAX)

    def _reduce(self, tensor: Tensor, operation: "dist.ReduceOp.RedOpType") -> Tensor:
        if self.count > 1:
            try:
                dist.all_reduce(tensor, operation)
            except RuntimeError as error:
                first_line = str(error).splitlines()[0]
                raise RankLost(f"rank {self.rank} lost another rank: {first_line}") from None
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true on some rank; all get the same answer."""
        return bool(self.sum_(torch.tensor(float(flag), device=self.device)) > 0)


def _meet(backend: str) -> None:
    """Find the other ranks through torchrun's store.

    torchrun keeps one store over all its restarts, in which the addresses of ranks that are no
    more would be found: on one host, each attempt has its own keys. Over hosts the count of
    restarts is each host's own; there torchrun has to make a new store (docs/scaling.md).
    """
    store, rank, count = next(rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        store = PrefixStore(f"attempt_{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=count)


def check_parts(config: RunConfig, ranks: int) -> None:
    """See whether the simulations of a run can be divided over its ranks.

    Raises:
        InvalidConfig: they cannot.
    """
    if ranks > 1 and not isinstance(config, TrialConfig):
        raise InvalidConfig(f"this method is trained by one rank alone, not by {ranks}")
    if config.parts % ranks:
        raise InvalidConfig(
            f"{config.parts} shards cannot be divided over {ranks} ranks: give each rank the same "
            f"number of shards, as with --shards {ranks}"
        )
