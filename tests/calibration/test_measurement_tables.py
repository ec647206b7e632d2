"""Tables of measurements as people have them: units in names, m n k, others' names of dtypes."""

import numpy as np
import pandas as pd
import pytest

from perfmodel.calibration.measurement_tables import bandwidths, our_dtype, standard
from perfmodel.errors import InputError


def test_a_table_of_matrix_products_gets_its_work():
    """2 x 4096 x 512 x 128 FLOP; (4096 x 128 + 128 x 512 + 4096 x 512) numbers of 2 B."""
    table = standard(
        pd.DataFrame(
            {"M": [4096], "N": [512], "K": [128], "dtype": ["bfloat16"], "latency_ms": [0.02]}
        )
    )
    row = table.iloc[0]
    assert row.kind == "gemm"
    assert (row.batch, row.m, row.n, row.k, row["dtype"]) == (1, 4096, 512, 128, "bf16")
    assert row.flops == 2 * 4096 * 512 * 128
    assert row.bytes_B == 2 * (4096 * 128 + 128 * 512 + 4096 * 512)
    assert row.duration_s == pytest.approx(2e-5)


def test_a_batch_multiplies_work_and_bytes():
    one = standard(pd.DataFrame({"m": [64], "n": [64], "k": [64], "time_us": [5.0]})).iloc[0]
    many = standard(
        pd.DataFrame({"batch": [8], "m": [64], "n": [64], "k": [64], "time_us": [5.0]})
    ).iloc[0]
    assert many.flops == 8 * one.flops
    assert many.bytes_B == 8 * one.bytes_B


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("duration_s", 3.0),
        ("latency_ms", 3e-3),
        ("time_us", 3e-6),
        ("t_ns", 3e-9),
        ("Latency_med_ms", 3e-3),
    ],
)
def test_the_name_of_a_column_says_its_unit(name, seconds):
    table = standard(pd.DataFrame({"flops": [1.0], "bytes_B": [1.0], name: [3.0]}))
    assert table.duration_s[0] == pytest.approx(seconds)


def test_a_rate_will_do_where_there_is_no_time():
    table = standard(pd.DataFrame({"m": [1000], "n": [1000], "k": [500], "tflops": [100.0]}))
    assert table.duration_s[0] == pytest.approx(1e9 / 100e12)


def test_rows_of_a_dtype_that_we_do_not_know_are_left_out_and_said():
    table = pd.DataFrame(
        {"m": 64, "n": 64, "k": 64, "dtype": ["fp8", "fp8_block", "half"], "time_us": 5.0}
    )
    with pytest.warns(UserWarning, match="1 rows are left out, of dtype 'fp8_block'"):
        known = standard(table)
    assert list(known.dtype) == ["fp8", "fp16"]
    with pytest.raises(InputError, match="fp8_block"):
        standard(table[1:2])
    table["dtype"] = ["fp8", None, np.nan]
    with pytest.warns(UserWarning, match="2 rows are left out, of dtype ''"):
        assert list(standard(table).dtype) == ["fp8"]


def test_dtypes_have_many_names():
    words = ["torch.float16", "Half", "double", "float8_e4m3fn", "char", "mxfp4", "int17"]
    assert [our_dtype(w) for w in words] == ["fp16", "fp16", "fp64", "fp8", "int8", "fp4", ""]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"m": [1], "n": [1], "k": [1]}, ["no time", "latency_ms"]),
        ({"m": [1], "n": [1], "k": [1], "time": [1.0]}, ["no time", "time_us"]),
        ({"m": [1.5], "n": [1], "k": [1], "time_us": [1.0]}, ["row 0", "m is", "1.5"]),
        ({"m": [1], "n": [0], "k": [1], "time_us": [1.0]}, ["row 0", "n is", "above 0"]),
        ({"m": [1], "n": ["x"], "k": [1], "time_us": [1.0]}, ["row 0", "n is", "'x'"]),
        ({"m": [1], "n": [1], "k": [1], "dtype": ["bf61"], "time_us": [1.0]}, ["'bf61'", "bf16"]),
    ],
)
def test_a_wrong_table_is_refused_with_row_and_column(table, words):
    with pytest.raises(InputError) as error:
        standard(pd.DataFrame(table), "gemm.csv")
    assert all(word in str(error.value) for word in ["gemm.csv", *words]), error.value


def test_a_table_of_bytes_and_bandwidths_is_one_of_collectives():
    """busbw / algbw = 1.75 = 2 x 7 / 8."""
    table = pd.DataFrame(
        {"bytes": [1 << 20, 1 << 30], "time_us": [27.4, 4029.4], "algbw_GBps": [38.3, 266.5]}
    ).assign(busbw_GBps=lambda t: t.algbw_GBps * 1.75)
    found = bandwidths(table, "x.csv")
    assert list(found["collective"]) == ["all_reduce"] * 2
    assert list(found.ranks) == [8, 8]
    assert list(found.size_B) == [1 << 20, 1 << 30]
    assert found.duration_s[0] == pytest.approx(27.4e-6)
    gathered = bandwidths(
        table.assign(busbw_GBps=table.algbw_GBps * 0.75), "x.csv", collective="all_gather"
    )
    assert (gathered.ranks[0], gathered.size_B[0]) == (4, 1 << 18)
    with pytest.raises(InputError, match=r"x\.csv: bytes and bandwidths of what"):
        bandwidths(table.assign(busbw_GBps=table.algbw_GBps * 0.75), "x.csv")
    with pytest.raises(InputError, match="how many ranks"):
        bandwidths(table.assign(busbw_GBps=table.algbw_GBps), "x.csv", collective="broadcast")
    with pytest.raises(InputError, match="no time with its unit"):
        bandwidths(table.drop(columns="time_us"), "x.csv")
