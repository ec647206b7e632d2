"""The engine on random layered graphs, against what NumPy's `maximum` and `add` reach on arrays in the cache."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from perfmodel.engine import bulk_cpu as engine
from perfmodel.engine import bulk_jax as window
from perfmodel.engine import longest_path
from perfmodel.engine.bulk import Devices, devices_of
from perfmodel.engine.reduction import Reduced
from tests.benchmarks.measure import Row, Settings, alternate, cores

ARRAY = 256 * 1024
"""Bytes of each of NumPy's arrays."""

DISTINCT = 64
"""Distinct costs of a random graph, about what a real one has."""

FAR = 0.05
"""Share of edges that reach back to any earlier level."""

ADDED = 64 * 1024 * 1024
"""Bytes of each of two arrays that are added on a device, far more than its caches hold."""

SCANNED = 128
"""Designs of the scan in JAX: it keeps every finish time of each."""


def layered(
    levels: int, width: int, *, costs: int = DISTINCT, far: float = 0.0, seed: int = 0
) -> Reduced:
    """A random graph of levels x width vertices, each with two predecessors; one last vertex ends it.

    Args:
        costs: number of distinct costs; as many as vertices gives each its own.
        far: share of edges from any earlier level instead of the one before.
    """
    choice = np.random.default_rng(seed)
    vertices = levels * width
    level = np.arange(vertices) // width
    from_level = np.maximum(level - 1, 0)[:, None].repeat(2, axis=1)
    reaching = choice.random((vertices, 2)) < far
    anywhere = (choice.random((vertices, 2)) * np.maximum(level, 1)[:, None]).astype(np.int64)
    pred = np.where(reaching, anywhere, from_level) * width
    pred = np.sort(pred + choice.integers(0, width, (vertices, 2)), axis=1)
    keep = np.stack([level > 0, (level > 0) & (pred[:, 0] != pred[:, 1])], axis=1)
    count = np.append(keep.sum(axis=1), width)
    cost = np.arange(vertices) if costs == vertices else choice.integers(0, costs, vertices)
    return Reduced(
        np.append(cost + 1, 0).astype(np.int32),
        np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
        np.concatenate([pred[keep], np.arange(vertices - width, vertices)]).astype(np.int32),
        sparse.vstack(
            [sparse.csr_array((1, costs)), sparse.eye_array(costs, format="csr")], format="csr"
        ),
    )


class Pairs:
    """NumPy's `maximum` followed by `add` on arrays of 256 kB, on one core."""

    TIMES = 200

    def __init__(self, dtype: str):
        choice = np.random.default_rng(0)
        size = ARRAY // np.dtype(dtype).itemsize
        self.a, self.b, self.c = (choice.random(size).astype(dtype) for _ in range(3))
        self.out = np.empty_like(self.a)

    def __call__(self) -> None:
        for _ in range(self.TIMES):
            np.maximum(self.a, self.b, out=self.out)
            np.add(self.out, self.c, out=self.out)

    def rate(self, seconds: float) -> float:
        """Pairs of operations a second."""
        return self.TIMES * len(self.a) / seconds


def rows(settings: Settings) -> Iterator[Row]:
    """All lines about the engine."""
    designs = settings.size(1024, 128)
    wide, narrow = settings.size(2000, 100, 20), settings.size(20_000, 500, 20)
    for dtype in settings.chosen(("float32", "float64"), "float64"):
        for levels, width, share in ((wide, 50, 0.8), (narrow, 5, 0.6)):
            yield from _layered_rows(settings, dtype, levels, width, share=share, designs=designs)


