"""The smooth maximum and minimum: worked numbers, limits, derivatives at ties."""

import jax
import jax.numpy as jnp
import pytest

from perfmodel.models.smooth_extrema import overlap, soft_minimum


def test_the_p_norm_is_the_hypotenuse_for_two():
    assert overlap(jnp.array([3.0, 5.0]), jnp.array([4.0, 12.0]), 1).tolist() == pytest.approx(
        [5, 13]
    )


def test_of_two_very_different_times_the_longer_counts():
    assert overlap(1.0, 1e-3, 2).item() == pytest.approx(1.0, rel=1e-12)
    assert overlap(0.0, 2.0, 3).item() == pytest.approx(2.0, rel=1e-15)
    assert overlap(0.0, 0.0, 2).item() < 1e-70
    assert jax.grad(lambda a: overlap(a, 0.0, 3))(0.0) == 0.0


def test_at_a_tie_both_have_the_derivative_of_the_formula():
    slope = jax.grad(lambda a, b: overlap(a, b, 2), (0, 1))(2.0, 2.0)
    assert slope[0].item() == pytest.approx(2 ** (1 / 4 - 1))
    assert slope[1].item() == pytest.approx(2 ** (1 / 4 - 1))


def test_the_soft_minimum_of_equal_options_is_a_little_less_than_one_of_them():
    assert soft_minimum([3.0, 3.0]).item() == pytest.approx(3 * 2 ** (-1 / 128))
    assert soft_minimum([3.0, 4.0, 1e30]).item() == pytest.approx(3.0, rel=1e-9)


def test_the_soft_minimum_s_derivative_is_shared_at_a_tie():
    slope = jax.grad(lambda a, b: soft_minimum([a, b]), (0, 1))(3.0, 3.0)
    assert slope[0].item() == pytest.approx(slope[1].item())
    assert slope[0].item() == pytest.approx(2 ** (-1 / 128) / 2)


def test_an_array_of_options_is_its_rows():
    rows = jnp.array([[2.0, 7.0], [3.0, 5.0], [2.0, 6.0]])
    alone = soft_minimum(list(rows))
    assert soft_minimum(rows).tolist() == pytest.approx(alone.tolist(), rel=1e-14)
    of_rows = jax.grad(lambda t: soft_minimum(t).sum())(rows)
    of_options = jax.grad(lambda t: soft_minimum(list(t)).sum())(rows)
    assert jnp.allclose(of_rows, of_options, rtol=1e-12)
