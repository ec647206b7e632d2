"""Training steps as graphs: what is communicated, what overlaps, and what every kernel does."""

import time
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel import synth
from perfmodel.synth.model_states import stage_held
from perfmodel.synth.presets import preset
from perfmodel.vocabulary import OPERATIONS
from tests.synth.steps_by_name import (
    GPT,
    LLAMA,
    MIXTURE,
    before,
    collectives,
    nodes,
    program,
)


def test_tensor_parallelism_reduces_four_times_a_layer_and_micro_batch():
    found = collectives(synth.training(GPT, tensor=2, micro_batches=3, micro_batch=2), 0, "tensor")
    layers = found[found.index.str.contains("layer")]
    assert list(layers["type"].unique()) == ["ALL_REDUCE"]
    assert len(layers) == 4 * 3 * 4
    assert (layers["size_B"] == 2 * 2 * 32 * 64).all()


def test_sequence_parallelism_moves_the_same_bytes_and_gathers_inputs_once_more():
    plain = collectives(synth.training(GPT, tensor=4), 0, "tensor")
    split = collectives(synth.training(GPT, tensor=4, sequence_parallel=True), 0, "tensor")
    plain, split = (t[t.index.str.contains("layer")] for t in (plain, split))
    scattered = split[split["type"] == "REDUCE_SCATTER"]
    gathered = split[split["type"] == "ALL_GATHER"]
    again = gathered.index.str.contains(r"\.input\.")
    assert len(scattered) == len(plain) == 16
    assert scattered["size_B"].sum() == plain["size_B"].sum()
    assert 4 * gathered.loc[~again, "size_B"].sum() == plain["size_B"].sum()
    assert again.sum() == 2 * 4


def test_gradients_are_reduced_once_after_the_last_micro_batch_behind_the_backward_pass():
    work = synth.training(GPT, data=2, tensor=2, pipeline=2, micro_batches=3, bucket=1)
    for rank, stage in ((0, 0), (work.ranks - 1, 1)):
        found = collectives(work, rank, "data")
        assert found["size_B"].sum() == 4 * stage_held(work.settings, stage).dense
        assert found.index.str.startswith("mb2.bwd").all()
    name = "mb2.bwd.layer1.dense.gradient.all_reduce"
    assert "mb2.bwd.layer1.attention.qkv.weight_gradient" in before(work, name)
    assert name not in before(work, "mb2.bwd.layer0.attention.qkv.weight_gradient")
    assert name in before(work, "step.optimizer")


def test_buckets_fill_up_in_the_order_of_the_backward_pass():
    layer = 12 * 64 * 64 + 13 * 64
    work = synth.training(GPT, data=2, bucket=2 * layer)
    found = collectives(work, 0, "data")
    assert [name.split(".")[2] for name in found.index] == ["layer2", "layer0", "embedding"]
    assert found["size_B"].tolist() == [4 * (2 * layer + 2 * 64), 8 * layer, 4 * (96 + 32) * 64]


def test_without_overlap_gradients_wait_for_the_whole_backward_pass():
    work = synth.training(GPT, data=2, overlap=False)
    name = "step.dense.all_reduce"
    assert "mb0.bwd.embedding.lookup.gradient" in before(work, name)
    assert collectives(work, 0, "data").index.tolist() == [name]


def test_sharded_optimizers_gather_parameters_before_their_first_use():
    work = synth.training(GPT, data=2, sharding=1, bucket=1, micro_batches=2)
    found = collectives(work)
    gathered = found[found["type"] == "ALL_GATHER"]
    total = work.parameters
    assert 2 * gathered["size_B"].sum() == 2 * total
    assert found.loc[found["type"] == "REDUCE_SCATTER", "size_B"].sum() == 4 * total
    names, waits = program(work)
    assert names[0].startswith("step.embedding")  # the order of first use
    first = names.index("mb0.fwd.layer2.attention.norm")
    assert "step.layer2.dense.all_gather" in [names[p] for p in waits[first]]
    second = names.index("mb1.fwd.layer2.attention.norm")
    assert "step.layer2.dense.all_gather" not in [names[p] for p in waits[second]]


def test_fsdp_gathers_twice_and_scatters_once_but_for_the_head_that_stays():
    work = synth.training(GPT | {"tied": False}, data=4, sharding=3)
    found = collectives(work)
    gathered = found[found["type"] == "ALL_GATHER"]["size_B"].sum()
    head = 96 * 64 + 2 * 64
    assert 4 * gathered == 2 * (2 * work.parameters - head)
    assert found[found["type"] == "REDUCE_SCATTER"]["size_B"].sum() == 4 * work.parameters
    assert nodes(work).loc["step.optimizer", "flops"] == 14 * work.parameters / 4


