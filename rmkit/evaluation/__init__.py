"""Benchmarks: scores in, figures with their uncertainty out. No engine and no torch."""
