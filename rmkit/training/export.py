"""From a trained model to a judge folder that plain transformers and vLLM load."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, Trainer
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled, unset_hf_deepspeed_config

from rmkit.errors import JudgeError
from rmkit.judge_config import JudgeConfig
from rmkit.judge_encoder import JudgeEncoder
from rmkit.losses import LossSettings
from rmkit.training.settings import ModelArguments

ADAPTER_FOLDER = "adapter"
_PICKLED_ARGUMENTS = "training_args.bin"  # what Trainer leaves; settings.json says the same without a pickle


def save_weights(trainer: Trainer, model: ModelArguments, folder: Path) -> None:
    """Write the weights of the whole model as safetensors; of LoRA, merged, with the adapter beside.

    Every rank calls it, since ZeRO-3 gathers the weights from all.

    Raises:
        JudgeError: If no safetensors file came of it, as under ZeRO-3 without
            `stage3_gather_16bit_weights_on_model_save`.
    """
    saved = folder / ADAPTER_FOLDER if model.lora else folder
    trained: Any = trainer.model
    trained.config.use_cache = True  # Trainer turned it off, and the saved config would keep it so
    if is_deepspeed_zero3_enabled() or trainer.is_fsdp_enabled:
        trainer.save_model(str(saved))  # gathers the weights from all ranks
    elif trainer.is_world_process_zero():
        trained.save_pretrained(str(saved))  # under ZeRO-2, save_model would write tied weights twice
    if not trainer.is_world_process_zero():
        return
    (saved / _PICKLED_ARGUMENTS).unlink(missing_ok=True)
    if model.lora:
        from peft import PeftModel  # noqa: PLC0415 (only where LoRA is used)

        unset_hf_deepspeed_config()  # or ZeRO-3 would split the base model that is loaded next
        base = AutoModelForCausalLM.from_pretrained(
            model.model, revision=model.revision, dtype=model.dtype, use_safetensors=True
        )
        merged = PeftModel.from_pretrained(base, str(folder / ADAPTER_FOLDER)).merge_and_unload()
        merged.save_pretrained(str(folder))
    if not list(folder.glob("*.safetensors")):
        raise JudgeError(
            f"{folder} has no safetensors after saving; under ZeRO-3 set "
            "stage3_gather_16bit_weights_on_model_save in the DeepSpeed config"
        )


def save_judge(
    folder: Path,
    encoder: JudgeEncoder,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    loss: LossSettings,
    base_model: str,
    data_manifest_sha256: str | None,
    mode: str = "sequential",
) -> None:
    """Write the tokenizer and, last, `judge_config.json` beside the weights."""
    tokenizer.chat_template = encoder.prompts.chat_template
    tokenizer.save_pretrained(str(folder))
    JudgeConfig(
        rubric=encoder.rubric,
        chat_template=encoder.prompts.chat_template,
        score_token_ids=encoder.score_tokens().to_dict(),
        end_of_turn_id=encoder.prompts.end_of_turn_id,
        example_sha256=encoder.hash_example(),
        max_length=max_length,
        loss=asdict(loss),
        base_model=base_model,
        data_manifest_sha256=data_manifest_sha256,
        mode=mode,
    ).save(folder)
