"""The README's Python runs as it stands."""

import re
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]


def test_the_readme_runs_from_top_to_bottom(monkeypatch, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    monkeypatch.chdir(ROOT)
    names: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert len(blocks) == 2
    assert np.isfinite(names["p"].makespan)
    assert "compute.half" in names["pm"].parameters(names["system"], names["p"].compiled.models)


def test_the_readmes_system_file_is_one(tmp_path):
    import perfmodel as pm

    text = re.search(r"```toml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    (tmp_path / "mine.toml").write_text(text.group(1))
    assert pm.hardware(tmp_path / "mine.toml").npu.peak_flops == 989e12


def test_every_command_of_the_readme_exists():
    from perfmodel.cli.main import cli

    text = (ROOT / "README.md").read_text()
    listed = re.search(r"`perfmodel (run \|.*?)`", text, flags=re.DOTALL).group(1)
    names = [word.strip() for word in listed.replace("\n", " ").split("|")]
    assert set(names) == set(cli.list_commands(None))
