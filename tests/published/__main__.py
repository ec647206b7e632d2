"""Every published step and peak by row: `python -m tests.published [TABLE ...]`; some tables take minutes.

Prints predicted against measured, the mean and largest error, and the mean error with one
factor for the table that is fitted to all rows but the one it is applied to.
"""

from __future__ import annotations

import argparse

import pandas as pd

from tests.published import memory, steps
from tests.published.where import folder

TABLES = {
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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.published", description=__doc__)
    parser.add_argument("tables", nargs="*", help=f"of memory, {', '.join(TABLES)}; all by default")
    wanted = parser.parse_args().tables or ["memory", *TABLES]
    where = folder()
    with pd.option_context("display.max_rows", None, "display.width", 200):
        for name in wanted:
            if name == "memory":
                print(memory.errors([*memory.torchtitan(), *memory.bridge()]).to_string())
            elif where is None:
                raise SystemExit("the measured data (shared/reference/measured) are not here")
            else:
                table = steps.errors(TABLES[name](where))
                print(table.round(3).to_string())
                off, one = table.error.abs(), steps.leave_one_out(table).abs()
                print(
                    f"{name}: mean {off.mean():.1%}, largest {off.max():.1%}, with one factor {one.mean():.1%}"
                )


if __name__ == "__main__":
    main()
