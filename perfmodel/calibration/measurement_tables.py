"""Tables of measurements as people have them, in the words of `measurements`: seconds, bytes, our names of dtypes.

A time may stand in any column whose name ends in its unit: duration_s, latency_ms, time_us, ... A table with m, n, k is
one of matrix products: `batch` times an m x k matrix by a k x n matrix, 2 batch m n k FLOP; where there is no time,
tflops will do. Its bytes are those of the three matrices, each moved once.
"""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from perfmodel.errors import InputError
from perfmodel.vocabulary import NUMBER_SIZE

DTYPES = {
    "fp64": ("fp64", "float64", "double", "f64"),
    "fp32": ("fp32", "float32", "float", "f32"),
    "tf32": ("tf32", "tensorfloat32"),
    "bf16": ("bf16", "bfloat16"),
    "fp16": ("fp16", "float16", "half", "f16"),
    "fp8": (
        "fp8",
        "float8",
        "fp8_e4m3",
        "fp8_e5m2",
        "float8_e4m3fn",
        "float8_e5m2",
        "f8e4m3",
        "f8e5m2",
    ),
    "fp4": ("fp4", "float4", "nvfp4", "mxfp4"),
    "int8": ("int8", "uint8", "char", "i8"),
}
"""Our name of a dtype -> how others spell it."""

_OURS = {word: name for name, words in DTYPES.items() for word in words}
_TIME = re.compile(
    r"(duration|latency|time|elapsed|t)(_med|_median|_mean|_avg)?_(s|ms|us|ns)", re.I
)
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def standard(
    table: pd.DataFrame, source: str = "measurements", dtype: str = "bf16"
) -> pd.DataFrame:
    """The table with duration_s, and where it has m, n, k with kind, batch, dtype, flops and bytes_B.

    Other tables stay as they are.

    Args:
        table: a row per measurement. source: its file, for messages. dtype: where there is no such column.

    Warns:
        UserWarning: rows of a dtype that we do not know, which are left out.

    Raises:
        InputError: m, n, k without a time, or a time without a unit; sizes that are no whole numbers above 0.
    """
    table = _in_seconds(table)
    short = {str(name).lower(): name for name in table}
    if not {"m", "n", "k"} <= set(short):
        return table
    table = table.rename(columns={short[name]: name for name in ("m", "n", "k")})
    batch = next((short[name] for name in ("batch", "b", "batch_size") if name in short), None)
    table = table.rename(columns={batch: "batch"}) if batch else table.assign(batch=1)
    sizes = {name: _sizes(table, name, source) for name in ("batch", "m", "n", "k")}
    dtypes = _dtypes(table, dtype)
    flops = 2.0 * np.prod([sizes[name] for name in ("batch", "m", "n", "k")], axis=0)
    numbers = sizes["m"] * sizes["k"] + sizes["k"] * sizes["n"] + sizes["m"] * sizes["n"]
    width = np.array([NUMBER_SIZE.get(name, np.nan) for name in dtypes])
    table = table.assign(
        kind="gemm", **sizes, dtype=dtypes, flops=flops, bytes_B=width * sizes["batch"] * numbers
    )
    if "duration_s" not in table:
        rate = next(
            (short[name] for name in ("tflops", "tflop/s", "tflops/s") if name in short), None
        )
        if rate is None:
            raise InputError(
                f"{source}: m, n, k, but no time: expected a column such as latency_ms, time_us, duration_s or tflops; "
                f"the columns are {', '.join(map(str, table))}"
            )
        table = table.assign(
            duration_s=flops / (pd.to_numeric(table[rate], errors="coerce") * 1e12)
        )
    return _known_only(table, source)


def bare(name: object) -> tuple[str, ...]:
    """A column's name in lower case, and without what follows an underscore: its unit.

    >>> bare("busbw_GBps")
    ('busbw_gbps', 'busbw')
    """
    word = str(name).strip().lower()
    return word, word.split("_")[0].split("(")[0].strip()


