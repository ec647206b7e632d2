"""numba's question whether SciPy has linear algebra, put when something depends on the answer.

numba asks by importing SciPy's linear algebra with its own libraries, before the first function of a process is
compiled or loaded. That takes a tenth of a second, half of what loading does; no loop of this package calls any of it.
"""

from __future__ import annotations

import contextlib
import sys
from functools import cache
from typing import Any

from numba.core.caching import FunctionCache


class Kept(FunctionCache):  # type: ignore[misc,unused-ignore]
    """numba's kept code of one function, read without waiting for SciPy."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What is kept for a signature; None where nothing is."""
        _ask_later()
        return super().load_overload(sig, target_context)


@cache
def _ask_later() -> None:
    """Import the module of numba that asks, with the question left open.

    numba holds its lock meanwhile, so nobody else compiles. Where it is made otherwise in another version, it asks.
    """
    if {"numba.np.arraymath", "scipy.linalg.cython_blas"} & set(sys.modules):
        return
    with contextlib.suppress(ImportError, AttributeError):
        from numba.np import linalg

        ask = linalg.ensure_blas
        linalg.ensure_blas = _refuse
        try:
            from numba.np import arraymath
        finally:
            linalg.ensure_blas = ask
        if arraymath._HAVE_BLAS is False:
            arraymath._HAVE_BLAS = _Open(ask)


def _refuse() -> None:
    raise ImportError("not asked yet")


class _Open:
    """An answer that is looked for when it is needed."""

    def __init__(self, ask: Any):
        self.ask = ask

    def __bool__(self) -> bool:
        try:
            self.ask()
        except ImportError:
            return False
        return True
