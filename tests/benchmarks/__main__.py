"""python -m tests.benchmarks [--quick | --tiny] [--only NAME ...] [--output FOLDER]

Prints the machine and a table: what, measured, target, ratio (1 or more: met). All ratios are taken within one run,
medians of at least five. Keep the machine quiet: the load average is printed. With --output, CSV of everything and the
scaling curves.
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd

from tests.benchmarks import curves, designs, engines, files, latency, orders, scale
from tests.benchmarks.measure import Row, Settings, machine, temporary

ROUNDS = 5
GROUPS: dict[str, Callable[[Settings], Iterator[Row]]] = {
    "engine": engines.rows,
    "designs": designs.rows,
    "orders": orders.rows,
    "certificates": orders.certificates,
    "files": files.rows,
    "latency": latency.rows,
    "unlike": scale.unlike,
    "scale": scale.rows,
}


def main(arguments: list[str] | None = None) -> pd.DataFrame:
    """Run what was asked for; gives the table back."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="small sizes; the figures mean little")
    parser.add_argument("--tiny", action="store_true", help="smallest sizes, to see that it runs")
    parser.add_argument(
        "--only",
        nargs="*",
        choices=[*GROUPS, "curves"],
        default=[*GROUPS, "curves"],
        help="some groups",
    )
    parser.add_argument("--output", type=Path, help="folder for CSV and PNG")
    chosen = parser.parse_args(arguments)
    with temporary() as folder:
        output = chosen.output or Path(folder)
        output.mkdir(parents=True, exist_ok=True)
        quick = chosen.quick or chosen.tiny
        rounds = 1 if quick else ROUNDS
        settings = Settings(quick, rounds, Path(folder), output, tiny=chosen.tiny)
        about = machine()
        print("\n".join(f"{name:13} {value}" for name, value in about.items()), flush=True)
        rows: list[Row] = []
        for name in GROUPS:
            if name in chosen.only:
                for row in GROUPS[name](settings):
                    rows.append(row)
                    show(row)
        table = pd.DataFrame([row.record() for row in rows])
        table.to_csv(output / "benchmarks.csv", index=False)
        pd.Series(about, name="value").to_csv(output / "machine.csv", index_label="what")
        if "curves" in chosen.only:
            written = curves.write(settings)
            if chosen.output:
                print(f"\n{output}: benchmarks.csv, machine.csv, {', '.join(written)}")
    missed = [row.what for row in rows if row.met == "no"]
    aimed = sum(row.target is not None for row in rows)
    print(
        f"\n{aimed - len(missed)} of {aimed} targets met"
        + "".join(f"\nmissed: {m}" for m in missed)
    )
    return table


def show(row: Row) -> None:
    """One line of the table, as soon as it is there."""
    line = row.record()
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    print(f"\n{textwrap.fill(row.what, 96)}")
    print(
        f"    {row.measured:>12,.4g} {row.unit:9} target {line['target'] or '-':18} ratio {ratio or '-':8} "
        f"{row.met and ('met' if row.met == 'yes' else 'MISSED')}"
    )
    if row.note:
        print(textwrap.indent(textwrap.fill(row.note, 92), "    "), flush=True)


if __name__ == "__main__":
    main()
    sys.exit(0)
