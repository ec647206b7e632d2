"""hwdb: every figure has a unit and a source, what is doubtful is marked, and entries agree with each other."""

import re
import tomllib

import pytest

from perfmodel.machine.hwdb import accelerators, find_hwdb, systems
from perfmodel.machine.parts import KINDS, parts
from perfmodel.machine.system import hardware
from perfmodel.machine.system_figures import STATUS
from perfmodel.machine.system_file import read

FILES = sorted(find_hwdb().glob("*.toml"))
NAMES = [path.stem for path in FILES]
ON_CHIP = ("wse-3", "groq-lpu-v1")
"""Accelerators without memory outside the chip, whose figures lie outside the others' range."""


def raw(name):
    return tomllib.loads((find_hwdb() / f"{name}.toml").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_every_file_loads_and_every_figure_has_unit_source_and_status(name):
    system = hardware(name)
    assert name in (systems() if system.network else accelerators())
    for fact in system.facts:
        assert fact.unit
        assert fact.source.strip(), fact
        assert fact.status in STATUS
        assert fact.value > 0
        marked = re.search(
            r"\b(weak|estimate|assumed|as NVLink's|as InfiniBand's|none published)\b", fact.source
        )
        assert not marked or fact.status in ("weak", "assumed"), fact
    assert raw(name)["title"].strip()


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ON_CHIP])
def test_figures_are_of_the_size_that_machines_have(name):
    npu = hardware(name).npu
    assert 3e13 < npu.peak_flops < 1e16
    assert 5e11 < npu.memory_bandwidth < 1e13
    assert 1e10 < npu.memory_capacity < 1e12
    assert 10 < npu.peak_flops / npu.memory_bandwidth < 1000  # FLOP per byte at the ridge
    for d in hardware(name).network:
        assert 5e9 <= d.bandwidth <= 2e12
        assert 1e-7 < d.latency < 1e-4


def test_everything_that_was_asked_for_is_there():
    accelerators_wanted = [
        "v100-sxm-16",
        "v100-sxm-32",
        "a100-sxm-40",
        "a100-sxm-80",
        "a100-pcie-40",
        "a100-pcie-80",
        "h100-sxm",
        "h100-pcie",
        "h200-sxm",
        "gh200-96",
        "gh200-141",
        "b200-sxm",
        "gb200",
        "b300-sxm",
        "gb300",
        "l40s",
        "mi250x",
        "mi300x",
        "mi325x",
        "mi355x",
        "tpu-v3",
        "tpu-v4",
        "tpu-v5e",
        "tpu-v5p",
        "tpu-v6e",
        "tpu-v7x",
        "gaudi2",
        "gaudi3",
        "trainium1",
        "trainium2",
        "trainium3",
        "wse-3",
        "groq-lpu-v1",
    ]
    systems_wanted = [
        "dgx-1v",
        "dgx-a100",
        "dgx-a100-40",
        "dgx-h100",
        "dgx-h200",
        "dgx-b200",
        "dgx-b300",
        "gb200-nvl72",
        "gb300-nvl72",
        "aws-p4d",
        "aws-p4de",
        "aws-p5",
        "aws-p5e",
        "aws-p5en",
        "aws-p6-b200",
        "aws-p6-b300",
        "aws-trn2",
        "gcp-a3-high",
        "gcp-a3-mega",
        "meta-24k-h100",
        "mi300x-8",
        "mi325x-8",
        "mi355x-8",
        "gaudi2-8",
        "gaudi3-8",
        "tpu-v3-slice",
        "tpu-v4-slice",
        "tpu-v5e-slice",
        "tpu-v5p-slice",
        "tpu-v6e-slice",
        "tpu-v7x-slice",
    ]
    assert set(accelerators_wanted) == set(accelerators())
    assert set(systems_wanted) == set(systems())


def test_other_names_lead_to_the_same_machine():
    assert hardware("ironwood").npu == hardware("tpu-v7x").npu
    assert hardware("trillium-slice").name == "tpu-v6e-slice"
    aliases = [alias for name in NAMES for alias in raw(name).get("aliases", [])]
    assert len(set(aliases)) == len(aliases)
    assert not set(aliases) & set(NAMES)


@pytest.mark.parametrize("name", accelerators())
def test_peaks_with_sparsity_are_apart_and_larger(name):
    description = read(name)
    sparse = {f.path: f for f in description.facts if f.path.startswith("npu.sparse_peak_flops")}
    for path, fact in sparse.items():
        assert fact.value > description.peaks[path.rsplit(".", 1)[1]]
        assert "sparsity" in fact.source or fact.status == "weak"
    assert description.npu["peak_flops"] == description.peaks[description.dtype]


@pytest.mark.parametrize("name", accelerators())
def test_what_was_reached_is_below_the_peak(name):
    description = read(name)
    facts = {f.path: f.value for f in description.facts}
    for path, value in facts.items():
        if path.startswith("npu.achieved_flops."):
            assert 0.4 < value / description.peaks[path.rsplit(".", 1)[1]] < 1
    if "npu.achieved_bandwidth" in facts:
        assert 0.8 < facts["npu.achieved_bandwidth"] / facts["npu.memory_bandwidth"] < 1


