"""Models go to a file and come back as they were; what a file cannot say is refused."""

from importlib import import_module

import pytest

from perfmodel.errors import InputError
from perfmodel.models.compute import Roofline
from perfmodel.models.cost import Models
from perfmodel.models.memory import Bandwidth
from perfmodel.models.model_file import CLASSES, read_models, write_models
from perfmodel.models.network import AlphaBeta
from perfmodel.models.saturation import SaturatingAlphaBeta, SaturatingRoofline
from perfmodel.pytree import number, record

MODELS = Models(
    compute=SaturatingRoofline(Roofline(0.82, 0.9, 2.3e-6), half_flops=1e9 / 3),
    memory=Bandwidth(efficiency=0.87),
    network=SaturatingAlphaBeta(AlphaBeta(("ring", "auto"), 0.7, 1e-5), 3e6, 0.4),
)
FIT = {
    "coefficients": ["compute.base.efficiency"],
    "data": 'gemm "A".csv, 1250 rows\tä',
    "measurements": 1250,
    "mean_error": 0.061,
    "low": [0.8],
    "rows": [1, 5, 9],
}


def test_models_come_back_exactly(tmp_path):
    write_models(tmp_path / "m.toml", MODELS, title="ours", fits=[FIT])
    found = read_models(tmp_path / "m.toml")
    assert found.models == MODELS
    assert found.title == "ours"
    assert found.fits == (FIT,)


def test_a_file_may_be_written_by_hand_with_units_and_only_the_parts_it_has(tmp_path):
    path = tmp_path / "hand.toml"
    path.write_text(
        '\ufeff[network]\nmodel = "SaturatingAlphaBeta"\nhalf_size = "1 MB"\n'
        'base = { model = "AlphaBeta", algorithm = "ring", overhead = "2.5 us" }\n'
    )
    found = read_models(path)
    assert found.title == "hand"
    assert found.models == Models(
        network=SaturatingAlphaBeta(AlphaBeta("ring", overhead=2.5e-6), half_size=1e6)
    )


def test_every_class_that_a_file_may_name_is_there():
    for name, module in CLASSES.items():
        assert hasattr(import_module(f"perfmodel.models.{module}"), name)


ROOF = '[compute]\nmodel = "Roofline"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no models", "[compute]"]),
        ("x = [", ["not a TOML file"]),
        ("compute = 3", ["compute: got 3", "table"]),
        ('[compute]\nmodel = "Rooflin"', ["'Rooflin'", "did you mean Roofline"]),
        ('[compute]\nmodel = "os.system"', ["'os.system'", "expected one of"]),
        ("[compute]\nefficiency = 1.0", ["model is None"]),
        (ROOF + "eficiency = 0.5", ["compute: unknown key 'eficiency'", "did you mean efficiency"]),
        (ROOF + 'efficiency = "high"', ["compute.efficiency", "'high'"]),
        (ROOF + 'overhead = "3 GB"', ["compute.overhead", "measures B, not s"]),
        (ROOF + "overhead = -1.0", ["compute.overhead", "-1.0", "0 or more"]),
        (ROOF + "overhead = nan", ["compute.overhead", "finite"]),
        (ROOF + "overhead = true", ["compute.overhead", "True"]),
        ('[network]\nmodel = "AlphaBeta"\nalgorithm = "rings"', ["network", "'rings'"]),
        ('[network]\nmodel = "AlphaBeta"\nalgorithm = 3', ["network"]),
        (ROOF + "[[fit]]\ndatum = 'x'", ["[[fit]] 0", "did you mean data"]),
        (ROOF + "[[fit]]\nmean_error = 'x'", ["mean_error", "a number"]),
        ("title = 3\n" + ROOF, ["title", "text"]),
        ("[networks]\nmodel = 'AlphaBeta'", ["'networks'", "did you mean network"]),
    ],
)
def test_a_wrong_file_is_refused_with_file_and_place(tmp_path, text, words):
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_models(path)
    assert all(word in str(error.value) for word in [str(path), *words]), error.value


def test_a_class_of_ones_own_and_numbers_that_are_none_are_not_written(tmp_path):
    @record
    class Mine:
        efficiency: float = number("1", default=0.5)

    with pytest.raises(InputError, match="compute: Mine is a class of your own"):
        write_models(tmp_path / "m.toml", Models(compute=Mine()), title="")
    with pytest.raises(InputError, match=r"compute\.overhead: is inf"):
        write_models(tmp_path / "m.toml", Models(compute=Roofline(overhead=float("inf"))), title="")
    assert not (tmp_path / "m.toml").exists()


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml: cannot be read"):
        read_models(tmp_path / "none.toml")
