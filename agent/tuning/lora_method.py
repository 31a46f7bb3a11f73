"""Training of low-rank adapters: their size, their start, their file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.tuning.base_model import Architecture
from agent.tuning.lora import Lora, initial_lora, lora_size
from agent.tuning.lora_file import write_lora

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class LoraMethod:
    """Adapters of one architecture, rank and alpha."""

    architecture: Architecture
    rank: int
    alpha: float

    @property
    def size(self) -> int:
        return lora_size(self.architecture, self.rank)

    @property
    def decides(self) -> list[Any]:
        return [self.rank, self.alpha]

    def of(self, flat: Array | None = None) -> Lora:
        return Lora(self.architecture, self.rank, self.alpha / self.rank, flat)

    def initial(self, seed: int) -> Lora:
        return initial_lora(self.architecture, self.rank, self.alpha / self.rank, seed)

    def write(self, folder: Path, parameters: Lora) -> tuple[Path, str]:
        return write_lora(folder, self.architecture, parameters)
