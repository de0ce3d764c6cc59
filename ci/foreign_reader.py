#!/usr/bin/env python3
"""Reads a topic back with a client that is not ours (librdkafka) and checks what lies there.

  foreign_reader.py BOOTSTRAP TOPIC dump
      one JSON object per record: partition, offset, timestamp, key, value, headers (bytes as Latin-1 text)
  foreign_reader.py BOOTSTRAP TOPIC lines FILE [-K SEP] [--partition P]
      the topic holds exactly the lines of FILE: the same multiset, order kept per key (with --partition or one
      partition: over all), each key on the partition that Java's murmur2 picks
  foreign_reader.py BOOTSTRAP TOPIC outcomes FILE [--duplicates-allowed]
      FILE says what a producer believes of each record, a line each, separated by tabs:
      delivered|sent|not-written|possibly-written, partition, offset, key, value ('-' = unknown or null). Delivered ones
      lie where they are said to lie, in order per key; not-written ones are absent; nothing unknown is there; sent ones
      (acks=0: nobody answered) and possibly-written ones may be there or not
  foreign_reader.py BOOTSTRAP TOPIC like OTHER
      each key that both topics hold lies on the same partition in both (OTHER written by Java's own client)
  foreign_reader.py BOOTSTRAP TOPIC create [--partitions N] [--replication-factor R] [--config KEY=VALUE]…
      makes the topic and waits for its leaders: Kafka's own tool takes two seconds to start

Exits with 0 when it is so, 1 and a few examples when not. Needs confluent-kafka: ci/kafka.sh venv.
"""
import argparse
import collections
import hashlib
import json
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

wrong = []


def complain(text):
    """Notes one thing that is not as it should be; all are counted, the first few shown."""
    wrong.append(text)


def murmur2(data):
    """Java's partitioner hash: 32-bit MurmurHash2, seed 0x9747b28c, as an unsigned number."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if tail := data[whole:]:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def java_partition(key, count):
    """The partition that Java's default partitioner picks for a key that is not null."""
    return (murmur2(key) & 0x7FFFFFFF) % count


class Topic:
    """A topic as it is now: read from the first offset to the end seen at the start."""

    def __init__(self, bootstrap, name):
        self.name = name
        settings = {
            "bootstrap.servers": bootstrap,
            "group.id": "foreign-reader",
            "enable.auto.commit": False,
            "check.crcs": True,
            "fetch.message.max.bytes": 4 << 20,
            "queued.max.messages.kbytes": 65536,
        }
        self.consumer = Consumer(settings, error_cb=lambda e: print(f"foreign reader: {e}", file=sys.stderr))
        found = self.consumer.list_topics(name, timeout=30).topics[name]
        if found.error:
            sys.exit(f"{name}: {found.error}")
        self.partitions = len(found.partitions)
        self.ends = {}
        for p in found.partitions:
            self.ends[p] = self.consumer.get_watermark_offsets(TopicPartition(name, p), timeout=30)[1]

    def records(self):
        """Every record, in order per partition."""
        left = {p: end for p, end in self.ends.items() if end > 0}
        self.consumer.assign([TopicPartition(self.name, p, OFFSET_BEGINNING) for p in left])
        silent = 0
        while left:
            batch = self.consumer.consume(10_000, timeout=1.0)
            silent = 0 if batch else silent + 1
            if silent > 30:
                sys.exit(f"{self.name}: no record for 30 s, still missing up to {left}")
            for r in batch:
                if r.error():
                    sys.exit(f"{self.name}: {r.error()}")
                if r.offset() < self.ends[r.partition()]:
                    yield r
                if r.offset() >= self.ends[r.partition()] - 1:
                    left.pop(r.partition(), None)
        self.consumer.close()


def text(data):
    return None if data is None else data.decode("latin-1")


def short(data):
    return "null" if data is None else f"{data[:40]!r}{f'… ({len(data)} bytes)' if len(data) > 40 else ''}"


def digest(data):
    """Stands for a value in memory: the value itself when it is short."""
    return data if data is None or len(data) <= 32 else hashlib.blake2b(data, digest_size=24).digest()


def dump(topic, _):
    for r in topic.records():
        headers = [[k, text(v)] for k, v in r.headers() or []]
        row = {"partition": r.partition(), "offset": r.offset(), "timestamp": r.timestamp()[1]}
        print(json.dumps(row | {"key": text(r.key()), "value": text(r.value()), "headers": headers}))


def lines(topic, args):
    """Order is compared per group: the key, or the whole partition when there is only one to choose."""
    single = topic.partitions == 1 or args.partition is not None
    wanted, loose = collections.defaultdict(list), collections.Counter()
    total = 0
    with open(args.file, "rb") as file:
        for line in file:
            line = line.removesuffix(b"\n")
            key, value = None, line
            if args.K and args.K.encode() in line:
                key, value = line.split(args.K.encode(), 1)
            total += 1
            if key is not None or single:
                wanted[key].append(digest(value))
            else:
                loose[digest(value)] += 1
    longest, seen, used = 0, collections.defaultdict(list), collections.Counter()
    for r in topic.records():
        key, value = r.key(), r.value()
        longest = max(longest, len(value or b""))
        used[r.partition()] += 1
        if args.partition is not None and r.partition() != args.partition:
            complain(f"offset {r.offset()} of partition {r.partition()}: only partition {args.partition} was asked for")
        if key is not None or single:
            if key not in seen and key is not None and args.partition is None:
                if r.partition() != java_partition(key, topic.partitions):
                    complain(f"key {short(key)}: on {r.partition()}, Java picks {java_partition(key, topic.partitions)}")
            seen[key].append(digest(value))
        else:
            loose[digest(value)] -= 1
    for value, n in loose.items():
        if n:
            complain(f"value {short(value)}: {abs(n)} {'missing' if n > 0 else 'too many'}")
    for key in wanted.keys() | seen.keys():
        if wanted[key] != seen[key]:
            same = sorted(map(repr, wanted[key])) == sorted(map(repr, seen[key]))
            kind = "out of order" if same else f"other values ({len(seen[key])} records, {len(wanted[key])} were sent)"
            complain(f"key {short(key)}: {kind}")
    if sum(used.values()) != total:
        complain(f"{sum(used.values())} records where {total} were sent")
    return f"{total} records, {len(wanted)} keys, longest value {longest} bytes, per partition {dict(sorted(used.items()))}"


