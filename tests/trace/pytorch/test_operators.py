"""FLOP and bytes of operators against PyTorch's own counter and by hand."""

from __future__ import annotations

import pytest

from perfmodel.trace.pytorch.operators import work_of

F, H, S = "float", "c10::BFloat16", "Scalar"

COUNTED = [
    ("aten::mm", [[7, 5], [5, 3]], [F, F], [], 210),
    ("aten::mm", [[5, 7], [7, 3]], [F, F], [], 210),
    ("aten::addmm", [[3], [7, 5], [5, 3], [], []], [F, F, F, S, S], ["", "", "", "1", "1"], 210),
    ("aten::addmm", [[3], [24, 5], [5, 3], [], []], [F, F, F, S, S], ["", "", "", "1", "1"], 720),
    ("aten::bmm", [[2, 7, 5], [2, 5, 3]], [F, F], [], 420),
    ("aten::bmm", [[8, 6, 5], [8, 5, 3]], [F, F], [], 1440),
    (
        "aten::baddbmm",
        [[2, 7, 3], [2, 7, 5], [2, 5, 3], [], []],
        [F, F, F, S, S],
        ["", "", "", "1", "1"],
        420,
    ),
    (
        "aten::convolution",
        [[2, 6, 11, 9], [8, 6, 3, 3], [], [], [], [], [], [], []],
        [F, F, *[S] * 7],
        ["", "", "", "[2, 2]", "[1, 1]", "[1, 1]", "False", "[0, 0]", "1"],
        51840,
    ),
    (
        "aten::convolution_backward",
        [[2, 8, 6, 5], [2, 6, 11, 9], [8, 6, 3, 3], *[[]] * 8],
        [F, F, F, *[S] * 8],
        [
            "",
            "",
            "",
            "[0]",
            "[2, 2]",
            "[1, 1]",
            "[1, 1]",
            "False",
            "[0, 0]",
            "1",
            "[True, True, False]",
        ],
        103680,
    ),
    (
        "aten::convolution",
        [[2, 6, 11, 9], [9, 2, 3, 3], [9], [], [], [], [], [], []],
        [F, F, F, *[S] * 6],
        ["", "", "", "[1, 1]", "[1, 1]", "[1, 1]", "False", "[0, 0]", "3"],
        64152,
    ),
    (
        "aten::convolution",
        [[2, 6, 15], [8, 6, 3], [], [], [], [], [], [], []],
        [F, F, *[S] * 7],
        ["", "", "", "[1]", "[0]", "[2]", "False", "[0]", "1"],
        6336,
    ),
    (
        "aten::convolution_backward",
        [[2, 8, 11], [2, 6, 15], [8, 6, 3], *[[]] * 8],
        [F, F, F, *[S] * 8],
        ["", "", "", "[0]", "[1]", "[0]", "[2]", "False", "[0]", "1", "[True, True, False]"],
        12672,
    ),
    (
        "aten::convolution",
        [[2, 3, 6, 7, 8], [4, 3, 3, 3, 3], [], [], [], [], [], [], []],
        [F, F, *[S] * 7],
        ["", "", "", "[1, 1, 1]", "[0, 0, 0]", "[1, 1, 1]", "False", "[0, 0, 0]", "1"],
        155520,
    ),
    (
        "aten::convolution_backward",
        [[2, 4, 4, 5, 6], [2, 3, 6, 7, 8], [4, 3, 3, 3, 3], *[[]] * 8],
        [F, F, F, *[S] * 8],
        [
            "",
            "",
            "",
            "[0]",
            "[1, 1, 1]",
            "[0, 0, 0]",
            "[1, 1, 1]",
            "False",
            "[0, 0, 0]",
            "1",
            "[True, True, False]",
        ],
        311040,
    ),
    (
        "aten::convolution",
        [[2, 6, 5, 4], [6, 8, 3, 3], [], [], [], [], [], [], []],
        [F, F, *[S] * 7],
        ["", "", "", "[2, 2]", "[0, 0]", "[1, 1]", "True", "[0, 0]", "1"],
        34560,
    ),
    (
        "aten::convolution_backward",
        [[2, 8, 11, 9], [2, 6, 5, 4], [6, 8, 3, 3], *[[]] * 8],
        [F, F, F, *[S] * 8],
        [
            "",
            "",
            "",
            "[0]",
            "[2, 2]",
            "[0, 0]",
            "[1, 1]",
            "True",
            "[0, 0]",
            "1",
            "[True, True, False]",
        ],
        69120,
    ),
    (
        "aten::cudnn_convolution",
        [[2, 6, 11, 9], [8, 6, 3, 3], *[[]] * 7],
        [F, F, *[S] * 7],
        ["", "", "[1, 1]", "[2, 2]", "[1, 1]", "1", "False", "False", "True"],
        51840,
    ),
    (
        "aten::_scaled_dot_product_flash_attention",
        [[2, 4, 16, 8]] * 3 + [[]] * 4,
        [H] * 3 + [S] * 4,
        ["", "", "", "0.0", "True", "False", ""],
        65536,
    ),
    (
        "aten::_scaled_dot_product_efficient_attention",
        [[2, 4, 16, 8], [2, 4, 24, 8], [2, 4, 24, 8], *[[]] * 5],
        [H] * 3 + [S] * 5,
        ["", "", "", "", "False", "0.0", "True", ""],
        98304,
    ),
    (
        "aten::_scaled_dot_product_cudnn_attention",
        [[2, 4, 16, 8]] * 3 + [[]] * 6,
        [H] * 3 + [S] * 6,
        ["", "", "", "", "False", "0.0", "True", "False", ""],
        65536,
    ),
    (
        "aten::_scaled_dot_product_flash_attention_backward",
        [[2, 4, 16, 8]] * 5,
        [H] * 5,
        [],
        163840,
    ),
]
"""Calls as Kineto writes them, and what `torch.utils.flop_counter` of PyTorch 2.13 counts for them (the last: five
products of 2 x 2 x 4 x 16 x 16 x 8)."""


