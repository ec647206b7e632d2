"""Where a batch of designs is evaluated: by compiled loops on the host, or on JAX devices that share the designs.

Both take the same plan and give the same answers, to rounding.
"""

from __future__ import annotations

import os
from typing import Any
from weakref import WeakKeyDictionary

import jax
import numpy as np
from numpy.typing import NDArray

from perfmodel.engine import bulk_cpu, bulk_jax
from perfmodel.engine.bulk_cpu import Plan
from perfmodel.errors import InputError

HOST = "host"
"""The name of the compiled loops, which are on this machine whatever its devices."""

Devices = tuple[Any, ...]
"""JAX devices; none means the host's compiled loops."""

_windows: WeakKeyDictionary[Plan, bulk_jax.WindowedGraph] = WeakKeyDictionary()
"""Plans laid out for devices."""


def devices_of(name: str | None) -> Devices:
    """The devices of this process that a name asks for: "host" (none), or a platform of JAX.

    Without a name, all accelerators of the platform that JAX takes by itself, none where that is the CPU.

    Raises:
        InputError: there is no such platform, or none of those that the environment names.
    """
    if name == HOST:
        return ()
    usual = _usual_platform()
    if name is None:
        return () if usual == "cpu" else tuple(jax.local_devices())
    try:
        return tuple(jax.local_devices(backend=name))
    except RuntimeError as error:
        there = f"{HOST!r}, {usual!r}"
        raise InputError(f"devices: got {name!r}, expected one of {there} here ({error})") from None


def _usual_platform() -> str:
    """The platform that JAX takes by itself."""
    try:
        return jax.default_backend()
    except (RuntimeError, AssertionError):
        named = os.environ.get("JAX_PLATFORMS", "")
        raise InputError(
            f"JAX has none of the platforms that JAX_PLATFORMS names ({named!r}) on this machine; unset it, or add cpu"
        ) from None


def makespans(
    plan: Plan,
    costs: NDArray[np.floating],
    *,
    devices: Devices = (),
    threads: int = 2,
    designs: NDArray[np.intp] | None = None,
    counts: NDArray[np.float64] | None = None,
    held: NDArray[np.uint8] | None = None,
    **options: Any,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """[D] makespan of every design, [S, D] path counts where `paths` asks for them; see `bulk_cpu.makespans`.

    Args:
        devices: that share the designs, in the place of the host's threads.
        designs, counts: the columns that are meant, and where their path counts go, as there.
        held: as there.
        options: `paths` and `dtype`, as there.
    """
    if not devices:
        return bulk_cpu.makespans(
            plan, costs, threads=threads, designs=designs, counts=counts, held=held, **options
        )
    here = costs if designs is None else costs[:, designs]
    makespan, found = bulk_jax.makespans(
        _windowed(plan), here, devices=devices, held=held, **options
    )
    if held is not None and plan.certificate is not None:
        held &= plan.certificate.lasting(here, makespan)
    if counts is None:
        return makespan, found
    counts[:, slice(None) if designs is None else designs] = found
    return makespan, counts


def _windowed(plan: Plan) -> bulk_jax.WindowedGraph:
    if plan not in _windows:
        _windows[plan] = bulk_jax.windowed(plan.reduced, plan.certificate)
    return _windows[plan]