def test_fsdp_gathers_one_layer_ahead_and_no_more():
    names, waits = program(synth.training(GPT, data=4, sharding=3))

    def waits_of(name: str) -> list[str]:
        return [names[p] for p in waits[names.index(name)]]

    assert waits_of("mb0.fwd.embedding.dense.all_gather") == []
    assert waits_of("mb0.fwd.layer2.dense.all_gather") == ["mb0.fwd.layer0.mlp.residual"]
    assert waits_of("mb0.bwd.layer1.dense.all_gather") == ["mb0.bwd.layer3.attention.norm.gradient"]
    assert "mb0.fwd.layer2.dense.all_gather" in waits_of("mb0.fwd.layer2.attention.norm")


def test_hybrid_sharding_sums_shards_over_the_groups():
    work = synth.training(GPT, data=8, sharding="hybrid", shard_ranks=4)
    found = collectives(work)
    assert {
        work.graph().groups[work.graph().group_names.index(g)] for g in found["group"] if g
    } >= {
        (0, 1, 2, 3),
        (0, 4),
    }
    over = found[found["resource"] == "replica"]
    scattered = found[found["type"] == "REDUCE_SCATTER"]
    assert 4 * over["size_B"].sum() == scattered["size_B"].sum()


def test_hybrid_sharding_splits_experts_within_shard_groups_too():
    """8 ranks in shard groups of 4: an expert that lies on every 2nd rank is split over 2 and summed over 2 more."""
    given = {"data": 8, "expert": 2, "sharding": "hybrid", "shard_ranks": 4}
    work = synth.training(MIXTURE, **given)
    graph, found = work.graph(), collectives(work)

    def of(word: str) -> pd.DataFrame:
        return found[found.index.str.contains(word)]

    def members(rows: pd.DataFrame) -> set[tuple[int, ...]]:
        return {graph.groups[graph.group_names.index(g)] for g in rows["group"]}

    gathered, scattered = of("experts.all_gather"), of("experts.gradient.reduce_scatter")
    summed = of("experts.gradient.all_reduce")
    assert members(gathered) == members(scattered) == {(0, 2)}
    assert members(summed) == {(0, 4)}
    assert 2 * summed["size_B"].sum() == scattered["size_B"].sum() > 0
    assert work.settings.expert_shards == 2
    more = synth.training(MIXTURE, **{**given, "data": 32})
    assert more.memory["weights_B"].iloc[0] == work.memory["weights_B"].iloc[0]


def test_experts_that_lie_on_more_ranks_than_a_shard_group_are_summed_over_the_groups_whole():
    work = synth.training(MIXTURE, data=8, expert=4, sharding="hybrid", shard_ranks=2)
    names = collectives(work).index
    assert work.settings.expert_shards == 1
    assert not names.str.contains("experts.gradient.reduce_scatter").any()
    assert names.str.contains("experts.gradient.all_reduce").any()


