"""`perfmodel synth ...`: write a synthetic workload as Chakra trace files.

Options and their defaults are the parameters of the generators in `perfmodel.synth`; only the texts stand here.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from perfmodel import units
from perfmodel.cli.output import Folder, counted
from perfmodel.errors import InputError
from perfmodel.synth import collective, data_parallel, fsdp, gpt, moe, presets, training
from perfmodel.synth.schedules import SCHEDULES
from perfmodel.synth.settings import (
    ACCUMULATIONS,
    BYTES,
    CONTEXT_METHODS,
    HOST_WAITS,
    OFFLOADS,
    ORDERS,
    OVERLAPS,
    RECOMPUTED,
)
from perfmodel.synth.workload import Workload
from perfmodel.vocabulary import COLLECTIVES
from perfmodel.workload.archive import SUFFIX, save

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

TRAINING = {
    "model": "A preset, a config.json or its folder, or sizes: layers=4,hidden=256,heads=4,...",
    "data": "Data-parallel replicas.",
    "tensor": "Tensor-parallel ranks; they divide heads and mlp.",
    "pipeline": "Pipeline stages.",
    "context": "Context-parallel ranks; they divide each sequence.",
    "expert": "Ranks that share a layer's experts.",
    "expert_tensor": "Ranks that share each expert.",
    "virtual": "Chunks of layers on each pipeline stage.",
    "schedule": "Order of a stage's passes.",
    "micro_batch": "Sequences that go through at once.",
    "micro_batches": "Micro-batches of a step on each replica  [default: 1]",
    "global_batch": "Sequences of a step over all replicas, instead of --micro-batches.",
    "sequence": "Tokens of a sequence  [default: those the model was trained on]",
    "dtype": "Of products in the layers; beside fp8 and fp4 all else is bf16.",
    "sequence_parallel": "Tensor-parallel ranks hold a part of the tokens each between blocks.",
    "recompute": "none, selective, full, so many first layers of every chunk, or parts: "
    + ",".join(RECOMPUTED),
    "sharding": "0 nothing, 1 optimizer, 2 gradients too, 3 parameters too (FSDP), hybrid.",
    "distributed_optimizer": "The same as --sharding 1.",
    "overlap": "What runs beside computation: all, none, or some of " + ",".join(OVERLAPS),
    "first_stage_layers": "Layers of the pipeline's first chunk.",
    "last_stage_layers": "Layers of its last chunk.",
    "offload": "Sent to remote memory while not needed: " + ",".join(OFFLOADS),
    "skew": "Uneven loads of experts: shares fall as (i + 1)^-skew.",
    "capacity": "Rows that an expert takes over those of equal loads  [default: all]",
    "attention": "Fused, or with its traffic of scores  [default: flash but for GPT-3's kind]",
    "dropout": "Masks are made and kept  [default: for GPT-3's kind]",
    "fused_loss": "Softmax and cross-entropy in one kernel  [default: but for GPT-3's kind]",
    "gradient_dtype": "Of gradients as they are summed  [default: fp32]",
    "gather_dtype": "Of parameters as they are gathered  [default: 16 bits]",
    "accumulation": "How a micro-batch's gradients join those before: in the product, in a buffer, or by autograd"
    "  [default: fused; buffer where parameters are sharded]",
    "optimizer_bytes": "The optimizer's states, a parameter.",
    "bucket": "Parameters of a bucket  [default: max(40 million, 1 million x replicas)]",
    "shard_ranks": "Ranks of a group of hybrid sharding.",
    "reshard": "Gathered parameters are dropped after the forward pass  [default: without pipeline]",
    "context_method": "How keys and values get around.",
    "rank_order": "Parallel dimensions, innermost first.",
    "clip": "Gradients are clipped by their global norm.",
    "gap": "Least time between two kernels [s].",
    "host_forward": "The host's time to launch a layer, or the head, forward [s].",
    "host_backward": "The host's time to launch a layer, or the head, backward [s].",
    "host_kernel": "The host's time to launch each kernel and collective of layers and head [s].",
    "host_waits": "Before what the host waits for all that it has launched.",
    "reserved": "Memory that libraries and the allocator hold; a number or 1GiB, ...",
    "fragmentation": "Share of activations lost to fragmentation.",
}
"""What the parameters of `synth.training` mean, for `--help`."""

CHOICES = {
    "kind": COLLECTIVES,
    "schedule": SCHEDULES,
    "dtype": tuple(BYTES),
    "gradient_dtype": tuple(BYTES),
    "gather_dtype": tuple(BYTES),
    "accumulation": ACCUMULATIONS,
    "attention": ("flash", "unfused"),
    "context_method": CONTEXT_METHODS,
    "rank_order": ORDERS,
    "host_waits": HOST_WAITS,
    "sharding": ("0", "1", "2", "3", "hybrid"),
}
NUMBERS = (
    *("skew", "capacity", "gap", "host_forward", "host_backward", "host_kernel", "fragmentation"),
)
WORDS = ("model", "recompute", "overlap", "offload")
"""Parameters that take words, which `_value` reads."""


class Bytes(click.ParamType):  # type: ignore[type-arg,unused-ignore]
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


SIZES = ("size", "bytes", "bucket_bytes", "reserved")


class FolderOrArchive(Folder):
    """A folder to write into, or a graph's archive."""

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        return value if value.endswith(SUFFIX) else super().convert(value, param, ctx)