def outcomes(topic, args):
    number = lambda s: None if s == b"-" else int(s)
    null = lambda s: None if s == b"-" else s
    believed, at, orders = {}, {}, collections.defaultdict(list)
    with open(args.file, "rb") as file:
        for line in file:
            state, partition, offset, key, value = line.removesuffix(b"\n").split(b"\t", 4)
            if (null(key), value) in believed:
                sys.exit(f"{args.file}: {short(value)} is there twice, values must differ")
            believed[null(key), value] = state
            if number(offset) is not None:
                at[number(partition), number(offset)] = (null(key), value)
            orders[null(key)].append(value)
    place = {key: {v: i for i, v in enumerate(values)} for key, values in orders.items()}
    seen, last, duplicates = collections.Counter(), {}, 0
    for r in topic.records():
        record = (r.key(), r.value())
        where = f"partition {r.partition()} offset {r.offset()}"
        state = believed.get(record)
        if state is None:
            complain(f"{where}: {short(record[1])} was never sent")
            continue
        seen[record] += 1
        if state == b"not-written":
            complain(f"{where}: {short(record[1])} was reported as not written")
        if (claimed := at.pop((r.partition(), r.offset()), None)) and claimed != record:
            complain(f"{where}: {short(claimed[1])} was reported there, {short(record[1])} lies there")
        if seen[record] > 1:
            duplicates += 1
            if not args.duplicates_allowed:
                complain(f"{where}: {short(record[1])} for the second time")
        elif r.key() is not None:
            i = place[r.key()][r.value()]
            if i < last.get(r.key(), -1):
                complain(f"{where}: key {short(r.key())} out of order")
            last[r.key()] = max(i, last.get(r.key(), -1))
    for (partition, offset), (_, value) in at.items():
        complain(f"partition {partition} offset {offset}: {short(value)} was reported there, nothing lies there")
    for record, state in believed.items():
        if state == b"delivered" and not seen[record]:
            complain(f"{short(record[1])}: reported as delivered, not there")
    count = collections.Counter(s.decode() for s in believed.values())
    found = sum(1 for r, s in believed.items() if s in (b"possibly-written", b"sent") and seen[r])
    return f"{dict(count)}, of the sent and possibly written {found} are there, {duplicates} duplicates"


def like(topic, args):
    def partitions(t):
        found = {}
        for r in t.records():
            if r.key() is not None and found.setdefault(r.key(), r.partition()) != r.partition():
                complain(f"{t.name}: key {short(r.key())} on {found[r.key()]} and {r.partition()}")
        return found

    ours, theirs = partitions(topic), partitions(Topic(args.bootstrap, args.other))
    both = ours.keys() & theirs.keys()
    for key in both:
        if ours[key] != theirs[key]:
            complain(f"key {short(key)}: {topic.name} {ours[key]}, {args.other} {theirs[key]}")
    if not both:
        complain("no key is in both topics")
    return f"{len(both)} keys on the same partitions in {topic.name} and {args.other}"


def create(args):
    admin = AdminClient({"bootstrap.servers": args.bootstrap})
    config = dict(setting.split("=", 1) for setting in args.config)
    new = NewTopic(args.topic, args.partitions, args.replication_factor, config=config)
    admin.create_topics([new], operation_timeout=30)[args.topic].result()
    end = time.monotonic() + 30
    while time.monotonic() < end:
        made = admin.list_topics(args.topic, timeout=30).topics[args.topic].partitions.values()
        if len(made) == args.partitions and all(p.leader >= 0 for p in made):
            return
        time.sleep(0.02)
    sys.exit(f"{args.topic}: no leaders after 30 s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bootstrap")
    parser.add_argument("topic")
    commands = parser.add_subparsers(required=True)
    commands.add_parser("dump").set_defaults(run=dump)
    p = commands.add_parser("lines")
    p.add_argument("file")
    p.add_argument("-K", metavar="SEP")
    p.add_argument("--partition", type=int)
    p.set_defaults(run=lines)
    p = commands.add_parser("outcomes")
    p.add_argument("file")
    p.add_argument("--duplicates-allowed", action="store_true")
    p.set_defaults(run=outcomes)
    p = commands.add_parser("like")
    p.add_argument("other")
    p.set_defaults(run=like)
    p = commands.add_parser("create")
    p.add_argument("--partitions", type=int, default=1)
    p.add_argument("--replication-factor", type=int, default=1)
    p.add_argument("--config", action="append", default=[])
    p.set_defaults(run=None)
    args = parser.parse_args()
    if args.run is None:
        return create(args)
    summary = args.run(Topic(args.bootstrap, args.topic), args)
    if summary:
        print(f"foreign reader: {args.topic}: {summary}")
    for text in wrong[:10]:
        print(f"foreign reader: {args.topic}: WRONG: {text}", file=sys.stderr)
    if wrong:
        sys.exit(f"foreign reader: {args.topic}: {len(wrong)} thing(s) wrong")


main()