def bandwidths(
    table: pd.DataFrame, source: str, *, collective: str | None = None, ranks: int | None = None
) -> pd.DataFrame:
    """A table of bytes, time, algbw and busbw, as people make them of what nccl-tests prints.

    Its size is nccl-tests': of the larger buffer.

    Raises:
        InputError: no time with a unit; a collective or a number of ranks that nothing tells.
    """
    table = _in_seconds(table)
    if "duration_s" not in table:
        raise InputError(
            f"{source}: bytes and bandwidths, but no time with its unit, such as time_us; the columns are "
            f"{', '.join(map(str, table))}"
        )
    column = {word: name for name in table for word in reversed(bare(name))}
    size, algbw, busbw = (
        pd.to_numeric(table[column[word]], errors="coerce").to_numpy(float)
        for word in ("bytes", "algbw", "busbw")
    )
    best = int(np.nanargmax(algbw)) if np.isfinite(algbw).any() else 0
    factor = busbw[best] / algbw[best] if algbw[best] > 0 else 0.0
    kind = collective or ("all_reduce" if factor > 1.02 else None)
    if kind is None:
        raise InputError(
            f"{source}: bytes and bandwidths of what? Give collective= (--collective), such as all_gather"
        )
    twice = 2.0 if kind == "all_reduce" else 1.0
    told = ranks or (round(twice / (twice - factor)) if 0 < factor < twice else 0)
    if told < 2:
        raise InputError(f"{source}: how many ranks took part? Give ranks= (--ranks)")
    share = told if kind in ("all_gather", "gather") else 1
    found = {"size_B": size / share, "ranks": told, "duration_s": table["duration_s"]}
    return pd.DataFrame({"collective": None if kind == "send" else kind, **found})


def _in_seconds(table: pd.DataFrame) -> pd.DataFrame:
    """With duration_s, made of the first column that is a time with a unit."""
    if "duration_s" in table:
        return table
    for name in table:
        found = _TIME.fullmatch(str(name))
        if found:
            seconds = pd.to_numeric(table[name], errors="coerce") * _SECONDS[found[3].lower()]
            return table.assign(duration_s=seconds)
    return table


def _sizes(table: pd.DataFrame, name: str, source: str) -> np.ndarray:
    values: np.ndarray = pd.to_numeric(table[name], errors="coerce").to_numpy(float)
    wrong = ~(np.isfinite(values) & (values >= 1) & (values == np.floor(values)) & (values < 2**53))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{source}: row {row}: {name} is {table[name].iloc[row]!r}, expected a whole number above 0"
        )
    return values


def _dtypes(table: pd.DataFrame, default: str) -> list[str]:
    """Our name of each row's dtype; of one that we do not know, its own."""
    names = ("dtype", "type", "precision")
    column = next((name for name in table if str(name).lower() in names), None)
    if column is None:
        return [default] * len(table)
    texts = [str(word) for word in table[column].astype(object).fillna("")]
    words = {text: our_dtype(text) or text for text in set(texts)}
    return [words[text] for text in texts]


def our_dtype(word: str) -> str:
    """Our name of a dtype, "" of one that we do not know.

    >>> our_dtype("torch.bfloat16"), our_dtype("fp8_block")
    ('bf16', '')
    """
    return _OURS.get(word.strip().lower().removeprefix("torch."), "")


def _known_only(table: pd.DataFrame, source: str) -> pd.DataFrame:
    known = table["dtype"].isin(list(DTYPES)).to_numpy()
    if known.all():
        return table
    other = sorted(set(table["dtype"][~known]))
    if not known.any():
        raise InputError(f"{source}: dtype {_named(other)}: expected one of {', '.join(DTYPES)}")
    warnings.warn(
        f"{source}: {np.count_nonzero(~known)} rows are left out, of dtype {_named(other)}; "
        f"known are {', '.join(DTYPES)}",
        stacklevel=3,
    )
    return table[known].reset_index(drop=True)


def _named(words: Sequence[str]) -> str:
    near = difflib.get_close_matches(words[0], list(_OURS), n=1, cutoff=0.8) if words else []
    offer = f" (did you mean {near[0]}?)" if near and len(words) == 1 else ""
    return ", ".join(map(repr, words[:5])) + offer
