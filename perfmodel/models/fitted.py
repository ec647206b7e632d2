"""Systems with the models that were fitted to their accelerator, and who answered for what.

A file in hwdb/models holds coefficients and what they were fitted to (`model_file`). A system takes the set that
its accelerator's file names (`models = "h100-sxm"`): its own, or that of a relative, with its own datasheet's rates.
A system that names none has the bare roofline.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import jax

from perfmodel.errors import InputError
from perfmodel.machine import system as machine
from perfmodel.machine.hwdb import accelerator_of, find_hwdb
from perfmodel.machine.system import System
from perfmodel.models import model_file
from perfmodel.models.cost import Models, models_of
from perfmodel.models.cost_blocks import BESIDE
from perfmodel.models.model_file import CHANNELS

BARE = (
    "bare roofline, no coefficients measured: rates of the datasheet, as if always reached; kernels and collectives of "
    "real machines take about twice as long, small ones many times"
)


class Answer(NamedTuple):
    """Whose coefficients answered for a kind of work, and how far off they were where it was measured.

    Attributes:
        work: what was asked for, such as "gemm bf16" or "all_reduce in a node".
        coefficients: name of the set; "bare roofline", or the class of a model of one's own.
        relation: "own" device's, "relative" (another device's with this one's datasheet), or "".
        median_error, mean_error, p95_error: |predicted / measured - 1| over rows that the fit did not see; None where
            nothing was measured.
        error_of, data: of which rows, and from where. note: what else is to be known.
    """

    work: str
    coefficients: str
    relation: str = ""
    median_error: float | None = None
    mean_error: float | None = None
    p95_error: float | None = None
    error_of: str = ""
    data: str = ""
    note: str = ""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A set of fitted models as a system carries it.

    Attributes:
        name: of the set. models: with the coefficients. fits: what the file says of each fit.
        relation: "own" or "relative". source: the file.
        parts: which of the models are of this set. rest: whose the others are (None: bare).
    """

    name: str
    models: Models
    fits: tuple[Mapping[str, Any], ...]
    relation: str
    source: str = ""
    parts: tuple[str, ...] = (*model_file.PARTS, model_file.CHANNELS)
    rest: Fitted | None = None

    def of(self, part: str) -> Fitted | None:
        """The set that a part of the models is of."""
        return self if part in self.parts else self.rest

    def __repr__(self) -> str:
        return f"Fitted({self.name!r}, {self.relation})"


def sets() -> list[str]:
    """Names of the sets of coefficients in hwdb."""
    return sorted(p.stem for p in (find_hwdb() / "models").glob("*.toml"))


def _read(path: str, name: str, relation: str) -> Fitted:
    found = model_file.read_models(path)
    return Fitted(name, found.models, found.fits, relation, path, found.parts)


@lru_cache(maxsize=64)
def _shipped(name: str, relation: str) -> Fitted:
    """A set of hwdb, read once: its files do not change while the package runs."""
    return _read(str(find_hwdb() / "models" / f"{name}.toml"), name, relation)


def fitted(name: str, machine_name: str = "") -> Fitted:
    """The set of that name in hwdb, for a machine: its accelerator's own, or a relative's.

    Raises:
        InputError: no such set; the nearest are offered.
    """
    if name not in sets():
        near = difflib.get_close_matches(name, sets(), n=3, cutoff=0.4) or sets()
        raise InputError(f"models {name!r}: no such set in hwdb/models; expected {', '.join(near)}")
    own = name in (machine_name, accelerator_of(machine_name))
    return _shipped(name, "own" if own else "relative")


