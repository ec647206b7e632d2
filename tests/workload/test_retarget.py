"""Retargeting: the same job on more or fewer ranks."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.vocabulary import NodeType
from perfmodel.workload.columns import RankColumns


@pytest.fixture(scope="module")
def system():
    return pm.hardware("dgx-h100")


def same(a, b):
    assert a == pytest.approx(b, rel=1e-9)


MODEL = {"layers": 2, "hidden": 256, "heads": 4, "vocabulary": 1024}


def training(data, **settings):
    return pm.synth.training(MODEL, data=data, sequence=128, **settings).graph()


def test_four_data_parallel_ranks_to_eight_equal_the_generator_s_eight(system):
    four = pm.synth.data_parallel(4, 100).graph()
    eight = pm.synth.data_parallel(8, 100).graph()
    same(
        pm.predict(pm.retarget(four, ranks=8), system).makespan, pm.predict(eight, system).makespan
    )


def test_four_fsdp_ranks_to_eight_equal_the_generator_s_eight(system):
    four, eight = (training(n, sharding=3) for n in (4, 8))
    got = pm.retarget(four, ranks=8)
    same(pm.predict(got, system).makespan, pm.predict(eight, system).makespan)
    assert "sharded" in got.warnings[-1]


def test_there_and_back_gives_the_original_times(system):
    for graph in (pm.synth.data_parallel(8, 100).graph(), training(8, sharding=3)):
        back = pm.retarget(pm.retarget(graph, ranks=16), ranks=8)
        a, b = (pm.predict(g, system) for g in (graph, back))
        np.testing.assert_allclose(a.finish, b.finish, rtol=1e-12)


@pytest.mark.parametrize(
    "more",
    [{}, {"sharding": 3}, {"sharding": 1}, {"tensor": 2}, {"tensor": 2, "sharding": 1}],
    ids=str,
)
def test_the_generator_s_training_steps_on_twice_the_replicas(system, more):
    four, eight = (training(data, **more) for data in (4, 8))
    got = pm.retarget(four, ranks=eight.ranks)
    same(pm.predict(got, system).makespan, pm.predict(eight, system).makespan)
    back = pm.retarget(got, ranks=four.ranks)
    np.testing.assert_allclose(
        pm.predict(back, system).finish, pm.predict(four, system).finish, rtol=1e-12
    )


@pytest.mark.parametrize("ranks", [2, 8])
def test_two_groups_of_all_ranks_stay_two(system, ranks):
    """Collectives of one would otherwise meet those of the other: they waited for each other for ever."""

    def step(ranks):
        columns = RankColumns(
            id=[1, 2, 3],
            type=[NodeType.COMP, NodeType.COMM_COLL, NodeType.COMM_COLL],
            flops=[10**9, -1, -1],
            comm_type=[-1, 0, 0],
            size=[-1, 10**8, 10**6],
            group=[-1, 0, -1],
            group_names=("dp",),
            own_groups={"dp": tuple(range(ranks))},
            edge_from=[0, 0],
            edge_to=[1, 2],
        )
        return pm.Graph.from_ranks([columns] * ranks)

    got = pm.retarget(step(4), ranks=ranks)
    same(pm.predict(got, system).makespan, pm.predict(step(ranks), system).makespan)


def test_replicas_of_a_tensor_parallel_model_keep_their_groups(system):
    graph = training(2, tensor=2)
    more = pm.retarget(graph, ranks=8)
    assert more.ranks == 8
    sizes = sorted(len(g) for g in more.groups[1:])
    assert sizes == [2] * 8 + [4] * 2  # tensor groups and those of the norm; data parallel groups
    less = pm.retarget(graph, ranks=2)
    assert less.ranks == 2
    with pytest.raises(pm.InputError, match="whole number of replicas"):
        pm.retarget(graph, ranks=1)


def test_pipelines_keep_their_messages_inside_a_replica(system):
    graph = training(2, pipeline=2, micro_batches=2)
    back = pm.retarget(pm.retarget(graph, ranks=16), ranks=4)
    np.testing.assert_allclose(
        pm.predict(back, system).finish, pm.predict(graph, system).finish, rtol=1e-12
    )


def test_what_is_not_clear_is_asked_for(system):
    graph = training(1, tensor=2, pipeline=2, micro_batches=2)
    with pytest.raises(pm.InputError, match="--data NAME"):
        pm.retarget(graph, ranks=8)
    assert pm.retarget(graph, ranks=8, data=[]).ranks == 8


@pytest.mark.parametrize("ranks", [0, -4, 6, 2.0, True])
def test_impossible_numbers_are_refused(ranks):
    with pytest.raises(pm.InputError):
        pm.retarget(pm.synth.data_parallel(4, 20).graph(), ranks=ranks)


def columns(tokens, sequence, batch, width=2):
    """A layer by hand: a product, its weight gradient, attention, a norm, the optimizer, and two collectives."""
    from perfmodel.vocabulary import COLLECTIVES, OPERATIONS, NodeType
    from perfmodel.workload.columns import RankColumns

    hidden, inner, heads = 512, 1024, 8
    gemm, attention = OPERATIONS.index("gemm"), OPERATIONS.index("attention")
    elements = tokens * hidden + hidden * inner + tokens * inner
    rows = [
        ("up", gemm, (1, tokens, inner, hidden), 2 * tokens * inner * hidden, elements * width),
        ("up.weight", gemm, (1, hidden, inner, tokens), 2 * tokens * inner * hidden, elements * width),
        ("core", attention, (batch, heads, heads, sequence, sequence, 64, 0),
         4 * batch * heads * sequence**2 * 64, 4 * batch * heads * sequence * 64 * width),
        ("norm", OPERATIONS.index("norm"), (), 5 * tokens * hidden, 2 * tokens * hidden * width),
        ("optimizer", OPERATIONS.index("optimizer"), (), 10 * hidden * inner, 16 * hidden * inner),
    ]  # fmt: skip
    n = len(rows)
    return RankColumns(
        id=range(n + 2),
        type=[NodeType.COMP] * n + [NodeType.COMM_COLL] * 2,
        name=[*(r[0] for r in rows), "step.grad_all_reduce", "tp.all_reduce"],
        flops=[*(r[3] for r in rows), -1, -1],
        bytes=[*(r[4] for r in rows), -1, -1],
        kind=[*(r[1] for r in rows), 0, 0],
        dimensions=[*(r[2] for r in rows), (), ()],
        comm_type=[-1] * n + [COLLECTIVES.index("all_reduce")] * 2,
        size=[-1] * n + [width * hidden * inner, width * tokens * hidden],
        group=[-1] * n + [0, 1],
        group_names=("data", "tensor"),
    )


def job(**sizes):
    one = columns(**sizes)
    return pm.Graph.from_ranks(
        [one] * 4, groups={"data": [0, 1, 2, 3], "tensor": [0, 1, 2, 3]}, source="layer"
    )


def equal(a, b):
    for name in ("flops", "bytes", "size", "dimensions"):
        np.testing.assert_array_equal(
            getattr(a.programs[0], name), getattr(b.programs[0], name), err_msg=name
        )


def test_another_batch_equals_the_work_worked_out_for_it():
    got = pm.retarget(
        job(tokens=256, sequence=128, batch=2), data="data", batch=(2, 6), sequence=(128, 128)
    )
    equal(got, job(tokens=768, sequence=128, batch=6))
    assert "batch 2 to 6" in got.warnings[-1]


def test_another_sequence_makes_attention_quadratic():
    got = pm.retarget(
        job(tokens=256, sequence=128, batch=2), data="data", batch=(2, 2), sequence=(128, 384)
    )
    equal(got, job(tokens=768, sequence=384, batch=2))


def test_another_dtype_halves_the_bytes_but_not_the_optimizer_s():
    got = pm.retarget(job(tokens=256, sequence=128, batch=2), data="data", dtype=("bf16", "fp8"))
    equal(got, job(tokens=256, sequence=128, batch=2, width=1))
    assert got.programs[0].dtype.tolist()[:5] == [5, 5, 5, 5, -1]


def test_tokens_that_no_dimension_has_are_an_error_with_the_node():
    with pytest.raises(pm.InputError, match="no dimension is batch x sequence = 100"):
        pm.retarget(
            job(tokens=256, sequence=128, batch=2), data="data", batch=(1, 2), sequence=(100, 100)
        )
    with pytest.raises(pm.InputError, match="go together"):
        pm.retarget(job(tokens=256, sequence=128, batch=2), data="data", batch=(1, 2))
    with pytest.raises(pm.InputError, match="nothing to change"):
        pm.retarget(job(tokens=256, sequence=128, batch=2))
