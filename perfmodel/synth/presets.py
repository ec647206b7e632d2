"""Published models by name; `names()` lists them.

Each row is data: sizes as the model's report or configuration file has them. Parameter counts are computed from
them and equal the published ones to the published digits (tests/synth/test_presets.py).

Sources: GPT-3 Brown et al. 2020 (arXiv:2005.14165), table 2.1, two misprints of which (1.3B, 13B) are set right by its
table D.1; Megatron Korthikanti et al. 2022 (arXiv:2205.05198), table 3; Llama 2 (arXiv:2307.09288), Llama 3 and 3.1
(arXiv:2407.21783), Mistral (arXiv:2310.06825), Mixtral (arXiv:2401.04088), Qwen3 (arXiv:2505.09388), DeepSeek-V3
(arXiv:2412.19437, without its module for predicting a second token), Nemotron-4 (arXiv:2402.16819, 2406.11704), Gemma 2
(arXiv:2408.00118), gpt-oss (arXiv:2508.10925), their configuration files; Nemotron-3, GPT-3 5B and 20B: NVIDIA NeMo.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from perfmodel.errors import InputError
from perfmodel.synth.sizes import Sizes

GATED: dict[str, Any] = {
    "gated": True,
    "tied": False,
    "positions": 0,
    "norm": "rms",
    "qkv_bias": False,
    "output_bias": False,
    "mlp_bias": False,
}
"""Llama's family: gated mlp, own head, rotary positions, norms without shift, no biases."""

NEMOTRON: dict[str, Any] = GATED | {"gated": False, "norm": "layer"}


def _gpt(layers: int, hidden: int, heads: int, vocabulary: int) -> dict[str, Any]:
    return {"layers": layers, "hidden": hidden, "heads": heads, "vocabulary": vocabulary}


def _llama(
    layers: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    inner: int,
    vocabulary: int,
    sequence: int,
    **more: Any,
) -> dict[str, Any]:
    return GATED | {
        "layers": layers,
        "hidden": hidden,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_size": 128,
        "inner": inner,
        "vocabulary": vocabulary,
        "sequence": sequence,
        **more,
    }


def _experts(experts: int, top_k: int, inner: int) -> dict[str, Any]:
    return {"experts": experts, "top_k": top_k, "expert_inner": inner}


def _oss(layers: int, experts: int) -> dict[str, Any]:
    biases = {"qkv_bias": True, "output_bias": True, "mlp_bias": True, "router_bias": True}
    return (
        _llama(layers, 2880, 64, 8, 2880, 201_088, 4096, window=128, window_every=2, sinks=True)
        | _experts(experts, 4, 2880)
        | biases
        | {"head_size": 64}
    )


