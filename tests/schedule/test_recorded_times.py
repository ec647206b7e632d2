"""Recorded times as factors on the model's: on the recorded device they are the recording."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.machine.system import NPU, Dimension, System
from tests.handmade import coll, comp, recv, send, write


def predicted(path, system: System) -> pm.Prediction:
    return pm.predict(pm.load(path, recorded_on="dgx-h100"), system, "roofline")


@pytest.mark.parametrize("size", [-1, 0])
def test_a_recorded_barrier_lasts_what_was_recorded(tmp_path, size):
    """It has no size, and so no time of a model instead of its own: 500 us were 3."""
    nodes = [comp(duration=10), coll("barrier", size, deps=[0], duration=500)]
    found = predicted(write(tmp_path, [nodes] * 8), pm.hardware("dgx-h100", ranks=8))
    assert found.makespan == pytest.approx(510e-6, rel=1e-9)


def test_a_recorded_barrier_of_unknown_size_has_no_ratio(tmp_path):
    path = write(tmp_path, [[coll("barrier", -1, duration=500)]] * 8)
    slow = System(NPU(1e12, 1e12), (Dimension(1e9, 1e-3, "switch", 8),), name="slow")
    assert predicted(path, slow).makespan == pytest.approx(500e-6, rel=1e-9)


def test_ranks_of_one_program_have_their_own_ratios(tmp_path):
    """Each rank sends to the next one: from the seventh and the last one the messages go to another node. All took as
    long, so that the model's times are other shares of it."""
    ranks = [
        [
            send((rank + 1) % 16, deps=[], duration=50),
            recv((rank - 1) % 16, deps=[]),
            coll(group=str(1 + rank // 4 % 2), deps=[1], duration=70),
        ]
        for rank in range(16)
    ]
    groups = {
        "1": [rank for rank in range(16) if rank // 4 % 2 == 0],
        "2": [rank for rank in range(16) if rank // 4 % 2 == 1],
    }
    path = write(tmp_path, ranks, groups)
    found = predicted(path, pm.hardware("dgx-h100", ranks=16))
    assert len(found.graph.programs) < 16
    sends = found.duration[found.graph.nodes["type"].eq("COMM_SEND").to_numpy()]
    np.testing.assert_allclose(sends, 50e-6, rtol=1e-9)
    assert found.makespan == pytest.approx(120e-6, rel=1e-9)
