"""A table of whole numbers as libstdc++ keeps it, written out element by element, to hold others against.

All elements are links of one list; a bucket knows the link before its first element. Nothing is shared with the source.
"""

from __future__ import annotations


def _next_prime(least: int) -> int:
    """Bucket counts that the library's list of primes has for doubling from 13."""
    primes = [13, 29, 59, 127, 257, 541, 1109, 2357, 5087, 10273, 20753, 42043, 85229]
    return next(p for p in primes if p >= least)


class Link:
    """An element of the list; the list's head has no value."""

    def __init__(self, value: int | None = None):
        self.value, self.next = value, None


class HashTable:
    """An unordered_set of whole numbers that hash to themselves."""

    def __init__(self) -> None:
        self.head, self.size, self.bucket_count = Link(), 0, 1
        self.before: dict[int, Link] = {}

    def walk(self) -> list[int]:
        """The elements in the order of the list."""
        found, link = [], self.head.next
        while link is not None:
            found.append(link.value)
            link = link.next
        return found

    def __contains__(self, value: int) -> bool:
        return value in self.walk()

    def insert(self, value: int) -> None:
        """Insert a number that is not there."""
        if self.size + 1 > (self.bucket_count if self.bucket_count > 1 else 0):
            self._rehash(_next_prime(max(12, 2 * self.bucket_count)))
        self._link(Link(value))
        self.size += 1

    def erase(self, value: int) -> None:
        """Remove a number."""
        link = self.head
        while link.next.value != value:
            link = link.next
        gone = link.next
        link.next = gone.next
        self.size -= 1
        self._index()

    def _link(self, link: Link) -> None:
        bucket = link.value % self.bucket_count
        if bucket in self.before:
            link.next = self.before[bucket].next
            self.before[bucket].next = link
            return
        link.next = self.head.next
        self.head.next = link
        if link.next is not None:
            self.before[link.next.value % self.bucket_count] = link
        self.before[bucket] = self.head

    def _rehash(self, count: int) -> None:
        values = self.walk()
        self.head, self.before, self.bucket_count = Link(), {}, count
        for value in values:
            self._link(Link(value))

    def _index(self) -> None:
        """Find again which link is before the first element of each bucket."""
        self.before, link = {}, self.head
        while link.next is not None:
            self.before.setdefault(link.next.value % self.bucket_count, link)
            link = link.next
