"""Measurements are recognised by what is in a file."""

import gzip

import pandas as pd
import pytest

from perfmodel.calibration.measurement_files import read_measurements
from perfmodel.errors import InputError
from tests.calibration.test_nccl_tests import ALL_REDUCE, run

TABLE = "m,n,k,dtype,time_us\n4096,4096,4096,bf16,190\n"


def test_each_kind_is_recognised_packed_or_not(tmp_path):
    log, table, packed = tmp_path / "log.txt", tmp_path / "gemm.csv", tmp_path / "log.gz"
    log.write_text(run(lines=ALL_REDUCE))
    table.write_text("\ufeff" + TABLE)
    packed.write_bytes(gzip.compress(log.read_bytes()))
    assert list(read_measurements(log).collective) == ["all_reduce"] * 2
    assert read_measurements(packed).equals(read_measurements(log))
    assert list(read_measurements(table).kind) == ["gemm"]
    pd.read_csv(table).to_parquet(tmp_path / "gemm.parquet")
    assert read_measurements(tmp_path / "gemm.parquet").equals(read_measurements(table))


def test_a_table_without_dtypes_has_the_one_given(tmp_path):
    (tmp_path / "g.csv").write_text("m,n,k,time_us\n64,64,64,5\n")
    assert list(read_measurements(tmp_path / "g.csv", dtype="fp16")["dtype"]) == ["fp16"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no such file"]),
        (b"", ["no output of nccl-tests"]),
        (b"hello\n", ["no output of nccl-tests", "Kineto"]),
        (b"\xff\xfe\x00", ["is no text"]),
        (b"\x1f\x8bnot packed", ["cannot be read"]),
        (b"a,b\n1,2\n1,2,3,4\n", ["is no table"]),
    ],
)
def test_other_files_are_refused(tmp_path, content, words):
    path = tmp_path / "x.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_measurements(path)
    assert all(word in str(error.value) for word in [str(path), *words]), error.value
