"""Custom collectives with several nodes ready at once, against an event model with tables of its own."""

import heapq
import random
from itertools import count

import pytest

from perfmodel import astra
from perfmodel.astra import event_run
from perfmodel.trace import chakra
from tests.astra.hash_table import HashTable
from tests.astra.test_traces import node, reduce, write
from tests.astra_workload import SYSTEM, network

BYTES_PER_NS = 50 * 2.0**30 / 1e9
LATENCY = 500


class Model:
    """A custom collective of all ranks on one Switch, links as queues, in plain Python: `ends` by rank [ns]."""

    def __init__(self, files, *, aware):
        self.files, self.aware = files, aware
        self.now, self.events, self.order = 0, [], count()
        self.free, self.queue = {}, {}
        self.waiting, self.arrived, self.messages = {}, {}, {}
        self.ends = [None] * len(files)
        self.state = [self._resolve(nodes) for nodes in files]
        for rank in range(len(files)):
            self._issue_ready(rank)
        while self.events:
            self.now, _, action = heapq.heappop(self.events)
            action()

    def _at(self, delay, action):
        heapq.heappush(self.events, (self.now + delay, next(self.order), action))

    def _resolve(self, nodes):
        """Parents and children of each node, and the set of those that are ready."""
        known, parents, children = HashTable(), {}, {}

        def allocate(number):
            if number not in parents:
                known.insert(number)
                parents[number], children[number] = set(), HashTable()

        for n in nodes:
            needs = HashTable()
            for other in [*n.data_deps, *n.ctrl_deps]:
                if other not in needs:
                    needs.insert(other)
            allocate(n.id)
            for other in needs.walk():
                allocate(other)
                parents[n.id].add(other)
                children[other].insert(n.id)
        ready = HashTable()
        for number in known.walk():
            if not parents[number]:
                ready.insert(number)
        return {n.id: n for n in nodes}, parents, children, ready, set()

    def _issue_ready(self, rank):
        nodes, _, _, ready, running = self.state[rank]
        for number in ready.walk():
            ready.erase(number)
            running.add(number)
            self._issue(rank, nodes[number])

    def _issue(self, rank, n):
        values = {a.name: a.int64_val for a in n.attr}
        if n.type == 4:
            self._at(n.duration_micros * 1000 or 1, lambda: self._end(rank, n.id))
        elif n.type == 5:
            key = (values["comm_tag"], rank, values["comm_dst"], values["comm_size"])
            self._send(rank, n.id, key)
        else:
            key = (values["comm_tag"], values["comm_src"], rank, values["comm_size"])
            if self.arrived.get(key):
                self.arrived[key].pop(0)
                self._at(0, lambda: self._end(rank, n.id))
            else:
                self.waiting.setdefault(key, []).append(n.id)

    def _send(self, rank, number, key):
        size, target = key[3], key[2]

        def there():
            self._end(rank, number)
            if self.waiting.get(key):
                self._end(target, self.waiting[key].pop(0))
            else:
                self.arrived.setdefault(key, []).append(number)

        if not self.aware:
            self._at(int(2 * LATENCY + size / BYTES_PER_NS), there)
        else:
            self._enter(("up", rank), size, lambda: self._enter(("down", target), size, there))

    def _enter(self, link, size, after):
        if self.free.get(link, True):
            self._transmit(link, size, after)
        else:
            self.queue.setdefault(link, []).append((size, after))

    def _transmit(self, link, size, after):
        self.free[link] = False
        self._at(int(LATENCY + size / BYTES_PER_NS), after)
        self._at(int(size / BYTES_PER_NS), lambda: self._release(link))

    def _release(self, link):
        self.free[link] = True
        if self.queue.get(link):
            self._transmit(link, *self.queue[link].pop(0))

    def _end(self, rank, number):
        _, parents, children, ready, running = self.state[rank]
        running.discard(number)
        for child in children[number].walk():
            parents[child].discard(number)
            if not parents[child]:
                ready.insert(child)
        self._issue_ready(rank)
        if not running:
            self.ends[rank] = self.now


def random_files(rng, ranks):
    """Matching sends and receives in rounds, with random ids, orders and dependencies on earlier rounds."""
    rounds = rng.randint(1, 3)
    sizes = rng.choice([[1000], [100, 5000, 65536]])
    messages = [
        (k, *rng.sample(range(ranks), 2), rng.choice(sizes), m)
        for m, k in enumerate(rng.choices(range(rounds), k=rng.randint(ranks, 6 * ranks)))
    ]
    files = []
    for rank in range(ranks):
        items = [(k, 5, b, s, m) for k, a, b, s, m in messages if a == rank]
        items += [(k, 6, a, s, m) for k, a, b, s, m in messages if b == rank]
        items += [(rng.randrange(rounds), 4, 0, 0, 0)]
        items.sort(key=lambda item: item[0])
        ids = rng.sample(range(rng.choice([len(items), 1000, 2**40])), len(items))
        nodes = []
        for number, (k, kind, peer, size, tag) in zip(ids, items, strict=True):
            earlier = [i for i, item in zip(ids, items, strict=True) if item[0] < k]
            deps = rng.sample(earlier, min(len(earlier), rng.choice([1, 1, 2, 4])))
            more = {"comm_dst": peer, "comm_src": peer, "comm_size": size, "comm_tag": tag}
            nodes.append(node(number, kind, deps, **(more if kind != 4 else {})))
        if rng.random() < 0.5:
            rng.shuffle(nodes)
        files.append(nodes)
    return files


