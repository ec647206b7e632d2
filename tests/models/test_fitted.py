"""Systems with their fitted models: which set, whose, what a result says of it, how to have the bare roofline."""

import dataclasses

import pytest

import perfmodel as pm
from perfmodel.errors import InputError
from perfmodel.machine.placement import Span
from perfmodel.models.cost import Models, models_meant, models_of
from perfmodel.models.fitted import BARE, answers, described, fitted, sets
from perfmodel.models.kernels import Kernels
from perfmodel.models.model_file import read_models, write_models
from perfmodel.models.nccl import Nccl
from perfmodel.models.network import AlphaBeta
from perfmodel.parameter_paths import parameters

OWN_FILE = """
source = "a test"
[npu]
peak_flops = { bf16 = "400 TFLOP/s", fp8 = "800 TFLOP/s" }
memory_bandwidth = "2 TB/s"
memory_capacity = "64 GB"
[[network]]
topology = "switch"
size = 8
bandwidth = "200 GB/s"
latency = "1 us"
"""


@pytest.fixture
def graph(tmp_path):
    pm.synth.collective("all_reduce", ranks=4, size=2**26).write(tmp_path / "one")
    return pm.load(tmp_path / "one")


def test_a_system_of_hwdb_brings_its_fitted_models():
    system = pm.hardware("dgx-h100", ranks=8)
    assert isinstance(system.models.compute, Kernels)
    assert isinstance(system.models.network, Nccl)
    assert system.fitted.relation == "own"
    assert pm.hardware("dgx-h100", ranks=8) == system


def test_a_device_without_data_takes_a_relative_s_coefficients_and_says_so(graph):
    system = pm.hardware("dgx-h200", ranks=4)
    assert (system.fitted.name, system.fitted.relation) == ("h100-sxm", "relative")
    assert system.models == pm.hardware("dgx-h100").models
    (answer,) = pm.predict(graph, system).models
    assert answer.relation == "relative"
    assert "relative's coefficients" in described([answer])


def test_the_models_of_a_system_are_no_parameters_of_it():
    system = pm.hardware("dgx-h100", ranks=8)
    assert parameters(system) == parameters(pm.hardware("dgx-h100", ranks=8, models="roofline"))


def test_a_result_says_which_coefficients_answered_and_their_published_error(graph):
    system = pm.hardware("dgx-h100", ranks=4)
    (answer,) = pm.predict(graph, system).models
    assert (answer.work, answer.coefficients) == ("all_reduce in a node", "h100-sxm")
    assert 0 < answer.median_error < answer.mean_error < answer.p95_error < 0.3
    assert "NCCL" in " ".join(map(str, answer)) or "nccl" in answer.data


def test_roofline_asks_for_the_bare_one_and_the_result_says_what_that_means(graph):
    system = pm.hardware("dgx-h100", ranks=4)
    bare = pm.predict(graph, system, "roofline")
    assert bare.makespan == pm.predict(graph, system, Models()).makespan
    assert bare.makespan < pm.predict(graph, system).makespan
    assert bare.models[0].coefficients == "bare roofline"
    assert BARE in described(bare.models)
    none = pm.hardware("dgx-h100", ranks=4, models="roofline")
    assert none.models is None
    assert pm.predict(graph, none).makespan == bare.makespan


def test_coefficients_that_were_changed_are_not_given_for_published_ones(graph):
    system = pm.hardware("dgx-h100", ranks=4)
    moved = pm.with_parameters(system, system.models, {"network.inside.0.efficiency": 0.5})
    (answer,) = pm.predict(graph, *moved).models
    assert answer.relation == "changed"
    assert answer.mean_error is None


def test_a_file_of_one_s_own_has_the_bare_roofline_or_names_a_relative(tmp_path, graph):
    (tmp_path / "own.toml").write_text(OWN_FILE)
    assert pm.hardware(tmp_path / "own.toml").models is None
    (tmp_path / "kin.toml").write_text('models = "h100-sxm"\n' + OWN_FILE)
    kin = pm.hardware(tmp_path / "kin.toml")
    assert (kin.fitted.name, kin.fitted.relation) == ("h100-sxm", "relative")
    (tmp_path / "typo.toml").write_text('models = "h100"\n' + OWN_FILE)
    with pytest.raises(InputError, match="h100-sxm"):
        pm.hardware(tmp_path / "typo.toml")


def test_a_file_of_models_is_taken_by_hardware(tmp_path, graph):
    path = tmp_path / "mine.toml"
    write_models(path, Models(), title="mine", fits=[])
    system = pm.hardware("dgx-h100", ranks=4, models=path)
    assert system.models == Models()
    with pytest.raises(InputError, match="no such file"):
        pm.hardware("dgx-h100", models="nowhere.toml")


