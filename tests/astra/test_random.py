"""Random workloads on random configurations: what the simulator records is true, and runs repeat."""

import numpy as np
import pytest

from perfmodel.astra import diagnose, event_run
from perfmodel.errors import TraceError
from tests import astra_reference as reference
from tests.astra_workload import collective, compute, prepare, receive, send

ALGORITHMS = ["ring", "direct", "direct1", "direct2", "direct5", "halvingDoubling"]
FLAT = ["oneRing", "oneDirect", "oneDirect2", "oneHalvingDoubling"]
SHAPES = [(4,), (8,), (3,), (2, 2), (4, 2), (2, 3), (2, 2, 2), (2, 1, 3), (2, 2, 2, 2)]


def random_case(seed):
    """A workload whose ranks issue collectives in one order, beside compute and messages, and where to run it."""
    rng = np.random.default_rng(seed)
    shape = SHAPES[rng.integers(len(SHAPES))]
    backend = "aware" if len(shape) == 1 and rng.random() < 0.5 else "unaware"
    ranks = int(np.prod(shape))
    topology = [str(rng.choice(["Ring", "FullyConnected", "Switch"])) for _ in shape]
    groups = {}
    for name in ("1", "2")[: rng.integers(3)]:
        size = int(rng.integers(2, ranks + 1))
        groups[name] = tuple(int(r) for r in rng.permutation(ranks)[:size])
    nodes = [[] for _ in range(ranks)]
    last = [None] * ranks
    for number in range(int(rng.integers(2, 8))):
        kind = rng.random()
        if kind < 0.55:
            group = int(rng.integers(0, len(groups) + 1))
            members = range(ranks) if group == 0 else groups[str(group)]
            what = int(rng.choice([0, 2, 6, 7]))
            size = int(rng.integers(500, 300_000))
            mask = int(rng.integers(1, 2 ** len(shape))) if rng.random() < 0.3 else -1
            extents = [n for k, n in enumerate(shape) if mask < 0 or mask >> k & 1]
            if group == 0 and max(extents) == 1:
                mask = -1
            for r in members:
                deps = () if last[r] is None else (last[r],)
                nodes[r].append(
                    collective(10 * number + 1, what, size, *deps, group=group, involved=mask)
                )
                last[r] = 10 * number + 1
        elif kind < 0.75:
            a, b = (int(r) for r in rng.permutation(ranks)[:2])
            size = int(rng.integers(1, 100_000))
            deps = () if last[a] is None else (last[a],)
            nodes[a].append(send(10 * number + 1, b, size, *deps, tag=number))
            last[a] = 10 * number + 1
            deps = () if last[b] is None else (last[b],)
            nodes[b].append(receive(10 * number + 1, a, size, *deps, tag=number))
            if rng.random() < 0.5:
                last[b] = 10 * number + 1
        else:
            for r in range(ranks):
                deps = () if last[r] is None or rng.random() < 0.3 else (last[r],)
                nodes[r].append(compute(10 * number + 1, int(rng.integers(1, 60)), *deps))
                if rng.random() < 0.6:
                    last[r] = 10 * number + 1
    keys = {}
    for key in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all"):
        usable = ALGORITHMS[:-1] if key == "all_to_all" or set(shape) - {2, 4, 8} else ALGORITHMS
        names = [str(rng.choice(usable)) for _ in shape]
        if rng.random() < 0.2:
            flat = FLAT if key != "all_to_all" and ranks & (ranks - 1) == 0 else FLAT[:3]
            names = [str(rng.choice(flat))]
        keys[f"{key}_implementation"] = names
    if set(shape) <= {2, 4, 8} and not groups and rng.random() < 0.3:
        keys["all_reduce_implementation"] = ["doubleBinaryTree"] * len(shape)
    return (
        nodes,
        list(zip(topology, shape)),
        dict(
            groups=groups,
            backend=backend,
            queues=int(rng.choice([1, 1, 2, 4])),
            preferred_dataset_splits=int(rng.integers(1, 7)),
            active_chunks_per_dimension=int(rng.integers(1, 5)),
            collective_optimization=str(rng.choice(["baseline", "localBWAware"])),
            **keys,
        ),
    )


def lowered_case(seed):
    nodes, dimensions, keys = random_case(seed)
    try:
        return prepare(nodes, *dimensions, **keys)
    except TraceError as error:
        pytest.skip(f"not a workload that the simulator runs: {error}")


@pytest.mark.parametrize("seed", range(200))
def test_the_recorded_order_is_true_here_and_wherever_it_is_kept(seed):
    lowered = lowered_case(seed)
    cost = lowered.costs()
    run = event_run.run(lowered, cost, record=True)
    if not run.ok:
        assert "rank" in diagnose(lowered, run)
        return
    events = run.events
    start, finish = reference.longest(cost, events.pred_ptr, events.pred, events.cost)
    assert (start[events.node_first] == run.issue).all()
    assert (finish[events.node_last] == run.finish).all()
    rng = np.random.default_rng(seed)
    for spread in (0.001, 0.03, 0.3):
        values = {
            path: value * float(np.exp(rng.normal(0, spread)))
            for path, value in lowered.parameters.items()
        }
        changed = np.asarray(lowered.costs(values, truncate=False), np.float64)
        there = event_run.run(lowered, changed)
        if there.ok and there.digest == run.digest:
            start, finish = reference.longest(changed, events.pred_ptr, events.pred, events.cost)
            assert finish[events.node_last] == pytest.approx(there.finish, rel=1e-12)
            assert start[events.node_first] == pytest.approx(there.issue, rel=1e-12)


@pytest.mark.parametrize("seed", range(0, 200, 10))
def test_equal_runs_have_equal_times_and_digests(seed):
    lowered = lowered_case(seed)
    first, second = (
        event_run.run(lowered, lowered.costs()),
        event_run.run(lowered, lowered.costs(), record=True),
    )
    assert first.digest == second.digest
    assert np.array_equal(first.finish, second.finish, equal_nan=True)
    ends, digests = event_run.run_many(lowered, np.stack([lowered.costs()] * 3, axis=1), threads=2)
    assert np.array_equal(ends, np.stack([first.rank_end] * 3, axis=1), equal_nan=True)
    assert set(digests.tolist()) == {first.digest}


def test_the_order_of_nodes_in_the_files_does_not_matter():
    for seed in range(20):
        nodes, dimensions, keys = random_case(seed)
        try:
            before = prepare(nodes, *dimensions, **keys)
            after = prepare([part[::-1] for part in nodes], *dimensions, **keys)
        except TraceError:
            continue
        first, second = event_run.run(before, before.costs()), event_run.run(after, after.costs())
        assert np.array_equal(first.rank_end, second.rank_end, equal_nan=True)


def test_most_random_workloads_end():
    ended = 0
    for seed in range(100):
        nodes, dimensions, keys = random_case(seed)
        try:
            lowered = prepare(nodes, *dimensions, **keys)
        except TraceError:
            continue
        ended += event_run.run(lowered, lowered.costs()).ok
    assert ended > 60
