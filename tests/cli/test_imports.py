"""Commands that compute nothing with a library do not wait for it to be imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TRACES = Path(__file__).resolve().parents[2] / "traces"

RUN = """
import sys
from perfmodel.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
large = ("jax", "pandas", "pyarrow", "dask", "matplotlib", "scipy.sparse", "scipy.stats")
print(*(name for name in large if name in sys.modules))
"""


def imported(*arguments: object, folder: Path) -> set[str]:
    """The large libraries that a command has imported at its end."""
    command = [sys.executable, "-c", RUN, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.fixture
def configuration(tmp_path):
    """ASTRA-sim's system and network files for 4 ranks, as options."""
    names = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
    system = {f"{name}-implementation": ["ring"] for name in names}
    system |= {
        "endpoint-delay": 10,
        "preferred-dataset-splits": 2,
        "active-chunks-per-dimension": 1,
    }
    system |= {"peak-perf": 900, "local-mem-bw": 2000, "roofline-enabled": 1}
    (tmp_path / "system.json").write_text(json.dumps(system))
    (tmp_path / "network.yml").write_text(
        "topology: [Ring]\nnpus_count: [4]\nbandwidth: [50.0]\nlatency: [500.0]\n"
    )
    files = {"system": "system.json", "network": "network.yml"}
    return [f"--{name}-configuration={tmp_path / file}" for name, file in files.items()]


@pytest.mark.parametrize(
    "arguments",
    [("--help",), ("run", "--help"), ("sweep", "--help"), ("astra-sim", "--help")],
)
def test_help_imports_none_of_them(arguments, tmp_path):
    assert imported(*arguments, folder=tmp_path) == set()


def test_a_plain_run_of_astra_sim_imports_none_of_them(configuration, tmp_path):
    trace = f"--workload-configuration={TRACES / 'all_reduce_4' / 't'}"
    assert imported("astra-sim", trace, *configuration, "--quiet", folder=tmp_path) == set()


def test_a_synthetic_trace_is_written_without_jax(tmp_path):
    sizes = ("--layers", "1", "--hidden", "64", "--heads", "4")
    found = imported("synth", "gpt", "-o", tmp_path / "t", *sizes, folder=tmp_path)
    assert not found & {"jax", "pandas"}


@pytest.mark.parametrize("more", [(), ("--astra-sim",), ("--strict",), ("--json",)])
def test_a_trace_is_inspected_without_jax(more, tmp_path):
    found = imported("inspect", TRACES / "gpt_dp2_tp2_pp2", *more, folder=tmp_path)
    assert not found & {"jax", "pandas"}


@pytest.mark.parametrize(
    "arguments", [(), ("--json",), ("--kind", "accelerator"), ("dgx-h100",), ("h100-sxm",)]
)
def test_systems_are_listed_without_jax(arguments, tmp_path):
    found = imported("systems", *arguments, folder=tmp_path)
    assert "jax" not in found
    assert arguments or not found


@pytest.mark.parametrize("trace", ["all_reduce_4", "gpt_dp2_tp2_pp2"])  # one knows its model
@pytest.mark.parametrize("more", [(), ("--json",)])
def test_a_prediction_imports_what_it_needs_and_no_more(trace, more, tmp_path):
    found = imported("run", TRACES / trace, "--system", "dgx-h100", *more, folder=tmp_path)
    assert "jax" in found
    assert not found & {"pandas", "dask", "matplotlib"}


@pytest.mark.parametrize("trace", ["all_reduce_4", "gpt_dp2_tp2_pp2"])
@pytest.mark.parametrize("more", [(), ("--json",), ("--economics",)])
def test_a_grid_of_designs_imports_what_it_needs_and_no_more(trace, more, tmp_path):
    vary = ("--vary", "npu.peak_flops=1e15,2e15", "--vary", "network.0.latency=1e-6:2e-6:2")
    found = imported("sweep", TRACES / trace, "--system", "dgx-h100", *vary, *more, folder=tmp_path)
    assert "jax" in found
    assert not found & {"pandas", "pyarrow", "scipy.stats", "dask", "matplotlib"}


def test_nothing_is_looked_through_for_garbage_at_the_end_of_a_command(tmp_path):
    script = """
import atexit, gc
from perfmodel.cli.main import main
main()
print(gc.get_threshold()[0] > 10_000, gc.get_freeze_count())
atexit._run_exitfuncs()
print(gc.get_freeze_count() > 10_000)
"""
    command = [sys.executable, "-c", script, "systems", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-2:] == ["True 0", "True"]
