"""How the parts of the simulator are compiled: once each, for one signature, and linked once, into the kernel."""

import inspect
from collections.abc import Callable
from typing import Any

import numba
from numba import float64, int64, types, uint64
from numba.extending import intrinsic

_TYPES = {
    "t": types.CPointer(int64),
    "m": types.CPointer(int64),
    "f": types.CPointer(float64),
    "now": float64,
    "time": float64,
    "bits": uint64,
}
_made: list[Any] = []
"""What numba has made of each part so far, callers after all that they call."""


def compiled(function: Callable[..., Any]) -> Any:
    """Compile a part of the kernel on first use, without wrappers or reference counts.

    The names of the parameters say their types: `t`, `m`, `f` point to words (see `layout`), which the caller keeps
    alive; `now` and `time` are times; `bits` is unsigned; everything else is a word.

    A part only declares what it calls; `link_parts` does the rest. numba by itself would put all that a function calls
    into its module, optimise that and make machine code of it: with chains of twenty calls most code would be
    compiled twenty times.
    """
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
    part = numba.njit(error_model="numpy", no_rewrites=True, **options)(function)
    parameters = inspect.signature(function).parameters
    kinds = tuple(_TYPES.get(name, int64) for name in parameters)

    def define(typing: Any, *arguments: Any) -> Any:
        if not part.overloads:
            part.compile(kinds)
            _made.extend(part.overloads.values())
        made = part.overloads[kinds]

        def call(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return context.call_internal(builder, made.fndesc, made.signature, values)

        return made.signature, call

    typing = inspect.Parameter("typing", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    define.__signature__ = inspect.Signature([typing, *parameters.values()])  # type: ignore[attr-defined]
    define.__name__ = function.__name__
    called = intrinsic(define)
    called.py_func = function
    return called


@intrinsic  # type: ignore[untyped-decorator]
def link_parts(typing: Any) -> Any:
    """Put all parts into the module of the function that is compiled here.

    Callers come first, since the linker leaves out what nobody has asked for so far.
    """

    def link(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        context.add_linking_libs([made.library for made in reversed(_made)])
        return context.get_dummy_value()

    return types.void(), link
