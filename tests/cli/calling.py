"""The command line called in this process, as tests do."""

import json
from pathlib import Path

import pandas as pd

from perfmodel.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


GPT = str(ROOT / "traces" / "gpt_dp2_tp2_pp2")


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    status = 0
    try:
        main(list(arguments))
    except SystemExit as stop:
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


def rows_of(capsys, *arguments: str) -> pd.DataFrame:
    status, out, err = call(capsys, *arguments, "--json")
    assert status == 0, err
    return pd.DataFrame(json.loads(out))