def hardware(
    name_or_path: str | Path,
    *,
    ranks: int | None = None,
    dtype: str | None = None,
    models: Any = None,
    **more: Any,
) -> System:
    """The system of that name in hwdb, or of one's own TOML file, with its fitted models.

    Args:
        name_or_path: a name that `systems()` lists, or the path of a file of the same form.
        ranks: how many NPUs; without it the file's size, one of an outermost dimension "any".
        dtype: whose peak rate counts for work that names no number format, bf16 by default.
        models: a file of models, a set of coefficients in hwdb by name, or "roofline" for none; by default the set
            (or the file) that the system's file names, else none. Parts that a file has not are the system's.
        more: `sizes`, see `machine.system.hardware`.

    Raises:
        SystemFileError: no such system (the nearest names are offered), or its file is wrong.
        InputError: no such set of coefficients.

    >>> system = hardware("dgx-h100", ranks=16)
    >>> system.sizes, system.fitted.name
    ((8, 2), 'h100-sxm')
    """
    options = {"ranks": ranks, "dtype": dtype, **more}
    system = machine.hardware(name_or_path, **{k: v for k, v in options.items() if v is not None})
    if models == "roofline":
        return replace(system, fitted=None)
    own = None
    if system.model_set.endswith(".toml"):
        own = chosen_models(system.model_set)
    elif system.model_set:
        own = fitted(system.model_set, system.name)
    if models is not None:
        own = _over(chosen_models(models), own)
    return system if own is None else replace(system, fitted=own)


def _over(chosen: Fitted, own: Fitted | None) -> Fitted:
    """A set whose parts stand in the place of a system's own; one with all parts is taken as it is."""
    if set(model_file.PARTS) <= set(chosen.parts):
        return chosen
    base = Models() if own is None else own.models
    parts = {part: getattr(chosen.models, part) for part in chosen.parts}
    return replace(chosen, models=base.replace(**parts), rest=own)


def chosen_models(chosen: str | Path) -> Fitted:
    """The models of a file, or of a set in hwdb by name.

    Raises:
        InputError: there is neither.
    """
    if Path(chosen).is_file():
        return _read(str(chosen), Path(chosen).stem, "own")
    if str(chosen) in sets():
        return fitted(str(chosen))
    near = difflib.get_close_matches(str(chosen), sets(), n=2, cutoff=0.5)
    offer = f"did you mean {' or '.join(near)}?" if near else f"sets: {', '.join(sets())}."
    raise InputError(
        f"models {chosen}: there is no such file, and no such set of coefficients in hwdb; {offer}"
    )


def answers(
    system: System, models: Any, keys: Iterable[tuple[Hashable, ...]]
) -> tuple[Answer, ...]:
    """Who answered for the costs with these keys (`cost_blocks.CostBlock.key`), each once."""
    models = models_of(system, models)
    found: dict[Answer, None] = {}
    for kind, *detail in keys:
        if BESIDE in detail:
            found.setdefault(_held(system, models))
            detail = detail[: detail.index(BESIDE)]
        found.setdefault(_answer(system, models, (kind, *detail)))
    return tuple(found)


def _answer(system: System, models: Any, key: tuple[Hashable, ...]) -> Answer:
    kind, *detail = key
    if kind == "recorded":
        return Answer("durations and gaps that it gives", "the workload")
    part = {"compute": "compute", "memory": "memory"}.get(str(kind), "network")
    model = getattr(models, part)
    place, work = _place(model, str(kind), detail, system)
    own = None if system.fitted is None else system.fitted.of(part)
    ours = None if own is None else getattr(own.models, part)
    if own is None or type(ours) is not type(model) or (part == "memory"):
        return _unfitted(model, part, work)
    if not _equal(model, ours):
        return Answer(work, own.name, "changed", note="coefficients changed since the fit")
    entry = next((f for f in own.fits if _fitted_in(f, part, place)), None)
    if entry is None:
        return Answer(work, own.name, own.relation)
    figures = [entry.get(f"{word}_error") for word in ("median", "mean", "p95")]
    texts = [str(entry.get(word, "")) for word in ("error_of", "data", "note")]
    return Answer(work, own.name, own.relation, *figures, *texts)


