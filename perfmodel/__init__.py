"""How long a training step takes on hardware that need not exist, why, and what to change.

    import perfmodel as pm
    graph = pm.load("traces/gpt_dp2_tp2_pp2")
    p = pm.predict(graph, pm.hardware("dgx-h100"))
    p.makespan, pm.breakdown(p), pm.critical_path(p)

Importing the package switches JAX to 64-bit numbers: a 10 s step in float32 resolves 1 us only.
Names are imported when first used, so that the command line answers at once.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "InputError": "errors",
    "TraceError": "errors",
    "SystemFileError": "errors",
    "DeadlockError": "errors",
    "load": "workload.load",
    "save": "workload.archive",
    "Graph": "workload.graph",
    "retarget": "workload.retarget",
    "anonymise": "workload.anonymise",
    "write_trace": "workload.trace_files",
    "write_goal": "workload.goal_schedule",
    "Feeder": "workload.feeder",
    "hardware": "models.fitted",
    "System": "models.cost",  # which imports JAX, as `record` below: what one makes is known to it
    "systems": "machine.system",
    "catalogue": "report.catalogue",
    "parameters": "parameter_paths",
    "with_parameters": "parameter_paths",
    "record": "models.cost",
    "number": "pytree",
    "static": "pytree",
    "Models": "models.cost",
    "operation_time": "models.operation",
    "compile": "compiled",
    "predict": "prediction",
    "evaluate": "prediction",
    "Prediction": "prediction",
    "timeline": "report.tables",
    "breakdown": "report.tables",
    "critical_path": "report.tables",
    "write_timeline": "report.timeline_file",
    "statistics": "report.statistics",
    "difference": "report.statistics",
    "to_networkx": "report.graph_files",
    "write_graph": "report.graph_files",
    "memory": "report.memory",
    "throughput": "analysis.throughput",
    "sweep": "analysis.sweep",
    "sample": "analysis.design_space",
    "sensitivity": "analysis.sensitivity",
    "compare": "analysis.compare",
    "replay": "analysis.replay",
    "optimize": "optimization.optimize",
    "pareto": "optimization.pareto",
    "calibrate": "calibration.calibrate",
    "read_measurements": "calibration.measurement_files",
    "read_models": "models.model_file",
}
"""Public name -> the module that it is imported from when it is first used."""

_MODULES = {
    "astra": "astra",
    "chakra": "trace.chakra",
    "economics": "analysis.economics",
    "plot": "report.plot",
    "synth": "synth",
    "whatif": "analysis.whatif",
}
"""Public module -> where it lives."""

__all__ = [*_HOME, *_MODULES, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"perfmodel.{_MODULES[name]}")
    if name not in _HOME:
        raise AttributeError(f"module 'perfmodel' has no attribute {name!r}")
    value = getattr(import_module(f"perfmodel.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
