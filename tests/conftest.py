"""What several test files use."""

import os
from pathlib import Path

import pytest

from perfmodel.compiled_code.later import WHEN

os.environ.setdefault(WHEN, "now")  # tests leave no processes behind; those that do say so


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference data beside the repository; tests on it skip where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "reference").is_dir():
        pytest.skip(f"no reference data at {folder}")
    return folder
