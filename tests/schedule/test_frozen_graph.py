"""The frozen graph from lists of edges."""

import numpy as np

from perfmodel.schedule.frozen_graph import Events, times


def test_the_end_waits_for_tasks_and_not_for_what_ends_after_them():
    # one task, vertex 0 (1 s); vertex 1 (5 s) follows it and is part of no task: a link that is free again
    one = np.zeros(1, np.int64)
    events = Events.of_edges(
        np.array([0, 1], np.int32), one, one + 1, first=one, last=one, owner=np.array([0, -1])
    )
    _, finish = times(events.pred_ptr, events.pred, events.cost, np.array([1.0, 5.0]))
    assert finish.tolist() == [1.0, 6.0, 1.0]