def test_the_shipped_files_say_what_each_fit_saw_and_how_far_off_the_rest_is():
    for name in sets():
        found = read_models(fitted(name).source)
        taken, fits = found.fits[-1], found.fits[:-1]
        assert taken["coefficients"] == ["channels"]
        assert taken["data"]
        parts = {path.split(".")[1] for fit in fits for path in fit["coefficients"]}
        assert parts == {"tiles", "flash", "traffic", "base", "inside", "nodes", "messages"} | (
            {"nvls"} if name == "h100-sxm" else set()
        )
        for fit in fits:
            assert fit["rows"]
            assert fit["data"]
            assert 0 < fit["median_error"] <= fit["mean_error"] <= fit["p95_error"] < 1


def test_a_coefficient_of_the_bare_models_says_that_these_are_meant():
    system = pm.hardware("dgx-h100", ranks=4)
    assert models_meant(system, None, ["npu.peak_flops"]) is None
    assert models_meant(system, None, ["compute.efficiency"]) == Models()
    assert models_meant(system, None, ["network.algorithm"]) == Models()
    assert models_meant(system, None, ["compute.tiles.0.launch"]) is None
    assert models_of(system, None) is system.models
    with pytest.raises(InputError, match="roofline"):
        models_of(system, "ruufline")


def test_every_chosen_system_of_a_sweep_has_its_own_models(graph):
    table = pm.sweep(graph, pm.hardware("dgx-h100", ranks=4), {"system": ["dgx-h100", "dgx-a100"]})
    alone = [pm.predict(graph, pm.hardware(s, ranks=4)).makespan for s in ("dgx-h100", "dgx-a100")]
    assert table.makespan_s.tolist() == pytest.approx(alone)


def test_a_copy_of_a_system_keeps_its_models():
    system = pm.hardware("dgx-h100", ranks=8)
    copy = dataclasses.replace(system, name="mine")
    assert copy.models is system.models
    assert system.resized(16).models is system.models


def test_parts_that_a_file_has_not_are_the_systems_own(tmp_path):
    path = tmp_path / "ours.toml"
    path.write_text(
        '[network]\nmodel = "AlphaBeta"\nefficiency = 0.7\n'
        '[[fit]]\ncoefficients = ["network.efficiency"]\nmean_error = 0.04\n'
    )
    system = pm.hardware("dgx-h100", models=str(path))
    assert system.models.network == AlphaBeta(efficiency=0.7)
    assert system.models.compute == pm.hardware("dgx-h100").models.compute
    keys = [("compute", "gemm", "bf16"), ("collective", "all_reduce", Span((4, 1), (1, 1)))]
    whose = {a.work.split()[0]: a for a in answers(system, None, keys)}
    assert whose["gemm"].coefficients == "h100-sxm"
    assert (whose["all_reduce"].coefficients, whose["all_reduce"].mean_error) == ("ours", 0.04)
    bare = pm.hardware("mi300x-8", models=path).models
    assert (bare.network, bare.compute) == (AlphaBeta(efficiency=0.7), pm.Models().compute)


def test_a_system_file_may_name_a_file_of_models_beside_it(tmp_path):
    (tmp_path / "ours.toml").write_text('[network]\nmodel = "AlphaBeta"\nefficiency = 0.7\n')
    (tmp_path / "mine.toml").write_text('models = "ours.toml"\nnpu = "h100-sxm"\n')
    system = pm.hardware(tmp_path / "mine.toml")
    assert system.models.network == AlphaBeta(efficiency=0.7)
    assert system.fitted.name == "ours"


def test_collectives_hold_the_cores_that_others_measured_and_results_say_so():
    system = pm.hardware("dgx-h100", ranks=8)
    assert system.models.channels == 24
    assert (
        pm.hardware("gb200-nvl72", ranks=8).models.channels == 24
    )  # as all of its relative's coefficients
    assert pm.hardware("dgx-h100", models="roofline").fitted is None
    work = pm.synth.training("gpt-3-125m", data=8, sequence=512)
    step = pm.predict(work.graph(), system)
    text = described(step.models)
    assert "24 cores that a collective holds of kernels beside it (NVIDIA developer forum" in text
    without = pm.predict(work.graph(), system, system.models.replace(channels=None))
    assert without.makespan < step.makespan
    assert "cores" not in described(without.models)
    other = pm.predict(work.graph(), system, system.models.replace(channels=16.0))
    assert "given: 16 cores that a collective holds" in described(other.models)


def test_a_file_of_models_may_say_how_many_cores_collectives_hold(tmp_path):
    path = tmp_path / "mine.toml"
    write_models(path, Models(channels=8.0), title="mine", parts=["compute"])
    assert read_models(path).parts == ("compute", "channels")
    assert pm.hardware("dgx-h100", ranks=8, models=path).models.channels == 8
    write_models(path, Models(), title="mine", parts=["compute"])
    assert pm.hardware("dgx-h100", ranks=8, models=path).models.channels == 24  # the system's
    path.write_text('channels = "many"\n[memory]\nmodel = "Bandwidth"\n')
    with pytest.raises(InputError, match="channels: got 'many'"):
        read_models(path)
