#!/usr/bin/env python3
"""Checks what `ringmail verifiable-producer` printed.

  verifiable.py same OURS THEIRS      line by line what Kafka's own tool printed: names, fields and their order, values
                                      (not times, texts and the topic's name); ours may say `written`, too
  verifiable.py all-acked FILE OUT    a whole run in which nothing failed: the frame, a line for each value from 0 on;
                                      OUT gets what `foreign_reader.py … outcomes` wants
"""
import json
import sys

FREE = {"timestamp", "topic", "message", "avg_throughput"}


def lines(path):
    """Every line as a list of pairs, so that the order of its fields can be seen."""
    with open(path, encoding="utf-8") as file:
        return [json.loads(line, object_pairs_hook=list) for line in file]


def same(ours, theirs):
    ours, theirs = lines(ours), lines(theirs)
    if len(ours) != len(theirs):
        sys.exit(f"{len(ours)} lines, Kafka's has {len(theirs)}")
    for our, their in zip(ours, theirs):
        our = [pair for pair in our if pair[0] != "written"]
        # Without order: Kafka's tool prints the same keys in another order from run to run.
        shown = lambda line: {key: type(value).__name__ if key in FREE else value for key, value in line}
        if shown(our) != shown(their):
            sys.exit(f"{our}, Kafka's: {their}")
    print(f"{len(ours)} lines as Kafka's own tool prints them")


def all_acked(path, out):
    rows = [dict(line) for line in lines(path)]
    names = [row["name"] for row in rows]
    if names[0] != "startup_complete" or names[-2:] != ["shutdown_complete", "tool_data"]:
        sys.exit(f"begins with {names[0]}, ends with {names[-2:]}")
    acked, data = rows[1:-2], rows[-1]
    if failed := [row for row in acked if row["name"] != "producer_send_success"]:
        sys.exit(f"{len(failed)} lines tell of something else, first: {failed[0]}")
    acked.sort(key=lambda row: int(row["value"].split(".")[-1]))
    if [int(row["value"].split(".")[-1]) for row in acked] != list(range(len(acked))):
        sys.exit("a value is missing, or is there twice")
    if (data["sent"], data["acked"]) != (len(acked), len(acked)):
        sys.exit(f"{len(acked)} lines, but {data}")
    with open(out, "w", encoding="utf-8") as file:
        for row in acked:
            key = "-" if row["key"] is None else row["key"]
            file.write(f"delivered\t{row['partition']}\t{row['offset']}\t{key}\t{row['value']}\n")
    print(f"{len(acked)} sent and acknowledged, {data['avg_throughput']:.0f} per second")


{"same": same, "all-acked": all_acked}[sys.argv[1]](*sys.argv[2:])
