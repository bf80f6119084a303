"""Where figures are reported to besides the log: TensorBoard, Weights & Biases and others, through transformers."""

from __future__ import annotations

import logging
from pathlib import Path

from transformers import Trainer
from transformers.integrations import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
    get_reporting_integration_callbacks,
    is_tensorboard_available,
)
from transformers.integrations.integration_utils import TensorBoardCallback

logger = logging.getLogger(__name__)

EVENTS_FOLDER = "logs"
"""Folder of TensorBoard's event files within the output folder."""


def choose_reports(told: None | str | list[str]) -> list[str]:
    """What `report_to` means: TensorBoard where nothing is said and it is installed.

    Raises:
        ValueError: For a tracker that transformers does not know or that is not installed.
    """
    if told is None:
        if is_tensorboard_available():
            return ["tensorboard"]
        logger.warning("tensorboard is not installed, so figures go to the log and to run.json alone")
        return []
    names = [told] if isinstance(told, str) else told
    if names in (["all"], ["none"]):
        return names
    installed = get_available_reporting_integrations()
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise ValueError(f"report_to={name!r} is unknown; choose all, none, {', '.join(INTEGRATION_TO_CALLBACK)}")
        if name not in (*installed, "flyte"):  # whose callback looks for itself
            raise ValueError(f"report_to={name!r} is not installed; there are {', '.join(['none', *installed])}")
    return names


def place_events(trainer: Trainer, folder: Path) -> None:
    """Put TensorBoard's event files where a resumed run goes on with the same curves.

    By default transformers starts a folder named after time and host. `TENSORBOARD_LOGGING_DIR` still wins.
    """
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(folder / EVENTS_FOLDER)


def end_reports(trainer: Trainer) -> None:
    """Report no more: an evaluation of the best checkpoint would stand in the curves at the last step."""
    for callback in get_reporting_integration_callbacks(trainer.args.report_to):
        trainer.remove_callback(callback)