def test_tied_embeddings_are_summed_over_both_ends_of_the_pipeline_only():
    work = synth.training(GPT, data=2, tensor=2, pipeline=4, micro_batches=4)
    table = work.graph().nodes
    tied = table[table["name"] == "step.tied.all_reduce"]
    assert sorted(tied["rank"]) == [0, 1, 2, 3, 12, 13, 14, 15]
    assert (tied["size_B"] == 4 * 96 // 2 * 64).all()
    assert "step.tied.all_reduce" not in set(
        synth.training(LLAMA, pipeline=4, micro_batches=4).graph().nodes["name"]
    )


def test_a_stage_sends_every_micro_batch_on_and_its_gradient_back():
    work = synth.training(GPT, tensor=2, pipeline=4, micro_batches=3, sequence_parallel=True)
    middle = nodes(work, 2)
    messages = middle[middle["type"].isin(["COMM_SEND", "COMM_RECV"])]
    assert (messages["size_B"] == 2 * 32 * 64 // 2).all()
    count = messages.groupby(["type", "peer"]).size().to_dict()
    assert count == {(kind, peer): 3 for kind in ("COMM_SEND", "COMM_RECV") for peer in (0, 4)}


def test_interleaved_chunks_wrap_around_the_pipeline():
    work = synth.training(GPT, pipeline=2, virtual=2, micro_batches=2)
    last = nodes(work, 1)
    sends = last[last["type"] == "COMM_SEND"]
    # chunk 0 of the last stage feeds chunk 1 of the first; its last chunk ends the pipeline
    assert (sends["peer"] == 0).all()
    assert len(sends[sends.index.str.contains("fwd")]) == 2
    assert len(sends[sends.index.str.contains("bwd")]) == 4


def test_experts_exchange_tokens_four_times_a_layer():
    work = synth.training(MIXTURE, data=4, expert=4, capacity=1.25, micro_batch=3)
    found = collectives(work, 0, "expert")
    rows = 8 * 30  # 2 of 96 tokens' copies x 1.25 over 8 experts
    assert len(found) == 4 * 4
    assert (found["type"] == "ALL_TO_ALL").all()
    assert (found["size_B"] == 2 * rows * 64).all()
    up = nodes(work).loc["mb0.fwd.layer1.moe.experts.up"]
    assert up["flops"] == 2 * rows * 64 * 2 * 48


def test_experts_are_reduced_over_those_who_share_them_and_the_rest_over_everyone():
    work = synth.training(MIXTURE, data=8, expert=4, bucket=1)
    graph, found = work.graph(), collectives(work, 1, "data")
    members = {
        name: graph.groups[graph.group_names.index(group) if group else 0]
        for name, group in zip(found.index, found["group"])
    }
    assert members["mb0.bwd.layer0.experts.gradient.all_reduce"] == (1, 5)
    assert members["mb0.bwd.layer0.dense.gradient.all_reduce"] == tuple(range(8))
    sizes = found["size_B"]
    assert sizes["mb0.bwd.layer0.experts.gradient.all_reduce"] == 4 * 2 * 3 * 64 * 48


def test_expert_tensor_parallelism_gathers_rows_and_scatters_results():
    work = synth.training(
        MIXTURE, data=2, tensor=2, expert=2, expert_tensor=2, sequence_parallel=True
    )
    found = collectives(work, 0, "expert_tensor")
    assert len(found) == 4 * 4
    rows = 32 // 2 * 2
    gathered = found[found["type"] == "ALL_GATHER"]
    assert (gathered["size_B"] == 2 * 64 * rows).all()
    assert (found[found["type"] == "REDUCE_SCATTER"]["size_B"] == 2 * 64 * rows * 2).all()


def test_uneven_loads_make_ranks_with_more_work():
    even = synth.training(MIXTURE, data=4, expert=4)
    skewed = synth.training(MIXTURE, data=4, expert=4, skew=1.0)
    assert len(even.graph().programs) == 1
    work = [nodes(skewed, r).loc["mb0.fwd.layer0.moe.experts.up", "flops"] for r in range(4)]
    assert work == sorted(work, reverse=True)
    alike = nodes(even).loc["mb0.fwd.layer0.moe.experts.up", "flops"]
    assert sum(work) == pytest.approx(4 * alike, rel=0.05)


def test_context_parallelism_passes_keys_and_values_on_beside_attention():
    work = synth.training(LLAMA, context=4)
    found = collectives(work, 0, "context")
    shard = 2 * 8 * 4 * 2 * 16  # e T k 2 d
    assert found[found["type"] == "ALL_GATHER"]["size_B"].eq(shard).all()
    assert found[found["type"] == "REDUCE_SCATTER"]["size_B"].eq(4 * shard).all()
    names, waits = program(work)
    ring = names.index("mb0.fwd.layer0.attention.ring.core")
    rest = names.index("mb0.fwd.layer0.attention.core")
    gather = names.index("mb0.fwd.layer0.attention.core.all_gather")
    assert gather not in waits[ring]
    assert gather in waits[rest]
    table = nodes(work)
    parts = table.loc[[names[ring], names[rest]], "flops"]
    whole = nodes(synth.training(LLAMA)).loc["mb0.fwd.layer0.attention.core", "flops"]
    assert parts.iloc[0] == 3 * parts.iloc[1]
    assert parts.sum() == whole / 4


def test_tensor_overlap_splits_products_and_keeps_their_work():
    base = {"tensor": 4, "sequence_parallel": True}
    plain = nodes(synth.training(LLAMA, **base))
    split = nodes(synth.training(LLAMA, **base, overlap=True))
    computed = plain["type"] == "COMP"
    assert plain.loc[computed, "flops"].sum() == split.loc[split["type"] == "COMP", "flops"].sum()
    up = [f"mb0.fwd.layer0.mlp.{part}up" for part in ("ring.", "")]
    assert split.loc[up, "flops"].tolist() == [
        plain.loc[up[1], "flops"] * 3 // 4,
        plain.loc[up[1], "flops"] // 4,
    ]


V = ["zero-bubble-v", "dualpipe-v"]


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_the_sum_of_an_inputs_gradient_runs_beside_the_weights_where_it_may(sequence_parallel):
    base = {"tensor": 4, "sequence_parallel": sequence_parallel}
    sum_, weights = "reduce_scatter" if sequence_parallel else "all_reduce", "up.weight_gradient"
    head = "mb0.bwd.layer0.mlp."
    usual, alone = (synth.training(LLAMA, **base, **more) for more in ({}, {"overlap": False}))
    assert head + weights not in before(usual, f"{head}backward.{sum_}")
    assert head + weights in before(alone, f"{head}backward.{sum_}")
    following = "mb0.bwd.layer0.attention.residual.gradient"
    assert all(f"{head}backward.{sum_}" in before(work, following) for work in (usual, alone))
    if sequence_parallel:
        gather, product = head + "input.all_gather", head + "up.input_gradient"
        assert gather not in before(usual, product)
        assert gather in before(alone, product)


def test_kernels_keep_their_order_and_every_wait_points_back():
    for work in (
        synth.training(MIXTURE, data=4, expert=2, pipeline=2, micro_batches=4),
        synth.training(GPT, pipeline=4, schedule="zero-bubble", micro_batches=6),
        synth.training(LLAMA, data=2, sharding=3, micro_batches=2, recompute=2),
    ):
        for role in work.roles:
            c, last = role.columns, None
            for k in range(len(c)):
                waits = c.pred[c.pred_ptr[k] : c.pred_ptr[k + 1]]
                assert (np.diff(waits) > 0).all()
                assert (waits < k).all()
                if c.resources[c.resource[k]] == "compute" and c.resource[k] >= 0:
                    assert last is None or last in waits
                    last = k


def test_a_pass_of_dualpipe_computes_while_the_experts_of_the_one_beside_it_communicate():
    """Both begin after the pass before them, the next waits for both; the same work as without, less of it exposed."""
    spread = {"data": 4, "expert": 4, "pipeline": 2, "virtual": 2, "micro_batches": 12}
    sizes = {**MIXTURE, "hidden": 1024, "inner": 2048, "expert_inner": 2048, "sequence": 1024}
    exposed = {}
    for schedule in V:
        graph = synth.training(sizes, **spread, schedule=schedule).graph()
        p = pm.predict(graph, pm.hardware("dgx-h100", ranks=8), pm.Models())
        table = pm.breakdown(p)
        exposed[schedule] = table.exposed_communication_s + table.waiting_s
        assert table.total_compute_s.tolist() == pytest.approx([table.total_compute_s[0]] * 8, 0.2)
    assert (exposed["dualpipe-v"] < 0.75 * exposed["zero-bubble-v"]).all()

    c = synth.training(sizes, **spread, schedule="dualpipe-v").roles[0].columns
    kernels = [k for k, name in enumerate(c.names) if c.resources[c.resource[k]] == "compute"]
    first, last = {}, {}
    for k in kernels:
        head = ".".join(c.names[k].split(".")[:2])
        first.setdefault(head, k)
        last[head] = k

    def before(head: str) -> set[int]:
        k = first[head]
        return set(c.pred[c.pred_ptr[k] : c.pred_ptr[k + 1]].tolist())

    # rank 0: ... F1b, F3a beside B1b, F2b beside B0a, ...
    assert last["mb1.fwd1"] in before("mb3.fwd0") & before("mb1.bwd1")
    assert last["mb3.fwd0"] not in before("mb1.bwd1")
    assert {last["mb3.fwd0"], last["mb1.bwd1"]} <= before("mb2.fwd1")


@st.composite
def steps(draw) -> synth.Workload:
    """Any small model spread in any way that fits."""
    tensor, pipeline = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2, 4]))
    schedule = draw(
        st.sampled_from(["gpipe", "1f1b", "zero-bubble", *(V if pipeline == 2 else [])])
    )
    chunks = schedule in V or (pipeline == 2 and schedule == "1f1b" and draw(st.booleans()))
    virtual = 2 if chunks else 1
    context = draw(st.sampled_from([1, 2]))
    model = draw(st.sampled_from([GPT, LLAMA, MIXTURE]))
    expert = draw(st.sampled_from([1, 2])) if model is MIXTURE else 1
    data = expert * draw(st.integers(1, 2))
    return synth.training(
        model,
        data=data,
        tensor=tensor,
        pipeline=pipeline,
        context=context,
        expert=expert,
        virtual=virtual,
        schedule=schedule,
        micro_batches=pipeline * (2 if schedule in V else draw(st.integers(1, 2))),
        sequence_parallel=draw(st.booleans()),
        recompute=draw(st.sampled_from(["none", "selective", "full", 1])),
        sharding=draw(st.sampled_from([0, 1, 2, 3])),
        overlap=draw(st.booleans()),
        attention="flash",
        skew=draw(st.sampled_from([0.0, 0.7])) if expert > 1 else 0.0,
    )


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(work=steps())
def test_any_step_that_fits_together_runs_to_its_end(work):
    graph = work.graph()
    assert graph.ranks == work.ranks
    assert len(graph) == work.nodes
    p = pm.predict(graph, pm.hardware("dgx-h100", ranks=graph.ranks), pm.Models())
    assert np.isfinite(p.makespan)
    for labels in graph.labels:
        assert len(set(labels.names)) == len(labels.names)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(work=steps().filter(lambda work: not work.settings.skew))
