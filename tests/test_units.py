"""Units in and out."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel import units
from perfmodel.errors import SystemFileError


@pytest.mark.parametrize(
    ("text", "unit", "value"),
    [
        ("989 TFLOP/s", "FLOP/s", 989e12),
        ("1979 TOP/s", "FLOP/s", 1979e12),
        ("2.039 TB/s", "B/s", 2039e9),
        ("1 GiB/s", "B/s", 1073741824.0),
        ("400 Gbit/s", "B/s", 50e9),
        ("8 Kibit", "B", 1024.0),
        ("80GB", "B", 80e9),
        ("32 GiB", "B", 34359738368.0),
        ("1 us", "s", 1e-6),
        ("1 µs", "s", 1e-6),
        ("1 μs", "s", 1e-6),
        ("936.25 ns", "s", 936.25e-9),
        ("1.5e-3 ms", "s", 1.5e-6),
        (" 2 min ", "s", 120.0),
        ("700 W", "W", 700.0),
        ("10.2 kW", "W", 10200.0),
        ("1.83 GHz", "Hz", 1.83e9),
        ("814 mm2", "m^2", 814e-6),
        ("0.993 pJ/FLOP", "J/FLOP", 0.993e-12),
        ("4.5 pJ/bit", "J/B", 36e-12),
        ("199 k$", "$", 199e3),
        ("3.6 $/h", "$/s", 1e-3),
        ("7 $/GB", "$/B", 7e-9),
        ("80 %", "1", 0.8),
    ],
)
def test_a_figure_is_read_into_si_exactly(text, unit, value):
    assert units.parse(text, unit) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "unit", "complaint"),
    [
        (None, "B/s", "missing"),
        (3.35e12, "B/s", "no unit"),
        ("3350", "B/s", "no unit"),
        ("", "B/s", "no number"),
        ("fast", "B/s", "no number"),
        ("3.35 TB", "B/s", "measures B, not B/s"),
        ("1 us", "B/s", "measures s, not B/s"),
        ("3.35 TBs", "B/s", "TB/s"),
        ("400 Gb/s", "B/s", "GB/s or Gbit/s"),
        ("400 Gbps", "B/s", "GB/s or Gbit/s"),
        ("80 Gb", "B", "GB or Gbit"),
        ("-1 GB/s", "B/s", "more than 0"),
        ("0 GB/s", "B/s", "more than 0"),
        ("nan GB/s", "B/s", "finite"),
        ("inf GB/s", "B/s", "finite"),
        ("1e999 GB/s", "B/s", "finite"),
        ("1e99999999999999999999 GB/s", "B/s", "finite"),
        ("1e-99999999999999999999 GB/s", "B/s", "more than 0"),
        ("1_000 GB/s", "B/s", "unknown"),
    ],
)
def test_a_bad_figure_is_named_with_the_units_that_fit(text, unit, complaint):
    with pytest.raises(SystemFileError) as caught:
        units.parse(text, unit, where="a.toml: npu.x")
    message = str(caught.value)
    assert message.startswith("a.toml: npu.x: ")
    assert complaint in message
    assert unit in message


def test_zero_is_allowed_where_it_makes_sense():
    assert units.parse("0 us", "s", zero=True) == 0.0
    with pytest.raises(SystemFileError, match="0 or more"):
        units.parse("-1 us", "s", zero=True)


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (989e12, "FLOP/s", "989 TFLOP/s"),
        (999.6e9, "B/s", "1 TB/s"),
        (50e9, "B/s", "50 GB/s"),
        (936.25e-9, "s", "936 ns"),
        (0.00123, "s", "1.23 ms"),
        (12345.0, "s", "12,300 s"),
        (814e-6, "m^2", "814 mm2"),
        (6.88 / 3600, "$/s", "6.88 $/h"),
        (199e3, "$", "199 k$"),
        (0.8, "1", "0.8"),
        (-0.0012, "s", "-1.2 ms"),
        (math.inf, "s", "inf s"),
        (0.0, "B", "0 B"),
    ],
)
def test_a_value_is_shown_with_three_digits_and_a_fitting_prefix(value, unit, text):
    assert units.format(value, unit) == text


@given(
    st.sampled_from(["FLOP/s", "B", "B/s", "s", "Hz", "W", "J", "J/B", "$", "m^2"]),
    st.floats(1e-9, 1e18),
)
@settings(deadline=None)
def test_what_is_shown_can_be_read_again(unit, value):
    shown = units.format(value, unit).replace(",", "")
    assert units.parse(shown, unit) == pytest.approx(value, rel=6e-3)


def test_every_unit_has_a_spelling_of_factor_one_and_each_spelling_one_meaning():
    for unit, table in units._TABLE.items():
        assert 1.0 in table.values(), unit
    spellings = [s for table in units._TABLE.values() for s in table]
    assert len(spellings) == len(set(spellings))
    assert set(units._SHOWN) == set(units._TABLE)
