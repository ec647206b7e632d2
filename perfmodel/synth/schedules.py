"""The order in which a pipeline stage runs its passes.

A pass is the forward pass F of a micro-batch through one chunk of a stage's layers, its backward pass B, or the two
halves of the backward pass: I for the gradient of the input, which the stage before waits for, and W for the
gradients of the weights, which nobody waits for. Stage r of p holds v chunks; chunk c of stage r is the place c p + r
of the pipeline, but in `V`, where the second chunk runs back up: place 2 p - 1 - r.

    name            order on stage r                                                      idle
    gpipe           all F, then all B                                                     (p-1)(F+B)
    1f1b            p-1-r forwards, then F and B in turn, then the backwards left         (p-1)(F+B)
    interleaved     the same over chunks, groups of p micro-batches one chunk at a time   (p-1)(F+B)/v
    zero-bubble     1f1b with W put off until the pipeline drains (ZB-H1)                 (p-1)(F+I-W)
    zero-bubble-v   two chunks in a V (ZB-V): no gap inside a stage's work for F = I = W  (p-1)F, as a shift
    dualpipe-v      two chunks in a V, F of one beside B of the other (FB their time)     (p-1)(FB+B-3W) of a chunk

F, B, I, W in the last column: seconds of a stage's pass (for dualpipe-v with F = I). Activations in flight at most:
m; min(p-r, m); min(2(p-1-r) + (v-1) p + 1, m v) chunks; p; 2 p chunks; 2 p + 1 chunks.

DualPipe itself sends micro-batches down and up one pipeline whose ranks hold two stages each, and so all parameters
twice. Rank r of p runs what rank min(r, p-1-r) of p/2 runs in the V with half the micro-batches, which needs no copy.

Sources: Huang et al. 2019 (GPipe, arXiv:1811.06965); Narayanan et al. 2021 (arXiv:2104.04473), section 2.2, figure 4;
Qi et al. 2023 (Zero Bubble, arXiv:2401.10241) and 2024 (arXiv:2405.15362) for the V; DeepSeek-AI 2024 (DeepSeek-V3,
arXiv:2412.19437), section 3.2.1, and its DualPipe repository for both forms of DualPipe; the orders are those that
Megatron-LM (interleaved), PyTorch (zero bubble) and that repository run.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, NamedTuple

from perfmodel.errors import InputError
from perfmodel.synth.parameter_checks import one_of

SCHEDULES = ("gpipe", "1f1b", "interleaved", "zero-bubble", "zero-bubble-v", "dualpipe-v")

V = ("zero-bubble-v", "dualpipe-v")
"""Schedules of two chunks, of which the second lies on the way back up."""

Kind = Literal["F", "B", "I", "W"]


class Pass(NamedTuple):
    """One pass: what kind, of which micro-batch, through which of the stage's chunks.

    `beside`: it runs beside the pass before it, one computing while the other communicates.
    """

    kind: Kind
    micro_batch: int
    chunk: int = 0
    beside: bool = False


def order(
    schedule: str, stage: int, *, stages: int, micro_batches: int, virtual: int = 1, group: int = 0
) -> list[Pass]:
    """The passes of a stage, in order.

    Args:
        schedule: one of `SCHEDULES`; "1f1b" with virtual > 1 is "interleaved".
        stage: r; stages: p; micro_batches: m; virtual: v.
        group: micro-batches that go through a chunk before the next one's turn, p unless given.

    Raises:
        InputError: a schedule that does not fit the numbers.

    Example:
        >>> " ".join(f"{p.kind}{p.micro_batch}" for p in order("1f1b", 0, stages=2, micro_batches=3))
        'F0 F1 B0 F2 B1 B2'
    """
    check(schedule, stages=stages, micro_batches=micro_batches, virtual=virtual, group=group)
    if schedule == "gpipe":
        return [Pass("F", i) for i in range(micro_batches)] + [
            Pass("B", i) for i in range(micro_batches)
        ]
    if schedule == "zero-bubble":
        return _zero_bubble(stage, stages, micro_batches)
    if schedule == "zero-bubble-v":
        return _zero_bubble_v(stage, stages, micro_batches)
    if schedule == "dualpipe-v":
        return _dualpipe_v(stage, stages, micro_batches)
    if virtual > 1:
        return _interleaved(stage, stages, micro_batches, virtual, group or stages)
    fill = min(stages - 1 - stage, micro_batches)
    forward = [Pass("F", i) for i in range(micro_batches)]
    return _in_turn(forward, [Pass("B", i) for i in range(micro_batches)], fill)


def check(schedule: str, *, stages: int, micro_batches: int, virtual: int, group: int = 0) -> None:
    """Whether a schedule fits the numbers of stages, micro-batches and chunks."""
    if schedule == "dualpipe":
        raise InputError(
            "schedule: got 'dualpipe', which keeps all parameters twice. Say schedule='dualpipe-v' with virtual=2 and"
            " half as many stages, the same order with one copy of them."
        )
    one_of("schedule", schedule, SCHEDULES)
    if schedule == "interleaved" and virtual < 2:
        raise InputError(
            f"virtual: got {virtual}, expected at least 2 for schedule='interleaved'. Say virtual=2,"
            " or schedule='1f1b'."
        )
    if virtual > 1 and schedule in ("gpipe", "zero-bubble"):
        raise InputError(
            f"virtual: got {virtual}, expected 1 for schedule={schedule!r}. Say schedule='interleaved'."
        )
    if virtual != 2 and schedule in V:
        raise InputError(f"virtual: got {virtual}, expected 2 for schedule={schedule!r}.")
    if schedule == "dualpipe-v" and micro_batches < 2 * stages:
        raise InputError(
            f"micro_batches: got {micro_batches}, expected at least 2 x pipeline = {2 * stages} for"
            " schedule='dualpipe-v'."
        )
    if virtual > 1 and stages == 1:
        raise InputError(
            f"virtual: got {virtual} chunks a stage, expected 1 without a pipeline. Say pipeline=2 or more."
        )
    if virtual > 1 and schedule in ("1f1b", "interleaved"):
        if not group and micro_batches % stages:
            below = micro_batches - micro_batches % stages
            fits = f"{below} and {below + stages} fit" if below else f"{stages} fits"
            raise InputError(
                f"micro_batches: got {micro_batches}, expected a multiple of pipeline = {stages} for chunks"
                f" that interleave. {fits}; or give the size of a group of micro-batches."
            )
        if group and group < stages:
            raise InputError(f"group: got {group}, expected at least pipeline = {stages}.")


def place(schedule: str, stage: int, chunk: int, *, stages: int) -> int:
    """Which place of the pipeline a stage's chunk is, 0 to p v - 1."""
    if schedule in V and chunk == 1:
        return 2 * stages - 1 - stage
    return chunk * stages + stage


