"""Calibration: known coefficients come back, intervals hold what they promise, measured data, refusals."""

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel.calibration.least_squares import Priors, solve
from perfmodel.calibration.measurements import predicted, read
from perfmodel.machine.placement import Span
from perfmodel.machine.system import NPU, Dimension, RemoteMemory, System
from perfmodel.models.saturation import SaturatingAlphaBeta
from tests.handmade import coll, comp, write

NODE = System(NPU(1e15, 3e12), (Dimension(4e11, 1e-6, "switch", 8),), RemoteMemory(1e11, 1e-5))
TRUTH = {
    "compute.efficiency": 0.6,
    "compute.memory_efficiency": 0.8,
    "compute.overhead": 3e-6,
    "network.efficiency": 0.7,
    "network.overhead": 8e-6,
    "network.0.latency": 1.5e-6,
}


def table_of(random, rows):
    """Operations and collectives of all sizes."""
    work = {
        "flops": 10 ** random.uniform(8, 13, rows),
        "bytes_B": 10 ** random.uniform(5, 9.5, rows),
    }
    communication = {
        "collective": random.choice(["all_reduce", "all_gather"], rows),
        "size_B": 10 ** random.uniform(3, 9, rows),
        "ranks": random.choice([2, 4, 8], rows),
    }
    table = pd.concat([pd.DataFrame(work), pd.DataFrame(communication)], ignore_index=True)
    return table.assign(duration_s=1.0)


def true_durations(table, system=NODE, truth=TRUTH):
    nodes = read(table, system)
    times = np.empty(len(table))
    moved = pm.with_parameters(system, pm.Models(), truth)
    times[nodes.place] = np.asarray(predicted(nodes.keys, nodes.rows, *moved))
    return times


def test_coefficients_come_back_exactly_from_measurements_without_noise():
    table = table_of(np.random.default_rng(0), 40)
    table["duration_s"] = true_durations(table)
    fit = pm.calibrate(table, NODE, list(TRUTH))
    assert dict(zip(fit.parameters.parameter, fit.parameters.value)) == pytest.approx(
        TRUTH, rel=1e-6
    )
    assert fit.models.network.efficiency == pytest.approx(0.7, rel=1e-6)
    assert fit.system.network[0].latency == pytest.approx(1.5e-6, rel=1e-6)
    assert fit.error.loc["held out", "max"] < 1e-6
    assert list(fit.parameters.unit) == ["1", "1", "s", "1", "s", "s"]
    assert set(fit.residuals.kind) == {"compute", "collective"}


def test_intervals_of_95_percent_hold_the_truth_in_90_to_99_percent_of_200_draws():
    random = np.random.default_rng(1)
    table = table_of(random, 40)
    exact = true_durations(table)
    hits = np.zeros(len(TRUTH))
    noise = []
    for _ in range(200):
        table["duration_s"] = exact * np.exp(0.05 * random.standard_normal(len(table)))
        fit = pm.calibrate(table, NODE, list(TRUTH), folds=0)
        truth = np.array(list(TRUTH.values()))
        hits += (fit.parameters.low <= truth) & (truth <= fit.parameters.high)
        noise.append(fit.noise)
    assert (hits >= 180).all()
    assert (hits <= 198).all()
    assert np.mean(noise) == pytest.approx(0.05, rel=0.03)


def test_a_whole_step_tells_the_compute_efficiency(tmp_path):
    graphs = [
        pm.load(write(tmp_path / str(k), [[comp(k * 10**12, 0), coll(size=2**20, deps=[0])]] * 4))
        for k in (1, 2, 5)
    ]
    system = System(NPU(1e15, 1e12), (Dimension(1e11, 1e-6, "ring", 4),))
    _, models = pm.with_parameters(system, pm.Models(), {"compute.efficiency": 0.45})
    steps = [(graph, system, pm.predict(graph, system, models).makespan) for graph in graphs]
    fit = pm.calibrate(steps, system, ["compute.efficiency"])
    assert fit.models.compute.efficiency == pytest.approx(0.45, rel=1e-6)
    assert fit.settled
    assert list(fit.residuals.kind) == ["step"] * 3
    assert fit.error.loc["held out", "max"] < 1e-6


