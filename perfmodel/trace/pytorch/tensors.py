"""The arguments of one operator call as PyTorch's two traces write them: shapes, types, values.

Kineto writes types as "float", "c10::Half", "long int", "Scalar", "ScalarList", "TensorList"; the host trace as
"Tensor(float)", "Int", "GenericList[Int,Int]", "GenericList[Tensor(float),Tensor(float)]".
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DTYPES = {
    "double": ("fp64", 8),
    "float": ("fp32", 4),
    "Half": ("fp16", 2),
    "BFloat16": ("bf16", 2),
    "Float8_e4m3fn": ("fp8", 1),
    "Float8_e5m2": ("fp8", 1),
    "Float8_e4m3fnuz": ("fp8", 1),
    "Float8_e5m2fnuz": ("fp8", 1),
    "Float4_e2m1fn_x2": ("fp4", 1),
    "signed char": ("int8", 1),
    "char": ("int8", 1),
    "int8": ("int8", 1),
    "unsigned char": ("", 1),
    "byte": ("", 1),
    "bool": ("", 1),
    "short": ("", 2),
    "short int": ("", 2),
    "int": ("", 4),
    "long": ("", 8),
    "long int": ("", 8),
    "long long": ("", 8),
    "complex<float>": ("", 8),
    "complex<double>": ("", 16),
}
"""Element types of tensors as traces write them, without "c10::": this package's name ("" for those without a peak
rate), bytes per element. The case counts: "int" is a tensor of them, "Int" in a host trace a number."""

Shape = tuple[int, ...]

_WORDS = re.compile(r"[A-Za-z_][\w:<> ]*")


@dataclass(frozen=True)
class Tensor:
    """Shape, name of the element type in this package ("" for one without a peak rate), bytes."""

    shape: Shape
    dtype: str
    bytes: int

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


def element_type(text: str) -> tuple[str, int] | None:
    """(name in this package, bytes) of an element type.

    >>> element_type("c10::Half"), element_type("Tensor(long int)"), element_type("Scalar")
    (('fp16', 2), ('', 8), None)
    """
    inner = text.strip()
    if inner.startswith("Tensor(") and inner.endswith(")"):
        inner = inner[7:-1]
    return DTYPES.get(inner.removeprefix("c10::").strip())


def message_type(text: str) -> int | None:
    """Bytes per element of a collective's "dtype": "Float", "BFloat16", "Long", ...

    >>> message_type("Float"), message_type("BFloat16"), message_type("")
    (4, 2, None)
    """
    wanted = text.removeprefix("c10::").lower()
    return next((size for name, (_, size) in DTYPES.items() if name.lower() == wanted), None)


def is_shape(value: Any) -> bool:
    """A list of whole numbers."""
    return isinstance(value, list | tuple) and all(isinstance(v, int) and v >= 0 for v in value)


def arguments(shapes: Sequence[Any], types: Sequence[Any]) -> list[Tensor | list[Tensor] | None]:
    """What each argument is: a tensor, a list of tensors, or None for anything else (or a type that nobody knows).

    >>> arguments([[2, 3], [[4], [5]], []], ["float", "GenericList[Tensor(float),Tensor(c10::Half)]", "Scalar"])
    [Tensor(shape=(2, 3), dtype='fp32', bytes=24), [Tensor(shape=(4,), dtype='fp32', bytes=16), Tensor(shape=(5,), \
dtype='fp16', bytes=10)], None]
    """
    found: list[Tensor | list[Tensor] | None] = []
    for shape, kind in zip(shapes, types):
        if not isinstance(kind, str):
            found.append(None)
        elif kind.startswith(("GenericList[Tensor(", "TensorList", "List[Tensor")):
            found.append(_list(shape, kind))
        else:
            known = element_type(kind)
            found.append(_tensor(shape, known) if known and is_shape(shape) else None)
    return found


def _tensor(shape: Sequence[int], known: tuple[str, int]) -> Tensor:
    whole = tuple(shape)
    return Tensor(whole, known[0], math.prod(whole) * known[1])


def _list(shapes: Any, kind: str) -> list[Tensor] | None:
    """A list of tensors; Kineto's "TensorList" does not name the elements, which are then taken as the first
    argument's."""
    if not isinstance(shapes, list | tuple) or not all(map(is_shape, shapes)):
        return None
    words = re.findall(r"Tensor\(([^)]*)\)", kind)
    types = [element_type(w) for w in words] or [("", 4)] * len(shapes)
    if len(types) != len(shapes) or None in types:
        return None
    return [_tensor(s, t) for s, t in zip(shapes, types) if t]


def numbers(value: Any) -> list[int] | None:
    """Whole numbers from a list, or from Kineto's text "[1, 1]"; None for anything else.

    >>> numbers("[3, 3]"), numbers([2, 2]), numbers("")
    ([3, 3], [2, 2], None)
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    if isinstance(value, list) and value and all(isinstance(v, int) for v in value):
        return value
    return None


def truth(value: Any) -> bool:
    """Whether a value of either trace means True."""
    return value is True or (isinstance(value, str) and value.lower() in ("true", "1"))