def stage_of(schedule: str, where: int, *, stages: int) -> int:
    """The stage that holds a place of the pipeline."""
    if schedule in V and where >= stages:
        return 2 * stages - 1 - where
    return where % stages


def in_flight(passes: list[Pass]) -> int:
    """Chunks whose activations are kept at the same time, at most: from F to B, or to I.

    What W still needs after I (products' inputs) is kept longer; `synth.memory` counts it.
    """
    most = now = 0
    for item in passes:
        now += {"F": 1, "B": -1, "I": -1, "W": 0}[item.kind]
        most = max(most, now)
    return most


def _in_turn(forward: list[Pass], backward: list[Pass], fill: int) -> list[Pass]:
    """`fill` forwards, then one forward and one backward in turn, then the backwards that are left."""
    passes = forward[:fill]
    for f, b in zip(forward[fill:], backward):
        passes += [f, b]
    return passes + backward[len(forward) - fill :]


def _interleaved(r: int, p: int, m: int, v: int, g: int) -> list[Pass]:
    turns = [
        (i, c)
        for start in range(0, m, g)
        for c in range(v)
        for i in range(start, min(start + g, m))
    ]
    forward = [Pass("F", i, c) for i, c in turns]
    backward = [Pass("B", i, v - 1 - c) for i, c in turns]
    return _in_turn(forward, backward, min(2 * (p - 1 - r) + (v - 1) * g, m * v))