def test_steps_are_scheduled_anew_at_the_parameters_that_were_fitted(tmp_path):
    """At the start the load is quick and the long operation runs first; at the truth it runs last."""
    nodes = [
        comp(10**9, 0),
        {"type": 2, "tensor_size": 10**9, "tensor_loc": 1},
        comp(3 * 10**9, 0, deps=[1]),
        comp(2 * 10**9, 0, deps=[0]),
    ]
    graph = pm.load(write(tmp_path, [nodes]))
    system = System(NPU(1e12, 1e12), (Dimension(1e11, 1e-6, "switch", 1),))
    slow, _ = pm.with_parameters(system, None, {"npu.memory_bandwidth": 0.1e12})
    truth = pm.predict(graph, slow).makespan
    fit = pm.calibrate([(graph, system, truth)], system, {"npu.memory_bandwidth": 0.3e12})
    assert fit.settled
    assert pm.predict(graph, fit.system, fit.models).makespan == pytest.approx(truth, rel=1e-9)
    assert fit.system.npu.memory_bandwidth == pytest.approx(0.1e12, rel=1e-9)


def test_tables_and_steps_fit_together(tmp_path):
    graph = pm.load(write(tmp_path, [[comp(10**12, 0), coll(size=2**24, deps=[0])]] * 4))
    system = System(NPU(1e15, 1e12), (Dimension(1e11, 1e-6, "switch", 4),))
    truth = {"compute.efficiency": 0.5, "network.efficiency": 0.6}
    table = pd.DataFrame({"flops": [1e12, 2e12], "bytes_B": 0.0, "duration_s": [2e-3, 4e-3]})
    measured = pm.predict(graph, *pm.with_parameters(system, pm.Models(), truth)).makespan
    fit = pm.calibrate([table, (graph, system, measured)], system, list(truth), folds=0)
    assert list(fit.parameters.value) == pytest.approx([0.5, 0.6], rel=1e-6)
    assert list(fit.residuals.kind) == ["compute", "compute", "step"]


def test_a_linear_fit_has_the_intervals_of_the_textbook():
    """One parameter, ln t = theta: the mean of the logarithms and Student's t interval."""
    random = np.random.default_rng(3)
    duration = 0.01 * np.exp(0.1 * random.standard_normal(12))
    table = pd.DataFrame({"flops": 1e12, "bytes_B": 0.0, "duration_s": duration})
    fit = pm.calibrate(table, NODE, ["compute.efficiency"], folds=4)
    logs = -np.log(duration / 1e-3)  # ln of the efficiency that each row says
    half = 2.200985160082949 * logs.std(ddof=1) / np.sqrt(12)  # t quantile, 11 degrees of freedom
    row = fit.parameters.iloc[0]
    assert row.value == pytest.approx(np.exp(logs.mean()), rel=1e-9)
    assert row.low == pytest.approx(np.exp(logs.mean() - half), rel=1e-9)
    assert row.high == pytest.approx(np.exp(logs.mean() + half), rel=1e-9)
    assert fit.noise == pytest.approx(logs.std(ddof=1), rel=1e-9)


def test_a_prior_and_the_data_are_weighed_by_their_variances():
    """n measurements of ln t = theta with noise s, prior N(mu, sigma): the textbook's posterior mean."""
    random = np.random.default_rng(4)
    duration = np.exp(0.2 * random.standard_normal(50))

    def predict(theta):
        return np.full(50, theta[0]), np.ones((50, 1))

    prior = Priors(np.array([0.5]), np.array([0.02]))
    fit = solve(predict, duration, np.zeros(1), prior)
    data = 50 / fit.noise**2
    mean = (data * np.log(duration).mean() + 0.5 / 0.02**2) / (data + 1 / 0.02**2)
    assert fit.theta[0] == pytest.approx(mean, rel=1e-3)
    assert fit.covariance[0, 0] == pytest.approx(1 / (data + 1 / 0.02**2), rel=1e-6)


