"""What a load was told of its records, compared with what lies in the log. `python3 chaos_check.py` checks the checker."""
import collections
import glob
import os

STATES = ("delivered", "not-written", "possibly-written", "unanswered", "refused")


def dots(number):
    """How many dots a record's value ends with; the load says the same."""
    few = (number * 7919 & (1 << 64) - 1) % 200
    return few + 5000 if number % 1000 == 999 else few


class Check:
    """Takes what was told of each record, then the log's records in the order of each partition, and counts."""

    def __init__(self, example=lambda text: None):
        self.told = collections.defaultdict(dict)  # thread -> number -> (state, topic, partition, offset)
        self.states = collections.Counter()
        self.kinds = collections.Counter()  # what went wrong with those that failed
        self.found = collections.Counter()
        self.seen = collections.defaultdict(dict)  # thread -> number -> where it lies; if twice, rather where it was told
        self.last = {}
        self.example = example

    def wrong(self, kind, text):
        self.found[kind] += 1
        if self.found[kind] <= 5:
            self.example(f"{kind}: {text}")

    def tell(self, thread, number, state, topic="-", partition="-", offset="-", error=""):
        """One line of the load's account."""
        if number in self.told[thread]:
            self.wrong("told twice", f"thread {thread} number {number}: {state}, {self.told[thread][number]}")
        self.told[thread][number] = (state, topic, int(partition) if partition != "-" else -1,
                                     int(offset) if offset != "-" else -1)
        self.states[state] += 1
        if state != "delivered":
            self.kinds[error.split(":", 1)[-1].split("(")[0].strip()[:100]] += 1

    def stored(self, topic, partition, offset, value):
        """One record of the log."""
        self.found["stored"] += 1
        where = f"{topic}-{partition}@{offset}"
        try:
            head, tail = value[:40].split(b" ", 2)[:2], value.rstrip(b".")
            thread, number = int(head[0]), int(head[1])
            if len(value) != len(tail) + dots(number) or tail != b"%d %d " % (thread, number):
                self.wrong("changed", f"{where}: {value[:60]!r}")
        except (ValueError, IndexError):
            self.wrong("changed", f"{where}: {value[:60]!r}")
            return
        told = self.told.get(thread, {}).get(number)
        if told is None:
            self.wrong("unknown", f"{where}: thread {thread} number {number}")
            return
        here = (topic, partition, offset)
        first = self.seen[thread].setdefault(number, here)
        name = f"thread {thread} number {number}, told {told}"
        if first != here:
            self.wrong("duplicated", f"{name}: at {first} and {where}")
            if told[1:] == here:
                self.seen[thread][number] = here
            return
        if told[0] in ("not-written", "refused"):
            self.wrong("not written but stored", f"{name}: at {where}")
        line = (thread, topic, partition)
        if number < self.last.get(line, -1):
            self.wrong("reordered", f"{name}: at {where} behind number {self.last[line]}")
        else:
            self.last[line] = number

    def finish(self, sent=None):
        """Looks for what is missing. `sent`: how many records were taken, if that is known."""
        for thread, numbers in self.told.items():
            for number in range(max(numbers) + 1):
                if number not in numbers:
                    self.wrong("unanswered", f"thread {thread} number {number}: nothing was told of it")
                    self.states["unanswered"] += 1
            for number, told in numbers.items():
                if told[0] != "delivered":
                    continue
                if (where := self.seen[thread].get(number)) is None:
                    self.wrong("lost", f"thread {thread} number {number}, told {told}")
                elif told[3] < 0:
                    self.found["without offset"] += 1
                elif told[1:] != where:
                    self.wrong("elsewhere than told", f"thread {thread} number {number}, told {told}: at {where}")
        if sent is not None and sent != self.records():
            self.wrong("miscounted", f"{sent} were sent, {self.records()} are accounted for")

    def records(self):
        return sum(self.states.values()) - self.states["refused"]


def read_told(check, folder):
    """Reads what `chaos-load` wrote."""
    for path in sorted(glob.glob(os.path.join(folder, "told-*"))):
        thread = int(path.rsplit("-", 1)[1])
        with open(path, encoding="utf-8") as file:
            for line in file:
                number, *rest = line.rstrip("\n").split("\t", 5)
                check.tell(thread, int(number), *rest)


def read_log(check, bootstrap, topics):
    """Reads whole topics with librdkafka."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    settings = {"bootstrap.servers": bootstrap, "group.id": "chaos", "enable.auto.commit": False, "check.crcs": True,
                "queued.max.messages.kbytes": 65536}
    consumer = Consumer(settings)
    try:
        ends = {}
        for topic in topics:
            for partition in consumer.list_topics(topic, timeout=30).topics[topic].partitions:
                end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)[1]
                if end > 0:
                    ends[topic, partition] = end
        consumer.assign([TopicPartition(*of, OFFSET_BEGINNING) for of in ends])
        silent = 0
        while ends:
            records = consumer.consume(10_000, timeout=1.0)
            silent = 0 if records else silent + 1
            if silent > 60:
                raise SystemExit(f"chaos: no record for a minute, still missing up to {ends}")
            for r in records:
                if r.error():
                    raise SystemExit(f"chaos: the reader says {r.error()}")
                check.stored(r.topic(), r.partition(), r.offset(), r.value())
                if r.offset() >= ends.get((r.topic(), r.partition()), 1 << 62) - 1:
                    del ends[r.topic(), r.partition()]
    finally:
        consumer.close()


def self_test():
    def value(thread, number):
        return b"%d %d " % (thread, number) + b"." * dots(number)

    def run(told, log):
        check = Check()
        for line in told:
            check.tell(*line)
        for partition, offset, content in log:
            check.stored("t", partition, offset, content)
        check.finish()
        return {kind: count for kind, count in check.found.items() if kind not in ("stored", "without offset")}

    told = [(0, n, "delivered", "t", "0", str(n)) for n in range(3)]
    log = [(0, n, value(0, n)) for n in range(3)]
    assert run(told, log) == {}
    assert run(told, log[:2]) == {"lost": 1}
    assert run(told, log + [(0, 3, value(0, 1))]) == {"duplicated": 1}
    assert run(told, log + [(1, 0, value(0, 1))]) == {"duplicated": 1}
    assert run(told, [(0, 7, value(0, 0))] + log) == {"duplicated": 1}, "the second copy is the one that was told"
    assert run(told, log + [(0, 3, value(7, 1))]) == {"unknown": 1}
    assert run(told, log[:2] + [(0, 2, value(0, 2)[:-1])]) == {"changed": 1}
    assert run(told, [(0, 0, value(0, 1)), (0, 1, value(0, 0)), log[2]]) == {"reordered": 1, "elsewhere than told": 2}
    assert run(told[:2] + [(0, 2, "not-written", "t", "0")], log) == {"not written but stored": 1}
    assert run(told[:2] + [(0, 2, "refused")], log) == {"not written but stored": 1}
    for fine in ("possibly-written", "delivered"):
        assert run(told[:2] + [(0, 2, fine, "t", "0", "-")], log) == {}, fine
    assert run(told[:2] + [(0, 2, "possibly-written", "t", "0", "-")], log[:2]) == {}
    assert run(told[::2], log[::2]) == {"unanswered": 1}
    assert run(told + told[2:], log) == {"told twice": 1}
    assert dots(999) > 5000 and dots(1) < 200


if __name__ == "__main__":
    self_test()
