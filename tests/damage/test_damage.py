"""A small part of `python -m tests.damage`: every reader on a few damaged inputs, in this process."""

from __future__ import annotations

import pytest

from tests.damage.__main__ import attempt, damaged, put
from tests.damage.readers import readers

READERS = readers()


@pytest.mark.parametrize("name", READERS)
def test_what_is_sound_is_read_and_what_is_damaged_is_read_alike_or_refused(name, tmp_path):
    reader = READERS[name]
    folder = tmp_path / "sound"
    folder.mkdir()
    for file, content in reader.files.items():
        (folder / file).write_bytes(content)
    assert not attempt(reader, folder).startswith("refused: "), attempt(reader, folder)
    for number in range(12):
        folder = tmp_path / str(number)
        folder.mkdir()
        put(reader, damaged(reader, name, 0, number), folder)
        first = attempt(reader, folder)
        assert first.startswith("refused: ") or attempt(reader, folder) == first
