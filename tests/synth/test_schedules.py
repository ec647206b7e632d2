"""Orders of pipeline schedules against worked examples and their published bubbles (p = 4, m = 8, v = 2)."""

from collections.abc import Sequence

import pytest

from perfmodel.errors import InputError
from perfmodel.synth.schedules import Pass, in_flight, order, place

UNITS = {"F": 1, "I": 1, "W": 1, "B": 2}
P, M = 4, 8


def times(schedule: str, p: int, m: int, v: int = 1, units=UNITS) -> list[list[tuple[int, int]]]:
    """Start and end of every pass of every stage, each as soon as its order and its inputs let it."""
    orders = [order(schedule, r, stages=p, micro_batches=m, virtual=v) for r in range(p)]
    end: dict[tuple[str, int, int], int] = {}
    found: list[list[tuple[int, int]]] = [[] for _ in range(p)]
    while any(len(f) < len(o) for f, o in zip(found, orders)):
        moved = False
        for r in range(p):
            while len(found[r]) < len(orders[r]):
                item = orders[r][len(found[r])]
                needs = inputs(schedule, r, item, p, p * v)
                if any(need not in end for need in needs):
                    break
                start = max([end[need] for need in needs] + [t for _, t in found[r][-1:]] + [0])
                stop = start + units[item.kind]
                kind = "B" if item.kind == "I" else item.kind
                end[kind, item.micro_batch, place(schedule, r, item.chunk, stages=p)] = stop
                found[r].append((start, stop))
                moved = True
        assert moved, "the orders wait for each other"
    return found


def inputs(schedule: str, r: int, item: Pass, p: int, places: int) -> list[tuple[str, int, int]]:
    """The passes that a pass waits for."""
    here, i = place(schedule, r, item.chunk, stages=p), item.micro_batch
    if item.kind == "F":
        return [("F", i, here - 1)] if here else []
    if item.kind == "W":
        return [("B", i, here)]
    return [("F", i, here)] + ([("B", i, here + 1)] if here + 1 < places else [])


def makespan(found: Sequence[Sequence[tuple[int, int]]]) -> int:
    return max(stop for passes in found for _, stop in passes)


def text(passes: list[Pass], chunks: bool = False) -> str:
    return " ".join(f"{p.kind}{p.micro_batch}" + ("ab"[p.chunk] if chunks else "") for p in passes)


@pytest.mark.parametrize(
    ("schedule", "v", "length", "flying"),
    [
        ("gpipe", 1, 33, [8, 8, 8, 8]),
        ("1f1b", 1, 33, [4, 3, 2, 1]),
        ("interleaved", 2, 57, [11, 9, 7, 5]),
        ("zero-bubble", 1, 27, [4, 4, 4, 4]),
        ("zero-bubble-v", 2, 51, [8, 8, 8, 8]),
        ("dualpipe-v", 2, 51, [9, 9, 9, 9]),
    ],
)
def test_makespan_and_micro_batches_in_flight_of_four_stages_and_eight_micro_batches(
    schedule, v, length, flying
):
    assert makespan(times(schedule, P, M, v)) == length
    orders = [order(schedule, r, stages=P, micro_batches=M, virtual=v) for r in range(P)]
    if schedule != "zero-bubble":
        assert [in_flight(o) for o in orders] == flying
    else:  # a micro-batch stays until its weights' gradients are done
        assert [
            in_flight([Pass("B", *p[1:]) if p.kind == "W" else p for p in o if p.kind != "I"])
            for o in orders
        ] == flying


def test_a_stage_of_zero_bubble_v_works_without_a_gap():
    for r, passes in enumerate(times("zero-bubble-v", P, M, 2)):
        assert (passes[0][0], passes[-1][1]) == (r, 48 + r)


