"""How the parts of the simulator are compiled: once each, for one signature, into the kernel only."""

import inspect
from collections.abc import Callable
from typing import Any

import numba
from numba import float64, int64, uint64

_TYPES = {
    "t": int64[::1],
    "m": int64[::1],
    "f": float64[::1],
    "now": float64,
    "time": float64,
    "bits": uint64,
}


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a part of the kernel on first use, without wrappers or reference counts.

    The names of the parameters say their types: `t`, `m`, `f` are the arrays of words (see `layout`), which the
    caller keeps alive; `now` and `time` are times; `bits` is unsigned; everything else is a word. One signature
    instead of one for every mixture of constants and variables halves the time to compile.
    """
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
    part = numba.njit(error_model="numpy", **options)(function)
    signature = tuple(_TYPES.get(name, int64) for name in inspect.signature(function).parameters)
    resolve = part.get_call_template

    def resolve_once(arguments: Any, keywords: Any) -> Any:
        if not part.overloads:
            part.compile(signature)
            part.disable_compile()
        return resolve(arguments, keywords)

    part.get_call_template = resolve_once
    return part
