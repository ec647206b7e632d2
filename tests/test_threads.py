"""Work is shared out to threads that stay."""

import threading

import pytest

from perfmodel.threads import even_slices, in_threads


def test_every_part_is_done_once_and_the_threads_serve_the_next_call_too():
    done, who = [], []
    barrier = threading.Barrier(3)

    def work(part):
        barrier.wait(timeout=30)  # all three at the same time
        done.append(part)
        who.append(threading.get_ident())

    in_threads(work, [1, 2, 3])
    first = set(who)
    in_threads(work, [4, 5, 6])
    assert sorted(done) == [1, 2, 3, 4, 5, 6]
    assert set(who) == first
    assert threading.get_ident() in first


def test_what_a_part_raises_reaches_the_caller():
    def work(part):
        if part == 2:
            raise ValueError(part)

    with pytest.raises(ValueError, match="2"):
        in_threads(work, [1, 2])


@pytest.mark.parametrize(("count", "threads"), [(0, 2), (1, 4), (7, 3), (64, 2)])
def test_slices_cover_everything_once(count, threads):
    parts = even_slices(count, threads)
    assert [k for part in parts for k in range(count)[part]] == list(range(count))
    assert len(parts) <= threads
