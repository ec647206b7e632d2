"""PyTorch's own traces: Kineto's device traces, with or without host execution traces.

    files -> kineto, host_trace (columns) -> operator_links (which operator is which)
          -> step_window (which part) -> launches, waits, host_time (nodes and what waits for what) -> timeline (edges)
          -> attribution, operators (work), collectives -> rank_meetings (who meets whom) -> read (columns per rank)

What is recorded and replayed: the host's gaps, durations of kernels, when ranks start, one pure cost per collective.
All waiting follows. The rules, and what each is worth on two real steps, are tested in
tests/trace/pytorch/test_rules.py.
"""
