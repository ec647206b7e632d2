"""The plain workloads by hand, and the generators of earlier releases as settings of the one there is now."""

import pytest

import perfmodel as pm
from perfmodel import synth
from perfmodel.vocabulary import NodeType

SMALL = {"layers": 4, "hidden": 64, "heads": 4, "sequence": 32, "vocabulary": 96}
SIZES = SMALL | {"positions": 32}


def same(old: synth.Workload, new: synth.Workload) -> bool:
    """Whether two workloads are made of the same nodes."""
    return all(
        a.columns.names == b.columns.names
        and (a.columns.size == b.columns.size).all()
        and (a.columns.flops == b.columns.flops).all()
        for a, b in zip(old.roles, new.roles, strict=True)
    )


def test_the_generators_of_earlier_releases_are_settings_of_training_and_say_so():
    with pytest.warns(DeprecationWarning, match="synth.training"):
        old = synth.gpt(**SMALL, data=2, tensor=2, pipeline=2, micro_batches=3, gradient_bytes=4)
    assert same(old, synth.training(SIZES, data=2, tensor=2, pipeline=2, micro_batches=3))
    with pytest.warns(DeprecationWarning, match="sharding=3"):
        old = synth.fsdp(**SMALL, ranks=4)
    new = synth.training(SIZES | {"tied": False}, data=4, sharding=3, gradient_dtype="bf16")
    assert same(old, new)
    with pytest.warns(DeprecationWarning, match="capacity="):
        old = synth.moe(**SMALL, experts=4, ranks=4, expert_parallel=2, moe_every=2)
    mixture = SIZES | {"experts": 4, "top_k": 2, "experts_every": 2}
    new = synth.training(mixture, data=4, expert=2, capacity=1.0, gradient_dtype="bf16")
    assert same(old, new)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("generator", "parameters", "message"),
    [
        (synth.gpt, SMALL | {"dtype_bytes": 3}, "dtype_bytes: got 3"),
        (synth.fsdp, SMALL | {"ranks": 1}, "ranks: got 1"),
        (synth.moe, SMALL | {"experts": 2, "ranks": 2, "moe_every": 9}, "moe_every: got 9"),
        (synth.moe, SMALL | {"experts": 4, "ranks": 5, "expert_parallel": 2}, "ranks: got 5"),
    ],
)
def test_they_refuse_what_does_not_fit(generator, parameters, message):
    with pytest.raises(pm.InputError, match=message):
        generator(**parameters)


def test_data_parallel_fills_exactly_the_nodes_asked_for():
    for nodes in range(4, 80):
        for bucket in (1, 3, 8):
            work = synth.data_parallel(2, nodes, bucket_layers=bucket)
            names = [s.name for s in work.roles[0].steps.nodes]
            assert len(names) == nodes
            layers = sum(n.startswith("fwd") for n in names)
            assert sum(n.startswith("bwd") for n in names) == layers > 0
            assert sum("all_reduce" in n for n in names) == -(-layers // bucket)
            assert sum(n.startswith("input") for n in names) <= 2


def test_a_chain_of_collectives_runs_one_after_the_other():
    work = synth.collective("all_gather", 3, 10, repeat=4)
    nodes = work.roles[0].steps.nodes
    assert [s.after for s in nodes] == [(), (0,), (1,), (2,)]
    assert all(s.type == NodeType.COMM_COLL and s.size == 10 for s in nodes)
