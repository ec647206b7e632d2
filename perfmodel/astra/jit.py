"""How the parts of the simulator are compiled: once each, for one signature, and linked once, into the kernel."""

import inspect
from collections.abc import Callable
from typing import Any

import numba
from numba import float64, int64, types, uint64
from numba.extending import intrinsic, models, register_model


class _UsualTables(types.CPointer):  # type: ignore[misc]
    """Points to the tables of a workload that needs no rare part; what is compiled for them has none.

    The name goes into the names of compiled parts: two machines that come from the disk must not share any, or one
    would run the other's.
    """

    def __init__(self, dtype: types.Type):
        super().__init__(dtype)
        self.name = f"usual {dtype}*"


register_model(_UsualTables)(models.PointerModel)

_TABLES, _USUAL_TABLES = types.CPointer(int64), _UsualTables(int64)
_TYPES = {
    "t": _TABLES,
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
    return _part(function, None)


def rare(result: types.Type) -> Callable[[Callable[..., Any]], Any]:
    """A part that few workloads need, called with `t`, with a result of this type.

    What is compiled for `usual` tables leaves it out, and fails if it gets there.
    """
    return lambda function: _part(function, result)


def _part(function: Callable[..., Any], rare: types.Type | None) -> Any:
    options = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
    part = numba.njit(error_model="numpy", no_rewrites=True, **options)(function)
    parameters = inspect.signature(function).parameters

    def define(typing: Any, *arguments: Any) -> Any:
        usual = arguments[0] == _USUAL_TABLES
        own = {**_TYPES, "t": _USUAL_TABLES} if usual else _TYPES
        kinds = tuple(own.get(name, int64) for name in parameters)
        if usual and rare:
            return rare(*kinds), refuse
        if kinds not in part.overloads:
            part.compile(kinds)
            _made.append(part.overloads[kinds])
        made = part.overloads[kinds]

        def call(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            return context.call_internal(builder, made.fndesc, made.signature, values)

        return made.signature, call

    def refuse(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        reason = (f"{function.__name__}: a part that was left out",)
        context.call_conv.return_user_exc(builder, RuntimeError, reason)
        builder.position_at_end(builder.append_basic_block("never"))
        return context.get_constant_null(signature.return_type)

    typing = inspect.Parameter("typing", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    define.__signature__ = inspect.Signature([typing, *parameters.values()])  # type: ignore[attr-defined]
    define.__name__ = function.__name__
    called = intrinsic(define)
    called.py_func = function
    return called


@intrinsic  # type: ignore[untyped-decorator]
def usual(typing: Any, t: Any) -> Any:
    """The same tables, as those of a workload that needs no rare part."""
    return _USUAL_TABLES(_TABLES), lambda context, builder, signature, values: values[0]


@intrinsic  # type: ignore[untyped-decorator]
def link_parts(typing: Any) -> Any:
    """Put all parts into the module of the function that is compiled here.

    Callers come first, since the linker leaves out what nobody has asked for so far.
    """

    def link(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        context.add_linking_libs([made.library for made in reversed(_made)])
        return context.get_dummy_value()

    return types.void(), link
