"""Memory of training steps against Korthikanti et al. 2022 (arXiv:2205.05198), figures 1 and 7, and by hand."""

import dataclasses

import pytest

import perfmodel as pm
from perfmodel.machine.system import RemoteMemory
from perfmodel.synth.memory import (
    chunk_activations,
    chunk_owed,
    kept,
    layer_activations,
    layer_owed,
)
from perfmodel.synth.model_states import stage_held, state_bytes

GIB = 2**30

FIGURE_1 = [
    # model, data of the run, GiB of parameters and optimizer, activations, activations with both techniques
    ("megatron-22b", {"micro_batch": 4}, 45.56, 59.25, 9.56),
    ("megatron-175b", {"pipeline": 8, "virtual": 3, "micro_batches": 64}, 45.56, 66.84, 12.35),
    ("megatron-530b", {"pipeline": 35, "virtual": 3, "micro_batches": 280}, 31.64, 114.02, 23.08),
    ("megatron-1t", {"pipeline": 64, "micro_batches": 512}, 32.96, 131.25, 26.56),
]
BOTH = {"sequence_parallel": True, "recompute": "selective"}


@pytest.mark.parametrize(("model", "spread", "states", "plain", "both"), FIGURE_1)
def test_korthikanti_figure_1(model, spread, states, plain, both):
    first = pm.synth.training(model, tensor=8, **spread)
    assert first.memory["activations_B"].max() / GIB == pytest.approx(plain, rel=0.005)
    small = pm.synth.training(model, tensor=8, **spread, **BOTH)
    assert small.memory["activations_B"].max() / GIB == pytest.approx(both, rel=0.005)
    # the figure counts the layers' weights, 12 L h^2, in equal parts
    s = first.settings
    weights = sum(s.model.layer_products(n) for n in range(s.model.layers))
    found = weights * sum(state_bytes(s, 1)) / (s.tensor * s.pipeline)
    assert found / GIB == pytest.approx(states, rel=0.005)


@pytest.mark.parametrize(
    ("model", "shares"),
    [
        ("megatron-22b", (66.84, 49.42, 16.18, 7.64)),
        ("megatron-175b", (62.04, 56.53, 18.49, 8.71)),
        ("megatron-530b", (58.31, 62.04, 20.27, 9.42)),
        ("megatron-1t", (58.31, 62.04, 20.27, 9.42)),
    ],
)
def test_korthikanti_figure_7_activations_in_per_cent_of_those_without_either_technique(
    model, shares
):
    def layer(**settings) -> float:
        return layer_activations(pm.synth.training(model, tensor=8, **settings).settings, 0)

    sequence = {"sequence_parallel": True}
    found = [layer(**sequence), layer(recompute="selective"), layer(**BOTH)]
    full = pm.synth.training(model, tensor=8, recompute="full").settings
    found.append(layer_activations(full, 0, whole=True))
    assert [100 * x / layer() for x in found] == pytest.approx(shares, rel=0.012)  # read off a plot


def test_a_layer_of_llama_3_70b_keeps_33_5_h_bytes_a_token():
    s = pm.synth.training("llama-3-70b").settings
    each = layer_activations(s, 0) / s.tokens
    a, k, d, f, h = 64, 8, 128, 28_672, 8192
    assert each == 8 * h + 4 * a * d + 4 * k * d + 6 * f + 4 * a
    assert each / h == pytest.approx(33.5, abs=0.05)


def test_states_take_the_bytes_a_parameter_of_each_recipe():
    def total(**settings) -> float:
        work = pm.synth.training("llama-3-8b", data=4, **settings)
        return work.memory[["weights_B", "gradients_B", "optimizer_B"]].sum(axis=1)[0] / (
            work.parameters
        )

    assert total() == 18
    assert total(sharding=1) == pytest.approx(6 + 12 / 4, rel=1e-6)
    assert total(distributed_optimizer=True, gradient_dtype="bf16") == pytest.approx(7, rel=1e-6)
    assert total(sharding=2, gradient_dtype="bf16") == pytest.approx(2 + 14 / 4, rel=1e-6)
    assert total(sharding=3) == pytest.approx(16 / 4, rel=1e-6)
    assert total(dtype="fp32") == 16
    assert total(dtype="fp16", gradient_dtype="fp16") == 20
    assert total(dtype="fp8", gather_dtype="fp8", gradient_dtype="bf16") == 16


def test_seventy_billion_parameters_and_their_optimizer_do_not_fit_eight_gpus_but_sixty_four():
    few = pm.synth.training("llama-3-70b", tensor=8, sequence_parallel=True).memory
    assert few["total_B"].min() > 80e9
    many = pm.synth.training(
        "llama-3-70b",
        tensor=8,
        pipeline=4,
        data=2,
        micro_batches=8,
        sequence_parallel=True,
        sharding=1,
    ).memory
    assert many["total_B"].max() < 80e9


def test_stages_hold_all_parameters_once():
    for settings in (
        {"pipeline": 5},
        {"tensor": 4, "pipeline": 2},
        {"pipeline": 4, "virtual": 2, "micro_batches": 4},
    ):
        s = pm.synth.training("llama-3-8b", **settings).settings
        held = [stage_held(s, r).dense for r in range(s.pipeline)]
        copies = s.tensor - 1  # norms are whole on every tensor-parallel rank
        assert sum(held) * s.tensor == s.model.parameters + copies * (32 * 2 + 1) * 4096


def test_ranks_that_share_a_head_of_keys_and_values_hold_it_each():
    """Llama 3 8B has 8: on 16 tensor ranks each holds one of 2 x 128 x 4096 weights, twice its part."""
    eight, sixteen = (pm.synth.training("llama-3-8b", tensor=t).settings for t in (8, 16))
    norms = 65 * 4096
    split = stage_held(eight, 0).dense - norms
    more = 32 * 2 * 128 * 4096 // 2
    assert stage_held(sixteen, 0).dense - norms == split // 2 + more