@pytest.mark.parametrize("backend", ["unaware", "aware"])
def test_random_custom_collectives_end_when_an_independent_model_says(tmp_path, backend):
    rng = random.Random(7)
    prefix = write(tmp_path, *[[reduce(1)]] * 6)
    flat = astra.read_flat(prefix, 6)
    different = 0
    for k in range(60):
        files = random_files(rng, 6)
        name = write(tmp_path, *files, name=f"c{k}")
        system = {**SYSTEM, "all-reduce-implementation-custom": [str(name)]}
        lowered = astra.lower(
            flat, astra.read_config(system, network(("Switch", 6)), backend=backend)
        )
        run = event_run.run(lowered, lowered.costs(), record=True)
        model = Model(files, aware=backend == "aware")
        assert run.rank_end.tolist() == model.ends, k
        path = astra.along(lowered, run, lowered.costs())
        assert path.rank_end.tolist() == model.ends
        different += len(set(model.ends)) > 1
    assert different > 10


def test_more_ready_nodes_than_buckets_are_taken_in_the_order_of_the_grown_table(tmp_path):
    """40 sends become ready at once, in a table that had 13 buckets."""
    ids = [100 + 7 * k % 41 for k in range(40)]
    sends = [
        node(n, 5, (0,), comm_dst=1, comm_size=1000 + n, comm_tag=0) for n in dict.fromkeys(ids)
    ]
    receives = [node(n.id, 6, comm_src=0, comm_size=1000 + n.id, comm_tag=0) for n in sends]
    files = [[node(0, 4), *sends], receives, [node(0, 4)]]
    prefix = write(tmp_path, *files, name="c")
    flat = astra.read_flat(write(tmp_path, *[[reduce(1)]] * 3), 3)
    system = {**SYSTEM, "all-reduce-implementation-custom": [str(prefix)]}
    config = astra.read_config(system, network(("Switch", 3)), backend="aware")
    lowered = astra.lower(flat, config)
    ends = event_run.run(lowered, lowered.costs()).rank_end.tolist()
    assert ends == Model(files, aware=True).ends
    assert chakra.read(f"{prefix}.0.et").id.tolist()[0] == 0


def test_which_nodes_exchange_a_message_is_part_of_the_order(tmp_path):
    """Rank 0 sends two messages that nothing tells apart, in the order in which what they wait for arrives."""

    def send(number, to, size, tag, *deps):
        return node(number, 5, deps, comm_dst=to, comm_size=size, comm_tag=tag)

    def receive(number, source, size, tag):
        return node(number, 6, comm_src=source, comm_size=size, comm_tag=tag)

    files = [
        [
            *(receive(1, 2, 100_000, 5), receive(2, 1, 10, 6)),
            *(send(3, 1, 1000, 0, 1), send(4, 1, 1000, 0, 2)),
            *(send(5, 3, 70_000, 9, 3), send(6, 3, 5, 10, 4)),
        ],
        [
            *(receive(1, 0, 1000, 0), receive(2, 0, 1000, 0)),
            *(send(3, 3, 90_000, 7, 1), send(4, 3, 11, 8, 2)),
            *(receive(9, 2, 10, 11), send(10, 0, 10, 6, 9)),
        ],
        [send(1, 0, 100_000, 5), send(2, 1, 10, 11)],
        [
            *(receive(1, 1, 90_000, 7), receive(2, 1, 11, 8)),
            *(receive(3, 0, 70_000, 9), receive(4, 0, 5, 10)),
        ],
    ]
    system = {
        **SYSTEM,
        "all-reduce-implementation-custom": [str(write(tmp_path, *files, name="c"))],
    }
    flat = astra.read_flat(write(tmp_path, *[[reduce(1)]] * 4), 4)
    lowered = astra.lower(flat, astra.read_config(system, network(("Switch", 4))))
    narrow, wide = (
        lowered.costs({**lowered.parameters, "network.0.bandwidth": rate}) for rate in (1e9, 1e11)
    )
    run, other = (event_run.run(lowered, cost, record=True) for cost in (narrow, wide))
    assert astra.along(lowered, other, narrow).rank_end.tolist() != run.rank_end.tolist()
    assert run.digest != other.digest
    for cost, found in ((narrow, run), (wide, other)):
        assert event_run.run(lowered, cost).digest == found.digest
