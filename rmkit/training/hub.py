"""A finished judge on the Hugging Face hub: asked for before training, pushed once at the end."""

from __future__ import annotations

from pathlib import Path

import httpx
from huggingface_hub import HfApi, get_token
from transformers import TrainingArguments

from rmkit.errors import DataError, JudgeError
from rmkit.training.run_record import SETTINGS_FILE

_FAILURES = (httpx.HTTPError, OSError, ValueError)
"""What huggingface_hub raises: for an answer of the hub or none, without a network, for a name that can't be one."""
_KEPT_HERE = (".bin", ".ckpt", ".log", ".pkl", ".pt", ".pth", ".tmp")
"""Pickles, which nobody should load from a hub, and what only this machine needs."""


def open_repo(args: TrainingArguments) -> str | None:
    """Make sure, before anything is trained for it, that the judge can be pushed; the repository is there afterwards.

    Args:
        args: `push_to_hub`, which is turned off, since Trainer would push checkpoints and pickles; `hub_model_id`
            and `hub_private_repo`.

    Returns:
        The repository; None where nothing is to be pushed.

    Raises:
        DataError: Without a repository's name or a token, or if the hub refuses either or can't be reached.
    """
    if not args.push_to_hub:
        return None
    args.push_to_hub = False
    if not args.hub_model_id:
        raise DataError("push_to_hub needs hub_model_id: OWNER/NAME of the repository")
    if get_token() is None:
        raise DataError(
            "push_to_hub needs a token of the Hugging Face hub, and none is here: run `hf auth login`, or set HF_TOKEN"
        )
    if args.process_index == 0:
        try:
            HfApi().create_repo(args.hub_model_id, private=args.hub_private_repo, exist_ok=True)
        except _FAILURES as error:
            raise DataError(
                f"{args.hub_model_id} can't be pushed to: {error}; mend it, or train without push_to_hub"
            ) from error
    return args.hub_model_id


def push_judge(folder: Path, repo: str) -> str:
    """Push a finished judge folder in one commit, and return its address.

    Raises:
        JudgeError: If the hub does not take it. The folder stays as it is.
    """
    files = list_judge_files(folder)
    try:
        done = HfApi().upload_folder(
            repo_id=repo, folder_path=folder, allow_patterns=files, commit_message="Upload a judge trained with rmkit"
        )
    except _FAILURES as error:
        raise JudgeError(
            f"the judge in {folder} is complete, but it could not be pushed to {repo}: {error}; run the same command "
            "again to push it"
        ) from error
    return str(done.repo_url)


def list_judge_files(folder: Path) -> list[str]:
    """What of a judge folder belongs on a hub: its own files and the adapter's, no checkpoints, logs or pickles."""
    found = [*folder.iterdir(), *(folder / "adapter").glob("*")]
    return sorted(
        file.relative_to(folder).as_posix()
        for file in found
        if file.is_file() and file.suffix not in _KEPT_HERE and file.name != SETTINGS_FILE and file.name[0] != "."
    )
