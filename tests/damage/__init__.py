"""Damaged inputs for every reader, in bulk: see `python -m tests.damage --help`."""
