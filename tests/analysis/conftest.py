"""A small trace and its system, for tests that have none of their own."""

import pytest

import perfmodel as pm
from tests.analysis.varied import ROOT


@pytest.fixture(scope="module")
def graph():
    return pm.load(ROOT / "traces" / "gpt_dp2_tp2_pp2")


@pytest.fixture(scope="module")
def system(graph):
    return pm.hardware("dgx-h100", ranks=graph.ranks, models="roofline")