def test_products_and_attention_of_all_ranks_are_the_models_however_it_is_spread(work):
    """Attention's fused backward pass computes the scores again: 5 products where the model's operations count 4."""
    total = 0.0
    for role in work.roles:
        c = role.columns
        counted = np.isin(c.kind, [OPERATIONS.index("gemm"), OPERATIONS.index("attention")])
        again = np.array([name.endswith("core.gradient") for name in c.names])
        total += len(role.ranks) * (c.flops * counted * np.where(again, 4 / 5, 1.0)).sum()
    assert total == pytest.approx(work.hardware_flops, rel=1e-6)


def test_a_thousand_ranks_of_a_96_layer_model_become_a_graph_in_three_seconds():
    start = time.process_time()
    graph = synth.training(
        "gpt-3-175b", data=16, tensor=8, pipeline=8, micro_batches=16, sequence_parallel=True
    ).graph()
    assert graph.ranks == 1024
    assert len(graph.programs) == 8
    assert time.process_time() - start < 3


def test_a_job_too_large_for_memory_is_refused_at_once_with_its_size():
    start = time.process_time()
    with pytest.raises(pm.InputError, match=r"3,276,800 micro-batches .*GB.* extrapolate"):
        synth.training("llama-3-8b", data=64, pipeline=8, micro_batches=3_276_800).graph()
    assert time.process_time() - start < 3


