"""One compiled graph on batches of designs: costs, makespans, gradients, and the figures of a sweep."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from perfmodel.analysis.design_blocks import (
    CompiledOnce,
    call_padded,
    in_blocks,
    in_tables,
    jit_sums,
)
from perfmodel.analysis.economics import columns as columns_of
from perfmodel.analysis.limits import (
    answering,
    by_category,
    kinds_of_costs,
    limiting,
    unanswered,
)
from perfmodel.analysis.throughput import memory_columns, per_token, step_columns
from perfmodel.compiled import Compiled
from perfmodel.engine import bulk
from perfmodel.engine.bulk import Devices, devices_of
from perfmodel.engine.bulk_cpu import sums
from perfmodel.engine.cells import NOBODY, SAMPLE
from perfmodel.forking import check_process
from perfmodel.models.cost_blocks import check_costs
from perfmodel.models.host_formula import HostFormula, JoinedFormula
from perfmodel.models.shared_costs import Costs
from perfmodel.parameter_paths import parameters, with_parameters
from perfmodel.report.memory import peak_memory
from perfmodel.vocabulary import CATEGORIES

SCHEDULES = ("own", "frozen", "simulated")
"""Whose order of issue may be asked for; "simulated" is "own" by simulation of every design."""

ANSWERS = ("frozen", "own", "deadlock", "infinite", "invalid", "cell")
"""Who answered: the frozen order of the reference design, the design's own schedule, another frozen order ("cell"); or
why there is no time: ranks wait for each other, or a duration is infinite, or it is negative or no number."""

FROZEN, OWN, DEADLOCK, INFINITE, INVALID, CELL = range(6)
WHO = np.array([FROZEN, CELL, OWN, OWN], np.int8)
"""The same by what `engine.cells` says."""


@dataclass(frozen=True)
class EvaluationOptions:
    """How a sweep is evaluated; part of what a resumed sweep must agree in."""

    schedule: str = "own"
    breakdown: bool = True
    batch_size: float | None = None
    dtype: str = "float64"
    threads: int = 2
    economics: Any = None
    devices: str | None = None


class Evaluator:
    """A compiled graph and its jitted costs, for batches of designs."""

    def __init__(self, compiled: Compiled):
        self.compiled = compiled
        self._costs: dict[tuple[str, ...], Any] = {}
        self._pull: dict[tuple[str, ...], Any] = {}
        self._unanswered: dict[tuple[str, ...], list[str]] = {}

    @classmethod
    def of(cls, compiled: Compiled) -> Evaluator:
        """The one evaluator of a compiled graph; what it has jitted serves every later call."""
        kept: Evaluator = compiled.functions.setdefault("evaluator", cls(compiled))
        return kept

    def costs(
        self,
        paths: tuple[str, ...],
        values: NDArray[Any],
        devices: Devices = (),
        threads: int = 1,
    ) -> NDArray[np.float64]:
        """[S, D] cost table, from [P, D] parameter values."""
        check_process()
        if self.compiled.batched:
            c = self.compiled
            at = with_parameters(c.system, c.models, dict(zip(paths, values)))
            costs = np.asarray(c.evaluate(*at), np.float64)
            # nothing depends on any parameter: the same on every design
            return costs if costs.ndim == 2 else np.repeat(costs[:, None], values.shape[1], axis=1)
        if self.host is not None and not devices and self.host.suits(values.shape[1]):
            return self.host.values(dict(zip(paths, values)))
        if paths not in self._costs:
            function = jax.jit(jax.vmap(partial(self._cost, paths), in_axes=1, out_axes=1))
            self._costs.setdefault(paths, CompiledOnce(function))
        return call_padded(self._costs[paths], values, devices=devices, threads=threads)

    @cached_property
    def host(self) -> HostFormula | JoinedFormula | None:
        """The formulas of the costs (what stands for them where they have no derivative), for few designs."""
        c = self.compiled
        if isinstance(c.evaluate, Costs):
            return c.evaluate.host(c.system, c.models)
        return HostFormula.traced(c.smooth or c.evaluate, c.system, c.models)

    def _cost(self, paths: tuple[str, ...], values: jax.Array) -> jax.Array:
        c = self.compiled
        return c.evaluate(*with_parameters(c.system, c.models, dict(zip(paths, values))))

    def gradients(
        self,
        paths: tuple[str, ...],
        values: NDArray[Any],
        counts: NDArray[Any],
        wanted: tuple[str, ...],
        devices: Devices = (),
        threads: int = 1,
    ) -> NDArray[np.float64]:
        """[W, D] derivative of the makespan with respect to the wanted parameters.

        Args:
            paths, values: [P], [P, D] what the points set.
            counts: [S, D] how often each cost stands on the critical path.
            wanted: parameter paths.
            devices: that share the designs. threads: of the host, that do where there are no devices.
        """
        if self.host is not None and not devices and self.host.suits(values.shape[1]):
            here = dict(zip(paths, values))
            return self.host.pull(here, counts, wanted) * self.compiled.unit
        key = (*paths, "|", *wanted)
        if key not in self._pull:
            c = self.compiled

            def one(values: jax.Array, counts: jax.Array) -> list[jax.Array]:
                here, models = with_parameters(c.system, c.models, dict(zip(paths, values)))
                known = parameters(here, models)
                point = [jax.numpy.asarray(known[w], float) for w in wanted]

                def cost(point: list[jax.Array]) -> Any:
                    evaluate = c.smooth or c.evaluate
                    return evaluate(*with_parameters(here, models, dict(zip(wanted, point))))

                found: list[jax.Array] = jax.vjp(cost, point)[1](counts)[0]
                return found

            def all_of(values: jax.Array, counts: jax.Array) -> jax.Array:
                # each a row of its own: a table by designs would have to be turned round
                return jax.numpy.stack(jax.vmap(one, in_axes=1)(values, counts))

            self._pull.setdefault(key, CompiledOnce(jit_sums(all_of)))
        counts = counts.astype(float, copy=False)
        found = call_padded(self._pull[key], values, counts, devices=devices, threads=threads)
        return found if self.compiled.unit == 1.0 else found * self.compiled.unit

    def makespans(
        self, costs: NDArray[Any], options: EvaluationOptions, *, paths: bool
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """[D] makespan in the unit of the costs, [D] who answered (of `ANSWERS`), [S, D] path counts (or empty).

        Where a design's own order certainly is one that was frozen, the longest path answers.
        """
        c = self.compiled
        if self._by_one_order(options):
            makespan, counts = self._frozen(costs, options, paths=paths)
            return makespan, np.full(costs.shape[1], FROZEN, np.int8), counts
        if options.schedule == "simulated":
            return self._simulated(costs, options, paths=paths)
        makespan, found, counts = c.cells.answer(
            costs, paths=paths, threads=options.threads, devices=devices_of(options.devices)
        )
        who = WHO[found]
        who[np.isnan(makespan)] = DEADLOCK
        for quicker in (True, False):
            rest = np.flatnonzero(found == NOBODY)
            if not len(rest):
                continue
            here = np.ascontiguousarray(costs[:, rest])
            if quicker:
                by_nodes = c.own.nodes(here, paths=paths, threads=options.threads)
                if by_nodes is None:
                    continue
                makespan[rest], there = by_nodes
                who[rest] = OWN
                found[rest] = np.where(np.isfinite(makespan[rest]), SAMPLE, NOBODY)
            else:
                makespan[rest], who[rest], there = self._simulated(here, options, paths=paths)
            if paths:
                counts[:, rest] = there
        return makespan.astype(options.dtype, copy=False), who, counts

    def _simulated(
        self, costs: NDArray[Any], options: EvaluationOptions, *, paths: bool
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """As `makespans`, every design by simulation."""
        makespan, differs, counts = self.compiled.own(costs, paths=paths, threads=options.threads)
        who = np.where(np.isnan(makespan), DEADLOCK, np.where(differs, OWN, FROZEN)).astype(np.int8)
        same = np.flatnonzero(who == FROZEN)
        if paths and len(same):
            here = np.ascontiguousarray(costs[:, same])
            counts = counts.astype(float)
            counts[:, same] = self._frozen(here, options, paths=True)[1]
        return makespan.astype(options.dtype, copy=False), who, counts

    def _frozen(
        self, costs: NDArray[Any], options: EvaluationOptions, *, paths: bool
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """[D] makespan and [S, D] path counts (or empty) along the frozen order."""
        return bulk.makespans(
            self.compiled.plan,
            costs,
            paths=paths,
            dtype=options.dtype,
            threads=options.threads,
            devices=devices_of(options.devices),
        )

    def figures(
        self, paths: tuple[str, ...], values: NDArray[Any], options: EvaluationOptions
    ) -> dict[str, NDArray[Any]]:
        """All that a sweep says of some designs: [D] by column; `schedule` and `limited_by` as numbers of its `labels`.

        Args:
            paths, values: [P], [P, D] what the points set.
        """
        alone = replace(options, threads=1)
        together = not self._by_one_order(options) or devices_of(options.devices)

        def some(here: slice) -> dict[str, NDArray[Any]]:
            mine = values[:, here]
            if together:
                return self._figures(paths, mine, options)
            return in_blocks(
                lambda part: self._figures(paths, mine[:, part], alone),
                mine.shape[1],
                options.threads,
            )

        return in_tables(some, values.shape[1], len(self.compiled.category))

    def _by_one_order(self, options: EvaluationOptions) -> bool:
        """Whether the reference design's order answers all designs."""
        return options.schedule == "frozen" or (options.schedule == "own" and self.compiled.forced)

    def _figures(
        self, paths: tuple[str, ...], values: NDArray[Any], options: EvaluationOptions
    ) -> dict[str, NDArray[Any]]:
        """As `figures`."""
        c, designs = self.compiled, values.shape[1]
        devices = devices_of(options.devices)
        if paths:
            costs = self.costs(paths, values, devices, options.threads)
        else:
            costs = self._same(designs)
        if costs.size and not (costs.min() >= 0 and costs.max() < np.inf):
            timed = np.asarray(((costs >= 0) & (costs < np.inf)).all(axis=0))
            return self._some(paths, values, options, costs, timed)
        makespan, who, counts = self.makespans(costs, options, paths=options.breakdown)
        seconds = makespan.astype(float) * c.unit
        figures: dict[str, NDArray[Any]] = {"makespan_s": seconds}
        if options.breakdown:
            figures |= self._breakdown(paths, values, seconds, costs, counts, options)
        if options.economics is not None:
            figures |= columns_of(c, list(paths), values, seconds, economics=options.economics)
        figures["schedule"] = who
        if options.batch_size is not None:
            with np.errstate(divide="ignore"):  # a step that takes no time
                figures["throughput_per_s"] = options.batch_size / seconds
        return figures | self._of_step(paths, values, figures)

    @cached_property
    def peak_memory(self) -> float | None:
        """Bytes of the rank that holds most, where that is known, with nodes as the reference design runs them [B]."""
        return peak_memory(self.compiled)

    def _of_step(
        self, paths: tuple[str, ...], values: NDArray[Any], figures: dict[str, NDArray[Any]]
    ) -> dict[str, NDArray[Any]]:
        """Utilization and throughput of a graph that knows its model, memory of one that knows what it holds."""
        c, seconds = self.compiled, figures["makespan_s"]
        step, npu, given = c.graph.step, c.system.npu, dict(zip(paths, values))
        capacity = given.get("npu.memory_capacity", float(npu.memory_capacity))
        memory = memory_columns(self.peak_memory, seconds, capacity=capacity)
        if step is None:
            return memory
        peak = given.get("npu.peak_flops", float(npu.peak_flops))
        ratio = float(npu.of_dtype(step.dtype).peak_flops) / float(npu.peak_flops)
        found = step_columns(step, c.graph.ranks, seconds, peak_flops=peak * ratio) | memory
        if "cost_usd" in figures:
            cost, energy = figures["cost_usd"], figures["energy_J"]
            found |= per_token(step, figures["makespan_s"], cost, energy)
        return found

    def _some(
        self,
        paths: tuple[str, ...],
        values: NDArray[Any],
        options: EvaluationOptions,
        costs: NDArray[Any],
        timed: NDArray[np.bool_],
    ) -> dict[str, NDArray[Any]]:
        """The figures of the designs whose durations are all times; the others say why they have none."""
        infinite = ~timed & ((costs >= 0).all(axis=0))
        known = self.figures(paths, values[:, timed], options) if timed.any() else {}
        if not timed.any():  # the names of the figures, from the reference design
            check_costs(self._same(1))
            known = {k: v[:0] for k, v in self.figures((), np.zeros((0, 1)), options).items()}
        figures: dict[str, NDArray[Any]] = {}
        for name, found in known.items():
            fill = np.nan if np.issubdtype(found.dtype, np.floating) else 0
            figures[name] = np.full(len(timed), fill, found.dtype)
            figures[name][timed] = found
        figures["makespan_s"][infinite] = np.inf
        figures["schedule"][infinite] = ANSWERS.index("infinite")
        figures["schedule"][~timed & ~infinite] = ANSWERS.index("invalid")
        if "limited_by" in figures:
            figures["limited_by"][~timed] = len(self.labels["limited_by"]) - 1
        if "throughput_per_s" in figures:
            figures["throughput_per_s"][infinite] = 0.0
        return figures

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """What the numbers of some figures stand for."""
        return {
            "schedule": ANSWERS,
            "limited_by": (*parameters(self.compiled.system), "recorded", "host", "none"),
        }

    def _same(self, designs: int) -> NDArray[np.float64]:
        c = self.compiled
        cost = np.asarray(c.evaluate(c.system, c.models), np.float64)
        return np.repeat(cost[:, None], designs, axis=1)

    def _breakdown(
        self,
        paths: tuple[str, ...],
        values: NDArray[Any],
        seconds: NDArray[Any],
        costs: NDArray[Any],
        counts: NDArray[Any],
        options: EvaluationOptions,
    ) -> dict[str, NDArray[Any]]:
        """The critical path by category [s], and what limits each design."""
        devices = devices_of(options.devices)

        def explain(here: slice) -> dict[str, NDArray[Any]]:
            spent = sums(self._kinds, counts[:, here] * costs[:, here]) * self.compiled.unit
            slope = self.gradients(paths, values[:, here], counts[:, here], wanted, devices)
            limits = limiting(known, paths, values[:, here], slope, spent[len(CATEGORIES) :])
            return by_category(seconds[here], spent[: len(CATEGORIES)]) | {"limited_by": limits}

        known = parameters(self.compiled.system)
        wanted = tuple(known)
        if devices:
            return explain(slice(None))
        return in_blocks(explain, len(seconds), options.threads)

    @cached_property
    def _kinds(self) -> sparse.csr_array:
        return kinds_of_costs(self.compiled.category, self.answering)

    @cached_property
    def answering(self) -> NDArray[np.bool_]:
        """[S] whether a distinct cost depends on any parameter of the system or the models at the reference design."""
        return answering(self.compiled, self.host)

    def unanswered(self, paths: tuple[str, ...]) -> list[str]:
        """Parameters that no cost of the workload depends on, whether a thousandth or a thousandfold."""
        if paths not in self._unanswered:
            self._unanswered[paths] = unanswered(self.compiled, paths, self.costs)
        return self._unanswered[paths]
