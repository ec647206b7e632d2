"""What the tests of plots draw."""

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel import synth


@pytest.fixture(scope="module", autouse=True)
def without_windows():
    pytest.importorskip("matplotlib").use("Agg")


@pytest.fixture(autouse=True)
def closed_figures():
    from matplotlib import pyplot

    yield
    pyplot.close("all")


@pytest.fixture(scope="module")
def system() -> pm.System:
    return pm.hardware("dgx-h100", models="roofline")


@pytest.fixture(scope="module")
def graph() -> pm.Graph:
    return synth.training(
        {"layers": 2, "hidden": 1024, "heads": 8, "vocabulary": 1024},
        sequence=256,
        micro_batches=3,
        data=2,
        tensor=2,
        pipeline=2,
    ).graph()


@pytest.fixture(scope="module")
def prediction(graph, system) -> pm.Prediction:
    return pm.predict(graph, system)


@pytest.fixture(scope="module")
def swept(graph, system) -> pd.DataFrame:
    points = {
        "npu.peak_flops": np.geomspace(1e14, 1e16, 5),
        "network.0.bandwidth": [1e11, 4e11, 1.6e12],
    }
    return pm.sweep(graph, system, points)


@pytest.fixture(scope="module")
def step() -> pm.Prediction:
    sizes = {"layers": 4, "hidden": 256, "heads": 4, "inner": 512, "vocabulary": 512}
    work = synth.training(sizes, pipeline=2, data=12, micro_batches=4, sequence=128)
    return pm.predict(work.graph(), pm.hardware("dgx-h100", ranks=24))