def test_the_orders_of_the_worked_example():
    def stage(schedule: str, r: int, v: int = 1) -> str:
        return text(order(schedule, r, stages=P, micro_batches=M, virtual=v), chunks=v > 1)

    assert stage("1f1b", 0) == "F0 F1 F2 F3 B0 F4 B1 F5 B2 F6 B3 F7 B4 B5 B6 B7"
    assert stage("1f1b", 3).startswith("F0 B0 F1 B1 F2 B2")
    assert stage("interleaved", 0, 2) == (
        "F0a F1a F2a F3a F0b F1b F2b F3b F4a F5a F6a B0b F7a B1b F4b B2b F5b B3b F6b B0a F7b B1a"
        " B2a B3a B4b B5b B6b B7b B4a B5a B6a B7a"
    )
    assert stage("zero-bubble", 2) == (
        "F0 F1 I0 F2 I1 F3 I2 W0 F4 I3 W1 F5 I4 W2 F6 I5 W3 F7 I6 W4 I7 W5 W6 W7"
    )
    assert stage("zero-bubble-v", 0, 2) == (
        "F0a F1a F2a F3a F4a F5a F6a F0b I0b W0b F1b I1b W1b F2b I2b W2b F3b I3b W3b F7a I0a W0a F4b I4b W4b"
        " I1a W1a F5b I5b W5b I2a W2a F6b I6b W6b I3a W3a F7b I7b W7b I4a W4a I5a W5a I6a W6a I7a W7a"
    )


def test_the_orders_of_dualpipes_worked_example():
    """Ranks 0 and 1 of DualPipe's four with eight micro-batches run the V of two stages with four (a down, b up)."""

    def stage(r: int) -> str:
        passes = order("dualpipe-v", r, stages=2, micro_batches=4, virtual=2)
        return "".join((" | " if p.beside else " ") + text([p], True) for p in passes).strip()

    assert stage(0) == (
        "F0a F1a F2a F0b I0b W0b F1b F3a | B1b F2b | B0a B2b F3b | B1a B3b I2a W2a I3a W3a"
    )
    assert stage(1) == (
        "F0a F0b F1a F1b F2a B0b F2b | B0a F3a | B1b F3b | B1a B2b B2a I3b I3a W3b W3a"
    )


@pytest.mark.parametrize(
    "units", [UNITS, {"F": 3, "I": 3, "W": 2, "B": 5}], ids=["equal", "uneven"]
)
@pytest.mark.parametrize(("p", "m"), [(2, 4), (4, 8), (4, 11), (8, 20)])
def test_the_bubble_of_dualpipe_v_is_that_of_pairs_that_run_as_one(p, m, units):
    """(p - 1) (FB + B - 3 W) for F = I, where a pass beside another starts and ends with it."""
    idle = (p - 1) * (units["F"] + 2 * units["B"] - 3 * units["W"])
    work = 2 * m * (units["F"] + units["B"])
    found = pairs_as_one(
        [order("dualpipe-v", r, stages=p, micro_batches=m, virtual=2) for r in range(p)],
        lambda r, item: inputs("dualpipe-v", r, item, p, 2 * p),
        lambda r, item: place("dualpipe-v", r, item.chunk, stages=p),
        units,
    )
    assert found == work + idle