def _save(workload: Workload, path: Path, overwrite: bool) -> Path:
    """Write a workload's graph as an archive that `load` opens."""
    if path.exists() and not overwrite:
        raise InputError(f"{path}: is there already. Choose another name, or say --overwrite.")
    save(workload.graph(), path)
    return path


class Option(click.Option):
    """An option of a generator; a barrier has no size, so that nobody has to say it."""

    def process_value(self, ctx: click.Context, value: Any) -> Any:
        barrier = self.name == "size" and ctx.params.get("kind") == "barrier"
        if barrier and self.value_is_missing(value):
            return 0
        return super().process_value(ctx, value)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def synth() -> None:
    """Write a synthetic workload: one Chakra trace file per rank and the communicator groups, or one archive.

    Every compute node carries its operations (num_ops) and bytes (tensor_size), every collective and message its
    size; formulas and sources are in the documentation of perfmodel.synth. Then `perfmodel run FOLDER`, or
    `perfmodel run FILE.npz`, which also says utilization, throughput and memory. Large jobs need no files:
    perfmodel.synth.training(...).graph() makes the graph directly, in Python.
    """


def _option(parameter: inspect.Parameter, help: dict[str, str]) -> click.Parameter:
    """The option of a generator's parameter; the model is an argument."""
    name, default = parameter.name, parameter.default
    required = default is inspect.Parameter.empty
    if name == "model":
        return click.Argument([name])
    kind: Any = click.INT
    if name in CHOICES:
        kind = click.Choice(CHOICES[name])
    elif name in SIZES:
        kind = Bytes()
    elif name in NUMBERS or isinstance(default, float):
        kind = click.FLOAT
    elif name in WORDS:
        kind = click.STRING
    words = name.replace("_", "-")
    flag = default is False or default is True or name in ("dropout", "fused_loss", "reshard")
    given: dict[str, Any] = {"type": kind}
    if flag:
        given = {"is_flag": True, "default": default}
    elif not required:  # even a default of None would count as one
        default = str(default) if name in CHOICES and default is not None else default
        default = ",".join(default) if isinstance(default, tuple) else default
        shown = default is not None and default != ""
        given |= {"default": default, "show_default": shown}
    both = f"--{words}/--no-{words}" if flag and parameter.default is not False else f"--{words}"
    return Option([both], required=required, is_eager=name == "kind", help=help[name], **given)


