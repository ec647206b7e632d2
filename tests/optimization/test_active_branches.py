"""Smooth pieces: equal where their choices are the function's own, below it elsewhere, smooth throughout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import perfmodel.pytree  # noqa: F401  (64-bit numbers)  # noqa: F401  (64-bit numbers)
from perfmodel.optimization.active_branches import BranchingFunction

points = st.lists(st.floats(0.1, 10.0), min_size=3, max_size=3).map(jnp.asarray)


@jax.jit
def roofs(x):
    """Sums of maxima, nested, inside another jit, and over axes."""
    rates = jnp.array([[1.0, 2.0, 3.0], [3.0, 1.0, 0.5]]) / x
    return (
        rates.max(axis=1)
        + jnp.maximum(x[0], jnp.maximum(2 / x[1], x[2]))
        + jnp.stack([rates, 2 / rates]).max(axis=(0, 2))
    )


opened = BranchingFunction(roofs, jnp.ones(3))
value_and_choices = jax.jit(opened.value_and_choices)
piece = jax.jit(opened.piece)


@settings(deadline=None)  # the first call compiles
@given(points)
def test_a_function_equals_its_own_piece(x):
    value, choices = value_and_choices(x)
    assert np.array_equal(value, roofs(x))
    assert np.array_equal(opened.piece(x, choices), roofs(x))


@settings(deadline=None)  # the first call compiles
@given(points, points)
def test_a_piece_is_nowhere_above_a_function_of_maxima(here, there):
    _, choices = value_and_choices(here)
    assert (piece(there, choices) <= roofs(there) * (1 + 1e-15)).all()


@settings(deadline=None)  # the first call compiles
@given(points)
def test_a_piece_has_the_slope_of_the_function_away_from_ties(x):
    _, choices = value_and_choices(x)
    steps = 1e-5 * np.concatenate([np.eye(3), -np.eye(3)])
    near = [value_and_choices(x + step)[1] for step in steps]
    if all(np.array_equal(a, b) for ends in near for a, b in zip(ends, choices)):
        slope = jax.jacfwd(opened.piece)(x, choices)
        assert np.allclose(slope, jax.jacfwd(roofs)(x), rtol=1e-12)


def test_minima_and_cases_are_held_too():
    def function(x):
        return jnp.where(x > 1, x**2, 3 * x).min() + jnp.minimum(x, 2.0)

    open_function = BranchingFunction(function, jnp.ones(2))
    value, choices = open_function.value_and_choices(jnp.array([0.5, 4.0]))
    assert value.tolist() == [2.0, 3.5]
    held = open_function.piece(jnp.array([2.0, 2.0]), choices)
    assert held.tolist() == [6.0 + 2.0, 6.0 + 2.0]  # 3 x of the first; x, and the constant 2


def test_a_loop_is_left_as_it_is():
    def function(x):
        return jax.lax.fori_loop(0, 3, lambda k, total: jnp.maximum(total * 2, x), x).sum()

    open_function = BranchingFunction(function, jnp.ones(2))
    x = jnp.array([1.0, 2.0])
    value, choices = open_function.value_and_choices(x)
    assert value == 24.0
    assert choices == []
    assert open_function.piece(x, choices) == function(x)


def test_pieces_are_batched_by_vmap():
    x = jnp.asarray(np.random.default_rng(0).uniform(0.1, 10, (5, 3)))
    value, choices = jax.vmap(opened.value_and_choices)(x)
    assert np.array_equal(value, jax.vmap(roofs)(x))
    assert jax.vmap(opened.piece)(x, choices) == pytest.approx(np.asarray(value))
