"""hwdb as a table."""

import pytest

import perfmodel as pm


def test_the_whole_of_hwdb_is_one_table_of_figures_with_units_and_sources():
    table = pm.catalogue()
    assert list(table) == ["name", "kind", "figure", "value", "unit", "status", "source"]
    assert set(table.kind) == {"system", "accelerator", "link", "switch", "memory"}
    assert (table.unit != "").all()
    assert (table.source != "").all()
    assert set(pm.systems()) == set(table.name[table.kind == "system"])


def test_one_entry_or_one_kind_may_be_asked_for():
    figures = pm.catalogue("b300-sxm").set_index("figure")
    assert figures.value["npu.peak_flops.int8"] == 153.5e12
    assert "npu.peak_flops" not in figures.index
    assert figures.value["npu.link.nvlink-5.count"] == 18
    assert set(pm.catalogue(kind="memory").name) >= {"hbm3", "hbm3e", "hbm4"}
    assert pm.catalogue("hbm3e").set_index("figure").value["bandwidth"] == 1229e9


def test_a_file_of_ones_own_is_an_entry_too(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('npu = "h100-sxm"\n')
    assert set(pm.catalogue(str(path)).name) == {"mine"}


def test_what_is_not_there_is_refused():
    with pytest.raises(pm.InputError, match="'lin': expected one of system, accelerator, link"):
        pm.catalogue(kind="lin")
    with pytest.raises(pm.InputError, match="hbm3e"):
        pm.catalogue("hbm-3e")
