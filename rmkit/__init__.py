"""rmkit: train, run and plug in generative reward models."""

__version__ = "0.1.0"
