"""What an operator does, by its name, shapes and types: FLOP, bytes moved, and the dimensions that decide its time.

An operator whose name, types or shapes say too little has no work (None).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from perfmodel.trace.pytorch.formulas import (
    Call,
    OperatorWork,
    attention,
    convolution,
    convolution_backward,
    copy,
    embedding,
    linear,
    matmul,
    mm,
    mv,
    optimizer,
    reduction,
    streaming,
    writing,
)
from perfmodel.trace.pytorch.tensors import arguments

__all__ = ["OperatorWork", "work_of"]


MOST = 1 << 62
"""No kernel does more FLOP or moves more bytes than this; a trace that says so is damaged."""


def work_of(
    name: str,
    shapes: Sequence[Any],
    types: Sequence[Any],
    values: Sequence[Any] = (),
    *,
    output_shapes: Sequence[Any] = (),
    output_types: Sequence[Any] = (),
) -> OperatorWork | None:
    """The work of one call of an operator; None where it is not known, or beyond `MOST`.

    >>> work_of("aten::mm", [[8192, 4096], [4096, 1536]], ["c10::Half", "c10::Half"])
    OperatorWork(kind='gemm', flops=103079215104, bytes=104857600, dimensions=(1, 8192, 1536, 4096), dtype='fp16')
    """
    formula = (
        FORMULAS.get(name.removeprefix("aten::")) if name.startswith("aten::") else OTHERS.get(name)
    )
    if formula is None:
        return None
    call = Call(arguments(shapes, types), values, arguments(output_shapes, output_types))
    try:
        work = formula(call)
    except (
        LookupError,
        ValueError,
        ArithmeticError,
    ):  # fewer or other arguments than the formula reads
        return None
    return work if max(work.flops, work.bytes, *work.dimensions) < MOST else None


_ELEMENTWISE = """
    add sub rsub mul div pow exp exp2 expm1 log log1p log2 sqrt rsqrt reciprocal neg abs sign sin cos tanh
    sigmoid relu gelu silu mish elu leaky_relu hardtanh hardswish softplus erf clamp clamp_min clamp_max clip
    floor ceil round maximum minimum where masked_fill addcmul addcdiv lerp fmod remainder atan2 eq ne lt le
    gt ge isnan isinf isfinite bitwise_and bitwise_or bitwise_not bitwise_xor logical_and logical_or
    logical_not logical_xor nan_to_num square threshold_backward gelu_backward silu_backward sigmoid_backward
    tanh_backward elu_backward hardtanh_backward leaky_relu_backward native_dropout native_dropout_backward
    _fused_dropout bernoulli uniform normal tril triu masked_scale cumsum roll flip repeat pad constant_pad_nd
    upsample_nearest2d glu glu_backward sgn binary_cross_entropy binary_cross_entropy_backward mse_loss
    mse_loss_backward
"""

_REDUCTIONS = """
    sum mean prod max min amax amin argmax argmin any all norm linalg_vector_norm var std var_mean logsumexp
    nansum count_nonzero nll_loss_forward nll_loss_nd avg_pool2d max_pool2d_with_indices adaptive_avg_pool2d
    _adaptive_avg_pool2d topk sort
"""

_NORMS = """
    native_layer_norm native_layer_norm_backward native_batch_norm native_batch_norm_backward cudnn_batch_norm
    cudnn_batch_norm_backward miopen_batch_norm miopen_batch_norm_backward native_group_norm
    native_group_norm_backward _fused_rms_norm _fused_rms_norm_backward _softmax _softmax_backward_data
    _log_softmax _log_softmax_backward_data _safe_softmax _masked_softmax
"""

_GATHERS = """
    embedding index_select gather index
"""

_SCATTERS = """
    embedding_dense_backward nll_loss_backward max_pool2d_with_indices_backward index_put _index_put_impl_
    scatter scatter_add index_add avg_pool2d_backward _adaptive_avg_pool2d_backward
