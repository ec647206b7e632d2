"""Small models, and the nodes of their steps by name."""

from perfmodel import synth

GPT = {"layers": 4, "hidden": 64, "heads": 4, "vocabulary": 96, "positions": 32, "sequence": 32}


LLAMA = {
    **{"layers": 4, "hidden": 64, "heads": 8, "kv_heads": 4, "head_size": 16, "inner": 96},
    **{"vocabulary": 96, "sequence": 32, "gated": True, "tied": False, "positions": 0},
    **{"norm": "rms", "qkv_bias": False, "output_bias": False, "mlp_bias": False},
}


MIXTURE = LLAMA | {"experts": 8, "top_k": 2, "expert_inner": 48}


COLLECTIVES = ("ALL_REDUCE", "ALL_GATHER", "REDUCE_SCATTER", "ALL_TO_ALL")


def nodes(work: synth.Workload, rank: int = 0):
    """The nodes of a rank, by name."""
    return work.graph().table([rank]).set_index("name")


def collectives(work: synth.Workload, rank: int = 0, stream: str | None = None):
    """Its collectives, of one stream where it is given."""
    table = nodes(work, rank)
    table = table[table["type"].isin(COLLECTIVES)]
    return table if stream is None else table[table["resource"] == stream]


def program(work: synth.Workload, role: int = 0):
    """Names and waits of a role's nodes."""
    c = work.roles[role].columns
    waits = [c.pred[c.pred_ptr[k] : c.pred_ptr[k + 1]].tolist() for k in range(len(c))]
    return list(c.names), waits


def before(work: synth.Workload, name: str, role: int = 0) -> set[str]:
    """Names of all nodes that must be done before this one."""
    names, waits = program(work, role)
    found: set[int] = set()
    todo = [names.index(name)]
    while todo:
        for p in waits[todo.pop()]:
            if p not in found:
                found.add(p)
                todo.append(p)
    return {names[p] for p in found}
