"""Text workloads of ASTRA-sim 1.0 and SimAI: what a table of layers means as a graph."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.trace.text_workload import groups_of, is_text_workload, parse
from perfmodel.trace.text_workload_order import steps_of

MLP = """DATA
2
layer0\t-1\t1000\tNONE\t0\t1000\tNONE\t0\t1000\tALLREDUCE\t1048576\t10
layer1\t-1\t2000\tNONE\t0\t2000\tNONE\t0\t2000\tALLREDUCE\t2097152\t10
"""
SIMAI = """HYBRID_TRANSFORMER_FWD_IN_BCKWD model_parallel_NPU_group: 2 ep: 1 pp: 1 vpp: 1 ga: 1 all_gpus: 4 \
checkpoints: 0 checkpoint_initiates: 0 pp_comm: 0
2
embedding_layer -1 1000000 ALLREDUCE 16777216 1 NONE 0 1 NONE 0 1
attention_layer -1 2000000 ALLREDUCE 16777216 1 NONE 0 1 ALLREDUCE 1048576 1
"""


def order(text: str, passes: int = 1) -> dict[str, set[str]]:
    """What each node waits for, by name."""
    steps = steps_of(parse(text, "x.txt"), passes)
    waits: dict[str, set[str]] = {name: set() for name in steps.name}
    for before, after in steps.edges:
        waits[steps.name[after]].add(steps.name[before])
    return waits


def table(strategy: str, *lines: str) -> str:
    return "\n".join([strategy, str(len(lines)), *lines]) + "\n"


ALL = "a -1 1 ALLREDUCE 8 2 ALLGATHER 16 3 REDUCESCATTER 32 0"


def test_data_parallel_backward_goes_weight_then_input_gradient_from_the_last_layer():
    waits = order(MLP)
    assert waits["layer1_weight_grad"] == {"layer1_forward"}
    assert waits["layer1_input_grad"] == {"layer1_weight_grad"}
    assert waits["layer0_weight_grad"] == {"layer1_input_grad"}
    assert waits["layer1_weight_grad_comm"] == {"layer1_weight_grad"}
    assert "layer0_input_grad" not in waits


def test_the_next_pass_waits_for_the_gradients_of_the_one_before():
    waits = order(MLP, passes=2)
    assert waits["pass1.layer1_forward"] == {
        "pass1.layer0_forward",
        "pass0.layer1_weight_grad_comm_update",
    }


def test_model_parallel_waits_for_its_forward_collective_and_for_the_input_gradient_of_the_layer_above():
    waits = order(table("MODEL", ALL, ALL.replace("a ", "b ")))
    assert waits["b_forward"] == {"a_forward", "a_forward_comm"}
    assert waits["b_input_grad"] == {"b_forward", "b_forward_comm"}
    assert waits["b_weight_grad"] == {"b_input_grad"}  # its collective runs meanwhile
    assert waits["a_input_grad"] == {"b_weight_grad", "b_input_grad_comm"}
    assert "a_input_grad_comm" not in waits


def test_a_transformer_s_input_gradient_collective_holds_the_weight_gradient_up():
    waits = order(table("HYBRID_TRANSFORMER", ALL))
    assert waits["a_weight_grad"] == {"a_input_grad", "a_input_grad_comm"}


def test_checkpoints_run_the_forward_pass_again():
    first = "HYBRID_TRANSFORMER_FWD_IN_BCKWD checkpoints: 1 0 checkpoint_initiates: 1 2"
    waits = order(table(first, ALL, ALL.replace("a ", "b "), ALL.replace("a ", "c ")))
    assert waits["c_input_grad"] == {"b_recompute", "b_recompute_comm"}
    assert waits["a_recompute"] == {"c_forward", "c_forward_comm"}


def test_dlrm_s_all_to_all_is_waited_for_at_the_last_bottom_layer():
    emb = "emb -1 1 ALLTOALL 8 2 ALLTOALL 8 3 NONE 0 0"
    mlp = "mlp{} -1 1 NONE 0 2 NONE 0 3 ALLREDUCE 32 0"
    waits = order(table("HYBRID_DLRM 1", emb, *(mlp.format(k) for k in (1, 2))))
    assert waits["mlp1_forward"] == {"emb_forward"}
    assert waits["mlp2_forward"] == {"mlp1_forward", "emb_forward_comm"}
    assert waits["emb_weight_grad"] == {"mlp1_input_grad", "emb_input_grad_comm"}


def test_micro_issues_all_collectives_at_once():
    assert order(table("MICRO", ALL, ALL.replace("a ", "b "))) == {
        "a_weight_grad_comm": set(),
        "b_weight_grad_comm": set(),
    }


def test_groups_of_tensor_expert_and_data_parallelism_by_hand():
    text = SIMAI.replace("ep: 1", "ep: 2").replace("all_gpus: 4", "all_gpus: 8")
    kinds = ("TP", "DP", "EP", "DP_EP")
    found = groups_of(parse(text, "x"), 8, None, kinds)
    assert {k: v.tolist() for k, v in found.items()} == {
        "TP": [[0, 1], [2, 3], [4, 5], [6, 7]],
        "EP": [[0, 2], [1, 3], [4, 6], [5, 7]],
        "DP_EP": [[0, 4], [1, 5], [2, 6], [3, 7]],
        "DP": [[0, 2, 4, 6], [1, 3, 5, 7]],
    }


def test_mlp_takes_its_compute_and_the_last_collective(tmp_path):
    file = tmp_path / "mlp.txt"
    file.write_text(MLP)
    graph = pm.load(file, ranks=4)
    system = pm.hardware("dgx-h100")
    got = pm.predict(graph, system).makespan
    alone = pm.predict(pm.synth.collective("all_reduce", 4, 2**20).graph(), system).makespan
    other = pm.predict(pm.synth.collective("all_reduce", 4, 2**21).graph(), system).makespan
    # 1 + 2 us forward, 2 + 2 us of layer 1, 1 us of layer 0; all-reduces run one after the other from 5 us on
    expected = max(5e-6 + other, 8e-6) + alone + 10e-9
    assert got == pytest.approx(expected, rel=1e-9)


def test_simai_says_its_ranks_itself_and_other_numbers_are_asked_for(tmp_path):
    (tmp_path / "s.txt").write_text(SIMAI)
    (tmp_path / "m.txt").write_text(MLP)
    assert pm.load(tmp_path / "s.txt").ranks == 4
    assert pm.load(tmp_path / "s.txt", ranks=8).ranks == 8
    with pytest.raises(pm.TraceError, match="ranks=N"):
        pm.load(tmp_path / "m.txt")


def test_hybrids_ask_for_the_size_of_the_model_parallel_group(tmp_path):
    file = tmp_path / "h.txt"
    file.write_text(table("HYBRID_DATA_MODEL", ALL))
    with pytest.raises(pm.TraceError, match="tensor=N"):
        pm.load(file, ranks=4)
    graph = pm.load(file, ranks=4, tensor=2)
    assert sorted(map(len, graph.groups)) == [2, 2, 2, 2, 4]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("DATA\n3\n" + MLP.split("\n", 2)[2], "line 2 says 3 layers, 2 lines follow"),
        (MLP.replace("ALLREDUCE", "ALLREDUKE", 1), "line 3: columns 9 to 11"),
        (MLP.replace("2000\tNONE", "two\tNONE", 1), "line 4: columns 3 to 5"),
        (MLP.replace("\t10\n", "\n"), "line 3: 11 columns, expected 12"),
        ("DATA\nx\n", "line 2"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text, where):
    with pytest.raises(pm.TraceError, match=where):
        parse(text, "x.txt")


def test_told_apart_from_other_files_by_content():
    assert all(is_text_workload(text.encode()) for text in (MLP, SIMAI))
    assert not any(is_text_workload(data) for data in (b"num_ranks 2\n", b'{"a": 1}'))


@pytest.mark.parametrize("name", ["mlp.txt", "simai.txt"])
def test_the_reported_files_load_and_run(shared, name):
    graph = pm.load(shared / "cases" / "text_workload" / name, ranks=4)
    p = pm.predict(graph, pm.hardware("dgx-h100"))
    assert 8e-6 < p.makespan < np.inf
