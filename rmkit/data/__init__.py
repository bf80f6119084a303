"""Published data sets, one small file each, and the one dict that names them."""

from __future__ import annotations

from rmkit.data.dataset import Dataset
from rmkit.data.helpsteer import HELPSTEER
from rmkit.data.helpsteer2 import HELPSTEER2
from rmkit.data.reward_bench import REWARD_BENCH

DATASETS: dict[str, Dataset] = {dataset.name: dataset for dataset in (HELPSTEER, HELPSTEER2, REWARD_BENCH)}
"""Every data set that `data_prep/prepare.py` reads, by name."""
