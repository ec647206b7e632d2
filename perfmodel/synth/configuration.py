"""A model's sizes from the `config.json` that Hugging Face models come with.

The file's keys give sizes; what no key tells (query-key norms, four norms a layer, a plain mlp) follows from the
family, its `model_type`. A family that is not in `FAMILIES` is refused: its parameters could not be right but by
chance.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perfmodel.errors import InputError
from perfmodel.json_text import loads
from perfmodel.synth.presets import GATED, NEMOTRON
from perfmodel.synth.sizes import Sizes

OSS_BIASES = {"qkv_bias": True, "output_bias": True, "mlp_bias": True, "router_bias": True}

FAMILIES: dict[str, dict[str, Any]] = {
    "llama": GATED,
    "mistral": GATED,
    "mixtral": GATED,
    "qwen2": GATED | {"qkv_bias": True},
    "qwen3": GATED | {"query_key_norm": True},
    "qwen3_moe": GATED | {"query_key_norm": True},
    "gemma2": GATED | {"layer_norms": 4, "tied": True},
    "nemotron": NEMOTRON,
    "deepseek_v2": GATED,
    "deepseek_v3": GATED | {"router_bias": True},
    "gpt_oss": GATED | OSS_BIASES | {"sinks": True, "window_every": 2},
    "gpt2": {},
}
"""What a family's file does not say."""

KEYS: dict[str, tuple[str, ...]] = {
    "layers": ("num_hidden_layers", "n_layer"),
    "hidden": ("hidden_size", "n_embd"),
    "heads": ("num_attention_heads", "n_head"),
    "kv_heads": ("num_key_value_heads",),
    "head_size": ("head_dim",),
    "inner": ("intermediate_size", "n_inner"),
    "vocabulary": ("vocab_size",),
    "tied": ("tie_word_embeddings",),
    "window": ("sliding_window",),
    "experts": ("num_experts", "num_local_experts", "n_routed_experts"),
    "top_k": ("num_experts_per_tok", "experts_per_token"),
    "expert_inner": ("moe_intermediate_size",),
    "shared_experts": ("n_shared_experts",),
    "dense_layers": ("first_k_dense_replace",),
    "experts_every": ("decoder_sparse_step",),
    "query_rank": ("q_lora_rank",),
    "latent_rank": ("kv_lora_rank",),
    "nope_size": ("qk_nope_head_dim",),
    "rope_size": ("qk_rope_head_dim",),
    "value_size": ("v_head_dim",),
}
"""Spellings of each size."""

LARGEST = 16 * 2**20
"""Most bytes of a file that are read."""

TRAINED = 8192
"""Tokens of a sequence where the file names a longer context, which training uses at its end only."""


def configuration(path: str | Path) -> Sizes:
    """Read a `config.json`, or the folder that holds it.

    Raises:
        InputError: the file cannot be read, is of an unknown family, or lacks a size.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "config.json"
    try:
        with file.open("rb") as opened:
            raw = opened.read(LARGEST + 1)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}).") from error
    if len(raw) > LARGEST:
        raise InputError(f"{file}: is larger than {LARGEST} B and no config.json of a model.")
    given = loads(raw, file)
    if not isinstance(given, dict):
        raise InputError(f"{file}: got a {type(given).__name__}, expected an object of sizes.")
    return sizes_from(given, str(file))


def sizes_from(given: Mapping[str, Any], source: str) -> Sizes:
    """The sizes that the keys of a configuration stand for.

    Args:
        given: the file's keys.
        source: the file, for messages.
    """
    family = given.get("model_type")
    if not isinstance(family, str) or family not in FAMILIES:
        raise InputError(
            f"{source}: model_type is {family!r:.60}, expected one of {', '.join(FAMILIES)}."
            " Give a record of sizes instead."
        )
    sizes: dict[str, Any] = dict(FAMILIES[family])
    for name, keys in KEYS.items():
        value = next((given[key] for key in keys if given.get(key) is not None), None)
        if value is not None:
            sizes[name] = _checked(value, name, keys, source)
    for name in ("layers", "hidden", "heads", "vocabulary"):
        if name not in sizes:
            raise InputError(f"{source}: {KEYS[name][0]} is missing.")
    sizes |= _flags(given, family, source)
    lengths = ("max_position_embeddings", "n_positions")
    longest = next((given[key] for key in lengths if given.get(key)), TRAINED)
    longest = _checked(longest, "positions", lengths, source)
    sizes["sequence"] = min(longest, TRAINED)
    if family == "gpt2":
        tied = _flag(given, "tie_word_embeddings", source, missing=True)
        sizes |= {"positions": longest, "tied": tied}
    if not sizes.get("experts"):
        for name in (
            "experts",
            "top_k",
            "expert_inner",
            "shared_experts",
            "dense_layers",
            "experts_every",
        ):
            sizes.pop(name, None)
    _refuse_mixed_layers(given, source)
    return Sizes(**sizes, name=str(given.get("_name_or_path") or family)[:200])


def _flag(given: Mapping[str, Any], key: str, source: str, *, missing: bool = False) -> bool:
    value = given.get(key, missing)
    if not isinstance(value, bool):
        raise InputError(f"{source}: {key} is {value!r:.60}, expected true or false.")
    return value


def _flags(given: Mapping[str, Any], family: str, source: str) -> dict[str, Any]:
    """Biases and windows, where the file says something about them."""
    flags: dict[str, Any] = {}
    if "attention_bias" in given:
        bias = _flag(given, "attention_bias", source)
        flags |= {"qkv_bias": bias, "output_bias": bias}
    if "mlp_bias" in given:
        flags["mlp_bias"] = _flag(given, "mlp_bias", source)
    if given.get("use_sliding_window") is False:
        flags["window"] = 0
    elif family in ("gemma2", "gpt_oss"):
        flags["window_every"] = 2
    elif given.get("sliding_window"):
        flags["window_every"] = 1
    return flags


def _checked(value: Any, name: str, keys: tuple[str, ...], source: str) -> Any:
    if name == "tied":
        if not isinstance(value, bool):
            raise InputError(
                f"{source}: {' or '.join(keys)} is {value!r:.60}, expected true or false."
            )
    elif not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise InputError(
            f"{source}: {' or '.join(keys)} is {value!r:.60}, expected a whole number of at least 0."
        )
    return value


def _refuse_mixed_layers(given: Mapping[str, Any], source: str) -> None:
    """Layers without experts here and there, which `Sizes` cannot say."""
    if given.get("mlp_only_layers"):
        raise InputError(
            f"{source}: mlp_only_layers is {given['mlp_only_layers']!r:.60}, expected dense layers at the"
            " beginning only (first_k_dense_replace). Give a record of sizes."
        )
