"""A makespan as an optimiser sees it: designs in batches, and the smooth pieces of the makespan that they show.

The makespan is a maximum, T(x) = max over paths k of w_k . c(x), and the costs c(x) have maxima of their own (the
roofline). A *piece* is a path with the choices of its costs held: smooth, and nowhere above T where costs grow with
their maxima. Variables are scaled: z = ln x, or z = (x - lower) / (upper - lower); times enter as logarithms.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from perfmodel.compiled import Compiled
from perfmodel.engine import bulk_cpu as engine
from perfmodel.errors import InputError
from perfmodel.optimization.active_branches import BranchingFunction
from perfmodel.optimization.objective import Goal, VariedDesign
from perfmodel.pytree import content

Vector = NDArray[np.float64]


FEASIBLE = 1e-7
"""A limit holds where its residual (a relative excess) is at most this."""


class NothingFeasible(InputError):
    """No design within the bounds meets the constraints."""


@dataclass(frozen=True, eq=False)
class SmoothPiece:
    """A path with the choices of its costs: how often each cost stands on it [S], and the choices."""

    counts: Vector
    choices: tuple[NDArray[Any], ...]

    def key(self) -> bytes:
        """Equal for equal pieces."""
        return b"".join([self.counts.tobytes(), *(c.tobytes() for c in self.choices)])


@dataclass(frozen=True, eq=False)
class Point:
    """One evaluated design: scaled variables z [P], makespan [s], objective, largest excess of a limit, its piece."""

    z: Vector
    makespan: float
    objective: float
    excess: float
    piece: SmoothPiece

    @property
    def y(self) -> Vector:
        """[P+1] z, and the logarithm of the makespan."""
        return np.append(self.z, np.log(self.makespan))

    def better_than(self, other: Point | None) -> bool:
        """Feasible first, then lower."""
        if other is None:
            return True
        mine, theirs = max(self.excess, FEASIBLE), max(other.excess, FEASIBLE)
        return (mine, self.objective) < (theirs, other.objective)


@dataclass
class Effort:
    """What was spent: longest paths of whole graphs (one per design), and evaluations of the smooth problem."""

    makespans: int = 0
    smooth: int = 0

    @property
    def evaluations(self) -> int:
        """All of them; each smooth one counts as one, though it sees no graph."""
        return self.makespans + self.smooth


@dataclass(frozen=True)
class Scale:
    """x = e^z, or x = lower + z (upper - lower)."""

    lower: Vector
    upper: Vector
    log: bool

    def x(self, z: Any) -> Any:
        """Values of the parameters."""
        if self.log:
            return jnp.exp(z)
        return self.lower + z * (self.upper - self.lower)

    def z(self, x: Vector) -> Vector:
        """Scaled variables."""
        if self.log:
            return np.log(x)
        width = self.upper - self.lower
        return (x - self.lower) / np.where(width > 0, width, 1.0)

    def centre(self) -> Vector:
        """Values in the middle of the bounds."""
        if self.log:
            return np.sqrt(self.lower * self.upper)
        return (self.lower + self.upper) / 2

    def slope(self, x: Vector) -> Vector:
        """dx/dz."""
        return np.asarray(x, float) if self.log else self.upper - self.lower


@dataclass(eq=False)
class EpigraphProblem:
    """A compiled graph, what is wanted of it, and all that has been learnt about it so far.

    Attributes:
        compiled: whose frozen order counts.
        design, goal: parameters, objective and limits.
        scale: of the variables.
        effort: shared over the problems of one optimisation.
        pieces: known so far, by key.
        box: bounds of z, where they are narrower than those of the scale.
    """

    compiled: Compiled
    design: VariedDesign
    goal: Goal
    scale: Scale
    effort: Effort
    threads: int = 1
    pieces: dict[bytes, SmoothPiece] = field(default_factory=dict)
    box: tuple[Vector, Vector] | None = None

    def __post_init__(self) -> None:
        design, scale = self.design, self.scale
        self._key = content((design.system, design.models, design.economics))
        if self._key is not None:
            ends = (scale.lower.tobytes(), scale.upper.tobytes(), scale.log)
            self._key = ("epigraph", design.paths, ends, self._key)
        self._open, self._paths = self._kept(self._key, self._of_paths)
        self._read_goal()

    def _kept(self, key: Hashable | None, make: Callable[[], Any]) -> Any:
        """What an earlier optimisation of the same compiled graph has made, where the key says that it is the same."""
        if key is None:
            return make()
        functions = self.compiled.functions
        if key not in functions:
            functions[key] = make()
        return functions[key]

    def _of_paths(self) -> tuple[Any, Any]:
        """Jitted: costs and the choices behind them; length and slope of paths whose choices are held."""
        centre = self.scale.z(self.scale.centre())
        opened = BranchingFunction(self._cost, jnp.asarray(centre))

        def path(z: Array, counts: Array, choices: list[Array]) -> Array:
            return jnp.log(jnp.vdot(counts, opened.piece(z, choices)))

        paths = jax.jit(jax.vmap(jax.value_and_grad(path), in_axes=(None, 0, 0)))
        return jax.jit(jax.vmap(opened.value_and_choices)), paths

    def _read_goal(self) -> None:
        known = None if self._key is None or self.goal.said is None else (self._key, self.goal.said)
        self._objective, self._limits = self._kept(known, self._of_goal)

    def _of_goal(self) -> tuple[Any, Any]:
        """Jitted: the objective and its gradient; residuals of the limits and their Jacobian."""
        objective = jax.jit(jax.value_and_grad(self._wanted))
        limits = jax.jit(lambda y: (self._residuals(y), jax.jacfwd(self._residuals)(y)))
        return objective, limits

    def along(self, compiled: Compiled) -> EpigraphProblem:
        """The same problem for another order of issue of the same graph; nothing is compiled again.

        But where other kernels are beside collectives there, whose costs are others.
        """
        if not _equal_costs(self.compiled, compiled):
            return replace(self, compiled=compiled, pieces={})
        other = copy(self)
        other.compiled, other.pieces = compiled, {}
        return other

    def holding(self, values: Mapping[str, float]) -> EpigraphProblem:
        """The same problem with some variables held."""
        other = copy(self)
        low, high = self.scale.lower.copy(), self.scale.upper.copy()
        for path, value in values.items():
            k = self.design.paths.index(path)
            low[k] = high[k] = value
        other.box = (self.scale.z(low), self.scale.z(high))
        return other

    def towards(self, goal: Goal) -> EpigraphProblem:
        """The same makespan, and all that is known of it, for another goal."""
        other = copy(self)
        other.goal = goal
        other._read_goal()
        return other

    def _cost(self, z: Array) -> Array:
        """[S] costs [s]."""
        evaluate = self.compiled.smooth or self.compiled.evaluate
        cost = evaluate(*self.design.at(self.scale.x(z)))
        return cost * self.compiled.unit

    def _wanted(self, y: Array) -> Array:
        value = self.goal.objective(self.scale.x(y[:-1]), jnp.exp(y[-1]))
        return jnp.log(value) if self.goal.positive else jnp.asarray(value, float)

    def _residuals(self, y: Array) -> Array:
        x, t = self.scale.x(y[:-1]), jnp.exp(y[-1])
        found = [jnp.asarray(limit.residual(x, t), float) for limit in self.goal.limits]
        return jnp.stack(found) if found else jnp.zeros(0)

    def objective(self, y: Vector) -> tuple[float, Vector]:
        """The objective (its logarithm, if it is positive) at y = (z, ln t), and its gradient [P+1]."""
        value, gradient = self._objective(y)
        return float(value), np.asarray(gradient, np.float64)

    def unscaled(self, value: float) -> float:
        """The objective in its own units."""
        return float(np.exp(value)) if self.goal.positive else value

    def limits(self, y: Vector) -> tuple[Vector, Vector]:
        """[m] residuals and [m, P+1] their gradients."""
        value, gradient = self._limits(y)
        return np.asarray(value, np.float64), np.asarray(gradient, np.float64)

    def excess(self, y: Vector) -> float:
        """How far the worst limit is exceeded, relatively."""
        residuals = self.limits(y)[0]
        equal = np.array([limit.equal for limit in self.goal.limits], bool)
        return float(np.where(equal, np.abs(residuals), residuals).max(initial=0.0))

    def costs(self, z: Vector) -> tuple[Vector, list[NDArray[Any]]]:
        """[D, S] costs in seconds and the choices behind them, from [D, P]."""
        designs = len(z)
        size = _few_sizes(designs)
        cost, choices = self._open(np.pad(z, ((0, size - designs), (0, 0)), mode="edge"))
        return np.asarray(cost, np.float64)[:designs], [np.asarray(c)[:designs] for c in choices]

    def evaluate(self, z: Vector) -> list[Point]:
        """Designs [D, P] in one batch, along the frozen order; their pieces are kept."""
        cost, choices = self.costs(z)
        makespan, counts = engine.makespans(
            self.compiled.plan, cost.T, threads=self.threads, paths=True
        )
        self.effort.makespans += len(z)
        points = []
        for k, row in enumerate(z):
            piece = SmoothPiece(np.ascontiguousarray(counts[:, k]), tuple(c[k] for c in choices))
            points.append(self.point(row, float(makespan[k]), piece))
            self.pieces.setdefault(piece.key(), piece)
        return points

    def own(self, z: Vector) -> Vector:
        """[D] makespan of every design's own schedule [s]."""
        cost, _ = self.costs(z)
        self.effort.makespans += len(z)
        return self.compiled.own(cost.T / self.compiled.unit, threads=self.threads)[0] * (
            self.compiled.unit
        )

    def point(self, z: Vector, makespan: float, piece: SmoothPiece) -> Point:
        """A design with its objective."""
        if not (np.isfinite(makespan) and makespan > 0):
            raise InputError(
                f"optimize: the makespan is {makespan:g} s at {self.named(z)}; expected a finite time > 0"
            )
        y = np.append(z, np.log(makespan))
        value, gradient = self.objective(y)
        if not np.isfinite(value):
            raise InputError(
                f"objective: is {value} at {self.named(z)}; expected a finite number (texts of sums and products "
                "of positive figures are taken in logarithms)"
            )
        if gradient[-1] < -1e-12:
            raise InputError(
                "objective: falls where the makespan grows; expected one that does not, such as 'time' or a "
                "positive weight (a rate may be minimised as its reciprocal)"
            )
        return Point(np.asarray(z, float), makespan, value, self.excess(y), piece)

    def named(self, z: Vector) -> str:
        """The parameters' values for messages."""
        return ", ".join(f"{p} = {v:g}" for p, v in zip(self.design.paths, self.scale.x(z)))

    def paths(self, y: Vector, pieces: list[SmoothPiece]) -> tuple[Vector, Vector]:
        """[K] ln piece - ln t, and [K, P+1] gradients."""
        size = _few_sizes(len(pieces))
        padded = pieces + [pieces[0]] * (size - len(pieces))
        counts = np.stack([p.counts for p in padded])
        choices = [np.stack(c) for c in zip(*(p.choices for p in padded))]
        value, slope = self._paths(y[:-1], counts, choices)
        value = np.asarray(value)[: len(pieces)] - y[-1]
        slope = np.asarray(slope)[: len(pieces)]
        return value, np.column_stack([slope, np.full(len(pieces), -1.0)])

    def bounds(self) -> tuple[Vector, Vector]:
        """Of z."""
        whole = self.scale.z(self.scale.lower), self.scale.z(self.scale.upper)
        return whole if self.box is None else self.box

    def gradient(self, point: Point) -> Vector:
        """[P] derivative of the objective with respect to z along the point's own piece."""
        _, slope = self.objective(point.y)
        _, path = self.paths(point.y, [point.piece])
        along: Vector = slope[:-1] + slope[-1] * path[0, :-1]
        return along


def _few_sizes(count: int) -> int:
    """8, 64, 512, ...: batches are padded, so that few shapes are compiled."""
    size = 8
    while size < count:
        size *= 8
    return size


def _equal_costs(one: Compiled, other: Compiled) -> bool:
    """Whether two compiled graphs have one and the same table of costs."""
    tables = [getattr(c.evaluate, "work", None) for c in (one, other)]
    if None in tables or one.kinds != other.kinds:
        return one.kinds == other.kinds
    pairs = zip(*(table.blocks for table in tables))  # type: ignore[union-attr]
    return all(np.array_equal(a.rows, b.rows) for a, b in pairs)
