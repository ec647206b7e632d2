"""Synthetic workloads against the published operation, parameter and traffic counts, and laws of schedules."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel import synth
from perfmodel.synth.gpt import one_forward_one_backward
from perfmodel.synth.transformer import Transformer
from perfmodel.vocabulary import COLLECTIVES, NodeType

PRODUCTS = ("qkv", "core", "projection", "up", "down", "logits")
SMALL = {"layers": 4, "hidden": 64, "heads": 4, "sequence": 32, "vocabulary": 96}

PARALLEL = [
    {},
    {"tensor": 4},
    {"tensor": 2, "sequence_parallel": True},
    {"pipeline": 2, "micro_batches": 3},
    {"data": 3},
    {"data": 2, "tensor": 2, "pipeline": 4, "micro_batches": 5, "micro_batch": 2},
]


def is_product(name: str) -> bool:
    """Whether the node is one that Narayanan et al. count: matrix products and the attention core."""
    parts = name.split(".")
    return parts[-1] in PRODUCTS or parts[-1].endswith("_gradient")


def product_flops(work: synth.Workload) -> int:
    """Operations of the matrix products over all ranks."""
    nodes = work.graph().nodes
    return int(nodes.loc[[is_product(n) for n in nodes["name"]], "flops"].sum())


def nodes_named(work: synth.Workload, rank: int, ending: str):
    """Nodes of a rank whose names end so."""
    table = work.graph().table([rank])
    return table[table["name"].str.endswith(ending)]


@pytest.mark.parametrize("parallel", PARALLEL, ids=str)
def test_a_gpt_step_has_the_operations_of_narayanan_equation_3_however_it_is_spread(parallel):
    work = synth.gpt(**SMALL, **parallel)
    batch = (
        parallel.get("data", 1) * parallel.get("micro_batches", 1) * parallel.get("micro_batch", 1)
    )
    l, h, s, v = (SMALL[k] for k in ("layers", "hidden", "sequence", "vocabulary"))  # noqa: E741
    expected = 72 * batch * l * s * h**2 * (1 + s / (6 * h) + v / (12 * l * h))
    assert product_flops(work) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("parallel", PARALLEL, ids=str)
def test_full_recomputation_costs_one_more_forward_pass_of_the_layers(parallel):
    work = synth.gpt(**SMALL, **parallel, recompute="full")
    batch = (
        parallel.get("data", 1) * parallel.get("micro_batches", 1) * parallel.get("micro_batch", 1)
    )
    l, h, s, v = (SMALL[k] for k in ("layers", "hidden", "sequence", "vocabulary"))  # noqa: E741
    expected = 96 * batch * l * s * h**2 * (1 + s / (6 * h) + v / (16 * l * h))
    assert product_flops(work) == pytest.approx(expected, rel=1e-12)


def test_selective_recomputation_repeats_the_attention_cores_only():
    more = product_flops(synth.gpt(**SMALL, recompute="selective")) - product_flops(
        synth.gpt(**SMALL)
    )
    assert more == 4 * SMALL["layers"] * SMALL["sequence"] ** 2 * SMALL["hidden"]


def test_gpt3_has_the_174_6_billion_parameters_of_its_paper():
    # Brown et al. 2020, table 2.1 and appendix D; the head's stage holds a copy of the word embedding
    work = synth.gpt(layers=96, hidden=12288, heads=96, vocabulary=50_257, pipeline=12)
    optimizers = [role.steps.nodes[-1] for role in work.roles]
    assert {step.name for step in optimizers} == {"step.optimizer"}
    parameters = sum(step.flops for step in optimizers) / 14 - 50_257 * 12_288
    assert parameters == pytest.approx(174_604e6, rel=1e-4)


def test_a_rank_optimises_the_parameters_of_narayanan_equation_2_and_the_last_norm():
    work = synth.gpt(**SMALL)
    l, h, s, v = (SMALL[k] for k in ("layers", "hidden", "sequence", "vocabulary"))  # noqa: E741
    expected = 12 * l * h**2 * (1 + 13 / (12 * h) + (v + s) / (12 * l * h)) + 2 * h
    optimizer = nodes_named(work, 0, "step.optimizer").iloc[0]
    assert optimizer["flops"] / 14 == pytest.approx(expected, rel=1e-12)
    # gradient 2 B in, 12 B of state in and out, weight 2 B out
    assert optimizer["bytes_B"] / 28 == pytest.approx(expected, rel=1e-12)


def test_one_layers_kernels_by_hand():
    # b = 1, s = 8 tokens, h = 4, f = 16, t = 2, e = 2 B
    model = Transformer(
        hidden=4,
        heads=2,
        sequence=8,
        vocabulary=10,
        micro_batch=1,
        feed_forward=16,
        tensor=2,
    )
    qkv, core, projection = model.attention.kernels
    up, down = model.mlp.kernels
    assert (qkv.forward.flops, qkv.forward.bytes) == (2 * 8 * 4 * 6, 2 * (8 * 4 + 4 * 6 + 8 * 6))
    assert (core.forward.flops, core.forward.bytes) == (4 * 8 * 8 * 2, 2 * 4 * 8 * 2)
    assert (projection.forward.flops, projection.forward.bytes) == (
        2 * 8 * 2 * 4,
        2 * (8 * 2 + 2 * 4 + 8 * 4),
    )
    assert up.forward.flops == down.forward.flops == 2 * 8 * 4 * 8
    assert (model.norm.flops, model.norm.bytes) == (8 * 32, 2 * 4 * 32)
    assert (model.embedding.flops, model.embedding.bytes) == (32, 2 * 3 * 32)
    assert (model.loss.flops, model.loss.bytes) == (4 * 8 * 5, 2 * 2 * 8 * 5)
    # weights and biases of qkv (4 x 6) and projection (2 x 4), scale and shift of the norm
    assert model.attention_parameters == (24 + 6) + (8 + 4) + 8
    assert model.mlp_parameters == (32 + 8) + (32 + 4) + 8


@pytest.mark.parametrize(
    "work",
    [
        synth.gpt(**SMALL, tensor=2, data=2),
        synth.fsdp(**SMALL, ranks=4),
        synth.moe(**SMALL, experts=4, ranks=4),
    ],
    ids=lambda w: w.name.split(":")[0],
)
def test_the_backward_pass_takes_twice_the_operations_and_bytes_of_the_forward_pass(work):
    table = work.graph().table([0])
    compute = table[table["type"] == "COMP"]
    forward = compute[compute["name"].str.contains(r"\bfwd\.")]
    backward = compute[compute["name"].str.contains(r"\bbwd\.")]
    for column in ("flops", "bytes_B"):
        assert backward[column].sum() == 2 * forward[column].sum() > 0


def test_every_compute_node_has_operations_and_bytes_and_every_message_a_size():
    for work in workloads():
        table = work.graph().nodes
        compute = table["type"] == "COMP"
        assert (table.loc[compute, ["flops", "bytes_B"]] > 0).all(axis=None)
        assert (table.loc[~compute, "size_B"] > 0).all()


def workloads() -> list[synth.Workload]:
    """One of each kind."""
    return [
        synth.gpt(**SMALL, data=2, tensor=2, pipeline=2, micro_batches=3),
        synth.fsdp(**SMALL, ranks=4),
        synth.moe(**SMALL, experts=4, ranks=4, expert_parallel=2),
        synth.collective("all_to_all", 4, 1 << 20),
        synth.data_parallel(4, 50),
    ]


def collectives(work: synth.Workload, rank: int, containing: str = ""):
    """Collectives of a rank: (type, size) by name."""
    table = work.graph().table([rank])
    chosen = table["type"].isin([c.upper() for c in COLLECTIVES])
    chosen &= table["name"].str.contains(containing, regex=False)
    return table[chosen]


def test_tensor_parallelism_reduces_four_times_per_layer_and_micro_batch():
    work = synth.gpt(**SMALL, tensor=2, micro_batches=3, micro_batch=2)
    found = collectives(work, 0, ".layer")
    assert list(found["type"].unique()) == ["ALL_REDUCE"]
    assert len(found) == 4 * 3 * SMALL["layers"]
    activation = 2 * 2 * SMALL["sequence"] * SMALL["hidden"]
    assert (found["size_B"] == activation).all()


def test_sequence_parallelism_moves_the_same_bytes_and_gathers_inputs_once_more():
    plain = collectives(synth.gpt(**SMALL, tensor=4), 0, ".layer")
    split = collectives(synth.gpt(**SMALL, tensor=4, sequence_parallel=True), 0, ".layer")
    scattered = split[split["type"] == "REDUCE_SCATTER"]
    gathered = split[split["type"] == "ALL_GATHER"]
    again = gathered["name"].str.endswith("input.all_gather")
    assert len(scattered) == len(plain)
    assert scattered["size_B"].sum() == plain["size_B"].sum()
    # an all-gather's size is a rank's shard
    assert 4 * gathered.loc[~again, "size_B"].sum() == plain["size_B"].sum()
    assert again.sum() == 2 * SMALL["layers"]


def test_data_parallelism_reduces_every_gradient_once_after_the_last_micro_batch():
    work = synth.gpt(**SMALL, data=2, tensor=2, pipeline=2, micro_batches=3, gradient_bytes=4)
    for rank in (0, work.ranks - 1):
        found = collectives(work, rank, "step.")
        reduced = found[~found["name"].str.contains("tied")]["size_B"].sum()
        parameters = nodes_named(work, rank, "step.optimizer")["flops"].iloc[0] // 14
        assert reduced == 4 * parameters
        names = list(work.graph().table([rank])["name"])
        first = min(names.index(n) for n in found["name"])
        assert not any(n.startswith(("mb0", "mb1")) for n in names[first:])


def test_the_word_embedding_is_summed_over_both_ends_of_the_pipeline_only():
    work = synth.gpt(**SMALL, data=2, tensor=2, pipeline=4)
    table = work.graph().nodes
    tied = table[table["name"] == "step.tied.grad_all_reduce"]
    assert sorted(tied["rank"]) == [0, 1, 2, 3, 12, 13, 14, 15]
    assert (tied["size_B"] == 2 * SMALL["vocabulary"] // 2 * SMALL["hidden"]).all()
    groups = work.graph().groups
    names = work.graph().group_names
    members = {groups[names.index(g)] for g in tied["group"]}
    assert members == {(0, 12), (1, 13), (2, 14), (3, 15)}


def test_a_pipeline_stage_sends_every_micro_batch_on_and_its_gradient_back():
    work = synth.gpt(**SMALL, tensor=2, pipeline=4, micro_batches=3, sequence_parallel=True)
    middle = work.graph().table([2])
    messages = middle[middle["type"].isin(["COMM_SEND", "COMM_RECV"])]
    # with sequence parallelism each rank passes its own half of the tokens on
    assert (messages["size_B"] == 2 * SMALL["sequence"] * SMALL["hidden"] // 2).all()
    count = messages.groupby(["type", "peer"]).size().to_dict()
    assert count == {(kind, peer): 3 for kind in ("COMM_SEND", "COMM_RECV") for peer in (0, 4)}


@pytest.mark.parametrize(("stages", "micro_batches"), [(1, 1), (2, 5), (4, 8), (4, 2), (8, 8)])
def test_one_forward_one_backward_keeps_few_micro_batches_alive_and_never_waits_in_a_circle(
    stages, micro_batches
):
    orders = [one_forward_one_backward(s, stages, micro_batches) for s in range(stages)]
    for stage, order in enumerate(orders):
        assert sorted(order) == sorted((d, i) for d in ("fwd", "bwd") for i in range(micro_batches))
        alive = np.cumsum([1 if d == "fwd" else -1 for d, _ in order])
        assert alive.max() == min(stages - stage, micro_batches)
    # run them against each other: every pass waits for its neighbour's
    done: set[tuple[int, str, int]] = set()
    place = [0] * stages
    progress = True
    while progress:
        progress = False
        for stage in range(stages):
            while place[stage] < len(orders[stage]):
                direction, i = orders[stage][place[stage]]
                other = stage - 1 if direction == "fwd" else stage + 1
                if 0 <= other < stages and (other, direction, i) not in done:
                    break
                done.add((stage, direction, i))
                place[stage] += 1
                progress = True
    assert len(done) == 2 * stages * micro_batches


@pytest.mark.parametrize(("stages", "micro_batches"), [(2, 4), (4, 8), (8, 8)])
def test_without_communication_costs_a_pipeline_takes_micro_batches_plus_stages_minus_one_rounds(
    stages, micro_batches
):
    # the bubble of Narayanan et al. 2021, section 2.2.1, with hardly any embedding, head or network
    work = synth.gpt(
        layers=8, hidden=8192, heads=64, vocabulary=1, pipeline=stages, micro_batches=micro_batches
    )
    graph = work.graph()
    system = pm.hardware("dgx-h100", ranks=graph.ranks)
    fast = {
        p: 1e18 if p.endswith("bandwidth") else 0.0
        for p in pm.parameters(system)
        if p.startswith("network.") and p.endswith(("bandwidth", "latency"))
    }
    p = pm.predict(graph, pm.with_parameters(system, pm.Models(), fast)[0])
    timeline = pm.timeline(p)
    compute = timeline[timeline["type"] == "COMP"]
    layers = compute[compute["name"].str.contains(".layer", regex=False)]
    per_rank = layers.groupby("rank")["duration_s"].sum()
    one_round = per_rank.mean() / micro_batches
    optimizer = compute[compute["name"] == "step.optimizer"]["start_s"].max()
    assert optimizer == pytest.approx((micro_batches + stages - 1) * one_round, rel=0.02)


def test_fsdp_moves_three_times_the_parameters_less_the_head_that_stays():
    ranks = 4
    work = synth.fsdp(**SMALL, ranks=ranks, gradient_bytes=4)
    found = collectives(work, 0)
    gathered = found[found["type"] == "ALL_GATHER"]
    scattered = found[found["type"] == "REDUCE_SCATTER"]
    h, s, v = (SMALL[k] for k in ("hidden", "sequence", "vocabulary"))
    layer, embedding, head = 12 * h * h + 13 * h, (v + s) * h, v * h + 2 * h
    total = embedding + SMALL["layers"] * layer + head
    assert gathered["size_B"].sum() * ranks == 2 * (2 * total - head)
    assert scattered["size_B"].sum() == 4 * total
    optimizer = nodes_named(work, 0, "step.optimizer").iloc[0]
    assert optimizer["flops"] == 14 * total // ranks


def test_fsdp_rounds_the_shards_of_odd_parameters_up():
    ranks = 7
    found = collectives(synth.fsdp(**SMALL, ranks=ranks), 0)
    layer = 12 * SMALL["hidden"] ** 2 + 13 * SMALL["hidden"]
    shard = -(-layer // ranks)
    sizes = found.set_index("name")["size_B"]
    assert sizes["fwd.layer1.all_gather"] == 2 * shard
    assert sizes["step.layer1.grad_reduce_scatter"] == 2 * shard * ranks


def test_fsdp_gathers_one_layer_ahead_and_no_more():
    program = synth.fsdp(**SMALL, ranks=4).roles[0].steps.nodes
    name = [step.name for step in program]

    def waits(gather: str) -> set[str]:
        return {name[p] for p in program[name.index(gather)].after}

    assert waits("fwd.embedding.all_gather") == waits("fwd.layer0.all_gather") == set()
    assert waits("fwd.layer2.all_gather") == {"fwd.layer0.mlp.down"}
    assert waits("bwd.layer1.all_gather") == {"bwd.layer3.attention.norm"}
    first = program[name.index("fwd.layer2.attention.norm")]
    assert "fwd.layer2.all_gather" in {name[p] for p in first.after}


def test_moe_exchanges_capacity_tokens_four_times_per_layer():
    work = synth.moe(
        **SMALL, experts=8, ranks=4, top_k=2, capacity_factor=1.25, batch=3, moe_every=2
    )
    found = collectives(work, 0)
    exchange = found[found["type"] == "ALL_TO_ALL"]
    capacity = 30  # 2 of 96 tokens' copies x 1.25 over 8 experts
    assert len(exchange) == 4 * SMALL["layers"] / 2
    assert (exchange["size_B"] == capacity * 8 * SMALL["hidden"] * 2).all()
    assert exchange["name"].str.contains("layer1|layer3").all()
    up = nodes_named(work, 0, "fwd.layer1.moe.experts.up").iloc[0]
    h = SMALL["hidden"]
    assert up["flops"] == 2 * capacity * 8 * h * 4 * h
    assert up["bytes_B"] == 2 * (capacity * 8 * h + 2 * h * 4 * h + capacity * 8 * 4 * h)


def test_moe_reduces_experts_over_those_who_share_them_and_the_rest_over_everyone():
    work = synth.moe(**SMALL, experts=4, ranks=6, expert_parallel=2)
    graph = work.graph()
    found = collectives(work, 1, "step.")
    members = {
        name: graph.groups[graph.group_names.index(group)]
        for name, group in zip(found["name"], found["group"])
    }
    assert members["step.layer0.experts.grad_all_reduce"] == (1, 3, 5)
    assert members["step.layer0.grad_all_reduce"] == tuple(range(6))
    h = SMALL["hidden"]
    sizes = found.set_index("name")["size_B"]
    assert sizes["step.layer0.experts.grad_all_reduce"] == 2 * 2 * (8 * h * h + 5 * h)
    # 4 h^2 + 6 h of attention and its norm, 2 h of the experts' norm, 4 h of the router
    assert sizes["step.layer0.grad_all_reduce"] == 2 * (4 * h * h + 6 * h + 2 * h + 4 * h)
    alone = collectives(synth.moe(**SMALL, experts=4, ranks=4), 0, "step.")
    assert not alone["name"].str.contains("experts").any()


def test_moe_whose_experts_take_every_token_once_works_as_hard_as_the_dense_model():
    # top-1 of as many experts as ranks, and no router: the same products on the same number of tokens
    dense = synth.gpt(**SMALL, data=4)
    sparse = synth.moe(**SMALL, experts=4, ranks=4, top_k=1)
    tokens = 4 * SMALL["sequence"]
    router = 3 * 2 * tokens * SMALL["hidden"] * 4 * SMALL["layers"]
    names = sparse.graph().nodes["name"]
    assert names.str.endswith("moe.router").sum() == 4 * SMALL["layers"]
    forward_router = router // 3
    assert product_flops(sparse) - (router - forward_router) == product_flops(dense)


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