@pytest.mark.parametrize(("recompute", "forward"), [("none", 3), ("full", 5)])
def test_a_host_that_is_slower_than_its_kernels_launches_layers_head_and_what_is_computed_again(
    recompute, forward
):
    sizes = {"layers": 2, "hidden": 64, "heads": 2, "vocabulary": 128}
    work = synth.training(
        sizes, sequence=32, gap=0.0, host_forward=0.5, host_backward=0.25, recompute=recompute
    )
    step = pm.predict(work.graph(), pm.hardware("dgx-h100", ranks=1), pm.Models())
    assert step.makespan == pytest.approx(0.5 * forward + 0.25 * 3, rel=1e-3)


def test_kernels_that_are_faster_than_the_host_start_one_launch_after_the_other():
    sizes = {"layers": 2, "hidden": 64, "heads": 2, "vocabulary": 128}
    work = synth.training(sizes, sequence=32, gap=0.0, host_kernel=1.0)
    table = pm.timeline(pm.predict(work.graph(), pm.hardware("dgx-h100", ranks=1), pm.Models()))
    of_layers = table.name.str.match(r"mb0\.fwd\.layer.*(?<!launch)$")
    starts = table.start_s[of_layers].sort_values().to_numpy()
    assert starts == pytest.approx(np.arange(1, len(starts) + 1), rel=1e-3)


