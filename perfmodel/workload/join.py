"""All ranks joined: programs shared by equal ranks, messages and collectives paired over ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from perfmodel.findings import Findings, texts
from perfmodel.threads import even_slices, in_threads
from perfmodel.workload.columns import RankColumns
from perfmodel.workload.groups import Groups
from perfmodel.workload.pairing import check_groups, pair_messages
from perfmodel.workload.program import Labels, Program, equal_ones
from perfmodel.workload.rank import CheckedNodes, CheckedRank, check_nodes, check_rank
from perfmodel.workload.tensor_memory import together

MANY = 100_000
"""Nodes per rank from which on checking them is work for two threads."""


def join(
    ranks: Sequence[RankColumns],
    groups: Mapping[str, Sequence[int]],
    findings: Findings,
    *,
    unknown_group: str = "error",
) -> dict[str, Any]:
    """The arrays of a `Graph` by their names; all problems go to `findings`.

    Args:
        ranks: the columns of rank 0, 1, ...
        groups: name -> ranks.
        unknown_group: "error", or "world" to let groups that nobody defines be all ranks.
    """
    registry = Groups(
        {name: tuple(members) for name, members in groups.items()},
        len(ranks),
        unknown_group,
        findings,
    )
    for name, members in registry.named.items():
        registry.check_members(name, members)
    checked = []
    for nodes in _checked_nodes(ranks, findings):
        findings.found += nodes.found.found
        checked.append(check_rank(nodes, registry))
    registry.report()
    partner = pair_messages(checked, findings)
    by_name = check_groups(checked, registry, findings)
    program, row, programs = _share_programs(checked, partner)
    label, labels = _share_labels(checked)
    return {
        "programs": programs,
        "program": program,
        "row": row,
        "groups": tuple(registry.members),
        "group_names": tuple(registry.names),
        "by_name": by_name,
        "labels": labels,
        "label": label,
        "warnings": tuple(texts(findings.warnings())),
        "tensors": together([columns.tensors for columns in ranks]),
    }


def _checked_nodes(ranks: Sequence[RankColumns], findings: Findings) -> list[CheckedNodes]:
    """Every rank's nodes, checked by themselves; two ranks at a time where there is much to do."""
    found: dict[int, CheckedNodes] = {}

    def work(part: slice) -> None:
        for r in range(part.start, part.stop):
            own = Findings(findings.source, findings.lenient)
            found[r] = check_nodes(r, ranks[r], len(ranks), own)

    nodes = sum(map(len, ranks))
    in_threads(work, even_slices(len(ranks), 2 if nodes >= MANY * len(ranks) else 1))
    return [found[r] for r in range(len(ranks))]


def _share_labels(ranks: list[CheckedRank]) -> tuple[np.ndarray, tuple[Labels, ...]]:
    """[R] i32 label set of each rank, and the distinct ones."""
    said = [
        {
            "id": r.labels.node_id,
            "tag": r.labels.tag,
            "names": "\0".join(r.labels.names),
            "start": r.labels.start,
        }
        for r in ranks
    ]
    number, first = equal_ones(said)
    label = np.zeros(len(ranks), np.int32)
    label[[r.rank for r in ranks]] = number
    return label, tuple(ranks[k].labels for k in first)


def _share_programs(
    ranks: list[CheckedRank], partner: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray, tuple[Program, ...]]:
    """[R] i32 program and row of each rank, and the programs of ranks with equal structure."""
    number, _ = equal_ones([r.structure for r in ranks])
    members: dict[int, list[int]] = {}
    for r, index in zip(ranks, number.tolist()):
        members.setdefault(index, []).append(r.rank)
    program, row = np.zeros(len(ranks), np.int32), np.zeros(len(ranks), np.int32)
    built = []
    for index, alike in enumerate(members.values()):
        program[alike] = index
        row[alike] = np.arange(len(alike))
        built.append(
            Program(
                **ranks[alike[0]].structure,
                ranks=np.array(alike, np.int32),
                groups=np.array([ranks[m].group_of_slot for m in alike], np.int32).reshape(
                    len(alike), -1
                ),
                peer=np.array([ranks[m].peer for m in alike], np.int32),
                partner=np.array([partner[m] for m in alike], np.int32),
            )
        )
    return program, row, tuple(built)
