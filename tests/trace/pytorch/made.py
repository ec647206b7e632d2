"""Small Kineto and host traces, written event by event."""

from __future__ import annotations

from typing import Any

from perfmodel.trace.pytorch.kineto import Device, device_trace

HOST = 100
"""Process of the host; its main thread has the same number."""


def event(
    category: str,
    name: str,
    start: float,
    length: float,
    *,
    thread: Any = HOST,
    pid: Any = HOST,
    **args: Any,
) -> dict:
    """One complete event; arguments with spaces are written with underscores."""
    named = {
        k.replace("_", " ")
        if k.startswith(("External", "Record", "Input", "Group", "Process"))
        else k: v
        for k, v in args.items()
    }
    return {
        "ph": "X",
        "cat": category,
        "name": name,
        "pid": pid,
        "tid": thread,
        "ts": start,
        "dur": length,
        "args": named,
    }


def operator(name: str, start: float, length: float, **args: Any) -> dict:
    """A CPU operator."""
    return event("cpu_op", name, start, length, **args)


def launch(
    correlation: int, start: float, length: float = 5.0, name: str = "cudaLaunchKernel", **args: Any
) -> dict:
    """A launch call."""
    return event("cuda_runtime", name, start, length, correlation=correlation, **args)


def call(name: str, start: float, length: float, **args: Any) -> dict:
    """Any other runtime call."""
    return event("cuda_runtime", name, start, length, **args)


def kernel(
    correlation: int,
    start: float,
    length: float,
    stream: int = 7,
    name: str = "gemm",
    category: str = "kernel",
    **args: Any,
) -> dict:
    """A GPU event."""
    return event(
        category,
        name,
        start,
        length,
        pid=0,
        thread=stream,
        stream=stream,
        correlation=correlation,
        device=0,
        **args,
    )


def step(number: int, start: float, length: float) -> dict:
    """A profiler step."""
    return event("user_annotation", f"ProfilerStep#{number}", start, length)


def document(*events: dict, **head: Any) -> dict:
    """A whole Kineto file."""
    return {"schemaVersion": 1, "traceEvents": list(events), **head}


def device(*events: dict, **head: Any) -> Device:
    """The same, read."""
    return device_trace(document(*events, **head), "made.json")


def node(
    number: int, name: str, parent: int = 1, record: int = 0, thread: int = 1, **more: Any
) -> dict:
    """A node of a host trace of schema 1.1.0."""
    attributes = [
        {"name": "rf_id", "type": "uint64", "value": record},
        {"name": "tid", "type": "uint64", "value": thread},
    ]
    empty: dict = {"values": [], "shapes": [], "types": []}
    return {
        "id": number,
        "name": name,
        "ctrl_deps": parent,
        "inputs": more.get("inputs", empty),
        "outputs": more.get("outputs", empty),
        "attrs": attributes,
    }
