"""What a dry run is told beside the settings of the run itself."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from rmkit.training.gpus import GPUS

ALONE = ("--use_cpu", "true", "--deepspeed", "")
"""Options that let transformers parse a run for GPUs where there is none."""

_LAUNCHER = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass
class DryRunArguments:
    """A look at the run before a GPU is touched; none of this is a setting of the run."""

    _argument_group_name: ClassVar[str] = "dry run: a look before a GPU is touched"

    dry_run: bool = field(
        default=False,
        metadata={"help": "Say what the run would read, hold and take, and end; no weights and no GPU are needed."},
    )
    tokenizer: str | None = field(
        default=None,
        metadata={"help": "With dry_run: folder of the model's tokenizer; without one tokens are estimated."},
    )
    num_gpus: int | None = field(
        default=None,
        metadata={"help": "With dry_run: GPUs of the run; by default what the launcher or the config's header says."},
    )
    gpu: str = field(default="h100", metadata={"help": f"With dry_run: the GPU, one of {', '.join(sorted(GPUS))}."})
    peak_share: float = field(
        default=0.4,
        metadata={"help": "With dry_run: assumed share of the GPU's published rate that training reaches, in (0, 1]."},
    )

    def check(self) -> None:
        """Do nothing for values that exist.

        Raises:
            ValueError: For an unknown GPU, or a number out of its range.
        """
        if self.gpu not in GPUS:
            raise ValueError(f"gpu={self.gpu!r} is unknown; choose {', '.join(sorted(GPUS))}")
        if not 0 < self.peak_share <= 1:
            raise ValueError(f"peak_share={self.peak_share} must be above 0 and at most 1")
        if self.num_gpus is not None and self.num_gpus < 1:
            raise ValueError(f"num_gpus={self.num_gpus} must be at least 1")


@dataclass(frozen=True, slots=True)
class DryRun:
    """A dry run that was asked for.

    Args:
        tokenizer: Folder of a tokenizer, or None.
        ranks: GPUs of the run.
        ranks_from: Who said so, in words.
        gpu: A key of `GPUS`.
        peak_share: Assumed share of its published rate.
        is_first: Whether this process is the one that reports, also where a launcher started several.
    """

    tokenizer: str | None
    ranks: int
    ranks_from: str
    gpu: str
    peak_share: float
    is_first: bool


def leave_launcher() -> dict[str, str]:
    """Take out of the environment what a launcher told this process, and return it.

    transformers and DeepSpeed then look for no other process.
    """
    return {name: os.environ.pop(name) for name in _LAUNCHER if name in os.environ}


def start_dry_run(options: DryRunArguments, launched: Mapping[str, str], config_file: str | None) -> DryRun:
    """The dry run that the options ask for.

    Args:
        options: Checked.
        launched: From `leave_launcher`.
        config_file: The run's configuration, whose header may say on how many GPUs it runs.
    """
    known = [
        (options.num_gpus, "num_gpus"),
        (int(launched.get("WORLD_SIZE") or 0), "WORLD_SIZE"),
        (_read_header(Path(config_file)) if config_file else None, "the command in the config's header"),
        (1, "assumed: --num_gpus N says otherwise"),
    ]
    ranks, source = next((number, who) for number, who in known if number)
    first = int(launched.get("RANK") or 0) == 0
    return DryRun(options.tokenizer, ranks, source, options.gpu, options.peak_share, first)


def _read_header(path: Path) -> int | None:
    """GPUs of the torchrun command in the comments that a config begins with; None where there is none."""
    header = [line for line in path.read_text("utf-8").splitlines() if line.startswith("#")]
    text = "\n".join(header)
    each = re.search(r"--nproc[_-]per[_-]node[ =](\d+)", text)
    nodes = re.search(r"--nnodes[ =](\d+)", text)
    return int(each[1]) * (int(nodes[1]) if nodes else 1) if each else None