def test_a_prior_settles_what_the_measurements_leave_open():
    table = pd.DataFrame({"flops": 1e12, "bytes_B": 0.0, "duration_s": [2.0e-3, 2.1e-3, 1.9e-3]})
    both = ["npu.peak_flops", "compute.efficiency"]
    with pytest.raises(pm.InputError, match=r"tell npu\.peak_flops and compute\.efficiency apart"):
        pm.calibrate(table, NODE, both)
    fit = pm.calibrate(table, NODE, both, priors={"npu.peak_flops": (0.9e15, 0.01)})
    assert fit.system.npu.peak_flops == pytest.approx(0.9e15, rel=0.01)
    product = fit.system.npu.peak_flops * fit.models.compute.efficiency
    assert product == pytest.approx(0.5e15, rel=0.01)
    assert fit.parameters.prior[0] == pytest.approx(0.9e15)
    assert np.isnan(fit.parameters.prior[1])


def test_an_overhead_that_is_not_there_gets_an_interval_down_to_zero():
    table = table_of(np.random.default_rng(5), 30).dropna(subset="flops")
    table["duration_s"] = true_durations(table, truth={"compute.efficiency": 0.5})
    with pytest.warns(UserWarning, match=r"compute\.overhead.*leave it open; fit fewer"):
        fit = pm.calibrate(table, NODE, ["compute.efficiency", "compute.overhead"], folds=0)
    assert fit.models.compute.efficiency == pytest.approx(0.5, rel=1e-6)
    assert fit.parameters.low[1] < 1e-12


def test_a_coefficient_that_noise_leaves_open_is_named_with_its_interval_and_a_prior_closes_it():
    """An overhead of 10 us beside kernels of 1 to 4 ms that were timed to 5 %."""
    random = np.random.default_rng(6)
    flops = np.geomspace(0.5e12, 2e12, 20)
    seconds = (flops / 0.5e15 + 1e-5) * np.exp(0.05 * random.standard_normal(20))
    table = pd.DataFrame({"flops": flops, "bytes_B": 0.0, "duration_s": seconds})
    both = ["compute.efficiency", "compute.overhead"]
    with pytest.warns(UserWarning, match="leave it open") as seen:
        fit = pm.calibrate(table, NODE, both, folds=0)
    row = fit.parameters.iloc[1]
    assert row.high > 10 * row.low
    text = str(seen[0].message)
    assert len(seen) == 1
    assert f"compute.overhead is {row.value:.3g} s, 95 % interval {row.low:.3g}" in text
    assert "priors={'compute.overhead': (median, sigma)}" in text
    assert seen[0].filename == __file__
    pm.calibrate(table, NODE, both, folds=0, priors={"compute.overhead": (1e-5, 0.5)})  # no warning


def test_an_efficiency_above_one_is_doubted_and_one_of_one_is_not():
    table = pd.DataFrame({"flops": 1e12, "bytes_B": 0.0, "duration_s": [0.8e-3, 0.81e-3, 0.79e-3]})
    with pytest.warns(UserWarning, match=r"compute\.efficiency is 1\.25, 95 % interval 1\.2\d* to"):
        pm.calibrate(table, NODE, "compute.efficiency", folds=0)
    fit = pm.calibrate(table.assign(duration_s=1e-3), NODE, "compute.efficiency", folds=0)
    assert fit.models.compute.efficiency == pytest.approx(1.0)


def test_one_parameter_may_be_a_text():
    table = pd.DataFrame({"flops": [1e12, 2e12], "bytes_B": 0.0, "duration_s": [2e-3, 4e-3]})
    fit = pm.calibrate(table, NODE, "compute.efficiency", folds=0)
    assert list(fit.parameters.parameter) == ["compute.efficiency"]
    assert fit.models.compute.efficiency == pytest.approx(0.5)