@pytest.mark.parametrize("name", accelerators())
def test_what_can_be_kept_up_is_the_power_over_the_energy_of_a_flop(name):
    description = read(name)
    facts = {f.path: f.value for f in description.facts}
    for path, value in facts.items():
        if path.startswith("npu.sustained_flops."):
            dtype = path.rsplit(".", 1)[1]
            energy = facts["npu.energy_per_flop." + dtype.replace("fp16", "bf16")]
            assert value == pytest.approx(facts["npu.power"] / energy, rel=1e-3)
            assert dict(description.sustained)[dtype] < 1


@pytest.mark.parametrize("name", accelerators())
def test_links_of_accelerators_are_in_the_catalogue_with_the_same_bandwidth(name):
    for link in raw(name)["npu"].get("link", []):
        part = parts("link")[link["kind"]]
        fact = next(f for f in read(name).facts if f.path == f"npu.link.{part.name}.bandwidth")
        assert fact.value == part.fact("bandwidth").value


@pytest.mark.parametrize("name", systems())
def test_a_dimension_has_the_bandwidth_of_the_accelerators_links(name):
    """One dimension through switches has all links of that kind; tori share them; ports outwards are the node's."""
    facts = {f.path: f.value for f in read(name).facts}
    entries = raw(name)["network"]
    for k, entry in enumerate(entries):
        kind = entry.get("link")
        assert kind is None or kind in parts("link")
        assert entry.get("switch") is None or entry["switch"] in parts("switch")
        each = facts.get(f"npu.link.{kind}.bandwidth")
        if each is not None:
            share = sum(e.get("link") == kind for e in entries)
            whole = facts[f"npu.link.{kind}.count"] * each
            got = facts[f"network.{k}.bandwidth"]
            if kind.startswith("ethernet"):
                assert got / each in (21, 3)  # Gaudi: 21 ports inwards, 3 outwards
            else:
                assert got == pytest.approx(whole / share, rel=1e-9)


def test_parts_have_units_and_sources_and_their_totals_agree():
    for kind in KINDS:
        assert parts(kind)
    for part in parts().values():
        assert part.title.strip()
        for fact in part.facts:
            assert fact.unit
            assert fact.source.strip(), (part.name, fact)
            assert fact.value > 0
        one, links, total = (part.fact(n) for n in ("bandwidth", "links", "total_bandwidth"))
        if one and links and total:
            assert total.value == pytest.approx(one.value * links.value, rel=1e-9)
        lane, lanes = part.fact("lane_bandwidth"), part.fact("lanes")
        if one and lane and lanes:
            assert one.value == pytest.approx(lane.value * lanes.value, rel=0.04)


@pytest.mark.parametrize(
    ("name", "multiprocessors", "fma", "clock"),
    [
        ("h100-sxm", 132, 512, 1.83e9),
        ("a100-sxm-80", 108, 256, 1.41e9),
        ("v100-sxm-16", 80, 128 // 2, 1.53e9),
    ],
)
def test_nvidias_peaks_follow_from_cores_and_clock(name, multiprocessors, fma, clock):
    """SMs x tensor cores x FMAs per clock x 2 FLOP x clock; 4 tensor cores an SM, Volta's 8."""
    tensor_cores = 8 if name.startswith("v100") else 4
    system = hardware(name)
    assert system.fact("npu.cores").value == multiprocessors
    assert system.fact("npu.clock").value == clock
    peak = multiprocessors * tensor_cores * fma * 2 * clock
    assert system.npu.peak_flops == pytest.approx(peak, rel=3e-3)


def test_devices_of_one_design_share_their_figures():
    """An A100 is an A100: memory, power and price differ, rates do not."""
    first = read("a100-sxm-80").peaks
    assert all(read(f"a100-{n}").peaks == first for n in ("sxm-40", "pcie-40", "pcie-80"))
    assert read("gh200-96").peaks == read("gh200-141").peaks == read("h200-sxm").peaks


def test_relatives_are_devices_of_hwdb_and_others_have_none():
    for name in accelerators():
        relative = read(name).models
        assert relative in ("", "a100-sxm-80", "h100-sxm")
        assert bool(relative) == name.startswith(
            ("v100", "a100", "h100", "h200", "gh200", "b200", "b300", "gb", "l40s")
        )
    for name in systems():
        assert read(name).models == read(raw(name)["npu"]).models


def test_nvlink_sharp_is_where_the_third_nvswitch_or_a_later_one_is():
    for name in systems():
        for dimension in read(name).network:
            inner = dimension["reduction"] == "nvls"
            newer = raw(name)["npu"] in (
                "h100-sxm",
                "h200-sxm",
                "b200-sxm",
                "b300-sxm",
                "gb200",
                "gb300",
            )
            assert inner == (newer and dimension["bandwidth"] > 4e11)


def test_a_systems_accelerator_is_found_in_its_own_file_as_in_all_of_them():
    from perfmodel.machine.hwdb import accelerator_of, accelerators, holders, systems

    found = {name: accelerator_of(name) for name in systems()}
    assert sum(name is not None for name in found.values()) > 20
    for accelerator in accelerators():
        assert holders(accelerator) == [s for s, name in found.items() if name == accelerator]
        assert accelerator_of(accelerator) is None
    assert accelerator_of("no-such-system") is None
