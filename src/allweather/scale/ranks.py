"""The processes that torchrun started, and what they agree on: sums, the largest of numbers, and equal tensors."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from allweather.errors import AllWeatherError, SettingsError, first_line
from allweather.models.digest import digest

PATIENCE = timedelta(minutes=5)  # that the slowest rank may take for one frame


class RankLost(AllWeatherError):
    """Another rank has ended, or does not answer."""


@dataclass(frozen=True)
class Ranks:
    """Which of the processes this one is.

    Attributes:
        rank, number: this one's, and how many there are.
        local: its number on this machine.
        restarts: how often torchrun has started all of them again.
        most: how often it would: after any exit status but 0.
    """

    rank: int
    number: int
    local: int = 0
    restarts: int = 0
    most: int = 0

    @property
    def first(self) -> bool:
        """Whether this one speaks and keeps the record."""
        return self.rank == 0

    def device(self, asked: str) -> str:
        """`cuda` without a number is another device for each rank of a machine."""
        return f"cuda:{self.local}" if asked == "cuda" else asked

    @contextmanager
    def joined(self, device: str) -> Iterator[None]:
        """Inside, the ranks can agree: by gloo on CPUs, by nccl on GPUs.

        Raises:
            AllWeatherError: where they do not find each other.
        """
        cuda = device.startswith("cuda")
        try:
            if cuda:
                torch.cuda.set_device(device)
            store, _, _ = next(rendezvous("env://", self.rank, self.number, timeout=PATIENCE))
            store = PrefixStore(f"attempt {self.restarts}", store)  # one store may serve all: addresses of the dead
            dist.init_process_group(
                "nccl" if cuda else "gloo", timeout=PATIENCE, store=store, rank=self.rank, world_size=self.number
            )
        except (RuntimeError, ValueError) as error:
            raise AllWeatherError(f"the ranks do not find each other: {first_line(error)}") from error
        try:
            yield
        finally:
            dist.destroy_process_group()

    def total(self, values: Tensor) -> Tensor:
        """The sum of the ranks' values, in place.

        Raises:
            RankLost: when a rank has ended.
        """
        return self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, value: float, device: torch.device) -> float:
        """The largest of the ranks' numbers.

        Raises:
            RankLost: when a rank has ended.
        """
        return float(self._reduced(torch.tensor([value], dtype=torch.float64, device=device), dist.ReduceOp.MAX))

    def check_equal(self, tensors: Mapping[str, Tensor], device: torch.device) -> str:
        """The digest that all ranks' tensors have.

        Raises:
            AllWeatherError: when they have not all the same.
            RankLost: when a rank has ended.
        """
        found = digest(tensors)
        number = int(found[:15], 16)
        both = torch.tensor([number, -number], dtype=torch.int64, device=device)
        high, low = self._reduced(both, dist.ReduceOp.MAX).tolist()
        if high != -low:
            raise AllWeatherError(f"rank {self.rank}: the ranks' parameters differ (sha256 {found[:15]}… here).")
        return found

    def _reduced(self, values: Tensor, how: dist.ReduceOp.RedOpType) -> Tensor:
        try:
            dist.all_reduce(values, how)
        except RuntimeError as error:
            raise RankLost(f"another rank has ended ({first_line(error)})") from error
        return values


def launched() -> Ranks | None:
    """What torchrun says of this process; None where it was not started by it.

    Raises:
        SettingsError: for an environment that only half says so.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    try:
        rank, number, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        restarts, most = (
            int(os.environ.get(f"TORCHELASTIC_{name}", "0")) for name in ("RESTART_COUNT", "MAX_RESTARTS")
        )
        return Ranks(rank, number, local, restarts, most)
    except (KeyError, ValueError) as error:
        raise SettingsError(f"TORCHELASTIC_RUN_ID is set, but not all that torchrun sets ({error}).") from error