"""

FORMULAS: dict[str, Callable[[Call], OperatorWork]] = {
    "mm": mm(0),
    "addmm": mm(1),
    "_addmm_activation": mm(1),
    "bmm": mm(0),
    "baddbmm": mm(1),
    "_int_mm": mm(0),
    "_scaled_mm": mm(0),
    "mv": mv(0),
    "addmv": mv(1),
    "dot": mv(0),
    "vdot": mv(0),
    "linear": linear,
    "matmul": matmul,
    "convolution": convolution(3, 4, 5, 8, 6),
    "convolution_overrideable": convolution(3, 4, 5, 8, 6),
    "_convolution": convolution(3, 4, 5, 8, 6),
    "conv1d": convolution(3, 4, 5, 6),
    "conv2d": convolution(3, 4, 5, 6),
    "conv3d": convolution(3, 4, 5, 6),
    "cudnn_convolution": convolution(3, 2, 4, 5),
    "miopen_convolution": convolution(4, 3, 5, 6),
    "mkldnn_convolution": convolution(4, 3, 5, 6),
    "convolution_backward": convolution_backward,
    "scaled_dot_product_attention": attention(0, causal=5),
    "_scaled_dot_product_flash_attention": attention(0, causal=4),
    "_scaled_dot_product_efficient_attention": attention(0, causal=6),
    "_scaled_dot_product_cudnn_attention": attention(0, causal=6),
    "_scaled_dot_product_flash_attention_for_cpu": attention(0, causal=4),
    "_scaled_dot_product_flash_attention_backward": attention(1, backward=True, causal=11),
    "_scaled_dot_product_efficient_attention_backward": attention(1, backward=True, causal=11),
    "_scaled_dot_product_cudnn_attention_backward": attention(1, backward=True, causal=13),
    "_scaled_dot_product_flash_attention_for_cpu_backward": attention(1, backward=True, causal=7),
    "_flash_attention_forward": attention(0, heads_last=True, causal=8),
    "_flash_attention_backward": attention(1, heads_last=True, backward=True, causal=11),
    "_efficient_attention_forward": attention(0, heads_last=True),
    "_efficient_attention_backward": attention(1, heads_last=True, backward=True),
    "copy_": copy,
    "fill_": writing,
    "zero_": writing,
    "clone": streaming("elementwise", like=0),
    "_to_copy": streaming("elementwise", like=0),
    "cat": streaming("elementwise"),
    "stack": streaming("elementwise"),
    **{name: streaming("elementwise") for name in _ELEMENTWISE.split()},
    **{f"{name}_": streaming("elementwise", in_place=True) for name in _ELEMENTWISE.split()},
    **{name: reduction for name in _REDUCTIONS.split()},
    **{name: streaming("norm", like=0) for name in _NORMS.split()},
    **{name: embedding for name in _GATHERS.split()},
    **{name: streaming("embedding", like=0) for name in _SCATTERS.split()},
    **{f"{name}_": streaming("embedding", in_place=True) for name in _SCATTERS.split()},
    **{
        f"_foreach_{name}{end}": streaming("optimizer", in_place=True)
        for name in (
            "add",
            "mul",
            "div",
            "sub",
            "addcmul",
            "addcdiv",
            "lerp",
            "sqrt",
            "neg",
            "norm",
            "zero",
            "copy",
        )
        for end in ("", "_")
    },
    **{
        name: optimizer
        for name in ("_fused_adam_", "_fused_adamw_", "_fused_sgd_", "_fused_adagrad_")
    },
}
"""Work by the operator's name in `aten`."""

OTHERS: dict[str, Callable[[Call], OperatorWork]] = {
    "FusedLayerNormAffineFunction": streaming("norm", like=0),
    "FusedRMSNormAffineFunction": streaming("norm", like=0),
    "ScaledUpperTriangMaskedSoftmax": streaming("norm", like=0),
    "ScaledMaskedSoftmax": streaming("norm", like=0),
    "ScaledSoftmax": streaming("norm", like=0),
    "flash_attn::_flash_attn_forward": attention(0, heads_last=True),
    "flash_attn::_flash_attn_backward": attention(1, heads_last=True, backward=True),
}
"""The same for widespread operators of other libraries (Apex, Megatron, FlashAttention)."""