def test_layers_that_do_not_divide_are_short_at_the_ends():
    def counts(**settings) -> list[int]:
        s = pm.synth.training("llama-3.1-405b", **settings).settings
        return [len(layers) for layers in s.layers_of_places]

    many = counts(pipeline=8, virtual=8, micro_batches=8)
    assert many == [1] + [2] * 62 + [1]
    assert counts(pipeline=4) == [31, 32, 32, 31]
    assert counts(pipeline=4, first_stage_layers=20, last_stage_layers=26) == [20, 40, 40, 26]


def test_memory_grows_with_what_is_kept_and_shrinks_with_what_is_computed_again():
    base = {"tensor": 2, "pipeline": 2, "micro_batches": 4, "sequence": 4096}
    whole = pm.synth.training("llama-3-8b", **base).memory["activations_B"]
    again = pm.synth.training("llama-3-8b", **base, recompute="full").memory["activations_B"]
    some = pm.synth.training("llama-3-8b", **base, recompute=8).memory["activations_B"]
    assert (again < some).all()
    assert (some < whole).all()
    half = pm.synth.training("llama-3-8b", **base, offload={"activations": 0.5})
    assert half.memory["activations_B"].tolist() == pytest.approx((whole / 2).tolist())


def test_offload_takes_the_way_to_remote_memory_and_is_said_where_there_is_none(tmp_path):
    """14 GB of states a GPU over a link of 50 GB/s come and go beside nothing: at least twice 0.28 s."""
    graph = pm.synth.training("llama-3-8b", tensor=8, offload="optimizer").graph()
    with pytest.warns(
        UserWarning, match=r"\(offload\), which dgx-h100 does not have: it moves as fast"
    ):
        without = pm.predict(graph, pm.hardware("dgx-h100", ranks=8)).makespan
    system = pm.hardware("dgx-h100", ranks=8)
    link = RemoteMemory(bandwidth=50e9, latency=1e-6)
    there = pm.predict(graph, dataclasses.replace(system, remote_memory=link)).makespan
    states = 12 * 8.03e9 / 8
    assert there - without == pytest.approx(2 * states * (1 / 50e9 - 1 / 3.35e12), rel=0.02)


def test_earlier_stages_keep_more_micro_batches():
    s = pm.synth.training("llama-3-8b", pipeline=4, micro_batches=8)
    kept = s.memory["activations_B"].to_numpy()
    each = chunk_activations(s.settings, 0)
    assert (kept / each).round(6).tolist() == [4, 3, 2, 1]


def test_the_curve_of_a_rank_reaches_from_the_beginning_of_the_step_to_its_end():
    work = pm.synth.training("gpt-3-125m", sequence=512, micro_batches=2)
    step = pm.predict(work.graph(), pm.hardware("dgx-h100", ranks=1))
    curve = pm.memory(step, 0)
    assert curve.time_s.iloc[0] == 0
    assert curve.time_s.iloc[-1] == step.makespan
    assert curve.activations_B.iloc[-1] == curve.activations_B.iloc[-2] == 0
    assert curve.time_s.iloc[-2] < 0.99 * step.makespan  # clipping and the optimizer


def test_what_weights_gradients_need_stays_until_they_are_there():
    """Of a GPT 32 T h (Qi et al. 2023): inputs of products, 14 T h, and their results' gradients, 18 T h."""
    s = pm.synth.training("gpt-3-13b", sequence=2048, attention="flash").settings
    assert layer_owed(s, 0) == 32 * 2048 * 5120
    spread = pm.synth.training("gpt-3-13b", tensor=4, sequence_parallel=True).settings
    assert layer_owed(spread, 0) == 8 * 2048 * 5120
    llama = pm.synth.training("llama-3-8b", sequence=4096).settings
    h, kv, f = 4096, 1024, 14336
    each = (h + h + 2 * kv) + (h + h) + (h + 2 * f) + (f + h)
    assert layer_owed(llama, 0) == 2 * 4096 * each


def test_experts_owe_their_routed_rows_and_latent_attention_its_ranks():
    s = pm.synth.training("mixtral-8x7b", sequence=1024).settings
    h, kv, f, rows = 4096, 1024, 14336, 2 * 1024
    dense = 1024 * ((h + h + 2 * kv) + (h + h) + h + 8)
    assert layer_owed(s, 0) == 2 * (dense + rows * ((h + 2 * f) + (f + h)))
    v3 = pm.synth.training("deepseek-v3", sequence=1024).settings
    h, a, rq, rk, f = 7168, 128, 1536, 512, 18432
    down = h + rq + rk + 64
    up = (rq + a * 192) + (rk + a * 256)
    each = down + up + (a * 128 + h) + (h + 2 * f) + (f + h)
    assert layer_owed(v3, 0) == 2 * 1024 * each


def test_a_zero_bubble_that_computes_layers_again_holds_what_it_owes():
    """ZB-H1 on the last of 4 stages: F I four times before the first W, 3 owed and one more in the fourth pass."""
    work = pm.synth.training(
        "gpt-3-13b", pipeline=4, micro_batches=8, schedule="zero-bubble", recompute="full"
    )
    s = work.settings
    activations, owed = chunk_activations(s, 3), chunk_owed(s, 3)
    assert owed > 15 * activations
    assert kept(s, 3).max() == pytest.approx(4 * owed)
    v = pm.synth.training(
        "gpt-3-13b", pipeline=4, virtual=2, micro_batches=8, schedule="zero-bubble-v"
    ).settings
    assert kept(v, 0)[-1] > 0  # while the last pass, of weights' gradients, runs
