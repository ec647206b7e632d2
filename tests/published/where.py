"""Where the measured tables are."""

from pathlib import Path


def folder() -> Path | None:
    """`shared/reference/measured` beside the repository, or above it; None where it is absent."""
    for parent in Path(__file__).resolve().parents:
        found = parent.parent / "shared" / "reference" / "measured"
        if found.is_dir():
            return found
    return None