def _layered_rows(settings, dtype, levels, width, *, share, designs) -> Iterator[Row]:
    pairs, many = Pairs(dtype), cores()
    what = f"engine, {levels:,} levels of {width}, in-degree 2, {designs:,} designs, {dtype}"
    variants = {
        f"{DISTINCT} distinct costs": layered(levels, width),
        f"{DISTINCT} distinct costs, {FAR:.0%} far edges": layered(levels, width, far=FAR),
        "every vertex its own cost": layered(levels, width, costs=levels * width),
    }
    for k, (name, reduced) in enumerate(variants.items()):
        plan = engine.plan(reduced)
        costs = np.random.default_rng(1).random((reduced.combination.shape[1], designs))
        work = len(reduced) * designs

        def run(threads: int, plan=plan, costs=costs) -> NDArray:
            return engine.makespans(plan, costs, dtype=dtype, threads=threads)[0]

        both, one, numpy = alternate(
            settings.rounds, lambda f=run: f(many), lambda f=run: f(1), pairs
        )
        rate = pairs.rate(numpy)
        note = (
            f"NumPy {rate / 1e9:.2f} G pairs/s on one core; engine on one core {work / one / 1e9:.2f} G, "
            f"{plan.slots} live rows"
        )
        target = share * many * rate / 1e9 if k == 0 else None
        yield Row("engine", f"{what}, {name}", work / both / 1e9, "G/s", target, note=note)
    yield from _jax_rows(settings, variants[f"{DISTINCT} distinct costs"], what, dtype, designs)


def _jax_rows(settings, reduced, what, dtype, designs) -> Iterator[Row]:
    """The alternatives: a vmapped scan, and the window of live rows in JAX, on each platform there is."""
    costs = np.random.default_rng(1).random((reduced.combination.shape[1], designs))
    levels = longest_path.cut(reduced.pred_ptr, reduced.pred, reduced.cost - 1)
    few = costs[:, :SCANNED].T.astype(dtype)
    scan = jax.jit(jax.vmap(longest_path.makespan, in_axes=(None, 0)))
    (seconds,) = alternate(settings.rounds, lambda: scan(levels, few).block_until_ready())
    rate = len(reduced) * len(few) / seconds / 1e9
    yield Row(
        "engine", f"the same as a scan in JAX, {len(few)} designs ({dtype})", rate, "G/s", note=what
    )
    accelerators = devices_of(None)
    for devices in (tuple(jax.devices("cpu")), accelerators):
        if devices:
            yield on_devices(settings, reduced, dtype, devices, settings.size(2**17, 2**8), what)
    if not accelerators:
        text = "accelerators at hand, for the window of live rows in JAX"
        yield Row("engine", text, 0, "", note="none: nothing was measured or tuned on one")


def on_devices(
    settings: Settings, reduced: Reduced, dtype: str, devices: Devices, most: int, what: str
) -> Row:
    """The window of live rows on JAX devices, with the batch that is quickest there, of up to `most` designs.

    The limit is what adding two large arrays reaches on the same devices. A vertex reads two finish times and a cost
    of each design and writes one.
    """
    plan = window.windowed(reduced)
    most = most if devices[0].platform != "cpu" else min(most, 2**12)
    batches = [most >> k for k in range(settings.size(6, 6, 1))]
    distinct = reduced.combination.shape[1]
    costs = np.random.default_rng(1).random((distinct, most * len(devices)))
    runs = [
        lambda b=b: window.makespans(plan, costs, dtype=dtype, devices=devices, batch=b)
        for b in batches
    ]
    times = alternate(settings.rounds, *runs)
    best = int(np.argmin(times))
    rate = len(reduced) * costs.shape[1] / times[best]
    size = np.dtype(dtype).itemsize
    summands = jax.device_put(
        np.ones((2, ADDED * len(devices) // size), dtype), window.split_over(devices)
    )
    add = jax.jit(lambda pair: pair[0] + pair[1])
    (seconds,) = alternate(settings.rounds, lambda: add(summands).block_until_ready())
    limit = 1.5 * summands.nbytes / seconds
    kind = f"{len(devices)} x {devices[0].device_kind}"
    return Row(
        "engine",
        f"the same as a window of live rows in JAX on {kind} ({dtype}), {costs.shape[1]:,} designs",
        rate / 1e9,
        "G/s",
        note=f"{4 * size * rate / 1e9:,.1f} GB/s, of {limit / 1e9:,.1f} GB/s that adding large arrays reaches there; "
        f"{batches[best]:,} designs a batch, of {batches[-1]:,} to {batches[0]:,} tried; {what}",
    )
