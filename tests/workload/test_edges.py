"""Edges by target and by source, against plain Python."""

from itertools import pairwise

import numpy as np
import pytest

from perfmodel.workload.edges import FEW, predecessors, reverse


@pytest.mark.parametrize("most", [3, 10 * FEW])
def test_edges_in_any_order_come_out_by_target_ascending_and_once(most: int) -> None:
    choice = np.random.default_rng(most)
    source, target = choice.integers(0, 40, most), choice.integers(0, 3, most)
    ptr, pred = predecessors(source, target, 40)
    known = [sorted(set(source[target == v].tolist())) for v in range(40)]
    assert [pred[a:b].tolist() for a, b in pairwise(ptr)] == known
    back, succ = reverse(ptr, pred)
    assert [succ[a:b].tolist() for a, b in pairwise(back)] == [
        [v for v in range(40) if u in known[v]] for u in range(40)
    ]
