"""Retargeting: the same job on more or fewer ranks."""

import numpy as np
import pytest

import perfmodel as pm


@pytest.fixture(scope="module")
def system():
    return pm.hardware("dgx-h100")


def same(a, b):
    assert a == pytest.approx(b, rel=1e-9)


MODEL = {"layers": 2, "hidden": 256, "heads": 4, "sequence": 128, "vocabulary": 1024}


def test_four_data_parallel_ranks_to_eight_equal_the_generator_s_eight(system):
    four = pm.synth.data_parallel(4, 100).graph()
    eight = pm.synth.data_parallel(8, 100).graph()
    same(
        pm.predict(pm.retarget(four, ranks=8), system).makespan, pm.predict(eight, system).makespan
    )


def test_four_fsdp_ranks_to_eight_equal_the_generator_s_eight(system):
    four, eight = (pm.synth.fsdp(ranks=n, **MODEL).graph() for n in (4, 8))
    got = pm.retarget(four, ranks=8)
    same(pm.predict(got, system).makespan, pm.predict(eight, system).makespan)
    assert "sharded" in got.warnings[-1]


def test_there_and_back_gives_the_original_times(system):
    for graph in (pm.synth.data_parallel(8, 100).graph(), pm.synth.fsdp(ranks=8, **MODEL).graph()):
        back = pm.retarget(pm.retarget(graph, ranks=16), ranks=8)
        a, b = (pm.predict(g, system) for g in (graph, back))
        np.testing.assert_allclose(a.finish, b.finish, rtol=1e-12)


def test_replicas_of_a_tensor_parallel_model_keep_their_groups(system):
    graph = pm.synth.gpt(data=2, tensor=2, **MODEL).graph()
    more = pm.retarget(graph, ranks=8)
    assert more.ranks == 8
    sizes = sorted(len(g) for g in more.groups[1:])
    assert sizes == [2] * 4 + [4] * 2
    less = pm.retarget(graph, ranks=2)
    assert less.ranks == 2
    with pytest.raises(pm.InputError, match="whole number of replicas"):
        pm.retarget(graph, ranks=1)


def test_pipelines_keep_their_messages_inside_a_replica(system):
    graph = pm.synth.gpt(data=2, pipeline=2, micro_batches=2, **MODEL).graph()
    back = pm.retarget(pm.retarget(graph, ranks=16), ranks=4)
    np.testing.assert_allclose(
        pm.predict(back, system).finish, pm.predict(graph, system).finish, rtol=1e-12
    )


def test_what_is_not_clear_is_asked_for(system):
    graph = pm.synth.gpt(data=1, tensor=2, pipeline=2, micro_batches=2, **MODEL).graph()
    with pytest.raises(pm.InputError, match="--data NAME"):
        pm.retarget(graph, ranks=8)
    assert pm.retarget(graph, ranks=8, data=[]).ranks == 8


@pytest.mark.parametrize("ranks", [0, -4, 6, 2.0, True])
def test_impossible_numbers_are_refused(ranks):
    with pytest.raises(pm.InputError):
        pm.retarget(pm.synth.data_parallel(4, 20).graph(), ranks=ranks)