def _held(system: System, models: Any) -> Answer:
    """Who says how many cores a collective holds of kernels beside it."""
    work = f"{models.channels:g} cores that a collective holds of kernels beside it"
    own = None if system.fitted is None else system.fitted.of(CHANNELS)
    if own is None or own.models.channels != models.channels:
        return Answer(work, "given")
    said = [f for f in own.fits if CHANNELS in f.get("coefficients", ())]
    data = str(said[0].get("data", "")) if said else ""
    return Answer(work, own.name, own.relation, data=data)


def _fitted_in(fit: Mapping[str, Any], part: str, place: str) -> bool:
    """Whether a fit is of the coefficients in a place of a part; of the part, where it is not divided."""
    names = fit.get("coefficients", ())
    return f"{part}.{place}" in names if place else any(n.startswith(f"{part}.") for n in names)


def _unfitted(model: Any, part: str, work: str) -> Answer:
    """Of a model without published errors."""
    bare = getattr(Models(), part)
    if type(model) is type(bare) and _equal(model, bare):
        return Answer(work, "bare roofline", note=BARE if part != "memory" else "")
    own = "" if type(model).__module__.startswith("perfmodel.") else ", your own"
    return Answer(work, f"{type(model).__name__}{own}")


def _equal(one: Any, other: Any) -> bool:
    """Whether two records hold the same numbers (arrays and tracers count as others)."""
    if one is other:
        return True
    pairs = [jax.tree_util.tree_flatten(part) for part in (one, other)]
    (mine, my_shape), (theirs, their_shape) = pairs
    return my_shape == their_shape and all(  # type: ignore[operator]
        isinstance(a, int | float) and isinstance(b, int | float) and a == b
        for a, b in zip(mine, theirs)
    )


def _place(model: Any, kind: str, detail: list[Any], system: System) -> tuple[str, str]:
    """Which coefficients of a model answer, as a path in it, and what they answer for, in words."""
    if kind == "compute":
        word, dtype = (*map(str, detail), "", "")[:2]
        work = " ".join(filter(None, (word or "other", dtype)))
        asked = getattr(model, "answered_by", None)
        return (asked(word, dtype) if asked else ""), work
    if kind == "memory":
        return "", f"{detail[0]} memory"
    asked = getattr(model, "answered_by", None)
    if kind == "collective":
        word, group = detail
        far = any(n > 1 for n in group.members[1:])
        return (asked(word, group, system.network) if asked else ""), (
            f"{word} {'over nodes' if far else 'in a node'}"
        )
    far = any(detail[0][1:])
    return ("messages" if asked else ""), f"messages {'over nodes' if far else 'in a node'}"


def described(found: Iterable[Answer]) -> str:
    """The answers in a line or a few, for people.

    >>> seen, unseen = Answer("gemm bf16", "h100-sxm", "own", mean_error=0.056), Answer("norm bf16", "h100-sxm", "own")
    >>> print(described([seen, unseen]))
    h100-sxm, mean error on held-out measurements: gemm bf16 5.6 %; not measured: norm bf16
    """
    sets: dict[tuple[str, str], list[Answer]] = {}
    for a in found:
        sets.setdefault((a.coefficients, a.relation), []).append(a)
    lines = []
    for (name, relation), members in sets.items():
        of_error: dict[str, list[str]] = {}
        for a in members:
            error = f" ({a.data})" if a.data else ""
            if a.mean_error is not None:
                error = f" {100 * a.mean_error:.1f} %"
            of_error.setdefault(error, []).append(a.work)
        unknown = ", ".join(of_error.pop("", ()))
        head = name
        if relation == "relative":
            head += ", a relative's coefficients with this device's datasheet"
        if any(a.mean_error is not None for a in members):
            head += ", mean error on held-out measurements"
            unknown = unknown and f"not measured: {unknown}"
        texts = [", ".join(work) + error for error, work in of_error.items()]
        if name == "bare roofline" and any(a.note for a in members):
            unknown += f"; {BARE}"
        lines.append(f"{head}: {'; '.join(filter(None, (*texts, unknown)))}")
    return "\n".join(lines)
