"""The command line: `perfmodel run | inspect | sweep | ...`.

Exit status 0: done; 1: the input is wrong (one message on standard error, no traceback); 2: wrong usage.
Modules are imported when a command needs them, so that `perfmodel --help` answers at once.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import gc
import os
import signal
import sys
import warnings
from importlib import import_module
from typing import Any

import click

from perfmodel.cli.jax_cache import forget_damaged, keep_compiled
from perfmodel.errors import InputError, one_line

COMMANDS = {
    "run": ("run", "Predict the step time of a trace and say why it is that time."),
    "inspect": ("run", "What is in a trace, and everything wrong with it."),
    "timeline": ("run", "When every node runs: a Perfetto / Chrome timeline, or a table."),
    "sweep": ("sweep", "A trace on every combination of parameter values."),
    "sensitivity": (
        "analysis",
        "What the time depends on: derivatives, elasticities, breakpoints.",
    ),
    "optimize": ("analysis", "The best hardware within bounds and a budget, by exact gradients."),
    "calibrate": ("calibrate", "Fit model coefficients to measured durations."),
    "compare": ("analysis", "Two traces or two systems side by side."),
    "replay": ("recordings", "Measured against replayed: how well a recording is understood."),
    "astra-sim": ("astra", "In the place of ASTRA-sim's binaries: same flags, same output."),
    "synth": ("synth", "Write a synthetic workload (GPT, FSDP, MoE, one collective, ...)."),
    "systems": ("systems", "The systems in hwdb, their figures and where these come from."),
    "convert": ("traces", "Write a trace anew: any format to Chakra's .et or JSON, or to GOAL."),
    "retarget": ("traces", "Write a trace for more or fewer ranks."),
    "stats": ("traces", "How often operators and kernels run, and how long."),
    "difference": ("traces", "Two traces, or measured and predicted, by operator."),
    "export": ("traces", "The graph of a trace for Graphviz, yEd, Gephi, networkx."),
    "bundle": ("traces", "Trace, system, models, versions and result in one file."),
    "reproduce": ("traces", "Run a bundle, and say whether the numbers are the same."),
}
"""Command -> module in `perfmodel.cli`, and what it does."""


class Commands(click.Group):
    """Imports a command's module only when it is called or its help is asked for."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _ReaderGone from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = import_module(f"perfmodel.cli.{COMMANDS[name][0]}")
        command: click.Command | None = getattr(module, name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="perfmodel")
def cli() -> None:
    """How long a training step takes on hardware that need not exist, why, and what to change.

    TRACE is a Chakra execution trace of all ranks: a prefix ("dir/t" for dir/t.0.et, dir/t.1.et, ...) or a folder; or
    PyTorch's own traces: a folder of Kineto files with or without host execution traces, or one file.
    Systems are names (see `perfmodel systems`) or your own TOML file. Parameters are named by path, in SI:
    npu.peak_flops, npu.memory_bandwidth, network.0.bandwidth, network.0.latency, compute.efficiency, ...
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point: turns wrong input into one message and exit status 1."""
    warnings.showwarning = _show_warning
    with contextlib.suppress(ValueError):  # signals belong to the main thread
        signal.signal(signal.SIGTERM, _terminate)
    if arguments is None:  # a process of its own, where JAX is not imported yet
        keep_compiled()
        _look_for_garbage_rarely()
    try:
        _call(arguments)
    except Terminated:
        _fail("terminated", 128 + signal.SIGTERM)
    except (click.exceptions.Abort, KeyboardInterrupt):
        _fail("interrupted", 128 + signal.SIGINT)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message(), 1)
    except InputError as error:
        _fail(str(error), 1)
    except MemoryError:
        _fail("not enough memory for this input", 1)
    except _ReaderGone:  # it has what it wanted, as with `| head`
        _leave_output()
        sys.exit(0)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        _fail(f"{name}{error.strerror or error}", 1)


def _look_for_garbage_rarely() -> None:
    """Spare a short command a quarter of its time.

    Large libraries make hundreds of thousands of objects that stay. Python looks through them again and again while it
    imports them, and once more at its end, where nothing is frozen.
    """
    gc.set_threshold(100_000, 20, 20)
    atexit.register(gc.freeze)


def _call(arguments: list[str] | None) -> None:
    """Run a command and put out all of its output, so that what is lost is noticed while it can be said."""
    if sys.stdout is None or sys.stdout.closed:
        raise OSError(errno.EBADF, "standard output is closed")
    try:
        cli.main(args=arguments, standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        raise _ReaderGone from None
    except OSError as error:
        if error.filename is None and error.errno in (errno.EBADF, errno.ENOSPC, errno.EIO):
            _leave_output()
            raise OSError(error.errno, f"standard output: {error.strerror}") from None
        raise


def _leave_output() -> None:
    """What is still to be put out goes nowhere: the interpreter would try it again at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _ReaderGone(BaseException):
    """Nobody reads standard output any more; no OSError, which click would turn into exit status 1."""


class Terminated(BaseException):
    """The process was asked to end (SIGTERM); temporary files are removed on the way out, as after an interrupt."""


def _terminate(number: int, frame: Any) -> None:
    raise Terminated


def _fail(message: str, status: int) -> None:
    click.echo(f"perfmodel: {_shown(message)}", err=True)
    sys.exit(status)


def _shown(message: str) -> str:
    """A message without anything that a terminal would obey."""
    return "\n".join(map(one_line, message.split("\n")))


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
) -> None:
    if not forget_damaged(str(message)):
        click.echo(f"perfmodel: warning: {_shown(str(message))}", err=True)


if __name__ == "__main__":
    main()
