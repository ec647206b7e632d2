"""Every trace among the reference data and the reported cases: loads, or is refused for which reason.

A row: ranks, nodes, errors, findings. Errors are the codes of what stops `load`; findings those of what it repaired or
took for granted, and went on.
"""

import pytest

import perfmodel as pm
from perfmodel.workload.load import examine

ASTRA = (4, 20, "", "")
TABLE = {
    "reference/chakra/custom_collective": (8, 280, "", ""),
    "reference/chakra/feeder_json/chakra.0.json.gz": (
        *(1, 3664, ""),
        "collective-by-name host-collective kernels-are-leaves under-one-microsecond",
    ),
    "reference/chakra/feeder_json/small_chakra.0.json": (
        *(1, 7, ""),
        "collective-by-name host-collective kernels-are-leaves missing-dependency",
    ),
    "reference/chakra/jsonizer/j0_0.json.gz": (1, 3294, "unknown-group", ""),
    "reference/chakra/no_metadata": (4, 860, "", ""),
    "reference/chakra/old_pytorch": (
        *(1, 3664, ""),
        "cyclic-control host-collective kernels-are-leaves missing-dependency under-one-microsecond",
    ),
    "reference/chakra/pytorch_2rank": (
        *(2, 3268, ""),
        "group-by-users kernels-are-leaves under-one-microsecond",
    ),
    "reference/chakra/resnet_dp": (4, 860, "no-size", ""),
    "reference/chakra/v0_0_1/transformer_2stack": (4, 568, "", ""),
    "reference/chakra/v0_0_1/twoCompNodesDependent": (1, 2, "", "run-time-unit"),
    "reference/pytorch/megatron_tp8": (8, 47093, "", ""),
    "reference/pytorch/dlrm_8gpu": (8, 14149, "", "launch-missing"),
    "reference/pytorch/resnet_host_et/resnet_1.1.0.json.gz": (1, 2718, "", "no-times"),
    "reference/pytorch/resnet_host_et/resnet_1gpu_1.0.3.json.gz": (1, 2718, "", "no-times"),
    "reference/pytorch/resnet_host_et/resnet_1gpu_1.1.1.json.gz": (1, 2718, "", "no-times"),
    "reference/pytorch/resnet_host_et/resnet_2gpu_1.1.0.json.gz": (
        *(2, 5436, ""),
        "no-times one-for-all",
    ),
    "reference/pytorch/host_et_small/chakra_1.0.2.json.gz": (2, 80, "", "no-times one-for-all"),
    "reference/pytorch/host_et_small/linear_et.json.gz": (1, 217, "", "no-times"),
    "reference/pytorch/host_et_small/pt2_et.json.gz": (1, 2, "", "no-times"),
    "reference/pytorch/kineto_only/amd_mi250_minitoy.json.gz": (1, 81, "", "unknown-device"),
    "reference/pytorch/kineto_only/critical_path_alexnet.json.gz": (1, 524, "", ""),
    "reference/pytorch/kineto_only/critical_path_simple_add.json.gz": (1, 554, "", ""),
    "reference/pytorch/kineto_only/cuda_event_sync.json.gz": (1, 31, "", ""),
    "reference/pytorch/kineto_only/cuda_event_sync_multi_stream.json.gz": (1, 21, "", ""),
    "reference/pytorch/kineto_only/nccl_data.json.gz": (1, 4977, "", "absent-ranks"),
    "cases/recorded_cpu_ddp": (2, 280, "", "unknown-device"),
    "cases/alltoallv/p2p": (4, 24, "", ""),
    "cases/alltoallv/uneven": (4, 4, "size-mismatch", ""),
    "cases/fresh_chakra_cpu_ddp": (
        *(2, 476, ""),
        "communication-typed-compute missing-dependency under-one-microsecond",
    ),
    "cases/group_zero/all": (4, 4, "", ""),
    "cases/group_zero/float": (4, 12, "", "group-name group-zero"),
    "cases/group_zero/subset": (4, 12, "", "group-zero"),
    "cases/kernels_are_leaves": (2, 16, "", "inferred-edges"),
    "cases/limited_by_recorded": (4, 16, "", ""),
    "cases/nccl_typed_comp": (2, 8, "", "communication-typed-compute"),
    "cases/shared_nic": (16, 16, "", ""),
    "cases/stage_bytes": (4, 736, "", ""),
    "cases/text_workload/mlp.txt": (4, 36, "", ""),
    "cases/text_workload/simai.txt": (4, 48, "", ""),
    "cases/waiting_as_communication": (4, 16, "", ""),
    "cases/astra/custom_ready_order_aware_8ranks": (8, 18, "", ""),
    "cases/astra/custom_stray_file": (8, 8, "", ""),
    "cases/astra/json_bool_replay_false": ASTRA,
    "cases/astra/json_bool_roofline_false": ASTRA,
    "cases/astra/load_prefix_is_also_a_folder": (8, 8, "", ""),
    "cases/astra/per_node_memory_40_nodes": (8, 320, "", ""),
    "cases/astra/refused_endpoint_delay_1.5": ASTRA,
    "cases/astra/refused_injection_scale_2": ASTRA,
    "cases/astra/refused_json_bom": ASTRA,
    "cases/astra/refused_memory_no_type": ASTRA,
    "cases/astra/refused_model_shared_bus": ASTRA,
    "cases/astra/refused_pg_name_01": (4, 4, "", "group-name"),
    "cases/astra/refused_rendezvous": ASTRA,
}
OPTIONS = {"cases/text_workload/mlp.txt": {"ranks": 4}}
USABLE_WITH = {
    "reference/chakra/jsonizer/j0_0.json.gz": {"group": {"4": [0]}},
    "reference/chakra/resnet_dp": {"sizes": {"*": 2**20}},
}
"""What those that are refused need: things that the files do not say."""


@pytest.mark.parametrize("name", TABLE)
def test_every_sample_loads_or_is_refused_for_its_reason(shared, name):
    graph, found = examine(shared / name, **OPTIONS.get(name, {}))
    codes = {
        level: sorted({p.code for p in found.found if p.level == level})
        for level in ("error", "warning")
    }
    row = (graph.ranks, len(graph), " ".join(codes["error"]), " ".join(codes["warning"]))
    assert row == TABLE[name]


@pytest.mark.parametrize("name", USABLE_WITH)
def test_what_is_refused_can_be_used_with_what_its_files_do_not_say(shared, name):
    graph = pm.load(shared / name, **USABLE_WITH[name])
    assert graph.ranks == TABLE[name][0]


def test_no_sample_is_left_out(shared):
    found = {f for f in (shared / "reference/pytorch").rglob("*.json.gz")}
    found |= {
        f for pattern in ("*.et", "*.eg") for f in (shared / "reference/chakra").rglob(pattern)
    }
    found |= {f for pattern in ("*.et", "*.txt") for f in (shared / "cases").rglob(pattern)}
    folders = {shared / name for name in TABLE}
    left = {
        f
        for f in found
        if not any(f.is_relative_to(x) or str(f).startswith(f"{x}.") for x in folders)
    }
    assert not left