def _value(name: str, value: Any) -> Any:
    """What a generator takes for the words of the command line."""
    if not isinstance(value, str):
        return value
    if (name == "sharding" and value.isdigit()) or (name == "recompute" and value.isdigit()):
        return int(value)
    if name == "overlap":
        return {"all": True, "none": False}.get(value, value.split(",") if value else False)
    if name == "offload" or (name == "recompute" and value.split(",")[0] in RECOMPUTED):
        return [word for word in value.split(",") if word]
    if name == "model" and "=" in value:
        return _sizes(value)
    return value


def _sizes(text: str) -> dict[str, Any]:
    """A record of sizes from layers=4,hidden=256,gated=true,..."""
    sizes: dict[str, Any] = {}
    for word in text.split(","):
        name, _, value = word.partition("=")
        number = re.fullmatch(r"\s*\d+\s*", value)
        flags = {"true": True, "false": False}
        sizes[name.strip()] = int(value) if number else flags.get(value.strip(), value.strip())
    return sizes


def _add(
    generator: Callable[..., Workload],
    summary: str,
    more: str = "",
    *,
    help: dict[str, str] = HELP,
    deprecated: bool = False,
) -> None:
    """A sub-command for a generator; `summary` stands in the list of commands, too."""

    def write(output: str, prefix: str, overwrite: bool, **parameters: Any) -> None:
        given = {name: _value(name, value) for name, value in parameters.items()}
        with warnings.catch_warnings():
            if deprecated:  # the command says so itself
                warnings.simplefilter("ignore", DeprecationWarning)
            workload = generator(**given)
        if output.endswith(SUFFIX):
            path = _save(workload, Path(output), overwrite)
        else:
            path = workload.write(output, prefix=prefix, overwrite=overwrite)
        click.echo(f"{path}: {workload.name}; {counted(workload.nodes, 'node')}", err=True)

    files: list[click.Parameter] = [
        click.Option(
            ["-o", "--output"],
            required=True,
            type=FolderOrArchive(),
            help="Folder to write Chakra files into; or FILE.npz, one archive of all ranks"
            " (shapes and types of kernels, the model, memory).",
        ),
        click.Option(
            ["--prefix"], default="t", show_default=True, help="Files are PREFIX.<rank>.et."
        ),
        click.Option(["--overwrite"], is_flag=True, help="Replace a trace that is there already."),
    ]
    parameters = [_option(p, help) for p in inspect.signature(generator).parameters.values()]
    name = generator.__name__.replace("_", "-")
    text = f"{summary}\n\n{more}"
    command = click.Command(
        name,
        None,
        write,
        [*parameters, *files],
        text,
        short_help=summary,
        deprecated="say `perfmodel synth training`" if deprecated else False,
    )
    synth.add_command(command)


_add(
    training,
    "A training step of a transformer, however it is spread.",
    f"MODEL is one of {', '.join(presets.names())}; a Hugging Face config.json or its folder; or sizes,"
    " layers=4,hidden=256,heads=4,... Ranks are laid out tensor fastest, then context, data, pipeline.",
    help=TRAINING,
)
_add(
    gpt,
    "A GPT step with data, tensor and pipeline parallelism.",
    "Training with the sizes of a GPT: ranks tensor fastest, then data, then pipeline; 1F1B order.",
    deprecated=True,
)
_add(
    fsdp,
    "A GPT step with sharded parameters (FSDP, ZeRO-3).",
    "Training with --data RANKS --sharding 3, and a head of its own.",
    deprecated=True,
)
_add(
    moe,
    "A mixture of experts, with all-to-alls.",
    "Training with experts, --data RANKS --expert EXPERT_PARALLEL --capacity CAPACITY_FACTOR.",
    deprecated=True,
)
_add(
    data_parallel,
    "A chain of kernels with bucketed all-reduces, for scale.",
    "Forward, backward with an all-reduce after every --bucket-layers layers, optimizer.",
)
_add(collective, "One collective over all ranks, or several in a row.")
