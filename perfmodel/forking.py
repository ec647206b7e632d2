"""A process that was forked after JAX has computed in its parent cannot compute: its threads are not there.

The work would wait for them for ever. So the child is told, in one sentence, what to do instead.
"""

from __future__ import annotations

import os

from perfmodel.errors import InputError


class _State:
    computed = False
    forked_after = False


def check_process() -> None:
    """Say that this process computes with JAX.

    Raises:
        InputError: it was forked from one that had.
    """
    if _State.forked_after:
        raise InputError(
            "this process was forked from one that had computed with perfmodel; the threads of JAX do not survive "
            "that, and the work would wait for ever. Start processes anew instead: "
            'multiprocessing.get_context("spawn") or "forkserver"'
        )
    _State.computed = True


def _after_in_child() -> None:
    _State.forked_after = _State.computed


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_in_child)
