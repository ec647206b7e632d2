"""A calibration is kept in a file that says what it was fitted to; what the data leave open is not published."""

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel.machine.system import NPU, Dimension, System
from perfmodel.models.model_file import read_models
from perfmodel.models.saturation import SaturatingAlphaBeta
from tests.calibration.test_nccl_tests import line, run

NODE = System(NPU(1e15, 3e12), (Dimension(4e11, 1e-6, "switch", 8),), name="node")


def kernels(noise=0.02, rows=40, seed=0):
    random = np.random.default_rng(seed)
    flops = np.geomspace(1e8, 1e13, rows)
    seconds = (flops / 0.6e15 + 3e-6) * np.exp(noise * random.standard_normal(rows))
    return pd.DataFrame({"flops": flops, "bytes_B": 0.0, "duration_s": seconds})


def test_a_file_has_the_fitted_parts_and_what_they_were_fitted_to(tmp_path):
    fit = pm.calibrate(kernels(), NODE, ["compute.efficiency", "compute.overhead"])
    fit.save(tmp_path / "ours.toml", title="our node")
    found = read_models(tmp_path / "ours.toml")
    assert found.title == "our node"
    assert found.parts == ("compute",)
    assert found.models.compute == fit.models.compute
    (entry,) = found.fits
    assert entry["coefficients"] == ["compute.efficiency", "compute.overhead"]
    assert entry["measurements"] == 40
    assert entry["error_of"] == "held out"
    assert entry["mean_error"] == pytest.approx(fit.error.loc["held out", "mean"])
    assert entry["device"] == "node"


def test_parts_that_a_file_has_not_stay_what_they_are(tmp_path):
    fit = pm.calibrate(kernels(), NODE, ["compute.efficiency", "compute.overhead"])
    fit.save(tmp_path / "ours.toml")
    network = SaturatingAlphaBeta()
    models = read_models(tmp_path / "ours.toml").over(pm.Models(network=network))
    assert models.network == network
    assert models.compute == fit.models.compute


def test_what_nccl_tests_printed_is_fitted_as_it_is(tmp_path):
    sizes = [1 << k for k in range(10, 30)]
    factor = 2 * 7 / 8
    times = [30.0 + factor * size / (0.8 * 4e11) * 1e6 for size in sizes]
    text = run(lines=[line(size, time, factor) for size, time in zip(sizes, times)])
    (tmp_path / "log.txt").write_text(text)
    models = pm.Models(network=pm.Models().network.__class__(algorithm="ring"))
    fit = pm.calibrate(tmp_path / "log.txt", NODE, models=models)
    assert fit.models.network.efficiency == pytest.approx(0.8, rel=1e-3)
    assert fit.models.network.overhead == pytest.approx(30e-6 - 14e-6, rel=1e-3)  # 14 hops of 1 us
    assert fit.data == "log.txt, 20 rows"


def test_by_default_every_coefficient_is_fitted_that_the_measurements_depend_on():
    fit = pm.calibrate(kernels(), NODE, folds=0)
    assert list(fit.parameters.parameter) == ["compute.efficiency", "compute.overhead"]


def test_a_coefficient_that_the_measurements_leave_open_is_not_published(tmp_path):
    with pytest.warns(UserWarning, match="leave it open"):
        fit = pm.calibrate(
            kernels(noise=0.5)[-5:], NODE, ["compute.efficiency", "compute.overhead"], folds=0
        )
    with pytest.raises(pm.InputError, match=r"not written.*compute\.overhead is .*leave it open"):
        fit.save(tmp_path / "ours.toml")
    assert not (tmp_path / "ours.toml").exists()


def test_as_many_coefficients_as_measurements_are_not_published(tmp_path):
    fit = pm.calibrate(kernels()[:1], NODE, ["compute.efficiency"], folds=0)
    with pytest.raises(pm.InputError, match="has no interval"):
        fit.save(tmp_path / "ours.toml")


def test_a_half_size_that_runs_away_is_refused():
    """Every size reaches a millionth of the rate, in proportion to its square root: any larger half size will do."""
    size = np.geomspace(1e3, 1e9, 30)
    table = pd.DataFrame(
        {"collective": "all_gather", "size_B": size, "ranks": 8, "duration_s": size**0.5}
    )
    models = pm.Models(network=SaturatingAlphaBeta(sharpness=0.5))
    with pytest.raises(pm.InputError, match=r"half_size ran away to .* B: the measurements do not"):
        pm.calibrate(table, NODE, ["network.half_size"], models=models, folds=0)