@pytest.mark.parametrize(("name", "shapes", "types", "values", "flops"), COUNTED)
def test_flop_are_those_of_pytorch_s_counter(name, shapes, types, values, flops):
    assert work_of(name, shapes, types, values).flops == flops


def test_the_host_trace_s_words_for_the_same_call_give_the_same_work():
    kineto = work_of("aten::addmm", [[3], [24, 5], [5, 3], [], []], [F, F, F, S, S])
    types = ["Tensor(float)"] * 3 + ["Int", "Int"]
    assert work_of("aten::addmm", [[3], [24, 5], [5, 3], [], []], types) == kineto


@pytest.mark.parametrize(
    ("name", "shapes", "types", "kind", "flops", "moved"),
    [
        ("aten::add", [[4, 6], [6]], [H, H], "elementwise", 24, 48 + 12 + 48),
        ("aten::add_", [[4, 6], [4, 6], []], [F, F, S], "elementwise", 24, 3 * 96),
        ("aten::copy_", [[8], [8]], [F, H], "elementwise", 0, 32 + 16),
        ("aten::fill_", [[8], []], [F, S], "elementwise", 0, 32),
        ("aten::sum", [[10, 10], []], [F, "ScalarList"], "reduction", 100, 400),
        (
            "aten::native_layer_norm",
            [[4, 8], [], [8], [8], []],
            [F, "ScalarList", F, F, S],
            "norm",
            32,
            128 + 64 + 128,
        ),
        (
            "aten::embedding",
            [[1000, 16], [5]],
            [F, "long int"],
            "embedding",
            0,
            2 * 5 * 16 * 4 + 40,
        ),
        ("aten::linear", [[4, 6, 5], [3, 5], [3]], [F, F, F], "gemm", 720, 480 + 60 + 12 + 288),
        ("aten::matmul", [[4, 6, 5], [5, 3]], [F, F], "gemm", 720, 480 + 60 + 288),
        ("aten::mv", [[4, 5], [5]], [F, F], "gemm", 40, 80 + 20 + 16),
        (
            "aten::_foreach_add_",
            [[[3], [5]], []],
            ["GenericList[Tensor(float),Tensor(float)]", "Int"],
            "optimizer",
            5,
            64,
        ),
    ],
)
def test_other_operators_are_counted_by_hand(name, shapes, types, kind, flops, moved):
    found = work_of(name, shapes, types)
    assert (found.kind, found.flops, found.bytes) == (kind, flops, moved)


def test_a_fused_optimizer_step_reads_and_writes_its_states():
    """Parameters, gradients and two moments of 6 numbers: all read, all but the gradients written."""
    lists = [[[2, 3]]] * 4
    found = work_of("aten::_fused_adam_", lists, ["GenericList[Tensor(float)]"] * 4)
    assert (found.kind, found.flops, found.bytes) == ("optimizer", 6, 24 * 7)


def test_dimensions_and_dtype_say_which_kernel_it_is():
    product = work_of("aten::bmm", [[32, 2048, 2048], [32, 2048, 64]], ["c10::Half"] * 2)
    assert (product.dimensions, product.dtype) == ((32, 2048, 64, 2048), "fp16")
    attention = work_of(
        "aten::_scaled_dot_product_flash_attention",
        [[2, 32, 128, 64], [2, 8, 128, 64], [2, 8, 128, 64], [], []],
        [H] * 3 + [S] * 2,
        ["", "", "", "0.0", "True"],
    )
    assert (attention.dimensions, attention.dtype) == ((2, 32, 8, 128, 128, 64, 1), "bf16")


@pytest.mark.parametrize(
    ("name", "shapes", "types"),
    [
        ("aten::mm", [[7, 5]], [F]),
        ("aten::mm", [[7, 5], [4, 3]], [F, F]),
        ("aten::mm", [[7, 5], []], [F, ""]),
        ("aten::mm", ["x", 3], [F, None]),
        ("my::op", [[7, 5], [5, 3]], [F, F]),
        ("aten::convolution", [[2, 6, 11, 9], [8, 6, 3, 3]], [F, F]),
    ],
)
def test_too_little_to_know_the_work_gives_none(name, shapes, types):
    assert work_of(name, shapes, types) is None


@pytest.mark.parametrize("shape", [[2**62, 1], [2**40, 2**40]])
def test_work_that_no_kernel_can_do_is_not_known(shape):
    assert work_of("aten::mm", [shape, [shape[1], 1]], ["float", "float"]) is None
