"""Formulas in NumPy: every operation and whole models against JAX, what is left to XLA, what is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jax import lax

import perfmodel as pm
from perfmodel.analysis.evaluation import Evaluator
from perfmodel.models import host_formula
from perfmodel.models.host_formula import HostFormula
from perfmodel.models.host_primitives import PRIMITIVES
from perfmodel.parameter_paths import parameters, with_parameters
from perfmodel.pytree import number, record
from perfmodel.vocabulary import NodeType
from perfmodel.workload.columns import RankColumns

ROWS = np.array([0.5, 1.0, 3.0, 0.25])


@record
class Pair:
    """Two parameters."""

    a: float = number("1", default=1.3)
    b: float = number("1", default=0.7)


A = np.array([1.3, 0.2, 1.0, 2.5, 0.7])
B = np.array([0.7, 0.2, 3.0, 2.5, 1.9])
"""Designs, two of them where both are equal."""

FORMULAS = {
    "add": lambda a, b: a * ROWS + b,
    "sub": lambda a, b: a * ROWS - b,
    "mul": lambda a, b: (a * ROWS) * (b + ROWS),
    "div": lambda a, b: (a + ROWS) / (b * ROWS),
    "neg": lambda a, b: -(a * ROWS) + b,
    "max": lambda a, b: jnp.maximum(a * ROWS, b),
    "min": lambda a, b: jnp.minimum(a * ROWS, b),
    "abs": lambda a, b: jnp.abs(a * ROWS - b - 0.01),
    "square": lambda a, b: jnp.square(a * ROWS) + b,
    "sqrt": lambda a, b: jnp.sqrt(a * ROWS + b),
    "rsqrt": lambda a, b: lax.rsqrt(a * ROWS + b),
    "exp": lambda a, b: jnp.exp(a * ROWS - b),
    "exp2": lambda a, b: jnp.exp2(a * ROWS - b),
    "log": lambda a, b: jnp.log(a * ROWS) * b,
    "log1p": lambda a, b: jnp.log1p(a * ROWS) * b,
    "expm1": lambda a, b: jnp.expm1(a * ROWS) * b,
    "tanh": lambda a, b: jnp.tanh(a * ROWS - b),
    "logistic": lambda a, b: jax.nn.sigmoid(a * ROWS - b),
    "pow": lambda a, b: (a * ROWS) ** b,
    "integer_pow": lambda a, b: (a * ROWS) ** 3 + (b + ROWS) ** -2,
    "select_n": lambda a, b: jnp.where(a * ROWS > b, a * a * ROWS, b * ROWS),
    "floor": lambda a, b: jnp.floor(3 * a * ROWS) * b,
    "ceil": lambda a, b: jnp.ceil(3 * a * ROWS) * b,
    "sign": lambda a, b: jnp.sign(a * ROWS - b) * b,
    "stop_gradient": lambda a, b: lax.stop_gradient(a * ROWS) * b,
    "copy": lambda a, b: jnp.copy(a * ROWS) * b,
    "eq": lambda a, b: jnp.where(a * ROWS == b, a, b * ROWS),
    "ne": lambda a, b: jnp.where(a * ROWS != b, a, b * ROWS),
    "lt": lambda a, b: jnp.where(a * ROWS < b, a, b * ROWS),
    "le": lambda a, b: jnp.where(a * ROWS <= b, a, b * ROWS),
    "gt": lambda a, b: jnp.where(a * ROWS > b, a, b * ROWS),
    "ge": lambda a, b: jnp.where(a * ROWS >= b, a, b * ROWS),
    "and": lambda a, b: jnp.where((a > 1.0) & (b * ROWS > 1.0), a, b * ROWS),
    "or": lambda a, b: jnp.where((a > 1.0) | (b * ROWS > 1.0), a, b * ROWS),
    "not": lambda a, b: jnp.where(~(a * ROWS > b), a, b * ROWS),
    "is_finite": lambda a, b: jnp.where(jnp.isfinite(a * ROWS), a * ROWS, b),
    "convert_element_type": lambda a, b: (a * ROWS > b).astype(float) * b + a,
    "broadcast_in_dim": lambda a, b: (jnp.broadcast_to(a * ROWS, (3, 4)) * b).sum(0),
    "reshape": lambda a, b: ((a * ROWS).reshape(2, 2) * jnp.array([[b], [1.0]])).reshape(4),
    "squeeze": lambda a, b: lax.squeeze((a * ROWS)[:, None], (1,)) * b,
    "transpose": lambda a, b: (jnp.outer(a * ROWS, jnp.array([2.0, 3.0])).T * b).sum(0),
    "slice": lambda a, b: lax.slice(jnp.concatenate([a * ROWS, b * ROWS]), (1,), (8,), (2,)),
    "reduce_sum": lambda a, b: a * ROWS * jnp.sum(jnp.stack([a * ROWS, ROWS + b]), axis=1).sum(),
    "reduce_max": lambda a, b: jnp.stack([a * ROWS, b * ROWS, b + ROWS]).max(axis=0),
    "reduce_min": lambda a, b: jnp.stack([a * ROWS, b * ROWS, b + ROWS]).min(axis=0),
    "concatenate": lambda a, b: jnp.concatenate([a * ROWS, jnp.full(2, 3.0), b * ROWS]),
    "stack": lambda a, b: jnp.stack([a, b, jnp.asarray(2.0), a * b]),
}


def formula_of(function):
    return lambda pair, _: function(pair.a, pair.b)


@pytest.mark.parametrize("name", list(FORMULAS))
def test_values_and_derivatives_of_an_operation_are_jax_s(name):
    host = HostFormula.traced(formula_of(FORMULAS[name]), Pair(), None)

    def one(point):
        return jnp.asarray(FORMULAS[name](point[0], point[1]))

    points = jnp.stack([jnp.asarray(A), jnp.asarray(B)], axis=1)
    expected = jax.vmap(one)(points).T
    found = host.values({"a": A, "b": B})
    assert np.allclose(found, expected, rtol=1e-14, atol=1e-15)
    weights = np.random.default_rng(3).uniform(0.0, 2.0, found.shape)
    slopes = jax.vmap(lambda p, w: jax.vjp(one, p)[1](w)[0])(points, jnp.asarray(weights).T)
    assert np.allclose(
        host.pull({"a": A, "b": B}, weights, ("a", "b")), slopes.T, rtol=1e-13, atol=1e-14
    )


def test_every_operation_has_a_case():
    other = {"add_any"}  # stands only in derivatives of derivatives
    assert set(FORMULAS) == set(PRIMITIVES) - other


def test_what_does_not_vary_is_as_at_the_point():
    host = HostFormula.traced(formula_of(FORMULAS["div"]), Pair(), None)
    assert np.array_equal(host.values({"a": A}), host.values({"a": A, "b": np.full(5, 0.7)}))
    moved = host.at([1.3, 2.0])
    assert np.array_equal(moved.values({"a": A}), host.values({"a": A, "b": np.full(5, 2.0)}))
    weights = np.ones((4, 5))
    both = host.pull({"a": A, "b": np.full(5, 0.7)}, weights, ("a", "b"))
    assert np.array_equal(host.pull({"a": A}, weights, ("b",)), both[1:])


def test_a_formula_without_parameters_is_a_constant():
    host = HostFormula.traced(lambda pair, _: jnp.asarray(ROWS), Pair(), None)
    assert host.values({"a": A}).tolist() == np.repeat(ROWS[:, None], 5, axis=1).tolist()
    assert not host.pull({"a": A}, np.ones((4, 5)), ("a", "b")).any()


@jax.custom_jvp
def rounded(x):
    return jnp.floor(x)


rounded.defjvp(lambda primals, tangents: (rounded(*primals), tangents[0]))


@pytest.mark.parametrize(
    "function",
    [lambda a, b: jnp.cumsum(a * ROWS) + b, lambda a, b: rounded(a * ROWS) + b],
    ids=["an unknown operation", "a derivative of its own"],
)
def test_what_numpy_does_not_know_is_left_to_xla(function):
    assert HostFormula.traced(formula_of(function), Pair(), None) is None


TRACES = ("gpt_dp2_tp2_pp2", "moe_8", "fsdp_8")
VARIED = ("npu.peak_flops", "npu.memory_bandwidth", "network.0.bandwidth", "network.0.latency")


def designs(system, count=24):
    known = parameters(system)
    factor = np.exp(np.random.default_rng(5).uniform(-1.5, 1.5, (count, len(VARIED))))
    return pd.DataFrame(factor * [float(known[path]) for path in VARIED], columns=list(VARIED))


@pytest.mark.parametrize("models", [None, "roofline"])
@pytest.mark.parametrize("trace", TRACES)
def test_costs_and_derivatives_of_a_graph_are_xla_s(trace, models):
    graph = pm.load(f"traces/{trace}")
    compiled = pm.compile(graph, pm.hardware("dgx-h100", ranks=graph.ranks), models)
    host = Evaluator.of(compiled).host
    table = designs(compiled.system)
    values = table.to_numpy().T
    weights = np.random.default_rng(7).integers(0, 50, (len(compiled.category), len(table)))

    def costs(point):
        at = with_parameters(compiled.system, compiled.models, dict(zip(VARIED, point)))
        return compiled.evaluate(*at)

    def slope(point, weight):
        return jax.vjp(costs, point)[1](weight)[0]

    here = dict(zip(VARIED, values))
    expected = jax.jit(jax.vmap(costs, in_axes=1, out_axes=1))(values)
    assert np.allclose(host.values(here), expected, rtol=1e-13, atol=0)
    slopes = jax.jit(jax.vmap(slope, in_axes=1, out_axes=1))(values, weights.astype(float))
    found = host.pull(here, weights, VARIED)
    assert np.allclose(found, slopes, rtol=1e-12, atol=0)


def test_a_sweep_and_sensitivities_are_the_same_by_xla(monkeypatch):
    graph = pm.load("traces/gpt_dp2_tp2_pp2")
    system = pm.hardware("dgx-h100", ranks=graph.ranks)

    def tables():
        compiled = pm.compile(graph, system)
        return pm.sweep(compiled, designs(system)), pm.sensitivity(compiled)

    ours = tables()
    monkeypatch.setattr(host_formula, "HOST_DESIGNS", 0)
    for mine, other in zip(ours, tables()):
        pd.testing.assert_frame_equal(mine, other, check_exact=False, rtol=1e-12, atol=0)


def test_at_a_tie_the_first_parameter_limits_whoever_computes(monkeypatch):
    """At the ridge of a bare roofline, arithmetic and memory take the same time."""
    work = RankColumns(id=[1], type=[NodeType.COMP], flops=[10**12], bytes=[3 * 10**9])
    step = pm.Graph.from_ranks([work])
    system = pm.hardware("dgx-h100", ranks=1, models="roofline")
    for most in (512, 0):
        monkeypatch.setattr(host_formula, "HOST_DESIGNS", most)
        compiled = pm.compile(step, system)
        table = pm.sweep(compiled, {"npu.peak_flops": [1e15, 3e15], "npu.memory_bandwidth": [3e12]})
        assert table.limited_by.tolist() == ["npu.peak_flops", "npu.memory_bandwidth"]


def test_a_first_sweep_compiles_nothing():
    """Of a system whose models have shapes, tens of products and collectives over nodes."""
    graph = pm.load("traces/moe_8")
    seen: list[str] = []

    def listen(event: str, duration: float, **_: object) -> None:
        if event.endswith("backend_compile_duration"):
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    compiled = pm.compile(graph, pm.hardware("dgx-a100", ranks=graph.ranks))
    pm.predict(compiled)
    pm.sweep(compiled, {"npu.peak_flops": [3e14, 1e15], "network.0.latency": [1e-6]})
    pm.sensitivity(compiled)
    assert seen == []
