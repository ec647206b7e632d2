"""Sweeps over the workers of a Dask cluster.

Workers get the graph once and compile it themselves; each part is one task that may be repeated anywhere, and the
process that asked writes the files: a lost worker costs time, never a point.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

import pandas as pd

from perfmodel.analysis.design_parts import evaluate_part
from perfmodel.errors import InputError

RETRIES = 10
"""How often a part is tried again after its worker was lost."""

CONNECT_TIMEOUT = 10
"""Seconds to wait for a scheduler."""

_EVALUATORS: dict[str, dict] = {}
"""On a worker: the evaluators of the latest token."""

_NAMES: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""Of the graphs that were sent out. Addresses would be used again."""


def connect(address: str) -> Any:
    """A client of the scheduler at this address.

    Raises:
        InputError: Dask is not installed, or nothing answers there.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError("Dask is not installed; install perfmodel[dask]") from None
    try:
        return Client(address, timeout=CONNECT_TIMEOUT)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"scheduler {address}: no answer ({error}); is it running?") from None


def _token(graphs: Mapping[str, Any], system: Any, models: Any) -> str:
    """A name for what workers compile: equal for the same graphs with equal hardware and models, and else never."""
    import cloudpickle  # comes with Dask

    names = {text: _NAMES.setdefault(graph, uuid4().hex) for text, graph in graphs.items()}
    return hashlib.sha256(cloudpickle.dumps((names, system, models))).hexdigest()


def _packed(result: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """What the points did not say, texts as numbers: a third of the bytes to send."""
    fresh = result.drop(columns=list(rows.columns))
    return fresh.astype(dict.fromkeys(fresh.select_dtypes(exclude="number"), "category"))


def _unpacked(fresh: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The rows of a result again."""
    texts = {c: fresh[c].cat for c in fresh.select_dtypes("category")}
    plain = {c: text.categories.take(text.codes.astype(int)) for c, text in texts.items()}
    return pd.concat([rows, fresh.assign(**plain)], axis=1)


def _part(token: str, payload: tuple, rows: pd.DataFrame, options: Any) -> pd.DataFrame:
    """One part, on a worker; its compiled graphs stay there for the next."""
    if token not in _EVALUATORS:
        _EVALUATORS.clear()
        _EVALUATORS[token] = {}
    graphs, system, models = payload
    return _packed(evaluate_part(_EVALUATORS[token], graphs, system, models, rows, options), rows)


def results(
    client: Any, graphs, system, models, parts: list[pd.DataFrame], todo: list[int], options
) -> Iterator[tuple[int, pd.DataFrame]]:
    """(number, result) of the parts to do, in the order in which they arrive.

    Args:
        client: a `distributed.Client`.
        parts: all parts; todo: the numbers of those to evaluate.
    """
    from distributed import as_completed

    token = _token(graphs, system, models)
    payload = client.scatter((graphs, system, models), broadcast=True, hash=False)
    threads = max(1, min(n for n in client.nthreads().values()))
    options = replace(options, threads=threads)
    futures = {
        client.submit(
            _part, token, payload, parts[k], options, pure=False, retries=RETRIES, priority=-k
        ): k
        for k in todo
    }
    waiting = as_completed(list(futures), with_results=False)
    for future in waiting:
        k = futures.pop(future)
        yield k, _unpacked(future.result(), parts[k])
        future.release()
