"""When tensors hold memory: by hand, against a plain oracle on random calls, and on recorded traces."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.errors import InputError
from perfmodel.trace.pytorch.lifetimes import Calls, changes, lifetimes, tensors
from perfmodel.trace.pytorch.memory_changes import at_nodes
from tests.trace.pytorch.made import document, kernel, launch, node, operator, step

GPU = "cuda:0"


def tensor(storage: int, elements: int = 1, *, offset: int = 0, device: str = GPU) -> list:
    """As a host trace writes it, of 1 B an element."""
    return [1000 + storage, storage, offset, elements, 1, device]


def held(parent: list[int], inputs: list[list], outputs: list[list]) -> tuple[float, list]:
    """What is there before, and all that is held in the order in which it changes."""
    before, moment, change = changes(lifetimes(Calls(np.array(parent), inputs, outputs)))
    return before, list(zip(moment.tolist(), change.tolist()))


def test_what_is_read_before_it_is_written_was_there_and_stays():
    """A weight (1) and its input (2) give an activation (3), which the next call takes for the last time."""
    before, steps = held(
        [-1, -1, -1],
        [[tensor(1, 50), tensor(2, 7)], [tensor(3, 20)], [tensor(1, 50)]],
        [[tensor(3, 20)], [tensor(4, 5)], []],
    )
    assert before == 57
    assert steps == [(0, 20.0), (2, 5.0), (3, -20.0), (3, -5.0)]


def test_a_number_that_is_given_anew_is_another_block_and_one_that_is_handed_on_is_the_same():
    """Call 0 makes 9 in call 1 and hands it out; call 2 works in place; call 3 gets the address again, larger."""
    before, steps = held(
        [-1, 0, -1, -1],
        [[], [], [tensor(9, 8)], []],
        [[tensor(9, 8)], [tensor(9, 8)], [tensor(9, 8)], [tensor(9, 30)]],
    )
    assert before == 0
    assert steps == [(2, 8.0), (5, -8.0), (6, 30.0), (7, -30.0)]


def test_views_reach_to_their_end_and_the_host_counts_only_where_there_is_no_accelerator():
    assert list(tensors([tensor(3, 16, offset=8), "x", [[tensor(4)]], [1, 2]])) == [
        (GPU, 3, 24.0),
        (GPU, 4, 1.0),
    ]
    on_host = tensor(1, 10**6, device="cpu")
    assert held([-1], [[on_host, tensor(2, 5)]], [[]])[0] == 5
    assert held([-1], [[on_host]], [[]])[0] == 10**6
    assert lifetimes(Calls(np.array([-1]), [[tensor(1, device="meta")]], [[1, None]])) is None


@st.composite
def programs(draw) -> Calls:
    """Calls in calls that take and give storages of a few numbers."""
    n = draw(st.integers(1, 12))
    parent = [-1]
    for k in range(1, n):  # inside the call before it, or inside one of those around that
        around, at = [-1], k - 1
        while at >= 0:
            around.append(at)
            at = parent[at]
        parent.append(draw(st.sampled_from(around)))
    some = st.lists(st.builds(tensor, st.integers(1, 5), st.integers(1, 9)), max_size=3)
    return Calls(np.array(parent), [draw(some) for _ in range(n)], [draw(some) for _ in range(n)])


def plain(calls: Calls) -> tuple[float, list[float]]:
    """What is there before, and what is held at every begin and end, from a list of all touches in words."""
    n = len(calls)
    parent = calls.parent.tolist()

    def inside(k: int, outer: int) -> bool:
        return k == outer or (k >= 0 and inside(parent[k], outer))

    moments: list[tuple[int, str]] = []  # (call, "begin" or "end") in order of time

    def run(k: int) -> None:
        moments.append((k, "begin"))
        for child in range(n):
            if parent[child] == k:
                run(child)
        moments.append((k, "end"))

    for k in range(n):
        if parent[k] == -1:
            run(k)
    when = {m: t for t, m in enumerate(moments)}
    blocks = []  # [size, first call or None, last call]
    for number in range(1, 6):
        current = None
        for call, what in moments:
            value = (calls.inputs if what == "begin" else calls.outputs)[call]
            sizes = [v[3] for v in value if v[1] == number]
            for size in sizes:
                fresh = current is None or (
                    what == "end" and not any(inside(c, call) for c in current[2])
                )
                if fresh:
                    known = None if what == "begin" else call
                    current = [0, known, []]
                    blocks.append(current)
                current[0] = max(current[0], size)
                current[2].append(call)
        if current is not None and current[1] is None:
            current[2] = None
    before = sum(b[0] for b in blocks if b[1] is None)
    total = []
    for t in range(len(moments)):
        now = 0.0
        for size, first, used in blocks:
            begun = first is None or when[first, "begin"] <= t
            over = used is not None and when[max(used), "end"] <= t
            now += size * (begun and not over)
        total.append(now)
    return before, total


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs())
def test_memory_is_that_of_a_plain_list_of_touches(calls):
    lives = lifetimes(calls)
    if lives is None:
        assert not any([*calls.inputs, *calls.outputs])
        return
    before, moment, change = changes(lives)
    expected, total = plain(calls)
    assert before == expected
    n, parent = len(calls), calls.parent
    order, open_ = [], []
    for k in range(n):  # begins and ends in order of time
        while open_ and open_[-1] != parent[k]:
            order.append(2 * open_.pop() + 1)
        order.append(2 * k)
        open_.append(k)
    order += [2 * k + 1 for k in reversed(open_)]
    by = dict.fromkeys(order, 0.0)
    for at, size in zip(moment.tolist(), change.tolist()):
        by[at] += size
    assert (before + np.cumsum([by[m] for m in order])).tolist() == total


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-9, 9)), max_size=20))
def test_changes_within_a_node_keep_its_peak_and_what_it_leaves(pairs):
    pairs.sort(key=lambda pair: pair[0])  # one node after the other
    node_, change = at_nodes([p[0] for p in pairs], [p[1] for p in pairs])
    for place in range(5):
        run = np.cumsum([0, *(c for p, c in pairs if p == place)])
        mine = change[node_ == place]
        grows, shrinks = mine[mine > 0].sum(), mine[mine < 0].sum()
        assert grows == run.max()
        assert grows + shrinks == run[-1]
        assert len(mine) <= 2


# Whole files


def on_gpu(name: str, number: int, start: float, **sides: list) -> tuple[dict, list[dict]]:
    """A host trace's node, and the device's events of it: an operator, its launch and a kernel of 10 us."""
    filled = {
        side: {
            "values": values,
            "shapes": [[v[3]] for v in values],
            "types": ["Tensor(unsigned char)"] * len(values),
        }
        for side, values in sides.items()
    }
    events = [
        operator(name, start, 10, Record_function_id=number),
        launch(number, start + 2, 3),
        kernel(number, start + 8, 10),
    ]
    return node(number + 10, name, record=number, **filled), events


def written(tmp_path, calls: list, memory: list[dict] = (), *, host: bool = True) -> str:
    """A folder with a device trace, and the host trace beside it."""
    events = [e for _, made in calls for e in made]
    device = document(
        step(1, 0, 100 * len(calls)), *events, *memory, distributedInfo={"rank": 0, "world_size": 1}
    )
    (tmp_path / "kineto_0.json.gz").write_bytes(gzip.compress(json.dumps(device).encode()))
    if host:
        root = {**node(1, "[pytorch|profiler|execution_trace|process]", parent=1)}
        nodes = [root, *(made for made, _ in calls)]
        (tmp_path / "et_0.json").write_text(json.dumps({"schema": "1.1.0", "nodes": nodes}))
    return str(tmp_path)


CALLS = [
    on_gpu("aten::mul", 1, 10, inputs=[tensor(1, 500)], outputs=[tensor(2, 2000)]),
    on_gpu("aten::exp", 2, 110, inputs=[tensor(2, 2000)], outputs=[tensor(3, 1000)]),
    on_gpu("aten::sum", 3, 210, inputs=[tensor(3, 1000)], outputs=[tensor(2, 4)]),
]


def test_a_recording_with_its_host_trace_has_a_peak_and_a_curve(tmp_path):
    graph = pm.load(written(tmp_path, CALLS))
    p = pm.predict(graph, pm.hardware("dgx-h100", ranks=1))
    table = pm.memory(p)
    assert table.loc[0, ["weights_B", "activations_B", "total_B"]].tolist() == [500, 3000, 3500]
    assert table[["gradients_B", "optimizer_B", "kv_cache_B", "buffers_B"]].isna().all().all()
    assert "recorded operators" in table.attrs["source"]
    curve = pm.memory(p, 0)
    assert curve.total_B.tolist() == [500, 2500, 3500, 1500, 1504, 500]
    # the host's own times of the calls, less the pause before the first
    assert curve.time_s.to_numpy() * 1e6 == pytest.approx([0, 10, 110, 120, 210, 220], abs=1)


def test_host_traces_alone_have_the_same_peak_in_the_order_of_the_calls(tmp_path):
    written(tmp_path, CALLS)
    graph = pm.load(tmp_path / "et_0.json")
    table = pm.memory(pm.predict(graph, pm.hardware("dgx-h100", ranks=1)))
    assert table.total_B.tolist() == [3500]


def allocation(at: float, size: int, total: int, *, kind: int = 1, number: int = 0) -> dict:
    """An event of the allocator as Kineto writes it."""
    return {
        **{"ph": "i", "cat": "cpu_instant_event", "s": "t", "name": "[memory]"},
        **{"pid": 100, "tid": 100, "ts": at},
        "args": {
            **{"Total Reserved": 2**20, "Total Allocated": total, "Bytes": size},
            **{"Addr": 7, "Device Id": number, "Device Type": kind},
        },
    }


MEMORY = [
    allocation(-50, 300, 700),  # before the step
    allocation(12, 5000, 5700),
    allocation(13, -5000, 700),  # held within a call only
    allocation(14, 2000, 2700),
    allocation(60, 10**9, 10**9, kind=0, number=-1),  # the host's
    allocation(115, 1000, 3700),
    allocation(215, -2000, 1700),
    allocation(5000, 10**6, 10**6 + 1700),  # after it
]


@pytest.mark.parametrize("host", [True, False])
def test_the_allocators_own_events_count_where_they_were_recorded(tmp_path, host):
    graph = pm.load(written(tmp_path, CALLS, MEMORY, host=host))
    p = pm.predict(graph, pm.hardware("dgx-h100", ranks=1))
    table = pm.memory(p)
    assert table.loc[0, ["weights_B", "activations_B", "total_B"]].tolist() == [700, 5000, 5700]
    assert "memory events" in table.attrs["source"]
    curve = pm.memory(p, 0)
    assert curve.total_B.max() == 5700
    assert curve.total_B.iloc[-1] == 1700


def test_without_tensors_memory_is_an_error_and_no_column(tmp_path):
    graph = pm.load(written(tmp_path, CALLS, host=False))
    system = pm.hardware("dgx-h100", ranks=1)
    with pytest.raises(InputError, match=r"its trace names no tensors\. Record"):
        pm.memory(pm.predict(graph, system))
    with pytest.warns(UserWarning, match="no node answers to npu.memory_capacity"):
        swept = pm.sweep(pm.compile(graph, system), {"npu.memory_capacity": [1e12, 2e12]})
    assert "fits" not in swept


def test_a_recording_says_whether_it_fits_in_every_answer(tmp_path):
    graph = pm.load(written(tmp_path, CALLS))
    system = pm.hardware("dgx-h100", ranks=1)
    row = pm.throughput(pm.predict(graph, system)).iloc[0]
    assert row.peak_memory_B == 3500
    assert row.memory_margin_B == 80e9 - 3500
    assert "mfu" not in row
    with pytest.raises(InputError, match="does not say which model it trains"):
        pm.throughput(pm.predict(graph, system), tokens=1e9)
    compiled = pm.compile(graph, system)
    swept = pm.sweep(compiled, {"npu.memory_capacity": [3000, 4000]})
    assert swept.fits.tolist() == [False, True]
    assert swept.memory_margin_B.tolist() == [-500, 500]
    found = pm.optimize(
        compiled,
        bounds={"npu.memory_capacity": (1e3, 1e6)},
        objective="npu.memory_capacity",
        constraints=["memory_margin_B >= 1000"],
    )
    assert found.parameters["npu.memory_capacity"] == pytest.approx(4500, rel=1e-6)
    both = pm.compare((graph, system), (graph, pm.hardware("dgx-b200", ranks=1)), by=["throughput"])
    assert both.set_index("item").loc["peak_memory_B", ["a_s", "b_s"]].tolist() == [3500, 3500]


@pytest.mark.parametrize(
    ("trace", "least", "most"),
    [
        # 25.6 M parameters with momentum in fp32 (0.2 GB) are there before, gradients and activations of 3 steps come
        ("resnet_host_et/resnet_1gpu_1.1.1.json.gz", 0.2e9, 0.5e9),
        ("host_et_small/linear_et.json.gz", 0.1e9, 0.3e9),
    ],
)
def test_what_recorded_steps_hold_before_is_what_their_parameters_take(shared, trace, least, most):
    graph = pm.load(shared / "reference" / "pytorch" / trace)
    table = pm.memory(pm.predict(graph, pm.hardware("dgx-a100", ranks=graph.ranks)))
    assert least < table.weights_B.max() < most
    assert (table.activations_B > 0).all()
    assert table.total_B.notna().all()


def test_eight_ranks_of_a_tensor_parallel_step_hold_the_same(shared):
    graph = pm.load(shared / "reference" / "pytorch" / "megatron_tp8")
    p = pm.predict(graph, pm.hardware("dgx-a100", ranks=8))
    table = pm.memory(p)
    assert table.total_B.nunique() == 1
    assert 7e9 < table.total_B[0] < 10e9
    curve = pm.memory(p, 3)
    assert curve.total_B.max() == table.total_B[3]
    assert curve.time_s.iloc[-1] <= p.makespan
