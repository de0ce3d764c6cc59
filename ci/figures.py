#!/usr/bin/env python3
"""Takes the figures of PERF.md and prints them as Markdown.

  ci/figures.py --sink SINK --limit LIMIT [--rounds 5] [--records 10000000] [ROW…]

SINK is a stand-in broker (`SINK --port P --quiet`, topic `t-N` has N partitions, `--brokers`, `--slow-broker`), LIMIT
measures the least work a producer must do (`LIMIT throughput ADDRESS TOPIC --records N`, one line of JSON). Both are
separate programs, outside this repository. Each round runs every row once, in turn, so that what the machine does to
one it does to all; figures are min, median and max over the rounds. Nothing else should run meanwhile.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PORT = 39150
PLAIN = ["-X", "enable.idempotence=false", "-X", "acks=1"]
# Name, topic, arguments of `ringmail bench`.
ROWS = {
    "tags": ("idempotence off, acks=1, tags, io_uring", "t-1", [*PLAIN, "--driver", "io_uring"]),
    "epoll": ("the same, epoll", "t-1", [*PLAIN, "--driver", "epoll"]),
    "idempotent": ("defaults (idempotent, acks=all), tags", "t-1", []),
    "delivery": ("the same, a `Delivery` each, dropped", "t-1", ["--handle", "delivery"]),
    "callback": ("the same, a callback each", "t-1", ["--handle", "callback"]),
    "six": ("defaults, six partitions", "t-6", []),
    "threads": ("defaults, four threads on one partition", "t-1", ["--threads", "4"]),
    "kib": ("defaults, 1 KiB records", "t-1", ["--size", "1024", "--records", "2000000"]),
}
# At a fixed rate; one record per batch.
RATES = {
    "rate": ("1,000/s, linger.ms=0, io_uring", ["--driver", "io_uring", "-X", "linger.ms=0", "--rate", "1000"]),
    "rate-epoll": ("1,000/s, linger.ms=0, epoll", ["--driver", "epoll", "-X", "linger.ms=0", "--rate", "1000"]),
    "rate-100k": ("100,000/s, linger.ms=0", ["-X", "linger.ms=0", "--rate", "100000"]),
}


@contextmanager
def sink(arguments, *options):
    broker = subprocess.Popen([arguments.sink, "--port", str(PORT), "--quiet", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        yield f"127.0.0.1:{PORT}"
    finally:
        broker.terminate()
        broker.wait()


def output(command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def bench(address, topic, records, options):
    command = [str(ROOT / "target/release/ringmail"), "bench", "--json", "-b", address, "-t", topic]
    counted = [] if "--records" in options else ["--records", str(records)]
    return json.loads(output([*command, *counted, *options]))


def spread(values, digits):
    values = sorted(values)
    return f"{values[0]:.{digits}f} **{statistics.median(values):.{digits}f}** {values[-1]:.{digits}f}"


def throughput(arguments, rows):
    limits, results = [], {row: [] for row in rows}
    for _ in range(arguments.rounds):
        with sink(arguments) as address:
            run = ["throughput", address, "t-1", "--records", str(arguments.records)]
            limits.append(json.loads(output([arguments.limit, *run])))
        for row in rows:
            with sink(arguments) as address:
                results[row].append(bench(address, ROWS[row][1], arguments.records, ROWS[row][2]))
    cpu = statistics.median(limit["cpu_s_per_million"] for limit in limits)
    rate = statistics.median(limit["records_per_s"] for limit in limits)
    print("| | M records/s | of the limit | CPU s per million | × limit | send p50, ns | allocations per record | RSS MiB |")
    print("|---|---|---|---|---|---|---|---|")
    rates, cpus = [l["records_per_s"] / 1e6 for l in limits], [l["cpu_s_per_million"] for l in limits]
    print(f"| limit | {spread(rates, 1)} | 1 | {spread(cpus, 3)} | 1 | | | |")
    for row in rows:
        runs = results[row]
        rates, cpus = [r["records_per_s"] / 1e6 for r in runs], [r["cpu_s_per_million"] for r in runs]
        print(
            f"| {ROWS[row][0]} | {spread(rates, 1)} | {statistics.median(rates) * 1e8 / rate:.0f} % | {spread(cpus, 3)} "
            f"| {statistics.median(cpus) / cpu:.1f} | {spread([r['send_ns']['p50'] for r in runs], 0)} "
            f"| {max(r['allocations_per_record'] for r in runs):.6f} | {max(r['max_rss_kib'] for r in runs) / 1024:.0f} |"
        )


def latency(arguments, rows):
    print("\n| | ack p50, µs | p99 | p99.9 | send p50, ns | CPU s per million | allocations per record |")
    print("|---|---|---|---|---|---|---|")
    results = {row: [] for row in rows}
    for _ in range(arguments.rounds):
        for row in rows:
            options = RATES[row][1]
            records = int(options[-1]) * 4
            with sink(arguments) as address:
                results[row].append(bench(address, "t-1", records, options))
    for row in rows:
        runs = results[row]
        acks = [spread([r["ack_us"][p] for r in runs], 0) for p in ("p50", "p99", "p999")]
        print(
            f"| {RATES[row][0]} | {' | '.join(acks)} | {spread([r['send_ns']['p50'] for r in runs], 0)} "
            f"| {spread([r['cpu_s_per_million'] for r in runs], 1)} "
            f"| {max(r['allocations_per_record'] for r in runs):.6f} |"
        )


def example(name, *options):
    return output([str(ROOT / "target/release/examples" / name), *options])


def slow_broker(arguments):
    """Records per second of the two threads whose broker is well, by what the third one is."""
    print("\n| the first of three brokers | M records/s of the other two | the first with 1,000 partitions | each with 1,000 |")
    print("|---|---|---|---|")
    kinds = {
        "gets nothing": [],
        "well": [],
        "0.5 s per request": ["--slow-broker", "0,500000"],
        "answers nothing": ["--slow-broker", "0,600000000"],
    }
    layouts = {"one each": ["3"], "many on the first": ["3000", "others=1"], "many each": ["3000"]}
    rates = {(kind, layout): [] for kind in kinds for layout in layouts}
    for _ in range(arguments.rounds):
        for kind, layout in rates:
            count, *others = layouts[layout]
            with sink(arguments, "--brokers", "3", *kinds[kind]) as address:
                skip = ["skip=1"] if kind == "gets nothing" else []
                text = example("slow_broker", address, f"t-{count}", count, "4", "threads=3", *others, *skip)
            each = [int(rate) for rate in re.findall(r"thread [12]: (\d+) records/s", text)]
            rates[kind, layout].append(sum(each) / 1e6)
    for kind in kinds:
        print(f"| {kind} | {' | '.join(spread(rates[kind, layout], 1) for layout in layouts)} |")


def ack_delay(arguments):
    """One partition, defaults, a broker that answers each request 5 ms later."""
    rates = []
    for _ in range(arguments.rounds):
        with sink(arguments, "--ack-delay-us", "5000") as address:
            rates.append(bench(address, "t-1", arguments.records, [])["records_per_s"] / 1e6)
    print(f"\n- 5 ms before each answer, one partition, defaults: {spread(rates, 1)} M records/s")


def idle(arguments):
    print()
    for driver in ("io_uring", "epoll"):
        with sink(arguments) as address:
            print("- " + example("idle", address, "t-1000", "1000", "20", f"driver={driver}").strip())


REST = {"ack-delay": ack_delay, "slow-broker": slow_broker, "idle": idle}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sink", required=True)
    parser.add_argument("--limit", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--records", type=int, default=10_000_000)
    parser.add_argument("rows", nargs="*", help=f"default: all of {' '.join([*ROWS, *RATES, *REST])}")
    arguments = parser.parse_args()
    known = [*ROWS, *RATES, *REST]
    if unknown := [row for row in arguments.rows if row not in known]:
        parser.error(f"no row {' '.join(unknown)}: there are {' '.join(known)}")
    subprocess.run(["cargo", "build", "--release", "-q", "-p", "ringmail-cli"], cwd=ROOT, check=True)
    subprocess.run(["cargo", "build", "--release", "-q", "--examples"], cwd=ROOT, check=True)
    wanted = arguments.rows or known
    if rows := [row for row in ROWS if row in wanted]:
        throughput(arguments, rows)
    if rows := [row for row in RATES if row in wanted]:
        latency(arguments, rows)
    for name in [name for name in REST if name in wanted]:
        REST[name](arguments)


main()
