"""Systems, their files, and the numbers in them by path."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.errors import InputError, SystemFileError
from perfmodel.machine.system import (
    NPU,
    Dimension,
    RemoteMemory,
    hardware,
    parameter_units,
    parameters,
    with_parameters,
)
from perfmodel.models.compute import Roofline
from perfmodel.models.memory import Bandwidth
from perfmodel.models.network import AlphaBeta
from perfmodel.pytree import record

jax.config.update("jax_enable_x64", True)

FILE = """
[npu]
peak_flops = { bf16 = "100 TFLOP/s", fp8 = { value = "200 TFLOP/s", source = "guess" } }
memory_bandwidth = "1 TB/s"
memory_capacity = "16 GB"
power = "500 W"
source = "me"
[[network]]
topology = "ring"
size = 4
bandwidth = "100 GB/s"
latency = "1 us"
[[network]]
topology = "switch"
size = "any"
bandwidth = "80 Gbit/s"
latency = "0 s"
[remote_memory]
bandwidth = "10 GB/s"
latency = "5 us"
"""


@record
class Models:
    compute: Roofline = dataclasses.field(default_factory=Roofline)
    memory: Bandwidth = dataclasses.field(default_factory=Bandwidth)
    network: AlphaBeta = dataclasses.field(default_factory=AlphaBeta)


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_a_file_of_ones_own_is_read_into_si(write):
    system = hardware(write(FILE), ranks=8)
    assert system.npu == NPU(100e12, 1e12, 16e9, dtype_ratios=(("bf16", 1.0), ("fp8", 2.0)))
    assert system.network == (
        Dimension(100e9, 1e-6, "ring", 4, 4),
        Dimension(10e9, 0.0, "switch", 2),
    )
    assert system.remote_memory == RemoteMemory(10e9, 5e-6)
    assert (system.name, system.ranks, system.dtype) == ("mine", 8, "bf16")


def test_the_dtype_chooses_the_peak_rate(write):
    path = write(FILE)
    assert hardware(path, dtype="fp8").npu.peak_flops == 200e12
    assert hardware(path, dtype="fp8").fact("npu.peak_flops").source == "guess"
    with pytest.raises(SystemFileError, match=r"peak_flops: no figure for dtype 'fp4'.*bf16, fp8"):
        hardware(path, dtype="fp4")


def test_every_figure_of_a_file_keeps_its_source(write):
    facts = {f.path: f for f in hardware(write(FILE)).facts}
    assert facts["npu.power"] == dataclasses.replace(facts["npu.power"], value=500.0, unit="W")
    assert facts["npu.power"].source == "me"
    assert "network.1.bandwidth" in facts


def test_a_file_may_take_an_accelerator_and_change_some_of_its_figures(write):
    text = FILE.split("[[network]]", 1)[1]
    path = write(
        '[npu]\naccelerator = "h100-sxm"\nmemory_bandwidth = "10 TB/s"\n[[network]]' + text
    )
    system, h100 = hardware(path), hardware("h100-sxm")
    assert system.npu == dataclasses.replace(h100.npu, memory_bandwidth=10e12)
    assert [f.value for f in system.facts if f.path == "npu.memory_bandwidth"] == [10e12]
    assert system.fact("npu.power").value == 700.0


def test_a_file_may_name_an_accelerators_file_beside_it(write):
    write(FILE.split("[[network]]", 1)[0], "chip.toml")
    path = write('npu = "chip.toml"\n[[network]]' + FILE.split("[[network]]", 1)[1])
    assert hardware(path).npu.peak_flops == 100e12


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("memory_bandwidth =", "memory_bandwith =", "did you mean memory_bandwidth"),
        ('memory_bandwidth = "1 TB/s"\n', "", "npu.memory_bandwidth: missing"),
        ('"1 TB/s"', '"-1 TB/s"', "more than 0"),
        ('"1 TB/s"', '"1 TB"', "measures B, not B/s"),
        ('"1 TB/s"', "1e12", "no unit"),
        ('"1 TB/s"', '{ valeu = "1 TB/s" }', "did you mean value"),
        ("bf16 =", "bf61 =", "did you mean bf16"),
        ("peak_flops = {", "peak_flops = 3 # {", "no unit"),
        ('"ring"', '"torus"', "expected one of ring, switch, fully-connected"),
        ("size = 4", "size = 0", "expected .* whole number"),
        ("size = 4", "size = 4.0", "expected .* whole number"),
        ("size = 4", "size = true", "expected .* whole number"),
        ("size = 4", 'size = "any"', "only the last"),
        ("size = 4", "size = 99999999999", "expected .* whole number"),
        ("[remote_memory]", "[remote]", "did you mean remote_memory"),
        ('source = "me"', "source = 3", "expected text"),
        ("[npu]", "[npu", "not a TOML file"),
        ("[npu]", "[system]", "npu: missing"),
        ("[npu]", "[system]\nclock = '1 GHz'\n[npu]", "unknown key 'clock'"),
    ],
)
def test_a_wrong_file_is_refused_with_file_and_place(write, old, new, message):
    path = write(FILE.replace(old, new, 1))
    assert old in FILE
    with pytest.raises(SystemFileError, match=message) as caught:
        hardware(path)
    assert str(path) in str(caught.value)


def test_a_file_without_npu_with_one_network_table_or_bytes_is_refused(write, tmp_path):
    with pytest.raises(SystemFileError, match="npu: missing"):
        hardware(write("[[network]]" + FILE.split("[[network]]", 2)[1]))
    with pytest.raises(SystemFileError, match=r"write \[\[network\]\]"):
        hardware(write('npu = "tpu-v4"\n[network]\nsize = 3'))
    (tmp_path / "noise.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SystemFileError, match="not a TOML file"):
        hardware(tmp_path / "noise.toml")
    with pytest.raises(SystemFileError, match="more than"):
        hardware(write("#" * 2_000_000))
    with pytest.raises(SystemFileError, match="no such system file"):
        hardware(tmp_path / "absent.toml")


@given(st.data())
@settings(deadline=None, max_examples=300)
def test_a_file_with_characters_changed_loads_or_is_refused(tmp_path_factory, data):
    characters = list(FILE)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(characters) - 1))
        characters[place] = data.draw(st.sampled_from('9-.e"[]{}=,\n xG\x00é'))
    path = tmp_path_factory.getbasetemp() / "mutated.toml"
    path.write_text("".join(characters))
    complaint, values = str(path), [1.0]
    try:
        values = list(parameters(hardware(path)).values())
    except SystemFileError as error:
        complaint = str(error)
    assert str(path) in complaint
    assert all(0 <= value < math.inf for value in values)


def test_numbers_of_absurd_length_are_refused(write):
    with pytest.raises(SystemFileError, match="not a TOML file"):
        hardware(write(FILE.replace("size = 4", "size = " + "9" * 6000)))
    with pytest.raises(SystemFileError, match="not a TOML file"):
        hardware(write("x = " + "[" * 100_000))


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(SystemFileError, match="did you mean dgx-h100"):
        hardware("dgx_h100")
    with pytest.raises(SystemFileError, match="there are: "):
        hardware("qqqq")


def test_an_accelerator_that_refers_to_itself_is_refused(write):
    path = write('npu = "loop.toml"', "loop.toml")
    with pytest.raises(SystemFileError, match=r"no \[npu\] table"):
        hardware(path)


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_at_the_head_of_a_file_is_passed_over(tmp_path, mark):
    (tmp_path / "mine.toml").write_bytes(mark + FILE.encode())
    assert hardware(tmp_path / "mine.toml").npu.peak_flops == 100e12


def test_the_peaks_of_other_dtypes_keep_their_ratio_when_one_is_swept():
    system = hardware("h100-sxm")
    assert system.npu.of_dtype("fp8").peak_flops == 1979e12
    assert system.npu.of_dtype("") is system.npu
    half, _ = with_parameters(system, None, {"npu.peak_flops": 989e12 / 2})
    assert half.npu.of_dtype("fp8").peak_flops == pytest.approx(1979e12 / 2)
    assert hardware("h100-sxm", dtype="fp8").npu.of_dtype("bf16").peak_flops == pytest.approx(
        989e12
    )


def test_a_dtype_that_a_device_lacks_is_refused():
    with pytest.raises(InputError, match=r"dtype 'fp8'.*no peak rate.*bf16, fp16"):
        hardware("a100-sxm-80").npu.of_dtype("fp8")
    with pytest.raises(SystemFileError, match="no figure for dtype 'fp8'"):
        hardware("dgx-a100", dtype="fp8")
    with pytest.raises(SystemFileError, match="dtype 'bf61': did you mean bf16"):
        hardware("dgx-a100", dtype="bf61")


def test_a_device_without_bf16_has_the_dtype_that_its_file_says():
    assert hardware("dgx-1v").dtype == "fp16"
    assert hardware("dgx-1v").npu.peak_flops == 125e12
    assert hardware("dgx-1v", dtype="fp32").npu.peak_flops == 15.7e12


def test_one_figure_for_all_dtypes_is_the_peak_of_each(write):
    text = (
        '[npu]\npeak_flops = "1 TFLOP/s"\nmemory_bandwidth = "1 TB/s"\nmemory_capacity = "1 GB"\n'
    )
    npu = hardware(write(text)).npu
    assert npu.of_dtype("fp8") == npu
    assert npu.cores is None


def test_cores_are_a_parameter_where_they_are_known():
    assert parameters(hardware("h100-sxm"))["npu.cores"] == 132
    assert hardware("h100-sxm").fact("npu.cores").unit == "1"


def test_a_file_says_what_its_switches_reduce_and_which_coefficients_it_takes(write):
    assert [d.reduction for d in hardware("dgx-h100").network] == ["nvls", ""]
    assert [d.reduction for d in hardware("dgx-a100").network] == ["", ""]
    assert hardware("dgx-h200").model_set == "h100-sxm"
    assert hardware("mi300x-8").model_set == ""
    own = 'models = "a100-sxm-80"\nnpu = "mi300x"\n[[network]]' + FILE.split("[[network]]", 1)[1]
    assert hardware(write(own)).model_set == "a100-sxm-80"
    with pytest.raises(SystemFileError, match="reduction: got 'nvsl', expected nvls or sharp"):
        hardware(write(FILE.replace("size = 4", 'size = 4\nreduction = "nvsl"', 1)))


def test_figures_say_how_far_they_are_to_be_trusted(write):
    system = hardware("mi300x-8")
    assert system.fact("network.0.latency").status == "assumed"
    assert system.fact("npu.die_area").status == "weak"
    assert system.fact("npu.power").status == ""
    text = FILE.replace('"1 TB/s"', '{ value = "1 TB/s", status = "gueseed" }', 1)
    with pytest.raises(SystemFileError, match=r"memory_bandwidth\.status: got 'gueseed'"):
        hardware(write(text))


@pytest.mark.parametrize(
    ("name", "ranks", "sizes", "whole"),
    [
        ("gb200-nvl72", 128, (64,), (64, 2)),
        ("gb300-nvl72", 64, (64,), (64, 1)),
        ("gb200-nvl72", 32, (64,), (32, 1)),
        ("dgx-h100", 8, (4,), (4, 2)),
        ("dgx-h100", None, (8, 4), (8, 4)),
        ("tpu-v5e-slice", 256, (16,), (16, 16)),
        ("tpu-v4-slice", 512, (8, 8), (8, 8, 8)),
        ("meta-24k-h100", 6144, (), (8, 384, 2)),
    ],
)
def test_jobs_may_use_a_part_of_the_inner_dimensions(name, ranks, sizes, whole):
    system = hardware(name, ranks=ranks, sizes=sizes)
    assert system.sizes == whole
    if len(sizes) < len(whole):
        again = system.resized(2).resized(math.prod(whole))
        assert again.sizes == whole
        assert hardware(name, sizes=sizes).resized(math.prod(whole)) == system


def test_what_is_left_idle_is_built_none_the_less():
    inner = hardware("gb200-nvl72", ranks=128, sizes=(64,)).network[0]
    assert (inner.size, inner.built) == (64, 72)
    assert hardware("mi300x-8", ranks=8, sizes=(4,)).network[0].links == 7


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("gb200-nvl72", {"sizes": (73,)}, ["dimension 0", "73 NPUs", "joins 72"]),
        ("gb200-nvl72", {"sizes": (0,)}, ["dimension 0", "got 0"]),
        ("gb200-nvl72", {"sizes": (6.4,)}, ["dimension 0", "6.4", "whole number"]),
        ("gb200-nvl72", {"sizes": (1, 2, 3)}, ["3 sizes", "has 2"]),
        ("gb200-nvl72", {"sizes": (64,), "ranks": 100}, ["100 ranks", "groups of 64", "sizes="]),
        ("dgx-h100", {"ranks": 1.5}, ["1.5 ranks", "whole number"]),
        ("dgx-h100", {"sizes": (8, 1 << 24)}, ["in all", "at most"]),
    ],
)
def test_sizes_that_a_machine_cannot_have_are_refused(name, options, words):
    with pytest.raises(SystemFileError) as error:
        hardware(name, **options)
    assert all(word in str(error.value) for word in [name, *words]), error.value


@pytest.mark.parametrize(
    ("name", "ranks", "sizes"),
    [
        ("dgx-h100", 64, (8, 8)),
        ("dgx-h100", 8, (8, 1)),
        ("dgx-h100", 4, (4, 1)),
        ("dgx-h100", 6, (6, 1)),
        ("dgx-h100", 1, (1, 1)),
        ("tpu-v4-slice", 128, (4, 4, 8)),
        ("tpu-v4-slice", 8, (4, 2, 1)),
        ("gb200-nvl72", 144, (72, 2)),
    ],
)
def test_a_system_grows_in_its_outermost_dimension_and_fills_the_inner_ones_first(
    name, ranks, sizes
):
    assert hardware(name, ranks=ranks).sizes == sizes
    assert hardware(name).resized(2).resized(ranks).sizes == sizes
    assert hardware(name, ranks=ranks).ranks == ranks


def test_ranks_that_do_not_fill_whole_groups_are_refused():
    with pytest.raises(SystemFileError, match="12 ranks do not fill whole groups of 8"):
        hardware("dgx-h100", ranks=12)
    with pytest.raises(SystemFileError, match="multiple of 16"):
        hardware("tpu-v4-slice", ranks=24)


def test_a_fixed_size_and_other_ranks_are_refused_with_both_named(write):
    fixed = write(FILE.replace('"any"', "2"))
    assert hardware(fixed).ranks == 8
    assert hardware(fixed, ranks=8).ranks == 8
    with pytest.raises(SystemFileError, match="fixed size of 8 ranks, 16 are needed"):
        hardware(fixed, ranks=16)
    with pytest.raises(SystemFileError, match="fixed size of 1 ranks"):
        hardware("h100-sxm", ranks=8)
    with pytest.raises(SystemFileError, match="expected a whole number, 1 or more"):
        hardware("dgx-h100", ranks=0)


def test_links_share_the_bandwidth_of_the_machine_as_built():
    assert Dimension(1.0, 0.0, "ring", 8).links == 2
    assert Dimension(1.0, 0.0, "switch", 8).links == 1
    assert Dimension(1.0, 0.0, "fully-connected", 8).links == 7
    assert hardware("mi300x-8", ranks=4).network[0].links == 7
    with pytest.raises(InputError, match="topology"):
        Dimension(1.0, 0.0, "mesh", 8)
    with pytest.raises(InputError, match="size"):
        Dimension(1.0, 0.0, "ring", 0)


def test_parameters_have_paths_in_a_fixed_order(write):
    system = hardware(write(FILE))
    assert list(parameters(system, Models())) == [
        "npu.peak_flops",
        "npu.memory_bandwidth",
        "npu.memory_capacity",
        "network.0.bandwidth",
        "network.0.latency",
        "network.1.bandwidth",
        "network.1.latency",
        "remote_memory.bandwidth",
        "remote_memory.latency",
        "compute.efficiency",
        "compute.memory_efficiency",
        "compute.overhead",
        "memory.efficiency",
        "memory.latency",
        "network.efficiency",
        "network.overhead",
    ]


def test_parameters_have_si_units():
    units = parameter_units(hardware("dgx-h100"), Models())
    assert units["npu.peak_flops"] == "FLOP/s"
    assert units["network.1.latency"] == "s"
    assert units["network.efficiency"] == "1"
    assert units["compute.overhead"] == "s"
    assert list(units) == list(parameters(hardware("dgx-h100"), Models()))


def test_setting_parameters_and_reading_them_again_gives_the_same():
    system, models = hardware("dgx-h100"), Models()
    wanted = {path: float(k) + 0.5 for k, path in enumerate(parameters(system, models))}
    changed = with_parameters(system, models, wanted)
    assert parameters(*changed) == wanted
    assert changed[0].network[1].topology == "switch"
    assert with_parameters(*changed, parameters(system, models)) == (system, models)


def test_parameters_may_be_traced_batched_and_differentiated():
    system, models = hardware("dgx-h100"), Models()

    def time(peak, efficiency):
        values = {"npu.peak_flops": peak, "compute.efficiency": efficiency}
        here, chosen = with_parameters(system, models, values)
        return chosen.compute.time(1e15, 0.0, here.npu)

    peaks = jnp.array([1e15, 2e15])
    assert jax.jit(jax.vmap(time, (0, None)))(peaks, 0.5).tolist() == [2.0, 1.0]
    assert jax.grad(time)(1e15, 0.5) == pytest.approx(-2e-15)


def test_systems_with_equal_shapes_are_one_compilation():
    traces = []

    @jax.jit
    def peak(system):
        traces.append(system)
        return system.npu.peak_flops * 2

    system = hardware("dgx-h100")
    for value in (1e15, 2e15, 3e15):
        peak(with_parameters(system, None, {"npu.peak_flops": value})[0])
    assert len(traces) == 1


def test_an_unknown_path_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"did you mean .*npu\.peak_flops"):
        with_parameters(hardware("dgx-h100"), Models(), {"npu.peek_flops": 1.0})
    with pytest.raises(InputError, match="no such path"):
        with_parameters(hardware("dgx-h100"), Models(), {"network": 1.0})


def test_a_model_that_is_no_pytree_is_refused_by_name():
    @dataclasses.dataclass(frozen=True)
    class Plain:
        speed: float = 1.0

    with pytest.raises(InputError, match="Plain is no JAX pytree"):
        parameters(hardware("dgx-h100"), Models(compute=Plain()))


def test_figures_that_are_assumed_are_told_until_they_are_replaced():
    system = hardware("mi300x-8", ranks=16)
    assert [f.path for f in system.doubtful()] == ["network.0.latency"]
    assert not hardware("dgx-h100").doubtful()
    measured, _ = with_parameters(system, None, {"network.0.latency": 1.1e-6})
    assert not measured.doubtful()


def test_what_a_board_can_keep_up_is_read_by_dtype_or_for_the_systems_own(tmp_path):
    text = """
    [npu]
    peak_flops = {{ bf16 = "100 TFLOP/s", fp8 = "200 TFLOP/s" }}
    sustained_flops = {}
    memory_bandwidth = "1 TB/s"
    memory_capacity = "1 GB"
    source = "made up"
    """
    path = tmp_path / "board.toml"
    path.write_text(text.format('{ bf16 = "50 TFLOP/s", fp8 = "60 TFLOP/s" }'))
    assert dict(hardware(path).npu.sustained) == {"bf16": 0.5, "fp8": 0.3, "": 0.5}
    assert dict(hardware(path, dtype="fp8").npu.sustained)[""] == 0.3
    path.write_text(text.format('"40 TFLOP/s"'))
    assert dict(hardware(path).npu.sustained) == {"bf16": 0.4, "": 0.4}
