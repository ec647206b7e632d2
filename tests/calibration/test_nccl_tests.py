"""What nccl-tests and rccl-tests print becomes a table of measurements, or an error that says what to do."""

import numpy as np
import pytest

from perfmodel.calibration.nccl_tests import is_nccl_tests, read_nccl_tests
from perfmodel.errors import InputError

HEADER = """\
#                                                              out-of-place                       in-place
#       size         count      type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
#        (B)    (elements)                               (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
"""


def ranks_of(hosts, device="NVIDIA H100 80GB HBM3"):
    return "".join(
        f"#  Rank {k:2d} Group  0 Pid  {900 + k} on {host} device  {k % 8} [0x{k % 8:02d}] {device}\n"
        for k, host in enumerate(hosts)
    )


def line(size, time, factor, *, redop="sum", root=-1, wrong="0", dtype="float", width=4):
    """A line of figures, out of place and in place (a tenth slower)."""

    def part(time):
        algbw = size / time / 1e3
        return f"{time:8.2f} {algbw:7.2f} {algbw * factor:7.2f} {wrong:>6}"

    return f"{size:12d} {size // width:12d} {dtype:>9} {redop:>7} {root:>7} {part(time)} {part(time * 1.1)}\n"


def run(
    program="", hosts=("node",) * 8, lines=(), start="# nThread 1 nGpus 8 minBytes 8 maxBytes 8\n"
):
    named = f"# Collective test starting: {program}_perf\n" if program else ""
    return (
        named + start + "#\n# Using devices\n" + ranks_of(hosts) + "#\n" + HEADER + "".join(lines)
    )


ALL_REDUCE = [line(1 << 20, 27.37, 1.75), line(1 << 30, 4029.4, 1.75)]


def test_an_all_reduce_is_told_by_its_columns():
    table = read_nccl_tests(run(lines=ALL_REDUCE))
    assert list(table.collective) == ["all_reduce"] * 2
    assert list(table.size_B) == [2**20, 2**30]
    assert list(table.ranks) == [8, 8]
    assert list(table.per_node) == [8, 8]
    assert np.allclose(table.duration_s, [27.37e-6, 4029.4e-6])
    assert table.device[0] == "NVIDIA H100 80GB HBM3"
    assert table.dtype[0] == "float"


def test_times_in_place_are_the_second_four_columns():
    table = read_nccl_tests(run(lines=ALL_REDUCE), in_place=True)
    assert np.allclose(table.duration_s, [30.11e-6, 4432.34e-6], rtol=1e-3)


@pytest.mark.parametrize(
    ("program", "factor", "redop", "root", "kind", "share"),
    [
        ("all_gather", 7 / 8, "none", -1, "all_gather", 8),
        ("reduce_scatter", 7 / 8, "sum", -1, "reduce_scatter", 1),
        ("alltoall", 7 / 8, "none", -1, "all_to_all", 1),
        ("broadcast", 1, "none", 0, "broadcast", 1),
        ("reduce", 1, "sum", 0, "reduce", 1),
        ("gather", 7 / 8, "none", 0, "gather", 8),
        ("scatter", 7 / 8, "none", 0, "scatter", 1),
    ],
)
def test_sizes_become_one_members_input(program, factor, redop, root, kind, share):
    rows = [line(1 << 24, 100.0, factor, redop=redop, root=root)]
    table = read_nccl_tests(run(program, lines=rows))
    assert list(table.collective) == [kind]
    assert list(table.size_B) == [2**24 / share]


def test_a_shift_is_a_message_and_no_collective():
    table = read_nccl_tests(run("sendrecv", lines=[line(1 << 24, 100.0, 1, redop="none")]))
    assert table.collective.isna().all()
    assert list(table.size_B) == [2**24]


def test_without_a_program_the_columns_tell_all_but_one_pair_apart():
    def kind(factor, redop, root=-1):
        rows = [line(1 << 24, 100.0, factor, redop=redop, root=root)]
        return read_nccl_tests(run(lines=rows)).collective[0]

    assert kind(7 / 8, "sum") == "reduce_scatter"
    assert kind(1, "sum", 0) == "reduce"
    assert kind(1, "none", 0) == "broadcast"
    with pytest.raises(InputError, match="all-gather or an all-to-all"):
        kind(7 / 8, "none")
    rows = [line(1 << 24, 100.0, 7 / 8, redop="none")]
    table = read_nccl_tests(run(lines=rows), collective="all_to_all")
    assert list(table.collective) == ["all_to_all"]
    commanded = "$ ./build/all_gather_perf -b 8 -e 8G -f 2 -g 8\n" + run(lines=rows)
    assert list(read_nccl_tests(commanded).collective) == ["all_gather"]


def test_nodes_are_told_by_their_hosts():
    hosts = ["a"] * 8 + ["b"] * 8
    table = read_nccl_tests(run(hosts=hosts, lines=[line(1 << 24, 100.0, 15 / 8)]))
    assert (table.ranks[0], table.per_node[0]) == (16, 8)
    table = read_nccl_tests(run(hosts=["a", "b"], lines=[line(1 << 24, 100.0, 1.0)]))
    assert (table.ranks[0], table.per_node[0]) == (2, 1)


