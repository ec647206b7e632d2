"""GOAL, the text format of LogGOPSim's schedules: sends, receives and computation of every rank.

    num_ranks 2
    rank 0 {
    l1: calc 1000 cpu 0
    l2: send 1024b to 1 tag 5
    l2 requires l1
    }
    rank 1 {
    l1: recv 1024b from 0 tag 5
    }

`calc` is in ns and occupies a cpu (0 where none is named); `requires` waits for the other's end, `irequires` for its
start; `recv ... from -1` takes a message of any rank, `tag -1` of any tag. Comments: // to the end of the line, /* */.

An `irequires` becomes waiting for all that the other operation waits for: its start, but for the time it queues for
its own cpu. A receive from any rank is taken where a single rank sends to it what nobody else there receives.

Source: the grammar in spcl/LogGOPSim, src/LogGOPSim/txt2bin.re; units in its README.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from perfmodel.errors import TraceError

NANOSECOND = 1e-9
ANY = -1
_TOKEN = re.compile(
    r"""[ \t\r\n]+ | //[^\n]* | /\*.*?\*/
    | (?: (?P<label>[a-zA-Z]\w*) [ \t]* : [ \t]* )?
      (?: (?P<calc>calc) [ \t]+ (?P<work>\d+)
        | (?P<message>send|recv) [ \t]+ (?P<size>\d+) [ \t]* b [ \t]+ (?P<way>to|from) [ \t]+ (?P<peer>-1|\d+)
          (?: [ \t]+ tag [ \t]+ (?P<tag>-1|\d+) )? )
      (?: [ \t]+ cpu [ \t]+ (?P<cpu>\d+) )? (?: [ \t]+ nic [ \t]+ (?P<nic>\d+) )? (?=[ \t]*(?:\r?\n|\Z|//|/\*|\}))
    | (?P<after>[a-zA-Z]\w*) [ \t]+ (?P<requires>i?requires) [ \t]+ (?P<before>[a-zA-Z]\w*)
      (?=[ \t]*(?:\r?\n|\Z|//|/\*|\}))
    | num_ranks [ \t]+ (?P<ranks>\d+)
    | rank [ \t]+ (?P<rank>\d+) [ \t\r\n]* \{
    | (?P<close>\})
    """,
    re.VERBOSE | re.DOTALL,
)
MOST_RANKS = 2**24
_EXPECTED = (
    'expected "num_ranks N", "rank N {", "}", "[label:] calc N [cpu C]", "[label:] send Nb to R [tag T] [cpu C]'
    ' [nic K]",'
    ' the same with recv and from, or "label requires label"'
)


@dataclass
class GoalRank:
    """Operations of one rank, in the order of the file.

    kind: "calc", "send" or "recv"; amount: ns or B; peer, tag: -1 for any; cpu, nic: numbers; label: "" where none;
    requires, irequires: pairs (operation, the one it waits for), by position.
    """

    kind: list[str] = field(default_factory=list)
    amount: list[int] = field(default_factory=list)
    peer: list[int] = field(default_factory=list)
    tag: list[int] = field(default_factory=list)
    cpu: list[int] = field(default_factory=list)
    nic: list[int] = field(default_factory=list)
    label: list[str] = field(default_factory=list)
    requires: list[tuple[int, int]] = field(default_factory=list)
    irequires: list[tuple[int, int]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.kind)


def is_goal(head: bytes) -> bool:
    """Whether a file that begins with `head` is a GOAL schedule: `num_ranks` is its first word.

    >>> is_goal(b"// eight ranks\\nnum_ranks 8\\n")
    True
    """
    text = head[:65536].decode("latin-1")
    return re.match(r"(?:\s+|//[^\n]*|/\*.*?\*/)*num_ranks[ \t]+\d", text, re.DOTALL) is not None


def parse(text: str, source: str) -> list[GoalRank]:
    """The operations of every rank.

    Raises:
        TraceError: what is not in the grammar, a label that is not there or there twice, a rank twice or out of
            range; with its line.
    """
    ranks: list[GoalRank] | None = None
    seen: set[int] = set()
    rank: GoalRank | None = None
    labels: dict[str, int] = {}
    waits: list[tuple[str, str, str, int]] = []
    pos, end, match_at = 0, len(text), _TOKEN.match
    while pos < end:
        m = match_at(text, pos)
        if m is None or m.end() == pos:
            raise _error(text, pos, source, f"{_short(text, pos)} is no GOAL; {_EXPECTED}")
        word = m.lastgroup
        if m["calc"] or m["message"]:
            if rank is None:
                raise _error(text, pos, source, "an operation outside a rank")
            _operation(rank, m, labels, text, pos, source)
        elif m["requires"]:
            if rank is None:
                raise _error(text, pos, source, "a dependency outside a rank")
            waits.append((m["requires"], m["after"], m["before"], pos))
        elif m["ranks"]:
            count = _number(m["ranks"], text, pos, source)
            if ranks is not None or not 0 < count <= MOST_RANKS:
                raise _error(
                    text, pos, source, f"num_ranks once, from 1 to {MOST_RANKS}; got {count}"
                )
            if count > 64 * len(text) + 1024:  # an empty rank needs no text, yet memory
                raise _error(
                    text, pos, source, f"num_ranks {count} in a file of {len(text)} characters"
                )
            ranks = [GoalRank() for _ in range(count)]
        elif m["rank"]:
            number = _number(m["rank"], text, pos, source)
            if ranks is None or rank is not None:
                raise _error(text, pos, source, "a rank before num_ranks or inside another rank")
            if number in seen or number >= len(ranks):
                what = "is there twice" if number in seen else f"is not one of {len(ranks)}"
                raise _error(text, pos, source, f"rank {number} {what}")
            seen.add(number)
            rank, labels, waits = ranks[number], {}, []
        elif m["close"]:
            if rank is None:
                raise _error(text, pos, source, '"}" without a rank')
            _resolve(rank, labels, waits, text, source)
            rank = None
        del word
        pos = m.end()
    if rank is not None:
        raise TraceError(
            f'{source}: ends inside a rank: its "}}" is missing. The file is cut off: copy it again'
        )
    if ranks is None:
        raise TraceError(f"{source}: says no num_ranks; {_EXPECTED}")
    missing = [r for r in range(len(ranks)) if r not in seen]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise TraceError(
            f"{source}: rank {missing[0]}{more} of {len(ranks)} has no block. Add it, or correct num_ranks"
        )
    _settle(ranks, source)
    return ranks


def _operation(
    rank: GoalRank, m: re.Match[str], labels: dict[str, int], text: str, pos: int, source: str
) -> None:
    if m["way"] and (m["message"] == "send") != (m["way"] == "to"):
        raise _error(
            text,
            pos,
            source,
            f'"{m["message"]}" with "{m["way"]}"; expected "send ... to", "recv ... from"',
        )
    number = m["work"] if m["calc"] else m["size"]
    peer = int(m["peer"] or ANY) if len(m["peer"] or "") < 12 else 2**31
    if m["message"] == "send" and (peer == ANY or m["tag"] == "-1"):
        raise _error(
            text, pos, source, "a send to any rank or with any tag; only receives may have -1"
        )
    label = m["label"] or ""
    if label:
        if label in labels:
            raise _error(text, pos, source, f"label {label} is there twice in its rank")
        labels[label] = len(rank)
    rank.kind.append(m["calc"] or m["message"])
    rank.amount.append(_number(number, text, pos, source))
    rank.peer.append(peer)
    rank.tag.append(ANY if m["tag"] == "-1" else _number(m["tag"] or "0", text, pos, source))
    rank.cpu.append(_number(m["cpu"] or "0", text, pos, source))
    rank.nic.append(_number(m["nic"] or "0", text, pos, source))
    rank.label.append(label)


def _resolve(
    rank: GoalRank,
    labels: dict[str, int],
    waits: list[tuple[str, str, str, int]],
    text: str,
    source: str,
) -> None:
    for word, after, before, pos in waits:
        for label in (after, before):
            if label not in labels:
                raise _error(text, pos, source, f"label {label} is no operation of this rank")
        pairs = rank.requires if word == "requires" else rank.irequires
        pairs.append((labels[after], labels[before]))


def edges(rank: GoalRank) -> list[tuple[int, int]]:
    """(waits, for what's end) by position: requires, and what an `irequires` comes down to."""
    found = dict.fromkeys(rank.requires)
    if rank.irequires:
        ends, starts = defaultdict(list), defaultdict(list)
        for after, before in rank.requires:
            ends[after].append(before)
        for after, before in rank.irequires:
            starts[after].append(before)
        for after in list(starts):
            stack, seen = list(starts[after]), set()
            while stack:
                before = stack.pop()
                if before in seen:
                    continue
                seen.add(before)
                stack += starts.get(before, [])
                found.update(dict.fromkeys((after, end) for end in ends.get(before, [])))
    return list(found)


def _settle(ranks: list[GoalRank], source: str) -> None:
    """Give receives from any rank or with any tag the one sender and tag that are possible."""
    wild = [
        (r, k)
        for r, rank in enumerate(ranks)
        for k, kind in enumerate(rank.kind)
        if kind == "recv" and ANY in (rank.peer[k], rank.tag[k])
    ]
    if not wild:
        return
    there = {r for r, _ in wild}
    left: dict[int, Counter[tuple[int, int]]] = {r: Counter() for r in there}
    for r, rank in enumerate(ranks):
        for kind, peer, tag in zip(rank.kind, rank.peer, rank.tag):
            if kind == "send" and peer in there:
                left[peer][r, tag] += 1
            elif kind == "recv" and r in there and ANY not in (peer, tag):
                left[r][peer, tag] -= 1
    for r, k in wild:
        rank = ranks[r]
        fits = [
            (peer, tag)
            for (peer, tag), count in left[r].items()
            if count > 0 and rank.peer[k] in (ANY, peer) and rank.tag[k] in (ANY, tag)
        ]
        if len(fits) != 1:
            what = "nobody sends it a message" if not fits else f"{len(fits)} senders or tags fit"
            raise TraceError(
                f"{source}: rank {r}, operation {k} ({rank.label[k] or 'recv'}): receives from any rank or with any"
                f" tag, and {what}. Write the rank and the tag that it received from"
            )
        left[r][fits[0]] -= 1
        rank.peer[k], rank.tag[k] = fits[0]


def _number(word: str, text: str, pos: int, source: str) -> int:
    if len(word) > 18:
        raise _error(
            text, pos, source, f"the number {word[:20]}... is too large; expected at most 18 digits"
        )
    return int(word)


def _error(text: str, pos: int, source: str, what: str) -> TraceError:
    return TraceError(f"{source}: line {text.count(chr(10), 0, pos) + 1}: {what}")


def _short(text: str, pos: int) -> str:
    line = text[pos : pos + 80].split("\n", 1)[0].strip()
    return repr(line if len(line) <= 40 else line[:37] + "...")
