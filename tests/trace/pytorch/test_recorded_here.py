"""A trace that PyTorch records in the test itself: two ranks on CPUs, gloo on loopback, one of them with more work."""

from __future__ import annotations

import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import perfmodel as pm


@pytest.mark.skipif(find_spec("torch") is None, reason="torch is not installed (extra: pytorch)")
def test_a_step_recorded_just_now_is_replayed_on_both_ranks(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = Path(__file__).with_name("record_ddp.py")
    ranks = [
        subprocess.Popen([sys.executable, str(script), str(r), "2", str(port), str(tmp_path)])
        for r in range(2)
    ]
    try:
        assert [process.wait(timeout=240) for process in ranks] == [0, 0]
    finally:
        for process in ranks:
            process.kill()
    graph = pm.load(tmp_path)
    table = pm.replay(graph)
    assert graph.ranks == 2
    assert table["rank"].tolist() == [0, 1]
    assert (table["replayed_s"] / table["span_s"]).between(0.95, 1.05).all()
    assert table.attrs["operators_linked"] >= 0.99
    assert table.attrs["collectives_matched"] == 1.0
    waited = table["communication_wait_s"]
    assert waited.tolist() == pytest.approx(
        table["replayed_wait_s"].tolist(), abs=0.05 * table["span_s"].max()
    )
