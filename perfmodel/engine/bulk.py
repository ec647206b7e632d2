"""Where a batch of designs is evaluated: by compiled loops on the host, or on JAX devices that share the designs.

Both take the same plan and give the same answers, to rounding.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import jax
import numpy as np
from numpy.typing import DTypeLike, NDArray

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
        InputError: there is no such platform.
    """
    if name == HOST:
        return ()
    if name is None:
        return () if jax.default_backend() == "cpu" else tuple(jax.local_devices())
    try:
        return tuple(jax.local_devices(backend=name))
    except RuntimeError as error:
        there = f"{HOST!r}, {jax.default_backend()!r}"
        raise InputError(f"devices: got {name!r}, expected one of {there} here ({error})") from None


def makespans(
    plan: Plan,
    costs: NDArray[np.floating],
    *,
    dtype: DTypeLike = np.float64,
    threads: int = 2,
    devices: Devices = (),
    held: NDArray[np.uint8] | None = None,
) -> NDArray[np.floating]:
    """[D] makespan of every design; see `bulk_cpu.makespans`.

    Args:
        as there; devices: that share the designs, in the place of the host's threads.
    """
    if devices:
        return bulk_jax.makespans(_window(plan), costs, dtype=dtype, devices=devices, held=held)
    return bulk_cpu.makespans(plan, costs, dtype=dtype, threads=threads, held=held)


def makespans_and_paths(
    plan: Plan,
    costs: NDArray[np.floating],
    *,
    dtype: DTypeLike = np.float64,
    threads: int = 2,
    devices: Devices = (),
    held: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """[D] makespan and [S, D] path counts of every design; see `bulk_cpu.makespans_and_paths`.

    Args:
        as for `makespans`.
    """
    if devices:
        return bulk_jax.makespans_and_paths(
            _window(plan), costs, dtype=dtype, devices=devices, held=held
        )
    return bulk_cpu.makespans_and_paths(plan, costs, dtype=dtype, threads=threads, held=held)


def _window(plan: Plan) -> bulk_jax.WindowedGraph:
    if plan not in _windows:
        _windows[plan] = bulk_jax.window(plan.reduced, plan.certificate)
    return _windows[plan]
