"""One kernel of a training step, and what a part of a layer is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace

from perfmodel.synth.settings import BYTES
from perfmodel.vocabulary import STANDS_FOR


def width(dtype: str) -> float:
    """Bytes of a number of that type [B]."""
    return BYTES[STANDS_FOR.get(dtype, dtype)]


@dataclass(frozen=True)
class Kernel:
    """One kernel.

    Attributes:
        name: last part of its node's name.
        kind: one of `vocabulary.OPERATIONS`.
        flops, bytes: work [FLOP], [B].
        dimensions: as `vocabulary.DIMENSIONS` names them for the kind.
        dtype: type of its numbers.
    """

    name: str
    kind: str
    flops: int
    bytes: int
    dimensions: tuple[int, ...] = ()
    dtype: str = ""

    def cut(self, share: int, of: int) -> tuple[Kernel, Kernel]:
        """`share` of `of` equal parts, and the rest: of a product's rows, or of an attention's keys."""
        place = 1 if self.kind == "gemm" else 4
        flops, moved = self.flops * share // of, self.bytes * share // of
        first, second = list(self.dimensions), list(self.dimensions)
        if self.dimensions:
            first[place] = max(self.dimensions[place] * share // of, 1)
            second[place] = max(self.dimensions[place] - first[place], 1)
        return (
            replace(self, flops=flops, bytes=moved, dimensions=tuple(first)),
            replace(
                self,
                flops=self.flops - flops,
                bytes=self.bytes - moved,
                dimensions=tuple(second),
            ),
        )


def parts(product: Kernel, share: int, of: int) -> Kernel:
    """`share` of `of` equal parts of a product's rows, each a product of its own that reads all of the weights.

    They run on several streams, so that one part's waves fill the gaps of another's last: as one batch.
    """
    batch, m, n, k = product.dimensions
    rows = max(m // of, 1)
    found = gemm(product.name, rows, n, k, dtype=product.dtype, batch=batch * share)
    return replace(found, flops=product.flops * share // of)


def gemm(name: str, m: int, n: int, k: int, *, dtype: str, batch: int = 1) -> Kernel:
    """A product of [m, k] and [k, n] matrices, `batch` of them; results have 16 bits at least."""
    e = width(dtype)
    out = max(e, 2)
    moved = batch * (e * (m * k + k * n) + out * m * n)
    return Kernel(name, "gemm", 2 * batch * m * n * k, int(moved), (batch, m, n, k), dtype)


def accumulating(product: Kernel, size: int) -> Kernel:
    """The product with its result of `size` bytes a number added to what is there, read and written."""
    batch, m, n, _ = product.dimensions
    more = (2 * size - max(width(product.dtype), 2)) * batch * m * n
    return replace(product, bytes=product.bytes + int(more))


Some = tuple[Kernel, ...]


@dataclass(frozen=True)
class LayerPart:
    """A piece of a block between two points where its input is needed again.

    Attributes:
        forward: kernels in order.
        input_gradient: kernels of the backward pass that lead to the gradient of the input, in order.
        weight_gradient: kernels that nobody in the pass waits for.
    """

    forward: tuple[Kernel, ...]
    input_gradient: tuple[Kernel, ...]
    weight_gradient: tuple[Kernel, ...] = ()
