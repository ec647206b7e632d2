"""Kernels of a training step: their operations, shapes and number formats."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel import synth
from tests.synth.steps_by_name import (
    GPT,
    LLAMA,
    collectives,
)

PRODUCTS = ("gemm", "attention")


@pytest.mark.parametrize(
    "spread",
    [
        {},
        {"tensor": 4},
        {"tensor": 2, "sequence_parallel": True, "overlap": True},
        {"pipeline": 2, "micro_batches": 3},
        {"data": 3},
        {"data": 2, "tensor": 2, "pipeline": 4, "micro_batches": 4, "micro_batch": 2},
        {"pipeline": 2, "micro_batches": 2, "schedule": "zero-bubble"},
        {"pipeline": 2, "micro_batches": 2, "virtual": 2},
        {"pipeline": 2, "micro_batches": 4, "virtual": 2, "schedule": "dualpipe-v"},
    ],
    ids=str,
)
@pytest.mark.parametrize("recompute", ["none", "selective", "full"])
def test_products_of_a_gpt_add_up_to_the_models_operations_however_it_is_spread(spread, recompute):
    work = synth.training(GPT, **spread, recompute=recompute)
    assert product_flops(work) == pytest.approx(work.hardware_flops, rel=1e-12)


def product_flops(work: synth.Workload) -> int:
    """Operations of products and attention over all ranks."""
    from perfmodel.vocabulary import OPERATIONS

    total = 0
    for role in work.roles:
        c = role.columns
        chosen = np.isin(c.kind, [OPERATIONS.index(kind) for kind in PRODUCTS])
        total += int(c.flops[chosen].sum()) * len(role.ranks)
    return total


def test_flash_attention_computes_scores_again_which_nobody_counts():
    work = synth.training(LLAMA)
    core = 3 * 4 * 8 * 16 * 4 * 32 * 32 / 2
    assert product_flops(work) == pytest.approx(work.flops + core / 3 * 0.5)


def test_products_carry_their_shape():
    c = synth.training(LLAMA, tensor=2).roles[0].columns
    row = c.names.index("mb0.fwd.layer0.mlp.up")
    assert c.dimensions[row].tolist() == [1, 32, 96, 64, -1, -1, -1]  # batch, m, n, k
    assert c.flops[row] == 2 * 32 * 96 * 64
    assert c.bytes[row] == 2 * (32 * 64 + 64 * 96 + 32 * 96)
    row = c.names.index("mb0.fwd.layer0.attention.core")
    assert c.dimensions[row].tolist() == [1, 4, 2, 32, 32, 16, 1]
    row = c.names.index("mb0.bwd.layer0.mlp.up.weight_gradient")
    assert c.dimensions[row].tolist() == [1, 96, 64, 32, -1, -1, -1]


def test_narrow_products_take_casts_beside_wide_attention():
    from perfmodel.vocabulary import DTYPES

    c = synth.training(LLAMA, dtype="fp8").roles[0].columns
    types = {name: DTYPES[k] for name, k in zip(c.names, c.dtype)}
    assert types["mb0.fwd.layer0.mlp.up"] == "fp8"
    assert types["mb0.fwd.layer0.attention.core"] == types["mb0.fwd.head.logits"] == "bf16"
    row = c.names.index("mb0.fwd.layer0.attention.projection.cast")
    assert c.bytes[row] == 3 * 32 * 8 * 16
    row = c.names.index("mb0.bwd.layer0.mlp.down.input_gradient.cast")
    assert c.bytes[row] == 4 * 32 * 64
    wide = synth.training(LLAMA).roles[0].columns
    assert len(c) == len(wide) + 4 * (1 + 4 + 4)


def test_gradients_in_fp8_promote_their_partial_sums():
    from perfmodel.vocabulary import DTYPES

    c = synth.training(LLAMA, dtype="fp8").roles[0].columns
    types = {name: DTYPES[k] for name, k in zip(c.names, c.dtype)}
    for name in ("up", "down", "qkv", "projection"):
        block = "attention" if name in ("qkv", "projection") else "mlp"
        assert types[f"mb0.fwd.layer0.{block}.{name}"] == "fp8"
        for gradient in ("input_gradient", "weight_gradient"):
            assert types[f"mb0.bwd.layer0.{block}.{name}.{gradient}"] == "fp8_promoted"
    work = synth.training("llama-3-8b", dtype="fp8")
    other = synth.training("llama-3-8b", dtype="fp8", fused_loss=True)
    assert work.flops == other.flops
    times = {}
    for name in ("dgx-h100", "gb200-nvl72"):
        system = pm.hardware(name, ranks=8)
        times[name] = [
            float(pm.operation_time(system, "gemm", dtype=dtype, m=8192, n=8192, k=8192))
            for dtype in ("fp8", "fp8_promoted")
        ]
    assert times["dgx-h100"][1] == pytest.approx(1.15 * times["dgx-h100"][0], rel=0.01)
    assert times["gb200-nvl72"][1] == times["gb200-nvl72"][0]


def test_what_is_gathered_for_narrow_products_is_narrow_and_transposed_after():
    base = {"tensor": 4, "sequence_parallel": True}
    narrow, wide = (synth.training(LLAMA, **base, dtype=d) for d in ("fp8", "bf16"))
    sizes = [collectives(work, 0, "tensor")["size_B"] for work in (narrow, wide)]
    gathers = sizes[0].index.str.contains("layer.*all_gather")
    assert (2 * sizes[0][gathers] == sizes[1][gathers]).all()
    assert (sizes[0][~gathers] == sizes[1][~gathers]).all()
    c = narrow.roles[0].columns
    bytes_of = dict(zip(c.names, c.bytes.tolist()))
    down = "mb0.bwd.layer0.mlp.down."
    assert bytes_of[down + "input_gradient.cast"] == 3 * 32 * 64 // 4
    assert bytes_of[down + "weight_gradient.transpose"] == 2 * 32 * (96 // 4 + 64)


def test_parts_of_a_product_read_the_weights_each():
    work = synth.training(LLAMA, tensor=4, sequence_parallel=True, overlap=True)
    c = work.roles[0].columns
    row = c.names.index("mb0.fwd.layer0.mlp.ring.up")
    assert c.dimensions[row][:4].tolist() == [3, 8, 48, 64]
    assert c.bytes[row] == 3 * 2 * (8 * 64 + 64 * 48 + 8 * 48)


def moved(work: synth.Workload) -> dict[str, int]:
    """Bytes of each node of the first kind of rank, by name."""
    c = work.roles[0].columns
    return dict(zip(c.names, c.bytes.tolist()))


def test_a_products_gradients_are_added_within_it_in_the_type_that_they_are_summed_in():
    """[192, 64] gradients from 32 tokens: operands of 2 B, 4 B in and out; 2 and 2 where sums have 16 bits."""
    name = "mb1.bwd.layer0.mlp.up.weight_gradient"
    operands = 2 * (192 * 32 + 32 * 64)
    for dtype, size in (("fp32", 4), ("bf16", 2)):
        found = moved(synth.training(LLAMA, micro_batches=2, gradient_dtype=dtype))
        assert found[name] == operands + 2 * size * 192 * 64
        assert not any(n.endswith("weight_gradient.add") for n in found)


def test_a_kernel_adds_gradients_where_products_do_not():
    added = "bwd.layer0.mlp.up.weight_gradient.add"
    buffer = moved(synth.training(LLAMA, micro_batches=2, accumulation="buffer"))
    assert [buffer[f"mb{k}.{added}"] for k in (0, 1)] == [(2 + 2 * 4) * 192 * 64] * 2
    assert "step.zero" in buffer
    own = moved(synth.training(LLAMA, micro_batches=2, accumulation="autograd"))
    assert f"mb0.{added}" not in own  # the first micro-batch's are kept as they come
    assert own[f"mb1.{added}"] == 3 * 2 * 192 * 64
    assert "step.zero" not in own
    # a bias of the same product goes with it
    biased = moved(synth.training(GPT, accumulation="buffer"))
    assert biased["mb0.bwd.layer0.mlp.up.weight_gradient.add"] == 10 * 256 * (64 + 1)


@pytest.mark.parametrize("sharding", [2, 3])
def test_nothing_is_added_where_every_micro_batchs_gradients_are_reduced(sharding):
    found = moved(synth.training(LLAMA, data=2, micro_batches=2, sharding=sharding))
    assert not any(name.endswith(".add") for name in found)
    operands = 2 * (192 * 32 + 32 * 64)
    assert found["mb1.bwd.layer0.mlp.up.weight_gradient"] == operands + 2 * 192 * 64
    kept = moved(synth.training(LLAMA, data=2, micro_batches=2, sharding=3, reshard=False))
    assert kept["mb1.bwd.layer0.mlp.up.weight_gradient.add"] == 10 * 192 * 64


def test_the_gradient_of_the_embedding_is_a_whole_matrix():
    found = moved(synth.training(GPT, tensor=2))
    count = 96 // 2 * 64 + 32 * 64
    assert found["mb0.bwd.embedding.lookup.zero"] == 2 * count
    assert found["mb0.bwd.embedding.lookup.add"] == 10 * count


def test_scale_mask_and_softmax_are_kernels_of_their_own_where_megatrons_does_not_take_the_heads():
    """Four heads a rank are one kernel's, 2 B in and out; of one head 32 x 32 scores take five, in fp32."""
    fused = moved(synth.training(GPT))
    assert fused["mb0.fwd.layer0.attention.softmax"] == 2 * 2 * 4 * 32 * 32
    assert "mb0.fwd.layer0.attention.softmax.mask" not in fused
    apart = moved(synth.training(GPT, tensor=4))
    scores = 32 * 32
    for name, each in {
        "fwd.layer0.attention.softmax.widen": 6,
        "fwd.layer0.attention.softmax.scale": 8,
        "fwd.layer0.attention.softmax.mask": 9,
        "fwd.layer0.attention.softmax": 8,
        "fwd.layer0.attention.softmax.narrow": 6,
        "bwd.layer0.attention.softmax.gradient.widen": 6,
        "bwd.layer0.attention.softmax.gradient": 12,
        "bwd.layer0.attention.softmax.gradient.mask": 8,
        "bwd.layer0.attention.softmax.gradient.scale": 8,
        "bwd.layer0.attention.softmax.gradient.narrow": 6,
    }.items():
        assert apart[f"mb0.{name}"] == each * scores


def test_the_host_launches_every_kernel_and_collective_of_a_layer():
    """13 kernels forward and 2 sums over the tensor group; the loss stands for 25 forward and 12 backward."""

    def launches(work: synth.Workload, head: str) -> list[float]:
        c = work.roles[0].columns
        return [
            d * 1e5
            for n, d, host in zip(c.names, c.duration, c.host)
            if host and n.startswith(head)
        ]

    one = synth.training(GPT, host_kernel=1e-5)
    assert launches(one, "mb0.fwd.layer0.") == pytest.approx([1.0] * 13)
    assert launches(one, "mb0.fwd.head.") == pytest.approx([1.0] * 3)
    assert launches(one, "mb0.fwd.launch") == pytest.approx([24.0])
    names = one.roles[0].columns.names
    back = [n for n in names if n.startswith("mb0.bwd.layer0.") and not n.endswith("launch")]
    assert len(launches(one, "mb0.bwd.layer0.")) == len(back)
    two = synth.training(GPT, tensor=2, micro_batch=2, host_kernel=1e-5, host_forward=3e-5)
    assert sum(launches(two, "mb0.fwd.layer0.")) == pytest.approx(18.0)
    assert launches(two, "mb0.fwd.layer0.launch") == pytest.approx([3.0])