def test_messages_and_memory_are_measured_too():
    table = pd.DataFrame(
        {
            "size_B": [1e6, 1e8, 1e9, 1e6, 1e9, 1e9],
            "memory": [None, None, None, "local", "local", "remote"],
            "duration_s": 1.0,
        }
    )
    truth = {"network.0.bandwidth": 2e11, "memory.efficiency": 0.9, "remote_memory.bandwidth": 5e10}
    table["duration_s"] = true_durations(table, truth=truth)
    fit = pm.calibrate(table, NODE, list(truth), folds=0)
    assert list(fit.parameters.value) == pytest.approx(list(truth.values()), rel=1e-6)
    kinds = ["point_to_point"] * 3 + ["memory"] * 3
    assert list(fit.residuals.kind) == kinds


def test_a_group_may_be_named_by_its_ranks_and_makes_the_system_grow():
    system = System(
        NPU(1e15, 1e12),
        (Dimension(4e11, 1e-6, "switch", 8), Dimension(5e10, 1e-6, "switch", 1)),
        grows=True,
    )
    ranks = [16, (0, 8), 8]
    table = pd.DataFrame(
        {"collective": "all_reduce", "size_B": 1e6, "ranks": ranks, "duration_s": 1.0}
    )
    keys = [(ranks, key[2]) for ranks, key in read(table, system).keys]
    assert keys == [
        (16, Span((8, 2), (1, 1))),
        (16, Span((1, 2), (1, 1))),
        (8, Span((8, 1), (1, 1))),
    ]


GOOD = {"flops": [1e12, 1e9], "bytes_B": [0.0, 1e6], "duration_s": [1e-3, 1e-5]}
MESSAGE = {"size_B": [1e6], "duration_s": [1e-3]}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({**GOOD, "duration_s": [1e-3, np.nan]}, ["row 1", "duration_s", "nan"]),
        ({**GOOD, "duration_s": [0.0, 1.0]}, ["row 0", "duration_s", "more than 0"]),
        ({**GOOD, "duration_s": [1.0, -1.0]}, ["row 1", "-1.0", "more than 0; leave out"]),
        (
            {"flops": [1.0], "bytes_B": [1.0], "duration": [1.0]},
            ["duration_s", "did you mean duration"],
        ),
        ({"flops": [1.0], "duration_s": [1.0]}, ["no column bytes"]),
        ({**GOOD, "flops": [1e12, -1.0]}, ["row 1", "flops", "-1.0"]),
        ({**GOOD, "flops": ["many", 1.0]}, ["row 0", "flops", "many"]),
        ({"what": [1], "duration_s": [1.0]}, ["row 0", "not what was measured", "what"]),
        ({"duration_s": []}, ["empty"]),
        ({**MESSAGE, "collective": ["allreduce"], "ranks": [4]}, ["allreduce", "all_reduce"]),
        ({**MESSAGE, "collective": ["all_reduce"]}, ["ranks"]),
        ({**MESSAGE, "collective": ["all_reduce"], "ranks": [1]}, ["row 0", "ranks", "2 or more"]),
        ({**MESSAGE, "collective": ["all_reduce"], "ranks": [2.5]}, ["2.5", "whole number"]),
        ({**MESSAGE, "collective": ["all_reduce"], "ranks": [16]}, ["fixed size of 8", "16"]),
        ({**MESSAGE, "memory": ["far"]}, ["far", "local", "remote"]),
        ({**MESSAGE, "source": [1]}, ["rank 1 to itself"]),
    ],
)
def test_a_wrong_table_is_refused_with_row_and_column(table, words):
    with pytest.raises(pm.InputError) as error:
        pm.calibrate(pd.DataFrame(table), NODE, ["compute.efficiency"])
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parameters": ["compute.eficiency"]}, ["did you mean", "compute.efficiency"]),
        ({"parameters": []}, ["parameters", "none given"]),
        ({"parameters": {"compute.efficiency": -1.0}}, ["compute.efficiency", "-1", "positive"]),
        ({"parameters": ["npu.memory_capacity"]}, ["memory_capacity", "inf", "positive"]),
        ({"parameters": ["network.efficiency"]}, ["no measurement depends on network.efficiency"]),
        ({"priors": {"network.overhead": (1.0, 1.0)}}, ["network.overhead"]),
        ({"priors": {"compute.efficiency": (1.0, 0.0)}}, ["priors", "sigma"]),
        ({"priors": {"compute.efficiency": 0.8}}, ["0.8", "'compute.efficiency': (median, sigma"]),
        ({"priors": {"compute.efficiency": (1, 2, 3)}}, ["(1, 2, 3)", "(median, sigma"]),
        ({"priors": 0.8}, ["priors: got 0.8", "'compute.efficiency': (median, sigma"]),
        ({"parameters": "compute.eficiency"}, ["'compute.eficiency'", "did you mean"]),
        ({"confidence": 95}, ["confidence", "95"]),
        ({"measurements": []}, ["none given"]),
        ({"measurements": ["times.csv"]}, ["item 0", "str", "DataFrame"]),
    ],
)
def test_a_fit_that_cannot_be_is_refused(options, words):
    given = {"measurements": pd.DataFrame(GOOD), "parameters": ["compute.efficiency"], **options}
    with pytest.raises(pm.InputError) as error:
        pm.calibrate(given.pop("measurements"), NODE, given.pop("parameters"), **given)
    assert all(word in str(error.value) for word in words), error.value