@pytest.mark.parametrize(("waits", "launching"), [("never", 1.0), ("pass", 2.0), ("layer", 3.0)])
def test_a_host_that_waits_is_not_ahead_while_the_head_runs(waits, launching):
    """The head takes seconds, layers nothing but 0.5 s to launch them forward and 0.25 s back, 2 micro-batches.

    Only the first 2 layers are waited for by a host that never waits; those of both forward passes where it waits
    before each pass; those of the backward passes, too, where it waits before each layer.
    """
    sizes = {"layers": 2, "hidden": 64, "heads": 2, "vocabulary": 128_000}
    slow, _ = pm.with_parameters(
        pm.hardware("dgx-h100", ranks=1), pm.Models(), {"npu.peak_flops": 3e8}
    )

    def takes(**host: Any) -> float:
        work = synth.training(sizes, sequence=32, gap=0.0, micro_batches=2, **host)
        return pm.predict(work.graph(), slow, pm.Models()).makespan

    waited = takes(host_forward=0.5, host_backward=0.25, host_waits=waits) - takes()
    assert waited == pytest.approx(launching, abs=0.3)


WRONG = [
    ({"tensor": 3}, "tensor: got 3, expected a divisor of the model's heads = 32. 2 and 4 fit"),
    ({"tensor": 64}, "tensor: got 64, expected a divisor of the model's heads = 32. 32 fits"),
    ({"global_batch": 3, "data": 2}, "global_batch: got 3, .*2 and 4 fit"),
    ({"pipeline": 64}, "got 64 chunks for 32 layers"),
    ({"expert": 2}, "llama-3-8b has no experts"),
    ({"recompute": "some"}, "expected one of none, selective, full"),
    ({"recompute": ["heads"]}, "expected one of attention"),
    ({"sharding": 4}, "sharding: got 4"),
    ({"overlap": "everything"}, "expected one of gradients"),
    ({"offload": "weights"}, "expected one of optimizer"),
    ({"offload": 0.5}, "offload: got 0.5, expected names"),
    ({"recompute": 0.5}, "recompute: got 0.5, expected names"),
    ({"context": 2, "attention": "unfused"}, "'unfused' with context"),
    ({"sequence": 1023, "context": 2}, "sequence: got 1023"),
    ({"dtype": "int4"}, "dtype: got 'int4'"),
    ({"host_waits": "always"}, "host_waits: got 'always', expected one of never, pass, layer"),
    ({"recompute": ["alternate"], "attention": "unfused"}, "'alternate' with attention='unfused'"),
    (
        {"context": 8, "tensor": 8, "context_method": "all_to_all"},
        "context: got 8, expected a divisor of the model's heads_of_a_rank = 4",
    ),
    ({"gradient_dtype": "fp4"}, "gradient_dtype: got 'fp4'"),
    ({"optimizer_bytes": -3}, "optimizer_bytes: got -3"),
    ({"optimizer_bytes": 0, "sharding": 3}, "optimizer_bytes: got 0, expected at least 4"),
    ({"reserved": "1GiB"}, "reserved: got '1GiB', expected a number"),
    ({"dropout": "no"}, "dropout: got 'no', expected True or False"),
    ({"gap": -1.0}, "gap: got -1.0"),
    ({"micro_batches": 0}, "micro_batches: got 0"),
    ({"first_stage_layers": 40, "pipeline": 2, "micro_batches": 2}, "chunks"),
]


def test_a_sequence_longer_than_the_learned_positions_has_a_position_for_each_token():
    """Narayanan et al. (2104.04473) count a row of positions for each token of the sequence: (V + s) h."""
    weights = [
        pm.memory(pm.predict(work.graph(), pm.hardware("dgx-h100", ranks=1)))["weights_B"].iloc[0]
        for work in (synth.training("gpt-3-1.3b", sequence=s) for s in (1024, 2048, 4096))
    ]
    assert weights[0] == weights[1]
    assert weights[2] - weights[1] == 2048 * preset("gpt-3-1.3b").hidden * 2


def test_what_is_not_known_of_a_model_is_refused_and_not_counted_wrong():
    with pytest.raises(pm.InputError, match=r"'alternate'.* latent attention"):
        synth.training("deepseek-v3", recompute=["alternate"])
    with pytest.raises(pm.InputError, match=r"shard_ranks: got 6 .* expert x expert_tensor = 4"):
        synth.training(MIXTURE, data=24, expert=4, sharding="hybrid", shard_ranks=6)


@pytest.mark.parametrize(("given", "message"), WRONG, ids=lambda x: str(x)[:30])
def test_settings_that_do_not_fit_are_named_with_what_would(given, message):
    with pytest.raises(pm.InputError, match=message):
        synth.training("llama-3-8b", **given)
