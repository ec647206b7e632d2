"""Nonlinear least squares on logarithms, with lognormal priors, intervals and cross-validation.

With t_i(theta) the predicted and d_i the measured duration, theta_j = ln p_j (so that every p_j stays positive):

    minimise  sum_i (ln t_i - ln d_i)^2 / s^2  +  sum_j (theta_j - mu_j)^2 / sigma_j^2

s is the relative standard deviation of a measurement, estimated from the residuals r_i: s^2 = sum r_i^2 / (n - k),
with k = tr(J' J / s^2 H^-1) the number of parameters that the measurements themselves determine (all, without
priors), J [n, P] = d ln t / d theta and H = J' J / s^2 + diag(1 / sigma^2). The interval of a parameter is
exp(theta_j +- t(n - k) sqrt(H^-1_jj)), Student's t. Reference: D. Bates, D. Watts, "Nonlinear Regression Analysis
and Its Applications", Wiley 1988, sections 2.2 and 2.3; priors as further data: A. Gelman et al., "Bayesian Data
Analysis", 3rd edition, section 14.8. The minimum is found by steps of K. Levenberg (1944) and D. Marquardt (1963) on
the triangular factor of J (J. Nocedal, S. Wright, "Numerical Optimization", 2nd edition, section 10.3), so that n
measurements take memory and time in proportion to n P, n P^2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError

Floats = NDArray[np.float64]
Predict = Callable[[Floats], tuple[Floats, Floats]]
"""theta [P] -> ln t [n], J [n, P]."""

VANISHED = 1e-6
"""A parameter that moves no duration by more than this fraction of its own change is not determined."""

FURTHEST = 30.0
"""No parameter is fitted to more than e^30 times its start, or less than e^-30."""

LONGEST = 200
"""Steps after which a fit that has not converged is given up."""

SMALL = 1e-13
"""A fit has converged when a step would lessen the sum of squares by no more than this fraction of it, ..."""

SHORT = 1e-11
"""... or change no parameter by more than this fraction."""

TURNS = 20
"""How often the noise is estimated anew where priors weigh against it."""

SMALLEST_NOISE = 1e-12
"""Data without noise would give priors no weight at all."""


@dataclass(frozen=True, eq=False)
class Priors:
    """mean, sigma: [P] of the parameters' logarithms; sigma is inf where there is no prior."""

    mean: Floats
    sigma: Floats

    @property
    def there(self) -> NDArray[np.bool_]:
        """[P] whether each parameter has one."""
        return np.isfinite(self.sigma)

    @property
    def weight(self) -> Floats:
        """[P] 1 / sigma."""
        return np.where(self.there, 1.0 / self.sigma, 0.0)


@dataclass(frozen=True, eq=False)
class Fit:
    """The solution.

    Attributes:
        theta: [P] logarithms of the parameters; covariance: [P, P] of them, nan without degrees of freedom.
        noise: s, nan without degrees of freedom.
        freedom: n - k.
        slopes: J [n, P] at theta.
    """

    theta: Floats
    covariance: Floats
    noise: float
    freedom: float
    slopes: Floats

    def intervals(self, prior: Priors, confidence: float) -> tuple[Floats, Floats]:
        """low [P], high [P]; 0 and inf for a parameter that went to 0, nan without degrees of freedom."""
        if not np.isfinite(self.noise):
            nothing: Floats = np.full(len(self.theta), np.nan)
            return nothing, nothing
        from scipy import stats  # importing it takes as long as importing JAX

        quantile = stats.t.ppf(0.5 + confidence / 2, self.freedom)
        half = quantile * np.sqrt(np.diag(self.covariance))
        half = np.where(_vanished(self.slopes) & ~prior.there, np.inf, half)
        with np.errstate(over="ignore"):
            return np.exp(self.theta - half), np.exp(self.theta + half)


def _vanished(slopes: Floats) -> NDArray[np.bool_]:
    vanished: NDArray[np.bool_] = np.abs(slopes).max(axis=0) < VANISHED
    return vanished