def test_a_row_that_the_models_give_no_time_to_is_refused():
    table = pd.DataFrame({"flops": [1e9, 0.0], "bytes_B": 0.0, "duration_s": 1e-3})
    with pytest.raises(pm.InputError, match="row 1: the models predict no positive duration"):
        pm.calibrate(table, NODE, ["compute.efficiency"])


def nccl(shared, system, kind):
    """nccl-tests at one data type: sizes are those of the larger buffer, an all-gather's output."""
    table = pd.read_csv(shared / "reference/measured/nccl_collectives_a100_h100.csv")
    table = table[(table.system == system) & (table.dtype == "half") & (table.op == kind)]
    table = table[table.nccl_version == table.nccl_version.max()]
    whole = table.message_size_raw * 2.0
    return pd.DataFrame(
        {
            "collective": kind,
            "size_B": whole / table.num_gpus if kind == "all_gather" else whole,
            "ranks": table.num_gpus,
            "duration_s": table.lat_ms_med / 1e3,
        }
    ).reset_index(drop=True)


@pytest.mark.parametrize(("device", "name"), [("h100_sxm", "dgx-h100"), ("a100_sxm", "dgx-a100")])
@pytest.mark.parametrize("kind", ["all_reduce", "all_gather"])
def test_measured_collectives_are_met_and_better_with_saturation(shared, device, name, kind):
    table, system = nccl(shared, device, kind), pm.hardware(name, ranks=8)
    plain = pm.calibrate(
        table, system, ["network.efficiency", "network.overhead", "network.0.latency"]
    )
    with pytest.warns(UserWarning, match=r"network\.(half_size|base\.efficiency).*leave it open"):
        saturating = pm.calibrate(
            table,
            system,
            [
                "network.base.efficiency",
                "network.base.overhead",
                "network.0.latency",
                "network.half_size",
                "network.sharpness",
            ],
            models=pm.Models(network=SaturatingAlphaBeta()),
        )
    assert plain.error.loc["held out", "median"] < 0.20
    assert saturating.error.loc["held out", "median"] < 0.15
    assert saturating.noise < plain.noise
    assert 0.3 < plain.models.network.efficiency < 1.0


def test_a_hundred_thousand_measurements_are_fitted_in_memory_that_grows_with_them():
    """35,000 took 10 GB by a full decomposition, n x n; a million take 1.1 GB."""
    random = np.random.default_rng(8)
    table = table_of(random, 50_000)
    table["duration_s"] = true_durations(table) * np.exp(0.05 * random.standard_normal(100_000))
    fit = pm.calibrate(table, NODE, list(TRUTH), folds=0)
    assert list(fit.parameters.value) == pytest.approx(list(TRUTH.values()), rel=0.01)
    assert fit.noise == pytest.approx(0.05, rel=0.01)
