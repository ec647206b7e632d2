"""The validation page: `python -m tests.validation [--output FOLDER] [--part NAME ...] [--bands]`.

Prints predicted against measured, fitted rows and held-out rows apart, by device, kind and (with --bands) size; with
--output also every row as a table and the residuals as plots. --steps prints whole training steps against published
ones instead, by row (`tests.published`, where single tables can be asked for).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

import tests.published.__main__ as published
from tests.validation import data, page, plots


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.validation", description=__doc__)
    parser.add_argument("--part", action="append", choices=list(page.PARTS))
    parser.add_argument("--bands", action="store_true", help="one line per size band")
    parser.add_argument("--output", type=Path, help="folder for rows.csv, summary.csv and plots")
    parser.add_argument(
        "--steps", action="store_true", help="training steps and memory: ten minutes of one core"
    )
    options = parser.parse_args()
    if options.steps:
        published.show(published.ALL)
        return
    where = data.folder()
    if where is None:
        raise SystemExit("the measured data (shared/reference/measured) are not here")
    table = page.rows(where, options.part)
    by = ("part", "device", "kind", *(("band",) if options.bands else ()))
    found = page.summary(table, by)
    with pd.option_context("display.max_rows", None, "display.width", 200):
        print(found.round(1).to_string(index=False))
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        table.to_csv(options.output / "rows.csv", index=False)
        found.to_csv(options.output / "summary.csv", index=False)
        for path in plots.write(table, options.output):
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
