"""Which part of a recording is the step: one ProfilerStep, all of them, or the whole file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from perfmodel.errors import InputError, TraceError
from perfmodel.trace.pytorch.kineto import ANNOTATION, OPERATOR, RUNTIME, STEP, Device

StepChoice = int | str


@dataclass(frozen=True)
class StepWindow:
    """The part of one rank's trace that is replayed.

    Attributes:
        start, end: host time that belongs to it [s]; what the GPU still does then belongs to it, too.
        main: place in `Device.threads` of the thread that runs the step.
        label: "ProfilerStep#3", "ProfilerStep#4 to #6" or "whole file".
    """

    start: float
    end: float
    main: int
    label: str


def choose(devices: Sequence[Device], step: StepChoice = "last") -> list[StepWindow]:
    """The window of each rank.

    Args:
        devices: the ranks.
        step: "last" (the last step that all ranks have), the number of a ProfilerStep, "all" steps from the first to
            the last, or "file" for everything recorded. A trace without steps is taken whole.

    Raises:
        TraceError: the number is not there, or the ranks have no step in common.
        InputError: another word.
    """
    if isinstance(step, str) and step.isdecimal():
        step = int(step)
    if not isinstance(step, int) and step not in ("last", "all", "file"):
        raise InputError(
            f'step: got {step!r}, expected "last", "all", "file" or the number of a ProfilerStep'
        )
    found = [d.steps() for d in devices]
    if step == "file" or (not any(found) and not isinstance(step, int)):
        return [_whole(d) for d in devices]
    common = [n for n in found[0] if all(n in other for other in found)]
    if isinstance(step, int) and step not in common:
        lacking = next(d for d, steps in zip(devices, found) if step not in steps)
        held = ", ".join(map(str, found[devices.index(lacking)])) or "none"
        raise TraceError(f"{lacking.path}: has no ProfilerStep#{step}. Steps in it: {held}.")
    if not common:
        raise TraceError(
            f'{devices[0].path} and others: no ProfilerStep is in all ranks\' traces. Choose step="file".'
        )
    first, last = (common[0], common[-1]) if step == "all" else (step, step)
    if step == "last":
        first = last = common[-1]
    label = f"ProfilerStep#{first}" + (f" to #{last}" if first != last else "")
    return [
        StepWindow(steps[first][0], steps[last][1], _step_thread(d), label)  # type: ignore[index]
        for d, steps in zip(devices, found)
    ]


def _step_thread(device: Device) -> int:
    named = np.array([*(bool(STEP.fullmatch(n)) for n in device.names)], bool)[device.name]
    return int(device.thread[np.flatnonzero(named & (device.category == ANNOTATION))[0]])


def _whole(device: Device) -> StepWindow:
    host = np.isin(device.category, (OPERATOR, ANNOTATION, RUNTIME))
    if not host.any():
        raise TraceError(
            f"{device.path}: holds no operator and no runtime call, only what the GPU did. "
            "Record with torch.profiler's activities CPU and CUDA."
        )
    operators = device.category == OPERATOR
    count = np.bincount(device.thread[operators if operators.any() else host])
    return StepWindow(
        float(device.start[host].min()),
        float(device.end[host].max()),
        int(np.argmax(count)),
        "whole file",
    )