def solve(
    predict: Predict,
    duration: Floats,
    theta: Floats,
    prior: Priors,
    rows: NDArray[Any] | None = None,
) -> Fit:
    """The minimum from a start.

    Args:
        predict: ln t and J.
        duration: [n] measured [s].
        theta: [P] start.
        prior: of the P parameters.
        rows: which measurements count (all by default).
    """
    rows = np.arange(len(duration)) if rows is None else rows
    noise = 0.1  # a first guess, without effect unless there are priors
    for _ in range(TURNS):
        fit = _solve(predict, np.log(duration), theta, prior, rows, noise)
        theta = fit.theta
        if not (prior.there.any() and np.isfinite(fit.noise)) or abs(fit.noise / noise - 1) < 1e-3:
            break
        noise = fit.noise
    return fit


def _solve(
    predict: Predict, target: Floats, theta: Floats, prior: Priors, rows: NDArray[Any], noise: float
) -> Fit:
    """The same, priors weighed against a given noise."""
    pull = noise * prior.weight
    theta, residual, slopes = _descend(predict, target, theta, prior.mean, pull, rows)
    information = slopes.T @ slopes
    inverse = np.linalg.pinv(information + np.diag(pull**2), hermitian=True)
    freedom = len(rows) - float(np.trace(information @ inverse))
    if freedom < 1e-6:
        unknown: Floats = np.full(information.shape, np.nan)
        return Fit(theta, unknown, np.nan, 0.0, slopes)
    estimate = max(float(np.sqrt(residual @ residual / freedom)), SMALLEST_NOISE)
    precision = information / estimate**2 + np.diag(prior.weight**2)
    covariance = np.linalg.pinv(precision, hermitian=True).astype(np.float64)
    return Fit(theta, covariance, estimate, freedom, slopes)


def _descend(
    predict: Predict, target: Floats, start: Floats, mean: Floats, pull: Floats, rows: NDArray[Any]
) -> tuple[Floats, Floats, Floats]:
    """theta, residuals and slopes at the minimum of |ln t - target|^2 + |pull (theta - mean)|^2.

    Raises:
        InputError: no convergence.
    """
    every = len(rows) == len(target)

    def at(theta: Floats) -> tuple[Floats, Floats, float]:
        values, slopes = predict(theta)
        residual = values - target
        if not every:
            residual, slopes = residual[rows], slopes[rows]
        bias = pull * (theta - mean)
        return residual, slopes, float(residual @ residual + bias @ bias)

    theta, low, high = start, start - FURTHEST, start + FURTHEST
    residual, slopes, cost = at(theta)
    damping, widths = 1e-3, np.zeros(len(theta))
    nothing = len(rows) * (0.1 * SMALLEST_NOISE) ** 2
    for _ in range(LONGEST):
        triangle, side = _triangle(slopes, residual, pull, theta - mean)
        gradient = triangle.T @ side
        free = ~(((theta <= low) & (gradient > 0)) | ((theta >= high) & (gradient < 0)))
        widths = np.maximum(widths, np.linalg.norm(triangle, axis=0))
        while True:
            step = _step(triangle, side, widths, damping, free)
            trial = np.clip(theta + step, low, high)
            gain = (
                cost - float(np.sum((triangle @ (trial - theta) + side) ** 2)) - _rest(cost, side)
            )
            if gain <= SMALL * cost + nothing or np.abs(trial - theta).max() <= SHORT:
                return theta, residual, slopes
            try:
                after = at(trial)
            except InputError:  # beyond what the models can tell
                after = (residual, slopes, np.inf)
            if after[2] < cost:
                break
            damping *= 10.0
            if damping > 1e20:
                return theta, residual, slopes
        better = (cost - after[2]) / gain
        theta, (residual, slopes, cost) = trial, after
        damping = damping / 10.0 if better > 0.75 else damping * 3.0 if better < 0.25 else damping
        damping = max(damping, 1e-20)
    raise InputError(
        f"the fit did not converge in {LONGEST} steps (residuals of {np.sqrt(cost / len(rows)):.3g} in the root mean "
        "square); fit fewer parameters, start nearer, or give priors"
    )


