"""Every published step and peak by row: `python -m tests.published [TABLE ...]`.

Prints each row as it is done, then the mean and the largest error of the table with nothing fitted to steps, and
with one factor: the median of the other rows' (leave-one-out), and for MLPerf that of the system's smallest job. Every
step is predicted whole, with all its micro-batches. All tables take 3 minutes of one core, the one that is fitted
(`vtrain_single`) 8 more.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from tests.published import memory, steps, vtrain_single
from tests.published.where import folder

TABLES: dict[str, Callable[[Path], list[steps.Job]]] = {
    "table5": lambda where: steps.megatron_table_5(),
    "vtrain": lambda where: [
        job for job in steps.vtrain(where, "multi_node_half") if job.settings["tensor"] <= 8
    ],
    "mlperf": lambda where: steps.mlperf_405b(where),
    "mlperf-v5.1": lambda where: steps.mlperf_405b(where, "v5.1"),
    "nemo": steps.nemo,
    "bridge": steps.bridge,
    "foundry-a100": lambda where: steps.foundry(where, "a100_40gb"),
    "foundry-h100": lambda where: steps.foundry(where, "h100_80gb"),
}


FITTED = "vtrain-single"
"""The table that is fitted to a part of its rows."""

ALL = ["memory", *TABLES, FITTED]


def page(names: list[str], channels: float | None = None) -> pd.DataFrame:
    """Print the rows of the tables; returns a line for each: rows, and errors in % with and without a factor.

    `channels`: cores that collectives hold (`steps.fitted`).
    """
    where = folder()
    if where is None:
        raise SystemExit("the measured data (shared/reference/measured) are not here")
    lines = []
    for name in names:
        print(f"\n{name}", flush=True)
        if name == FITTED:
            lines.append(_fitted(where))
            continue
        table = steps.errors(TABLES[name](where), channels, lambda text: print(text, flush=True))
        off, one = table.error.abs(), steps.leave_one_out(table).abs()
        found = {"table": name, "rows": len(table), "mean_%": off.mean(), "largest_%": off.max()}
        found |= {"one_factor_mean_%": one.mean(), "one_factor_largest_%": one.max()}
        if name.startswith("mlperf"):
            found["factor_of_smallest_mean_%"] = steps.smallest_first(table).abs().mean()
        lines.append({k: 100 * v if k.endswith("%") else v for k, v in found.items()})
        print(pd.DataFrame(lines[-1:]).round(1).to_string(index=False), flush=True)
    return pd.DataFrame(lines).round(1)


def _fitted(where: Path) -> dict[str, object]:
    """The line of the fitted table, whose errors are of the rows that the fit did not see."""
    table = vtrain_single.table(where, lambda text: print(text, flush=True))
    off = 100 * table.error[~table.fitted].abs()
    line = {"table": FITTED, "rows": len(off), "mean_%": off.mean(), "largest_%": off.max()}
    print(pd.DataFrame([line]).round(1).to_string(index=False), flush=True)
    return line


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.published", description=__doc__)
    parser.add_argument("tables", nargs="*", help=f"of {', '.join(ALL)}; all by default")
    parser.add_argument(
        "--channels",
        type=float,
        help="cores that collectives hold, 0 for none; those of the fitted models unless given",
    )
    options = parser.parse_args()
    wanted = options.tables or ALL
    for name in wanted:
        if name not in ALL:
            parser.error(f"no table {name!r}; there are {', '.join(ALL)}")
    show(wanted, options.channels)


def show(wanted: list[str], channels: float | None = None) -> None:
    """Print tables by row, and a line for each at the end."""
    with pd.option_context("display.max_rows", None, "display.width", 200):
        if "memory" in wanted:
            print(memory.errors([*memory.torchtitan(), *memory.bridge()]).to_string())
        names = [name for name in wanted if name != "memory"]
        if names:
            print(f"\n{page(names, channels).to_string(index=False)}")


if __name__ == "__main__":
    main()
