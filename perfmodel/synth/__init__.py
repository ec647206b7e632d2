"""Training steps made from their parameters: workloads to predict before anybody has recorded them.

    from perfmodel import synth
    work = synth.gpt(layers=32, hidden=4096, heads=32, data=4, tensor=8, pipeline=4, micro_batches=8)
    work.graph()              # a Graph for predict, sweep, ...
    work.write("traces/gpt")  # the same as Chakra trace files, one per rank

gpt: data, tensor and pipeline parallelism;  fsdp: sharded parameters;  moe: experts and all-to-all
data_parallel: a plain chain of kernels with bucketed all-reduces, for scale
collective: a single one
Workload, Role, Steps, Layout: what they are made of, to describe workloads of one's own
"""

from perfmodel.synth.fsdp import fsdp
from perfmodel.synth.gpt import gpt
from perfmodel.synth.layout import Communicators, Layout
from perfmodel.synth.moe import moe
from perfmodel.synth.role import Role
from perfmodel.synth.simple import collective, data_parallel
from perfmodel.synth.steps import Steps, Work
from perfmodel.synth.workload import Workload

__all__ = [
    "Communicators",
    "Layout",
    "Role",
    "Steps",
    "Work",
    "Workload",
    "collective",
    "data_parallel",
    "fsdp",
    "gpt",
    "moe",
]
