"""Training steps made from their parameters: workloads to predict before anybody has recorded them.

    from perfmodel import synth
    work = synth.training("llama-3-70b", data=2, tensor=8, pipeline=4, micro_batches=16, sequence_parallel=True)
    work.parameters, work.flops  # of the model, and of a step
    work.memory                  # of every rank, by part
    work.graph()                 # a Graph for predict, sweep, ...
    work.write("traces/llama")   # the same as Chakra trace files, one per rank

training: a transformer on any combination of parallel dimensions; `presets.names()` lists the models it knows
data_parallel: a plain chain of kernels with bucketed all-reduces, for scale
collective: a single one
Workload, Role, Steps, Layout: what they are made of, to describe workloads of one's own
"""

from perfmodel.synth import presets
from perfmodel.synth.deprecated import fsdp, gpt, moe
from perfmodel.synth.layout import Communicators, Layout
from perfmodel.synth.role import Role
from perfmodel.synth.simple_workloads import collective, data_parallel
from perfmodel.synth.sizes import Sizes
from perfmodel.synth.steps import Steps, Work
from perfmodel.synth.training import training
from perfmodel.synth.workload import Workload

__all__ = [
    "Communicators",
    "Layout",
    "Role",
    "Sizes",
    "Steps",
    "Work",
    "Workload",
    "collective",
    "data_parallel",
    "fsdp",
    "gpt",
    "moe",
    "presets",
    "training",
]
