"""Sweeps on JAX devices give the tables of the host's compiled loops."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel.analysis import design_blocks
from perfmodel.engine import bulk_jax, cells
from tests import astra_reference as reference

ROOT = Path(__file__).resolve().parents[2]
DEVICES = 4


def own_mode():
    graph = pm.load(ROOT / "traces" / "moe_8")
    return graph, pm.hardware("dgx-h100", ranks=graph.ranks), None


def astra_mode(trace: str, backend: str):
    folder, place = reference.trace(trace), reference.folder()
    return pm.astra.load(
        folder / "t",
        place / "system" / "ring_s4_a1.json",
        place / "network" / "switch8.yml",
        comm_group=folder / "comm_groups.json",
        backend=backend,
    )


def around(system, models, count, factor):
    """Designs up to this factor from the reference."""
    known = pm.parameters(system, models)
    paths = ("npu.peak_flops", "npu.memory_bandwidth", *(p for p in known if "network.0" in p))
    return pm.sample(
        {path: (float(known[path]) / factor, float(known[path]) * factor) for path in paths}, count
    )


def compare(subject, count: int, factor: float, **options) -> pd.DataFrame:
    """The table of a sweep, which is the same on all devices."""
    graph, system, models = subject
    points = around(system, models or system.models, count, factor)
    tables = []
    for devices in ("host", "cpu"):
        compiled = pm.compile(graph, system, models)
        tables.append(pm.sweep(compiled, points, devices=devices, **options))
    host, there = tables
    pd.testing.assert_frame_equal(there, host, rtol=1e-12, atol=1e-18)
    return host


def watched(name: str, whole, shared: list[tuple[str, int]]):
    """A function of devices that notes who calls it, and with how many."""

    def split_over(devices):
        shared.append((name, len(devices)))
        return whole(devices)

    return split_over


def agree() -> None:
    """What the process with several devices runs: orders that are forced, cells, and schedules of their own."""
    assert len(jax.devices()) == DEVICES
    cells.BUILD_S = (0.0, 0.0)  # so that few designs have cells
    shared: list[tuple[str, int]] = []
    for module in (design_blocks, bulk_jax):
        module.split_over = watched(module.__name__, bulk_jax.split_over, shared)
    table = compare(own_mode(), 63, 6.0, economics=True)
    assert set(table.schedule) == {"frozen"}
    assert table.limited_by.nunique() > 1
    table = compare(astra_mode("fuzz1", "unaware"), 512, 1.4)
    assert set(table.schedule) == {"frozen", "cell", "own"}
    # costs and gradients, then makespans, path counts and certificates
    assert set(shared) == {(design_blocks.__name__, DEVICES), (bulk_jax.__name__, DEVICES)}


def test_sweeps_on_several_devices_give_the_hosts_tables():
    """Costs, certificates, path counts and gradients are shared out; the rows are the same to rounding."""
    subprocess.run(
        [sys.executable, "-c", "from tests.analysis.test_devices import agree; agree()"],
        cwd=ROOT,
        check=True,
        timeout=900,
        env={
            **os.environ,
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}",
            "PYTHONPATH": str(ROOT),
        },
    )


def test_a_platform_that_is_not_there_is_named():
    graph, system, models = own_mode()
    with pytest.raises(pm.InputError, match="devices: got 'gpux', expected one of 'host', 'cpu'"):
        pm.sweep(graph, system, {"npu.peak_flops": [1e15]}, models=models, devices="gpux")


def test_an_accelerator_is_taken_where_jax_takes_one(monkeypatch):
    """A stand-in for an accelerator: CPU devices, by another name."""
    used = []
    whole = bulk_jax.makespans

    def watched(plan, costs, **options):
        used.append(options["devices"])
        return whole(plan, costs, **options)

    graph, system, models = own_mode()
    points = around(system, models or system.models, 5, 3.0)
    here = pm.sweep(graph, system, points)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(bulk_jax, "makespans", watched)
    there = pm.sweep(graph, system, points)
    assert used == [tuple(jax.local_devices())]
    pd.testing.assert_frame_equal(there, here, rtol=1e-12)
