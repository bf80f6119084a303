"""Where the scores stand in a score sequence, and which token ids stand for them.

Scores are found by position, never by looking for digits: `Helpfulness: 4` ends in one token ` 4` for one
tokenizer, in a space and then `4` for another, and `100` can be one token or three. The rendered sequence is
tokenised with every legal score in every place; what changes is the score, what stays is the text around it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rmkit.errors import RubricError, TokenizerError
from rmkit.prompt_tokens import PromptEncoder
from rmkit.rubric import Attribute, Rubric
from rmkit.scores import ScoreDistribution, render_scores

Path = tuple[int, ...]
"""Token ids of a score, or of its beginning."""

_RANDOM_CHECKS = 32  # random score combinations on which the composed ids are compared with the tokenizer's


@dataclass(frozen=True, slots=True)
class Choice:
    """A place where at least one token of a score is still to come.

    Args:
        path: Tokens of the score that are written already; empty for its first token.
        token_ids: The K tokens that can follow, ascending by the lowest score that they lead to. After a
            score that another one continues (`1` before `10`), the token that follows it ends it.
        scores: For each of them, the legal scores that it leads to.
    """

    path: Path
    token_ids: tuple[int, ...]
    scores: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class AttributeTokens:
    """How one attribute stands in a score sequence.

    Args:
        attribute: The attribute.
        before: Tokens between the score before (or the start) and this score.
        written: Tokens of each legal score, as they stand in the sequence.
        closed: The same, with the token after it where only that token ends the score.
        choices: One `Choice` per distinct path, shortest first.
    """

    attribute: Attribute
    before: Path
    written: Mapping[int, Path]
    closed: Mapping[int, Path]
    choices: Mapping[Path, Choice]

    def distribution(self, logprobs: Mapping[Path, np.ndarray]) -> ScoreDistribution:
        """P(score) from the log-probabilities at every choice.

        P(score) is the product over its tokens (with the token that ends it, where one is needed),
        normalised over the legal scores.

        Args:
            logprobs: For each choice's path, a (K,) array of natural log-probabilities over the whole
                vocabulary, in the order of `Choice.token_ids`.

        Raises:
            FloatingPointError: If a log-probability is NaN, or the legal scores have no probability at all.
        """
        total = {score: 0.0 for score in self.closed}
        for score, path in self.closed.items():
            for depth, token in enumerate(path):
                choice = self.choices[path[:depth]]
                total[score] += float(logprobs[choice.path][choice.token_ids.index(token)])
        logs = np.array(list(total.values()))
        if np.isnan(logs).any() or not np.isfinite(logs).any():
            raise FloatingPointError(f"attribute {self.attribute.key!r}: log-probabilities {logs[:8]} of its scores")
        probabilities = np.exp(logs - logs.max())
        probabilities /= probabilities.sum()
        inside = float(np.exp(logs).sum())
        return ScoreDistribution(tuple(total), tuple(probabilities.tolist()), min(max(1.0 - inside, 0.0), 1.0))


@dataclass(frozen=True, slots=True)
class ScorePosition:
    """One token of a score sequence at which scores are told apart.

    Args:
        index: Place of the token in the sequence.
        key: The attribute's key.
        score: The score that is written there.
        choice: What could stand there.
        label: Index into `choice.token_ids` of what does.
        place: How many tokens of the score are still to come, this one included; an ending token counts as
            one. The place weight of `released`: 1 for the last digit, 2 for the one before.
    """

    index: int
    key: str
    score: int
    choice: Choice
    label: int
    place: int


@dataclass(frozen=True, slots=True)
class ScoreTokens:
    """The score sequences of a set of attributes, in one tokenizer.

    Args:
        attributes: In sequence order.
        end_of_turn_id: The token that ends a sequence.

    Build it with `ScoreTokens.build`.
    """

    attributes: tuple[AttributeTokens, ...]
    end_of_turn_id: int

    @classmethod
    def build(cls, encoder: PromptEncoder, rubric: Rubric, keys: Sequence[str] | None = None) -> ScoreTokens:
        """Find the score tokens of a rubric, or of some of its attributes.

        Args:
            encoder: Holds the tokenizer.
            rubric: Gives names, order and scales.
            keys: The attributes that are rated; all by default. A sequence without `Correctness` has other
                text around its scores, so it has tokens of its own.

        Raises:
            TokenizerError: If two legal scores can't be told apart, or a score's tokens depend on the
                scores around it. It names the tokenizer, the attribute and the pieces.
        """
        attributes = rubric.select(rubric.keys if keys is None else keys)
        if not attributes:
            raise RubricError("no attributes to find score tokens for")
        template = _SequenceTemplate(encoder, attributes)
        spans = [template.find_span(attribute) for attribute in attributes]
        parts = template.split(spans)
        template.check_composition(parts)
        ends = [literal[0] if literal else None for literal in parts.literals[1:-1]] + [encoder.end_of_turn_id]
        found = tuple(
            _attribute_tokens(encoder, attribute, before, written, end)
            for attribute, before, written, end in zip(attributes, parts.literals, parts.written, ends, strict=False)
        )
        return cls(found, encoder.end_of_turn_id)

    @property
    def max_length(self) -> int:
        """Most tokens that a sequence can have, with its end of turn."""
        return 1 + sum(len(a.before) + max(map(len, a.written.values())) for a in self.attributes)

    def encode(self, scores: Mapping[str, int]) -> tuple[list[int], list[ScorePosition]]:
        """Token ids of a score sequence with its end of turn, and where its scores stand.

        Args:
            scores: A score for each attribute, and no other.
        """
        ids: list[int] = []
        positions: list[ScorePosition] = []
        for item in self.attributes:
            score = scores[item.attribute.key]
            ids.extend(item.before)
            path = item.closed[score]
            for depth, token in enumerate(path):
                choice = item.choices[path[:depth]]
                label = choice.token_ids.index(token)
                index = len(ids) + depth
                positions.append(
                    ScorePosition(
                        index, item.attribute.key, score, choice, label, max(len(item.written[score]) - depth, 1)
                    )
                )
            ids.extend(item.written[score])
        ids.append(self.end_of_turn_id)
        return ids, positions

    def to_dict(self) -> dict[str, dict[str, list[int]]]:
        """The token ids of every legal score, per attribute key, as they stand in `judge_config.json`."""
        return {
            item.attribute.key: {str(score): list(path) for score, path in item.written.items()}
            for item in self.attributes
        }


@dataclass(frozen=True, slots=True)
class _Parts:
    """A sequence cut into what never changes (one more than attributes) and the scores in between."""

    literals: list[Path]
    written: list[dict[int, Path]]


class _SequenceTemplate:
    """The score sequence of some attributes, rendered and tokenised with any scores."""

    def __init__(self, encoder: PromptEncoder, attributes: tuple[Attribute, ...]) -> None:
        self.encoder = encoder
        self.attributes = attributes
        # Sums are set free here: each score must be findable whatever the others are.
        self.rubric = Rubric("sequence", tuple(_without_sum(a) for a in attributes))
        self.lowest = {a.key: a.minimum for a in attributes}
        self.base = self.tokenise(self.lowest)

    def tokenise(self, scores: Mapping[str, int]) -> Path:
        return tuple(self.encoder.encode_completion(render_scores(self.rubric, scores)))

    def find_span(self, attribute: Attribute) -> tuple[int, int, dict[int, Path]]:
        """Start of a score in the base sequence, its end, and the tokens of every legal score."""
        variants = {v: self.tokenise({**self.lowest, attribute.key: v}) for v in attribute.values}
        start = _common_prefix(list(variants.values()))
        tails = [ids[start:] for ids in variants.values()]
        end = _common_prefix([tail[::-1] for tail in tails])
        written = {value: ids[start : len(ids) - end] for value, ids in variants.items()}
        empty = next((value for value, path in written.items() if not path), None)
        if empty is not None:
            raise self._ambiguity(attribute, written, f"no token of its own stands for {empty}")
        return start, len(self.base) - end, written

    def split(self, spans: Sequence[tuple[int, int, dict[int, Path]]]) -> _Parts:
        literals, at = [], 0
        for attribute, (start, end, written) in zip(self.attributes, spans, strict=True):
            if start < at:
                raise self._ambiguity(attribute, written, "its tokens overlap those of the attribute before")
            literals.append(self.base[at:start])
            at = end
        literals.append(self.base[at:])
        return _Parts(literals, [written for _, _, written in spans])

    def check_composition(self, parts: _Parts) -> None:
        """Raise unless any scores together give just the pieces found one at a time."""
        for scores in self._combinations():
            pieces: list[int] = []
            for literal, attribute, written in zip(parts.literals, self.attributes, parts.written, strict=False):
                pieces += [*literal, *written[scores[attribute.key]]]
            if (*pieces, *parts.literals[-1]) != self.tokenise(scores):
                text = render_scores(self.rubric, scores)
                raise TokenizerError(
                    f"tokenizer {self.encoder.name}: in {text!r} the tokens of one score depend on another: "
                    f"{self._pieces(self.tokenise(scores))}; use other attribute names or another tokenizer"
                )
        if parts.literals[-1]:
            raise TokenizerError(
                f"tokenizer {self.encoder.name}: it writes {self._pieces(parts.literals[-1])} after the last score"
            )

    def _combinations(self) -> Iterator[dict[str, int]]:
        yield {a.key: a.maximum for a in self.attributes}
        rng = random.Random(0)
        for _ in range(_RANDOM_CHECKS):
            yield {a.key: rng.choice(a.values) for a in self.attributes}

    def _ambiguity(self, attribute: Attribute, written: Mapping[int, Path], reason: str) -> TokenizerError:
        shown = {value: self._pieces(path) for value, path in list(written.items())[:12]}
        return TokenizerError(
            f"tokenizer {self.encoder.name}: attribute {attribute.key!r}: {reason}; its scores are {shown}"
        )

    def _pieces(self, ids: Sequence[int]) -> list[str]:
        return [str(piece) for piece in self.encoder.tokenizer.convert_ids_to_tokens(list(ids))]


def _without_sum(attribute: Attribute) -> Attribute:
    return Attribute(attribute.key, attribute.name, "", attribute.minimum, attribute.maximum)


def _common_prefix(sequences: Sequence[Path]) -> int:
    shortest = min(map(len, sequences))
    first = sequences[0]
    return next((i for i in range(shortest) if any(ids[i] != first[i] for ids in sequences)), shortest)


def _attribute_tokens(
    encoder: PromptEncoder, attribute: Attribute, before: Path, written: dict[int, Path], end: int | None
) -> AttributeTokens:
    paths = set(written.values())
    continued = {path[:n] for path in paths for n in range(len(path))}
    closed: dict[int, Path] = {}
    for value, path in written.items():
        closed[value] = path
        if path in continued:
            if end is None:
                raise TokenizerError(
                    f"tokenizer {encoder.name}: attribute {attribute.key!r}: nothing ends the score {value}, "
                    "which another score continues"
                )
            closed[value] = (*path, end)
    if len(set(closed.values())) < len(closed) or any(
        path[:n] in set(closed.values()) for path in closed.values() for n in range(len(path))
    ):
        pieces = {v: encoder.tokenizer.convert_ids_to_tokens(list(p)) for v, p in list(closed.items())[:12]}
        raise TokenizerError(
            f"tokenizer {encoder.name}: attribute {attribute.key!r}: two scores have the same tokens: {pieces}"
        )
    unknown = [value for value, path in written.items() if encoder.tokenizer.unk_token_id in path]
    if unknown:
        raise TokenizerError(
            f"tokenizer {encoder.name}: attribute {attribute.key!r}: the tokenizer has no token for the score "
            f"{unknown[0]}, only its unknown token, which stands for anything; use another scale or tokenizer"
        )
    return AttributeTokens(attribute, before, written, closed, _choices(closed))


def _choices(closed: Mapping[int, Path]) -> dict[Path, Choice]:
    reachable: dict[Path, dict[int, list[int]]] = {}
    for value, path in closed.items():  # ascending, so tokens come in the order of their lowest score
        for depth, token in enumerate(path):
            reachable.setdefault(path[:depth], {}).setdefault(token, []).append(value)
    return {
        path: Choice(path, tuple(tokens), tuple(tuple(values) for values in tokens.values()))
        for path, tokens in sorted(reachable.items(), key=lambda item: len(item[0]))
    }