def test_ranks_follow_from_the_bandwidths_where_no_line_tells_them():
    """Output pasted without its head; 2 (n - 1) / n = 1.75."""
    table = read_nccl_tests(HEADER + ALL_REDUCE[1])
    assert list(table.ranks) == [8]
    with pytest.raises(InputError, match="give ranks="):
        read_nccl_tests(HEADER + line(1 << 24, 100.0, 1, redop="none"))
    table = read_nccl_tests(HEADER + line(1 << 24, 100.0, 1, redop="none"), ranks=2)
    assert list(table.ranks) == [2]


def test_several_runs_in_one_file_stay_apart():
    text = run("all_reduce", lines=ALL_REDUCE) + "# Avg bus bandwidth    : 266.1\n#\n"
    text += run("alltoall", hosts=("n",) * 4, lines=[line(1 << 24, 50.0, 3 / 4, redop="none")])
    table = read_nccl_tests(text)
    assert list(table.collective) == ["all_reduce"] * 2 + ["all_to_all"]
    assert list(table.ranks) == [8, 8, 4]


def test_a_conclusion_names_the_program_and_does_not_start_another_run():
    rows = [line(1 << 24, 100.0, 7 / 8, redop="none")]
    text = run(lines=rows) + "# Collective test concluded: all_gather_perf\n"
    assert list(read_nccl_tests(text).collective) == ["all_gather"]


@pytest.mark.parametrize("prefix", ["[1,0]<stdout>:", "[1,0]<stdout>: ", "0: "])
def test_prefixes_of_launchers_are_left_out(prefix):
    text = "".join(prefix + part + "\n" for part in run(lines=ALL_REDUCE).splitlines())
    assert len(read_nccl_tests(text)) == 2


def test_rccl_tests_look_alike():
    text = run(lines=[line(1 << 23, 91.1, 1.75)]).replace(
        "#\n# Using devices",
        "#\nrccl-tests: Version develop:83d38d9\nRCCL version : 2.22.3-HEAD:1a\n# Using devices",
    )
    table = read_nccl_tests(text)
    assert list(table.ranks) == [8]
    assert table.library[0] == "RCCL 2.22.3-HEAD:1a"


def test_older_outputs_have_no_root_and_an_error_in_the_place_of_wrong_results():
    text = """\
#   Rank  0 Pid   1320 on a device  0 [0x00] Tesla V100-SXM2-16GB
#   Rank  1 Pid   1321 on a device  1 [0x01] Tesla V100-SXM2-16GB
#                                                       out-of-place                       in-place
#       size         count      type   redop     time   algbw   busbw  error     time   algbw   busbw  error
#        (B)    (elements)                       (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
     1048576        262144     float     sum    29.10   36.03   36.03  0e+00    29.00   36.16   36.16  0e+00
    16777216       4194304     float     sum    141.5  118.57  118.57  5e-07    141.0  118.99  118.99  5e-07
"""
    table = read_nccl_tests(text)
    assert list(table.collective) == ["all_reduce"] * 2
    assert np.allclose(table.duration_s, [29.1e-6, 141.5e-6])


def test_wrong_results_and_empty_buffers_are_left_out_and_said():
    empty = "0 0 float none -1 0.15 0.00 0.00 0 0.14 0.00 0.00 0\n"
    rows = [empty, line(1 << 20, 20.0, 1.75, wrong="12"), ALL_REDUCE[1]]
    with pytest.warns(UserWarning, match="1 lines with") as seen:
        table = read_nccl_tests(run(lines=rows), source="log.txt")
    assert len(table) == 1
    texts = sorted(str(w.message) for w in seen)
    assert "log.txt: 1 lines with no bytes" in texts[0]
    assert "wrong results" in texts[1]


def test_results_that_were_not_checked_are_taken():
    rows = [line(1 << 24, 100.0, 1.75, wrong="N/A")]
    assert len(read_nccl_tests(run(lines=rows))) == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["no figures of nccl-tests"]),
        (HEADER, ["no figures of nccl-tests"]),
        (ALL_REDUCE[0], ["line 1", "before their header"]),
        (run(lines=["  1048576 262144 float sum -1 27.37\n"]), ["no time, algbw and busbw"]),
        (run(lines=[ALL_REDUCE[0].replace("38.31", "98.31")]), ["98.31", "38.31 GB/s"]),
        (run(hosts=["a"] * 4, lines=ALL_REDUCE), ["1.750", "4 ranks", "1.500"]),
        (ranks_of(["a"]) + ranks_of(["b"]) + HEADER, ["rank 0 is there twice", "MPI=1"]),
        (run("hypercube", lines=ALL_REDUCE), ["hypercube_perf is no collective"]),
        (run(lines=[line(1 << 20, 20.0, 1.75).replace("20.00", "-20.0", 1)]), ["-20.0", "0 us"]),
    ],
)
def test_what_cannot_be_is_refused_with_its_line(text, words):
    with pytest.raises(InputError) as error:
        read_nccl_tests(text, source="log.txt")
    assert "log.txt" in str(error.value)
    assert all(word in str(error.value) for word in words), error.value


def test_other_texts_are_not_taken_for_it():
    assert is_nccl_tests(run(lines=ALL_REDUCE))
    assert not is_nccl_tests("m,n,k,time_us\n1,2,3,4\n")
    assert not is_nccl_tests(run(lines=ALL_REDUCE).replace("busbw", "busbw)"))
