"""The errors that a caller may want to catch. Each message says what was found, where, and what to do."""


class DataError(ValueError):
    """A file or record that can't be used as it is."""


class RubricError(ValueError):
    """A rubric that can't be read, or scores that don't fit it."""


class ScoreParseError(ValueError):
    """A text that is not a score sequence of the given rubric."""


class TokenizerError(ValueError):
    """A tokenizer in which the scores of a rubric can't be told apart, or that lacks what a judge needs."""


class JudgeError(RuntimeError):
    """A judge that can't be loaded, or a response that can't be judged."""


class TrainingError(RuntimeError):
    """A training that can't go on, such as one whose loss is no number or whose disk is full."""
