"""When tensors hold memory, from the tensors that operators of a host execution trace take and give.

A tensor is written as [tensor, storage, offset, elements, bytes an element, device]; views share a storage. Storages
are numbered by their address, so that a number comes again where the allocator gives an address out again:

* what an operator gives that neither it has taken nor an operator in it has touched is new, and what was there before
  under this number ended with its last use;
* what is taken before anything has given it was there before the step, and stays to its end, unless its number comes
  again;
* anything else ends with its last use.

What this cannot see: memory that no recorded operator touches (an optimizer's states where its kernels are no
operators, buffers of libraries and of NCCL, the CUDA context), what an operator holds while it runs, what the allocator
rounds up and cannot use, and tensors that are kept, unused, after their last use. It is a lower bound.

Source: PyTorch's ExecutionTraceObserver.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEES = (
    "tensors that recorded operators take and give: at least so much, without what libraries, NCCL and the allocator"
    " hold and without tensors that no recorded operator touches"
)
STAYS = int(np.iinfo(np.int64).max)
DEEPEST = 64
"""Lists in lists that are searched for tensors."""


@dataclass(frozen=True)
class Calls:
    """n calls of operators in the order in which they began.

    Attributes:
        parent: [n] the call that it was made in, -1 for none; it stands before it.
        inputs, outputs: n values each as a host trace writes them.
    """

    parent: NDArray[np.int64]
    inputs: Sequence[Any]
    outputs: Sequence[Any]

    def __len__(self) -> int:
        return len(self.parent)


@dataclass(frozen=True)
class Lives:
    """[t] memory that storages hold: size [B], and the calls from whose begin to whose end.

    first: -1 where it was there before; last: `STAYS` where it is there to the end.
    """

    size: NDArray[np.float64]
    first: NDArray[np.int64]
    last: NDArray[np.int64]


def lifetimes(calls: Calls) -> Lives | None:
    """The storages on the accelerator that holds most, or on the host where there is none; None without tensors."""
    found = _by_device(calls)
    if not found:
        return None
    chosen = max(found, key=lambda device: (not device.startswith("cpu"), _bytes(found[device])))
    lives = found[chosen]
    return Lives(*(np.array(column) for column in zip(*lives)))


def changes(lives: Lives) -> tuple[float, NDArray[np.int64], NDArray[np.float64]]:
    """What is there before the first call [B], and in order of time the calls at whose begin (2 k) or end (2 k + 1)
    memory grows or shrinks, and by how much [B]; what is given back comes first."""
    new, ends = lives.first >= 0, lives.last != STAYS
    moment = np.concatenate([2 * lives.first[new], 2 * lives.last[ends] + 1])
    change = np.concatenate([lives.size[new], -lives.size[ends]])
    order = np.lexsort((change, moment))
    return float(lives.size[~new].sum()), moment[order], change[order]


def _bytes(lives: list[tuple[float, int, int]]) -> float:
    return sum(size for size, _, _ in lives)


def _by_device(calls: Calls) -> dict[str, list[tuple[float, int, int]]]:
    """{device: (size, first, last) of its storages}."""
    found: dict[str, list[tuple[float, int, int]]] = {}
    alive: dict[tuple[str, int], _Storage] = {}

    def close(key: tuple[str, int], storage: _Storage, last: int) -> None:
        found.setdefault(key[0], []).append((storage.size, storage.first, last))

    for call, gives in _events(calls.parent):
        for device, number, size in tensors((calls.outputs if gives else calls.inputs)[call]):
            key = (device, number)
            storage = alive.get(key)
            if storage is None:
                storage = alive[key] = _Storage(call if gives else -1, call)
            elif gives and storage.touched < call:  # nothing in this call has seen it: it is new
                close(key, storage, storage.touched)
                storage = alive[key] = _Storage(call, call)
            storage.size = max(storage.size, size)
            storage.touched = max(storage.touched, call)
    for key, storage in alive.items():
        close(key, storage, storage.touched if storage.first >= 0 else STAYS)
    return found


@dataclass
class _Storage:
    first: int
    touched: int
    size: float = 0.0


def _events(parent: NDArray[np.int64]) -> Iterator[tuple[int, bool]]:
    """(call, whether it ends) in order of time: a call ends after the calls in it, before whatever begins later."""
    n = len(parent)
    last = np.arange(n)
    for call in range(n - 1, -1, -1):
        if 0 <= parent[call] < call:
            last[parent[call]] = max(last[parent[call]], last[call])
    ending: list[list[int]] = [[] for _ in range(n)]
    for call in range(n - 1, -1, -1):  # inner calls began later
        ending[last[call]].append(call)
    for call in range(n):
        yield call, False
        for over in ending[call]:
            yield over, True


def tensors(value: Any, depth: int = 0) -> Iterator[tuple[str, int, float]]:
    """(device, storage, bytes that are seen of it) of the tensors in a value of a host trace.

    >>> list(tensors([[7, 3, 2, 16, 4, "cuda:0"], 1, [[8, 0, 0, 5, 4, "cpu"]]]))
    [('cuda:0', 3, 72.0)]
    """
    if not isinstance(value, list) or depth > DEEPEST:
        return
    if len(value) == 6 and isinstance(value[5], str):
        numbers = value[:5]
        if all(type(v) is int and 0 <= v < 2**48 for v in numbers):
            _, storage, offset, elements, width, device = value
            size = float((offset + elements) * width) if elements else 0.0
            if storage and size and device and not device.startswith("meta"):
                yield device, storage, size
            return
    for part in value:
        if isinstance(part, list):
            yield from tensors(part, depth + 1)