def _triangle(
    slopes: Floats, residual: Floats, pull: Floats, bias: Floats
) -> tuple[Floats, Floats]:
    """R [P, P] and q [P] with |J s + r|^2 + |pull (s + bias)|^2 = |R s + q|^2 + what no step changes."""
    parameters = slopes.shape[1]
    joined = np.column_stack([slopes, residual])
    prior = np.column_stack([np.diag(pull), pull * bias])[pull > 0]
    factor = np.linalg.qr(np.vstack([joined, prior]), mode="r")
    full = np.zeros((parameters + 1, parameters + 1))
    full[: len(factor)] = factor
    return full[:parameters, :parameters], full[:parameters, parameters]


def _rest(cost: float, side: Floats) -> float:
    """What of the sum of squares no step changes."""
    return max(cost - float(side @ side), 0.0)


def _step(
    triangle: Floats, side: Floats, widths: Floats, damping: float, free: NDArray[np.bool_]
) -> Floats:
    """Of Levenberg and Marquardt: the least |R s + q|^2 + damping |D s|^2 over the parameters that are free."""
    step = np.zeros(len(side))
    if free.any():
        scale = np.where(widths > 0, widths, 1.0)[free]
        matrix = np.vstack([triangle[:, free] / scale, np.sqrt(damping) * np.eye(len(scale))])
        right = np.concatenate([-side, np.zeros(len(scale))])
        step[free] = np.linalg.lstsq(matrix, right, rcond=None)[0] / scale
    return step


def check_determined(
    fit: Fit, predict: Predict, start: Floats, names: tuple[str, ...], prior: Priors
) -> None:
    """Every parameter must move a duration, and no two may do the same; priors make up for both.

    A parameter that moved durations at the start and went to 0 is none the less a result.

    Raises:
        InputError: names the parameters that the measurements do not determine.
    """
    nowhere = _vanished(fit.slopes) & _vanished(predict(start)[1]) & ~prior.there
    for k in np.flatnonzero(nowhere):
        raise InputError(
            f"parameters: no measurement depends on {names[k]}; leave it out, measure something "
            "that does, or give a prior"
        )
    present = np.flatnonzero(~_vanished(fit.slopes))
    if not len(present):
        return
    columns = fit.slopes[:, present]
    scaled = columns / np.linalg.norm(columns, axis=0)
    known = np.diag(prior.there[present].astype(float))
    triangle = np.linalg.qr(np.vstack([scaled, known]), mode="r")
    _, singular, directions = np.linalg.svd(triangle)
    if singular[-1] < 1e-7 * singular[0]:
        entangled = [names[present[k]] for k in np.flatnonzero(np.abs(directions[-1]) > 0.1)]
        raise InputError(
            f"parameters: the measurements cannot tell {' and '.join(entangled)} apart; fit fewer "
            "of them, or give a prior for one"
        )


def cross_validate(
    predict: Predict, duration: Floats, start: Floats, prior: Priors, *, folds: int, seed: int
) -> Floats:
    """[n] predictions [s], each by a fit without its fold; nan without folds, or too few rows for them."""
    result = np.full(len(duration), np.nan)
    count = min(folds, len(duration))
    if count < 2:
        return result
    fold = np.random.default_rng(seed).permutation(np.arange(len(duration)) % count)
    if len(duration) - np.bincount(fold).max() < np.count_nonzero(~prior.there):
        return result
    for k in range(count):
        rest, mine = np.flatnonzero(fold != k), fold == k
        theta = solve(predict, duration, start, prior, rest).theta
        result[mine] = np.exp(predict(theta)[0][mine])
    return result
