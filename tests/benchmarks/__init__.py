"""Benchmarks: `python -m tests.benchmarks` prints what was aimed at and what was measured, side by side."""