@pytest.mark.parametrize(("p", "m", "length"), [(4, 8, 26), (8, 20, 66)])
def test_the_same_order_runs_dualpipe_down_and_up_one_pipeline(p, m, length):
    """Chunk a of the first half of ranks is the way down, of the second half the way up."""

    def where(r: int, item: Pass) -> tuple[str, int]:
        down = (r < p // 2) == (item.chunk == 0)
        return ("down", r) if down else ("up", p - 1 - r)

    def needs(r: int, item: Pass) -> list[tuple[str, int, tuple[str, int]]]:
        way, here = where(r, item)
        i = item.micro_batch
        if item.kind == "F":
            return [("F", i, (way, here - 1))] if here else []
        if item.kind == "W":
            return [("B", i, (way, here))]
        return [("F", i, (way, here))] + ([("B", i, (way, here + 1))] if here + 1 < p else [])

    orders = [
        order("dualpipe-v", min(r, p - 1 - r), stages=p // 2, micro_batches=m // 2, virtual=2)
        for r in range(p)
    ]
    assert pairs_as_one(orders, needs, where, UNITS) == length
    assert [in_flight(passes) for passes in orders] == [p + 1] * p


def pairs_as_one(orders, needs, where, units) -> int:
    """Makespan where a pass and the one beside it start together and end together, after both their times."""
    end: dict = {}
    free, at = [0] * len(orders), [0] * len(orders)
    while any(k < len(o) for k, o in zip(at, orders)):
        moved = False
        for r, passes in enumerate(orders):
            while at[r] < len(passes):
                group = [passes[at[r]]]
                if passes[at[r] + 1 : at[r] + 2] and passes[at[r] + 1].beside:
                    group.append(passes[at[r] + 1])
                wanted = [need for item in group for need in needs(r, item)]
                if any(need not in end for need in wanted):
                    break
                stop = max([free[r], *(end[need] for need in wanted)])
                stop += sum(units[item.kind] for item in group)
                for item in group:
                    kind = "B" if item.kind == "I" else item.kind
                    end[kind, item.micro_batch, where(r, item)] = stop
                free[r], at[r], moved = stop, at[r] + len(group), True
        assert moved, "the orders wait for each other"
    return max(free)


@pytest.mark.parametrize(("p", "m"), [(2, 2), (3, 5), (4, 12), (8, 16)])
def test_bubbles_follow_their_formulas(p, m):
    uneven = {"F": 3, "I": 4, "W": 2, "B": 6}
    busy = 9 * m
    assert makespan(times("1f1b", p, m, units=uneven)) == busy + (p - 1) * 9
    if m >= p:
        assert makespan(times("zero-bubble", p, m, units=uneven)) == busy + (p - 1) * (3 + 4 - 2)
    if m % p == 0:
        assert makespan(times("interleaved", p, m, 3, units=uneven)) == 3 * busy + (p - 1) * 9


@pytest.mark.parametrize(
    "schedule", ["gpipe", "1f1b", "zero-bubble", "zero-bubble-v", "dualpipe-v", "interleaved"]
)
@pytest.mark.parametrize("m", [4, 8, 20])
def test_every_pass_runs_once_in_an_order_that_ends(schedule, m):
    v = 2 if schedule in ("zero-bubble-v", "dualpipe-v", "interleaved") else 1
    m = max(m, 8) if schedule == "dualpipe-v" else m
    times(schedule, 4, m, v)
    for r in range(4):
        passes = order(schedule, r, stages=4, micro_batches=m, virtual=v)
        assert len(set(passes)) == len(passes)
        halves = sum(p.kind == "I" for p in passes)  # of backward passes that are taken apart
        assert len(passes) == m * v * 2 + halves
        assert halves == sum(p.kind == "W" for p in passes)
        assert (halves > 0) == (schedule.startswith("zero") or schedule == "dualpipe-v")
        for kind in "FBIW":
            for c in range(v):
                turns = [p.micro_batch for p in passes if (p.kind, p.chunk) == (kind, c)]
                assert turns == sorted(turns)


def test_schedules_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="8 and 12 fit"):
        order("1f1b", 0, stages=4, micro_batches=10, virtual=2)
    with pytest.raises(InputError, match="expected 1 without a pipeline"):
        order("1f1b", 0, stages=1, micro_batches=4, virtual=2)
    with pytest.raises(InputError, match="Say schedule='dualpipe-v'"):
        order("dualpipe", 0, stages=4, micro_batches=8)
    with pytest.raises(InputError, match="at least 2 x pipeline = 8"):
        order("dualpipe-v", 0, stages=4, micro_batches=7, virtual=2)
    with pytest.raises(InputError, match="expected 2 for schedule='dualpipe-v'"):
        order("dualpipe-v", 0, stages=4, micro_batches=8)
    with pytest.raises(InputError, match="expected one of gpipe"):
        order("2f2b", 0, stages=1, micro_batches=4)
