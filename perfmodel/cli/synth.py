"""`perfmodel synth ...`: write a synthetic workload as Chakra trace files.

Options and their defaults are the parameters of the generators in `perfmodel.synth`; only the texts stand here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import click

from perfmodel import units
from perfmodel.cli.output import Folder, counted
from perfmodel.errors import InputError
from perfmodel.synth import collective, data_parallel, fsdp, gpt, moe
from perfmodel.synth.gpt import RECOMPUTE
from perfmodel.synth.workload import Workload
from perfmodel.vocabulary import COLLECTIVES

HELP = {
    "layers": "Transformer layers.",
    "hidden": "Hidden size.",
    "heads": "Attention heads; they divide the hidden size.",
    "sequence": "Tokens per sequence.",
    "vocabulary": "Tokens in the vocabulary.",
    "feed_forward": "Inner size of the mlp (and of each expert)  [default: 4 x hidden]",
    "batch": "Sequences per rank and step.",
    "micro_batch": "Sequences per micro-batch and replica.",
    "micro_batches": "Micro-batches per step and replica.",
    "data": "Data-parallel replicas.",
    "tensor": "Tensor-parallel ranks; they divide heads, mlp and vocabulary.",
    "pipeline": "Pipeline stages; they divide the layers.",
    "sequence_parallel": "Split norms over the tensor ranks too: reduce-scatter and all-gather for all-reduce.",
    "recompute": "What the backward pass computes again: nothing, attention cores, whole layers.",
    "dtype_bytes": "Bytes of a weight or an activation.",
    "gradient_bytes": "Bytes of a gradient on the network  [default: --dtype-bytes]",
    "ranks": "Ranks of the job.",
    "experts": "Experts in a layer; a multiple of --expert-parallel.",
    "expert_parallel": "Ranks that hold all experts together; they divide the ranks  [default: all]",
    "top_k": "Experts that each token goes to.",
    "capacity_factor": "Room for uneven routing, 1 for none.",
    "moe_every": "Every so many layers the mlp is experts.",
    "kind": "Which collective.",
    "size": "Bytes that one rank hands in (of an all-gather: the shard); a number or 64MiB, 1GB, ..."
    " Not needed for a barrier.",
    "repeat": "So many, one after the other.",
    "nodes_per_rank": "Exactly so many nodes on each rank.",
    "flops": "Operations of a layer's forward pass.",
    "bytes": "Bytes a layer's forward pass moves.",
    "bucket_layers": "Layers whose gradients travel together.",
    "bucket_bytes": "Their size; a number or 25MiB, ...",
}
"""What each parameter means, for `--help`."""

CHOICES = {"recompute": RECOMPUTE, "kind": COLLECTIVES}


class Bytes(click.ParamType):
    """A whole number of bytes, plain or with a unit."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int) or re.fullmatch(r"\s*[-+]?\d+\s*", value):
            if int(value) < 0:
                self.fail(f"got {value}, expected a whole number of bytes, 0 or more", param, ctx)
            return int(value)
        try:
            size = units.parse(value, "B")
        except InputError as error:
            self.fail(str(error).removeprefix("figure: "), param, ctx)
        if not size.is_integer():
            self.fail(f"{value!r} is {size} B, expected a whole number of bytes", param, ctx)
        return int(size)


SIZES = ("size", "bytes", "bucket_bytes")


class Option(click.Option):
    """An option of a generator; a barrier has no size, so that nobody has to say it."""

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        barrier = self.name == "size" and ctx.params.get("kind") == "barrier"
        if barrier and self.value_is_missing(value):
            return 0
        return super().process_value(ctx, value)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def synth() -> None:
    """Write a synthetic workload: one Chakra trace file per rank, and the communicator groups.

    Every compute node carries its operations (num_ops) and bytes (tensor_size), every collective and message its
    size; formulas and sources are in the documentation of perfmodel.synth. Then `perfmodel run FOLDER`.
    Large jobs need no files: perfmodel.synth.gpt(...).graph() makes the graph directly, in Python.
    """


def _option(parameter: inspect.Parameter) -> click.Option:
    """The option of a generator's parameter."""
    name, default = parameter.name, parameter.default
    required = default is inspect.Parameter.empty
    kind: Any = click.INT
    if name in CHOICES:
        kind = click.Choice(CHOICES[name])
    elif name in SIZES:
        kind = Bytes()
    elif isinstance(default, float):
        kind = click.FLOAT
    flag = default is False
    given: dict[str, Any] = {"is_flag": True} if flag else {"type": kind}
    if not required:  # even a default of None would count as one
        given |= {"default": default, "show_default": not flag and default is not None}
    return Option(
        [f"--{name.replace('_', '-')}"],
        required=required,
        is_eager=name == "kind",
        help=HELP[name],
        **given,
    )


def _add(generator: Callable[..., Workload], summary: str, more: str = "") -> None:
    """A sub-command for a generator; `summary` stands in the list of commands, too."""

    def write(output: str, prefix: str, overwrite: bool, **parameters: Any) -> None:
        workload = generator(**parameters)
        path = workload.write(output, prefix=prefix, overwrite=overwrite)
        click.echo(f"{path}: {workload.name}; {counted(workload.nodes, 'node')}", err=True)

    files: list[click.Parameter] = [
        click.Option(["-o", "--output"], required=True, type=Folder(), help="Folder to write."),
        click.Option(
            ["--prefix"], default="t", show_default=True, help="Files are PREFIX.<rank>.et."
        ),
        click.Option(["--overwrite"], is_flag=True, help="Replace a trace that is there already."),
    ]
    parameters = [_option(p) for p in inspect.signature(generator).parameters.values()]
    name = generator.__name__.replace("_", "-")
    text = f"{summary}\n\n{more}"
    command = click.Command(name, None, write, [*parameters, *files], text, short_help=summary)
    synth.add_command(command)


_add(
    gpt,
    "A GPT step with data, tensor and pipeline parallelism.",
    "As Megatron-LM runs it: 1F1B order; ranks tensor fastest, then data, then pipeline. Stages send activations"
    " on, tensor ranks all-reduce in every layer, replicas all-reduce gradients layer by layer behind the last"
    " backward pass.",
)
_add(
    fsdp,
    "A GPT step with sharded parameters (FSDP, ZeRO-3).",
    "An all-gather before each layer's forward and backward pass, one layer ahead; a reduce-scatter of each layer's"
    " gradients.",
)
_add(
    moe,
    "A mixture of experts, with all-to-alls.",
    "In every such layer tokens go to experts on other ranks and back. All ranks are data-parallel; experts are"
    " spread over groups of --expert-parallel consecutive ranks.",
)
_add(
    data_parallel,
    "A chain of kernels with bucketed all-reduces, for scale.",
    "Forward, backward with an all-reduce after every --bucket-layers layers, optimizer.",
)
_add(collective, "One collective over all ranks, or several in a row.")
