"""Every group of the benchmarks runs, at sizes that measure nothing, and prints all of its lines."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.benchmarks import __main__ as benchmarks
from tests.benchmarks import optimizers
from tests.benchmarks.orders import (
    AGAINST_SIMULATION,
    OWN_AGAINST_FROZEN,
    OWN_AGAINST_SIMULATION,
    REFERENCE,
)

SIMULATED = "default sweep against the simulation of every design"

LINES: dict[str, tuple[str, ...]] = {
    "engine": tuple(
        line
        for line in (
            r"engine, .*float64, 64 distinct costs",
            r"engine, .*float64, 64 distinct costs, 5% far edges",
            r"engine, .*float64, every vertex its own cost",
            r"the same as a scan in JAX, .*",
            r"the same as a window of live rows in JAX on 1 x .*, .* designs",
            r"accelerators at hand, .*",
        )
        for _ in range(2)  # wide graphs and narrow ones
    ),
    "designs": (
        r"designs on .*, frozen: parameters to makespans, .*",
        r"designs on .*, frozen: with the breakdown and what limits each",
        r"value and all \d+ derivatives, bare roofline, .*",
        r"value and all \d+ derivatives, fitted models, .*",
        r"designs on .*, own schedules: parameters to makespans, .*",
        r"nodes left of (stg_gpt|gpt_dp2).*",
        r"nodes left of GPT, .*",
    ),
    "orders": tuple(
        rf"moe_8, own mode, .* designs: default sweep {word} the breakdown, against the frozen one"
        for word in ("with", "without")
    ),
    "certificates": (r"false answers by certificate or by nodes, of .* designs, .*",),
    "files": (
        r"reading \.et: .* one core",
        r"the same from file to graph: .*",
        r"the same from a saved graph",
        r"`perfmodel --help`",
    ),
    "latency": (
        r"second sweep of .* designs of gpt_dp2_tp2_pp2, own mode, .*",
        r"second sweep of .* designs of a GPT on 64 ranks, own mode, .*",
        r"cold `run traces/.*`, beyond importing jax",
        r"first `run traces/.*` after installation",
        *(
            line  # the last command stands for the others
            for line in (
                r"cold `sweep traces/.*` of 4 designs, beyond importing jax",
                r"first `sweep traces/.*` of 4 designs after installation",
            )
            if not REFERENCE.is_dir()
        ),
    ),
    "unlike": tuple(
        rf".* random nodes, .* dependencies, no two ranks alike: {figure}"
        for figure in ("cold", "another design", "peak memory")
    ),
    "scale": (
        r".* ranks x .* nodes from the generator: cold",
        r".* ranks x .* nodes from the generator: peak memory",
        r".* ranks x .* nodes from the generator: further .* designs",
        r"sweep of .* designs on .*, to Parquet: peak memory",
        r"sweep of .* designs on .*, to Parquet: time",
        r"two Dask workers of one core against one: .* designs on .*, frozen",
    ),
}
"""What each group prints, whatever the machine, as patterns; a line each."""

WITH_REFERENCE: dict[str, tuple[str, ...]] = {
    "orders": (
        *(
            rf"GPT in program order, own mode, .*: default sweep {word} the breakdown, .*"
            for word in ("with", "without")
        ),
        *(
            rf"{name}, {topology}, 32 ranks, ASTRA unaware, .*: default sweep {word} the breakdown, "
            "against the frozen engine"
            for name, topology in (
                ("GPT in program order", "ring"),
                ("GPT, receives on a stream", "switch"),
            )
            for word in ("with", "without")
        ),
        rf"GPT in program order, 32 ranks, aware, switch, .*, {SIMULATED}",
        rf"fuzz1, own mode, .*, {SIMULATED}",
        rf"fuzz1, unaware, switch8, .*, {SIMULATED}",
        rf"llm_dp2tp2pp2, aware, switch8, .*, {SIMULATED}",
        r"stg_gpt_dp2tp4pp2 in ASTRA mode, frozen, .* designs from a compiled graph",
    ),
    "latency": (
        r"second sweep of .* designs of llm_dp8, ASTRA aware, .*",
        r"cold `astra-sim` on .*, beyond importing jax",
        r"first `astra-sim` on .* after installation",
        r"stg_gpt_dp2tp4pp2 laid out on .* ranks, ASTRA unaware: cold, .*",
    ),
}
"""What they print where the reference data are beside the repository."""

TARGETS: dict[str, dict[str, str]] = {
    "designs": {r"value and all .*bare.*": "at most 2", r".*own schedules.*": "at least 1500"},
    "orders": {
        r"GPT in program order, ring.*without.*": "at least 0.5",
        r"GPT in program order, ring.* with the.*": "at least 0.3",
        r"fuzz1, unaware, switch8.*": "at least 15",
        r"llm_dp2tp2pp2, aware, switch8.*": "at least 50",
        r"(moe_8|GPT in program order), own mode.*": "at least 0.7",
        r"stg_gpt_dp2tp4pp2 in ASTRA mode, frozen.*": "at least 1e+06",
    },
    "certificates": {r"false answers.*": "at most 0"},
    "latency": {
        r"second sweep of .* designs of (gpt|stg|llm).*": "at most 0.03",
        r"second sweep of .* on 64 ranks.*": "at most 0.15",
        r"cold.*": "at most 1",
        r"first.*": "at most 8",
        r".* laid out on .* ranks.*": "at most 3",
    },
    "unlike": {
        r"32,000 .*cold": "at most 60",
        r"32,000 .*another design": "at most 0.2",
        r"32,000 .*memory": "at most 16",
    },
    "scale": {r"two Dask workers.*": "at least 1.7"},
}
"""What is aimed at, as it is printed; every line of a pattern has it."""


@pytest.mark.parametrize("group", benchmarks.GROUPS)
@pytest.mark.filterwarnings("ignore")  # what other libraries' processes leave behind
def test_a_group_prints_each_of_its_lines_once_with_its_target_and_both_sides(group, tmp_path):
    if group == "scale":
        pytest.importorskip("distributed", reason="Dask is not installed")
    table = benchmarks.main(["--tiny", "--only", group, "--output", str(tmp_path)])
    expected = LINES[group] + WITH_REFERENCE.get(group, ()) * REFERENCE.is_dir()
    for pattern in set(expected):
        found = [what for what in table.what if re.fullmatch(pattern, what)]
        assert len(found) == expected.count(pattern), (pattern, found)
    other = [
        what for what in table.what if not any(re.fullmatch(pattern, what) for pattern in expected)
    ]
    assert other == []
    for pattern, target in TARGETS.get(group, {}).items():
        mine = table[[re.fullmatch(pattern, what) is not None for what in table.what]]
        assert set(mine.target) <= {target}, pattern
        assert len(mine) or not REFERENCE.is_dir(), pattern
    assert np.isfinite(table.measured).all()
    for line in table[table.unit.str.startswith("x")].itertuples():
        sides = re.findall(r"\d[\d,.]* ?(?:/s|ms|us|s|ns)\b", line.note)
        assert len(sides) >= 2, f"{line.what}: {line.note}"


def test_every_class_of_traces_has_its_lines_and_targets():
    """Tests run some of them; the lists are whole: the classes of traces, and what is aimed at where."""
    aimed = {subject: target for subject, target in AGAINST_SIMULATION.items() if target}
    assert aimed == {
        ("stg_llama_fsdp8", "unaware", "switch8"): 20,
        ("stg_gpt_dp2tp4pp2", "unaware", "switch16"): 15,
        **{(f"fuzz{k}", "unaware", "switch8"): 15 for k in range(1, 6)},
        ("llm_dp2tp2pp2", "aware", "switch8"): 50,
    }
    others = {trace for trace, _, _ in AGAINST_SIMULATION} - {trace for trace, _, _ in aimed}
    assert others == {"stg_gpt_dp2tp2pp2", "llm_dp8", "llm_tp8"}
    many = {"stg_llama_fsdp8", "stg_gpt_dp2tp2pp2", "stg_gpt_dp2tp4pp2"}
    assert set(OWN_AGAINST_SIMULATION) == many | {f"fuzz{k}" for k in range(1, 6)}
    one = {"gpt_dp2_tp2_pp2", "moe_8", "fsdp_8", "GPT on 128 ranks", "GPT in program order"}
    assert set(OWN_AGAINST_FROZEN) == one


def test_the_curves_are_written(tmp_path):
    benchmarks.main(["--tiny", "--only", "curves", "--output", str(tmp_path)])
    written = {path.stem for path in tmp_path.glob("scaling_*.csv")}
    assert written == {f"scaling_{name}" for name in ("nodes", "ranks", "pipelines", "designs")}


def test_optimizers_are_compared(monkeypatch):
    monkeypatch.setattr(optimizers, "STARTS", 1)
    (row,) = optimizers.compare([optimizers.four_dimensions()]).to_dict("records")
    assert row["pieces_objective_s"] > 0
    assert row["pieces_evaluations"] > 0
    assert row["simplex_evaluations"] > 0
    assert row["simplex_excess"] > -optimizers.TOLERANCE