def test_a_half_size_far_beyond_what_was_measured_is_not_published(tmp_path):
    size = np.geomspace(1e3, 1e5, 30)
    models = pm.Models(network=SaturatingAlphaBeta(half_size=1e9, sharpness=0.5))
    keys = {"collective": "all_gather", "size_B": size, "ranks": 8}
    stretched = size * (1 + (1e9 / size) ** 0.5)
    table = pd.DataFrame({**keys, "duration_s": 7 * stretched / 4e11 + 7e-6})
    with pytest.warns(
        UserWarning, match=r"half_size is .* beyond what was measured \(1e\+03 to 1e\+05 B\)"
    ):
        fit = pm.calibrate(table, NODE, ["network.half_size"], models=models, folds=0)
    with pytest.raises(pm.InputError, match="beyond what was measured"):
        fit.save(tmp_path / "ours.toml")


def test_a_figure_of_the_system_belongs_into_a_system_file(tmp_path):
    fit = pm.calibrate(kernels(), NODE, ["npu.peak_flops", "compute.overhead"])
    with pytest.raises(pm.InputError, match=r"npu\.peak_flops is the system's.*system file"):
        fit.save(tmp_path / "ours.toml")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"duration_s": 1e308}, ["row 0", "duration_s is 1e+308", "at most"]),
        ({"duration_s": 1e-300}, ["row 0", "duration_s is 1e-300"]),
        ({"flops": 1e300}, ["row 0", "flops is 1e+300", "1e+30 at most"]),
        ({"collective": "all_reduce", "size_B": 1e6, "ranks": 1e10}, ["row 0", "1048576 at most"]),
        ({"collective": "all_reduce", "size_B": 1e308, "ranks": 8}, ["row 0", "size_B", "1e+30"]),
        (
            {"collective": None, "flops": None, "bytes_B": None, "size_B": 1e6, "target": 1e10},
            ["rank 10000000000"],
        ),
    ],
)
def test_numbers_that_no_machine_has_are_refused_at_once(change, words):
    table = kernels().assign(**change)
    with pytest.raises(pm.InputError) as error:
        pm.calibrate(table, NODE, ["compute.efficiency"])
    assert all(word in str(error.value) for word in words), error.value


def test_starts_far_off_still_find_the_minimum():
    fit = pm.calibrate(
        kernels(0.0), NODE, {"compute.efficiency": 1e-8, "compute.overhead": 1e3}, folds=0
    )
    assert fit.models.compute.efficiency == pytest.approx(0.6, rel=1e-6)
    assert fit.models.compute.overhead == pytest.approx(3e-6, rel=1e-6)


def test_a_fit_that_does_not_converge_is_an_error(monkeypatch):
    monkeypatch.setattr("perfmodel.calibration.least_squares.LONGEST", 2)
    start = {"compute.efficiency": 1e-8, "compute.overhead": 1e3}
    with pytest.raises(pm.InputError, match="did not converge in 2 steps"):
        pm.calibrate(kernels(), NODE, start, folds=0)


def test_a_fraction_above_one_warns_when_it_is_used():
    graph = pm.load("traces/all_reduce_4/t")
    system, models = pm.with_parameters(
        pm.hardware("dgx-h100"), pm.Models(), {"network.efficiency": 1.7}
    )
    with pytest.warns(UserWarning, match=r"network\.efficiency: is 1\.7, above 1"):
        pm.predict(graph, system, models)


def test_output_of_another_device_than_the_systems_is_doubted(tmp_path):
    rows = [line(1 << k, 30.0 + 1.75 * (1 << k) / 3e5, 1.75) for k in range(12, 30)]
    (tmp_path / "log.txt").write_text(run(lines=rows))
    with pytest.warns(
        UserWarning, match=r"log\.txt: was measured on NVIDIA H100.*dgx-a100 with a100-sxm-80"
    ):
        pm.calibrate(tmp_path / "log.txt", pm.hardware("dgx-a100"), models=pm.Models(), folds=0)
    pm.calibrate(tmp_path / "log.txt", pm.hardware("dgx-h100"), models=pm.Models(), folds=0)