def _zero_bubble(r: int, p: int, m: int) -> list[Pass]:
    fill = min(p - 1 - r, m)
    passes = [Pass("F", i) for i in range(fill)]
    for i in range(m):
        if fill + i < m:
            passes.append(Pass("F", fill + i))
        passes.append(Pass("I", i))
        if i >= r:
            passes.append(Pass("W", i - r))
    return passes + [Pass("W", i) for i in range(max(m - r, 0), m)]


def _zero_bubble_v(r: int, p: int, m: int) -> list[Pass]:
    """ZB-V; a list that would run past the last micro-batch leaves those passes out."""
    n = max(2 * p - 1, m)
    passes: list[Pass] = []
    following = dict.fromkeys(((k, c) for k in "FIW" for c in (0, 1)), 0)

    def run(*what: tuple[Kind, int]) -> None:
        for kind, chunk in what:
            i = following[kind, chunk]
            following[kind, chunk] += 1
            if i < m:
                passes.append(Pass(kind, i, chunk))

    for _ in range(2 * (p - r) - 1):
        run(("F", 0))
    for _ in range(r):
        run(("F", 1), ("F", 0))
    for _ in range(p - r):
        run(("F", 1), ("I", 1), ("W", 1))
    while following["F", 1] < following["F", 0] or following["F", 0] < n:
        if following["F", 0] < n:
            run(("F", 0))
        run(("I", 0), ("W", 0), ("F", 1), ("I", 1), ("W", 1))
    for _ in range(r):
        run(("I", 0), ("I", 1))
    for _ in range(p - r):
        run(("I", 0), ("W", 0))
    while following["W", 1] < n:
        run(("W", 1))
    while following["W", 0] < n:
        run(("W", 0))
    return passes


def _dualpipe_v(r: int, p: int, m: int) -> list[Pass]:
    """DualPipeV: a, the first chunk, and b, the second; weights' gradients that were put off wait in one queue."""
    passes: list[Pass] = []
    following = dict.fromkeys(((k, c) for k in "FB" for c in (0, 1)), 0)
    owed: deque[tuple[int, int]] = deque()
    a, b = 0, 1

    def run(kind: Kind, chunk: int, *, beside: bool = False) -> None:
        way = "F" if kind == "F" else "B"
        i = following[way, chunk]
        following[way, chunk] += 1
        passes.append(Pass(kind, i, chunk, beside))
        if kind == "I":
            owed.append((i, chunk))

    def weights() -> None:
        passes.append(Pass("W", *owed.popleft()))

    def pair(forward: int, *, beside: bool = True) -> None:
        run("F", forward)
        run("B", 1 - forward, beside=beside)

    for _ in range(2 * (p - r - 1)):
        run("F", a)
    for _ in range(r + 1):
        run("F", a)
        run("F", b)
    for _ in range(p - r - 1):
        run("I", b)
        weights()
        run("F", b)
    for k in range(m - 2 * p + r + 1):
        pair(
            a, beside=k > 0 or r < p - 1
        )  # the last stage's first has just made what B starts from
        pair(b)
    for _ in range(p - r - 1):
        run("B", b)
        pair(b)
    split = (r + 1) // 2
    for k in range(
        r + 1
    ):  # from the middle on weights are put off, so that the stages before get on
        run("I" if k > split or (k == split and r % 2) else "B", b)
        run("I" if k >= split else "B", a)
    for _ in range(p - r - 1):
        weights()
        run("I", a)
    while owed:
        weights()
    return passes
