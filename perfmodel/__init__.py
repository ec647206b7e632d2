"""How long a training step takes on hardware that need not exist, why, and what to change.

    import perfmodel as pm
    graph = pm.load("traces/gpt_dp2_tp2_pp2")
    p = pm.predict(graph, pm.hardware("dgx-h100"))
    p.makespan, pm.breakdown(p), pm.critical_path(p)

Importing the package switches JAX to 64-bit numbers: a 10 s step in float32 resolves 1 us only.
Names are imported when first used, so that the command line answers at once.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "InputError": "errors",
    "TraceError": "errors",
    "SystemFileError": "errors",
    "DeadlockError": "errors",
    "load": "load",
    "Graph": "graph",
    "hardware": "hardware",
    "System": "hardware",
    "systems": "hardware",
    "parameters": "parameters",
    "with_parameters": "parameters",
    "record": "record",
    "number": "record",
    "static": "record",
    "Models": "cost",
    "compile": "predict",
    "predict": "predict",
    "evaluate": "predict",
    "Prediction": "predict",
    "timeline": "table",
    "breakdown": "table",
    "critical_path": "table",
    "sweep": "sweep",
    "sample": "points",
    "sensitivity": "sensitivity",
    "optimize": "optimize",
    "pareto": "pareto",
    "calibrate": "calibrate",
    "compare": "compare",
    "save": "store",
    "write_timeline": "trace_events",
}
_MODULES = ("astra", "chakra", "plot", "synth", "whatif", "economics")

__all__ = [*_HOME, *_MODULES, "__version__"]


class _Package(ModuleType):
    """Keeps functions in front of the modules that they share a name with (`pm.sweep` is the function)."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(f"perfmodel.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'perfmodel' has no attribute {name!r}")
    value = getattr(import_module(f"perfmodel.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