PRESETS: dict[str, dict[str, Any]] = {
    "gpt-3-125m": _gpt(12, 768, 12, 50_257),
    "gpt-3-350m": _gpt(24, 1024, 16, 50_257),
    "gpt-3-760m": _gpt(24, 1536, 16, 50_257),
    "gpt-3-1.3b": _gpt(24, 2048, 16, 50_257),
    "gpt-3-2.7b": _gpt(32, 2560, 32, 50_257),
    "gpt-3-5b": _gpt(24, 4096, 32, 51_200),
    "gpt-3-6.7b": _gpt(32, 4096, 32, 50_257),
    "gpt-3-13b": _gpt(40, 5120, 40, 50_257),
    "gpt-3-20b": _gpt(44, 6144, 48, 51_200),
    "gpt-3-175b": _gpt(96, 12_288, 96, 50_257),
    "megatron-22b": _gpt(48, 6144, 64, 51_200),
    "megatron-175b": _gpt(96, 12_288, 96, 51_200),
    "megatron-530b": _gpt(105, 20_480, 128, 51_200),
    "megatron-1t": _gpt(128, 25_600, 160, 51_200),
    "llama-2-7b": _llama(32, 4096, 32, 32, 11_008, 32_000, 4096),
    "llama-2-13b": _llama(40, 5120, 40, 40, 13_824, 32_000, 4096),
    "llama-2-70b": _llama(80, 8192, 64, 8, 28_672, 32_000, 4096),
    "llama-3-8b": _llama(32, 4096, 32, 8, 14_336, 128_256, 8192),
    "llama-3-70b": _llama(80, 8192, 64, 8, 28_672, 128_256, 8192),
    "llama-3.1-8b": _llama(32, 4096, 32, 8, 14_336, 128_256, 8192),
    "llama-3.1-70b": _llama(80, 8192, 64, 8, 28_672, 128_256, 8192),
    "llama-3.1-405b": _llama(126, 16_384, 128, 8, 53_248, 128_256, 8192),
    "llama-3.2-1b": _llama(16, 2048, 32, 8, 8192, 128_256, 8192, tied=True) | {"head_size": 64},
    "llama-3.2-3b": _llama(28, 3072, 24, 8, 8192, 128_256, 8192, tied=True),
    "mistral-7b": _llama(32, 4096, 32, 8, 14_336, 32_000, 8192, window=4096, window_every=1),
    "mistral-7b-v0.3": _llama(32, 4096, 32, 8, 14_336, 32_768, 8192),
    "mixtral-8x7b": _llama(32, 4096, 32, 8, 14_336, 32_000, 4096) | _experts(8, 2, 14_336),
    "mixtral-8x22b": _llama(56, 6144, 48, 8, 16_384, 32_000, 4096) | _experts(8, 2, 16_384),
    "mixtral-8x22b-v0.3": _llama(56, 6144, 48, 8, 16_384, 32_768, 4096) | _experts(8, 2, 16_384),
    "qwen3-8b": _llama(36, 4096, 32, 8, 12_288, 151_936, 4096, query_key_norm=True),
    "qwen3-32b": _llama(64, 5120, 64, 8, 25_600, 151_936, 4096, query_key_norm=True),
    "qwen3-30b-a3b": _llama(48, 2048, 32, 4, 6144, 151_936, 4096, query_key_norm=True)
    | _experts(128, 8, 768),
    "qwen3-235b-a22b": _llama(94, 4096, 64, 4, 12_288, 151_936, 4096, query_key_norm=True)
    | _experts(128, 8, 1536),
    "deepseek-v3": _llama(61, 7168, 128, 128, 18_432, 129_280, 4096)
    | _experts(256, 8, 2048)
    | {
        "shared_experts": 1,
        "router_bias": True,
        "dense_layers": 3,
        "query_rank": 1536,
        "latent_rank": 512,
        "nope_size": 128,
        "rope_size": 64,
        "value_size": 128,
    },
    "nemotron-3-8b": NEMOTRON | _gpt(32, 4096, 32, 256_000) | {"sequence": 4096},
    "nemotron-3-22b": NEMOTRON | _gpt(40, 6144, 48, 256_000) | {"sequence": 4096},
    "nemotron-4-15b": NEMOTRON | _gpt(32, 6144, 48, 256_000) | {"kv_heads": 8, "sequence": 4096},
    "nemotron-4-340b": NEMOTRON
    | _gpt(96, 18_432, 96, 256_000)
    | {"kv_heads": 8, "head_size": 192, "sequence": 4096},
    "gemma-2-9b": _llama(
        42,
        3584,
        16,
        8,
        14_336,
        256_128,
        8192,
        tied=True,
        layer_norms=4,
        window=4096,
        window_every=2,
    )
    | {"head_size": 256},
    "gemma-2-27b": _llama(
        46,
        4608,
        32,
        16,
        36_864,
        256_128,
        8192,
        tied=True,
        layer_norms=4,
        window=4096,
        window_every=2,
    ),
    "gpt-oss-20b": _oss(24, 32),
    "gpt-oss-120b": _oss(36, 128),
}


def names() -> list[str]:
    """The presets' names."""
    return list(PRESETS)


def preset(name: str) -> Sizes:
    """A published model's sizes.

    Raises:
        InputError: no such preset; names those that look alike.

    Example:
        >>> preset("llama-3-8b").parameters
        8030261248
    """
    if name not in PRESETS:
        near = get_close_matches(name.lower(), PRESETS, n=3, cutoff=0.5)
        hint = f" Do you mean {' or '.join(near)}?" if near else ""
        raise InputError(
            f"model: no preset {name!r}.{hint} Presets: {', '.join(PRESETS)}; or give a config.json, or a record"
            " of sizes."
        )
    return Sizes(**PRESETS[name], name=name)
