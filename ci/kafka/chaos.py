#!/usr/bin/env python3
"""The part of ci/chaos.sh that runs: brokers, proxy, load, disturbances, and the account at the end. Options: see there."""
import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

import chaos_check
from chaos_cluster import BROKERS, Cluster, Journal, make_topics

REQUEST_TIMEOUT_MS = 4500
# Per minute.
LEAST_KILLS, LEAST_FAULTS, LEAST_RECORDS = 10 / 3, 100 / 3, 66_666


class Program:
    """A program that prints `ready`, runs until its standard input ends, and says then what it did."""

    def __init__(self, name, folder, *args):
        self.name = name
        self.log = open(os.path.join(folder, f"{name}.log"), "w", encoding="utf-8")
        path = os.path.join(os.environ["CHAOS_BIN"], name)
        self.process = subprocess.Popen([path, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.log, text=True, start_new_session=True)

    def await_ready(self):
        if self.process.stdout.readline().strip() != "ready":
            raise SystemExit(f"chaos: {self.name} does not start, see {self.log.name}")

    def tell(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def finish(self, seconds):
        """Its last line."""
        try:
            said, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise SystemExit(f"chaos: {self.name} did not end within {seconds} s, see {self.log.name}") from None
        self.log.write(said)
        self.log.flush()
        if self.process.returncode != 0:
            raise SystemExit(f"chaos: {self.name} failed, see {self.log.name}")
        return said.strip().rsplit("\n", 1)[-1]

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Chaos:
    """Disturbs the brokers until its time is over: one thread kills, another does everything else."""

    def __init__(self, cluster, options, journal):
        self.cluster, self.options, self.journal = cluster, options, journal
        self.over = threading.Event()
        self.calm = threading.Lock()  # held: no broker is killed now
        self.done = {"reassigned": 0, "elections": 0, "throttled": 0}
        self.trouble = None

    def run(self, seconds):
        works = [self.kills] if self.options.rf == 1 else [self.kills, self.others]
        threads = [threading.Thread(target=self.work, args=(work,)) for work in works]
        for thread in threads:
            thread.start()
        try:
            self.over.wait(seconds)
            # On a machine where brokers take long to start it is given more time, so that a run is worth its name.
            least, end = int(seconds / 60 * LEAST_KILLS), time.monotonic() + seconds / 2
            while self.cluster.kills < least and time.monotonic() < end and not self.over.wait(0.5):
                pass
        finally:
            self.over.set()
            for thread in threads:
                thread.join()
        if self.trouble:
            raise self.trouble

    def work(self, what):
        try:
            what(random.Random(f"{self.options.seed} {what.__name__}"))
        except Exception as error:  # pylint: disable=broad-except
            self.trouble = error
            self.over.set()

    def leaders(self, rng):
        """Brokers that lead something, in any order."""
        leaders = [p["leader"] for p in self.cluster.look()[1].values() if p["leader"] > 0]
        rng.shuffle(leaders)
        return leaders

    def kills(self, rng):
        """Leaders die every 6 s (RF 1), else at least 5 s apart and mostly only when all replicas are in sync again."""
        turn = rng.randrange(3)
        self.over.wait(1)
        while not self.over.is_set():
            started = time.monotonic()
            turn += 1
            node = self.cluster.claim([BROKERS[turn % 3]] if self.options.rf == 1 else self.leaders(rng))
            if node:
                with self.calm:
                    self.cluster.kill(node)
                self.over.wait(rng.uniform(0.5, 2) if self.options.rf == 1 else rng.uniform(1, 5))
                self.cluster.launch(node)
                self.cluster.release(node)
            self.over.wait(max(0.0, (6 if self.options.rf == 1 else 5) - (time.monotonic() - started)))
            if self.options.rf == 3 and rng.random() < 0.7:
                end = time.monotonic() + 12
                while time.monotonic() < end and not self.cluster.is_whole() and not self.over.wait(0.3):
                    pass

    def others(self, rng):
        acts = [self.freeze, self.reassign, self.elect, self.throttle]
        turn = rng.randrange(len(acts))
        while not self.over.wait(rng.uniform(1, 4)):
            acts[turn % len(acts)](rng)
            turn += 1

    def freeze(self, rng):
        if node := self.cluster.claim(self.leaders(rng)):
            self.cluster.freeze(node, REQUEST_TIMEOUT_MS / 1000 + rng.uniform(0.5, 2.5), self.over.wait)
            self.cluster.release(node)

    def reassign(self, rng):
        """Another order for partitions of three replicas, or one replica less; another broker for one of one."""
        with self.calm:
            # All brokers must be there for that; whether they live through it is another thing.
            end = time.monotonic() + 30
            while len((look := self.cluster.look())[0]) < 3 and time.monotonic() < end and not self.over.wait(0.2):
                pass
            plan = []
            alone = rng.randrange(3)
            for (topic, index), partition in sorted(look[1].items()):
                if topic == "chaos1" and index == alone:
                    plan.append((topic, index, [rng.choice([b for b in BROKERS if b not in partition["replicas"]])]))
                elif topic == "chaos3":
                    fewer = index == 0 and len(partition["replicas"]) == 3
                    plan.append((topic, index, rng.sample(BROKERS, 2 if fewer else 3)))
            path = os.path.join(self.cluster.folder, "reassign.json")
            with open(path, "w", encoding="ascii") as file:
                partitions = [dict(zip(("topic", "partition", "replicas"), p)) for p in plan]
                json.dump({"version": 1, "partitions": partitions}, file)
            self.journal.say(f"reassign {plan}")
            if plan and self.cluster.tool("ReassignPartitionsCommand", "--reassignment-json-file", path, "--execute"):
                self.done["reassigned"] += len(plan)

    def elect(self, _):
        self.journal.say("preferred leaders")
        # It also fails when one of many leaders could not be moved, because its broker is down just then.
        self.cluster.tool("LeaderElectionCommand", "--election-type", "preferred", "--all-topic-partitions")
        self.done["elections"] += 1

    def throttle(self, rng):
        rate = int(self.options.rate * rng.uniform(8, 30))
        quota = ["--alter", "--entity-type", "clients", "--entity-name", rng.choice(["chaos-io_uring", "chaos-epoll"])]
        self.journal.say(f"throttle {quota[-1]} to {rate} bytes/s")
        if self.cluster.tool("ConfigCommand", *quota, "--add-config", f"producer_byte_rate={rate}"):
            self.done["throttled"] += 1
            self.over.wait(8)
            while not self.cluster.tool("ConfigCommand", *quota, "--delete-config", "producer_byte_rate"):
                time.sleep(1)
            self.journal.say("no throttle")


def parse():
    parser = argparse.ArgumentParser(prog="ci/chaos.sh", description="see the head of ci/chaos.sh")
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--rf", type=int, choices=(1, 3), default=3)
    parser.add_argument("--no-idempotence", action="store_true")
    parser.add_argument("--rate", type=int, default=5000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    parser.add_argument("--turn-answers", action="store_true")
    parser.add_argument("--impatient", action="store_true")
    parser.add_argument("--every", type=int, metavar="MS")
    return parser.parse_args()


def start_programs(options, folder, cluster, topics, held):
    """The proxy, then the load."""
    every = options.every or (1200 if options.rf == 1 else 600)
    spoil = ["--seed", options.seed, "--stall", REQUEST_TIMEOUT_MS + 1500, "--every", every]
    if options.rf == 1:
        spoil += ["--hold-all", 100]
    if options.turn_answers:
        spoil += ["--turn-every", every // 3]
    proxy = Program("chaos-proxy", folder, *(f"{listen}={broker}" for listen, broker in cluster.routes), *spoil)
    held.append(proxy)
    proxy.await_ready()
    settings = ["-X", f"request.timeout.ms={REQUEST_TIMEOUT_MS}"]
    if options.no_idempotence:
        settings += ["-X", "enable.idempotence=false"]
    if options.impatient:
        settings += ["-X", "delivery.timeout.ms=6000", "--limit-ms", 500]
    bootstrap = ",".join(listen for listen, _ in cluster.routes)
    load = Program("chaos-load", folder, bootstrap, folder, *topics, "--rate", options.rate, "--seed", options.seed, *settings)
    held.append(load)
    load.await_ready()
    return proxy, load


def judge(options, check, kills, faults):
    """What is not as it should be, in words."""
    found, states = check.found, check.states
    wrong = [f"{count} {kind}" for kind, count in found.items() if kind not in ("stored", "without offset")]
    told = {"delivered", "unanswered"} | ({"not-written", "possibly-written"} if options.impatient else set())
    wrong += [f"{count} {state}" for state, count in states.items() if state not in told]
    if options.impatient and not states["not-written"] + states["possibly-written"]:
        wrong.append("no record failed: such a run says nothing of those that do")
    if options.no_idempotence:
        # What is looked for is what comes of sending again; a loss is none of it.
        wrong = [] if found["duplicated"] else ["no duplicate was found: such a run could not find any"]
        wrong += [f"{found[kind]} {kind}" for kind in ("lost", "changed", "unknown") if found[kind]]
    least = {"records": (check.records(), LEAST_RECORDS), "kills": (kills, LEAST_KILLS), "faults": (faults, LEAST_FAULTS)}
    return wrong + [f"only {count} {what}" for what, (count, each) in least.items() if count < int(each * options.minutes)]


def run(options, folder, journal, held, cluster):
    cluster.start()
    topics = make_topics(cluster, options.rf)
    proxy, load = start_programs(options, folder, cluster, topics, held)
    chaos = Chaos(cluster, options, journal)
    started = time.monotonic()
    chaos.run(options.minutes * 60)
    disturbed = time.monotonic() - started
    journal.say(f"all replicas in sync: {cluster.await_whole(90)}")
    proxy.tell("enough")
    totals = load.finish(240)
    faults = proxy.finish(10)
    journal.say(f"load: {totals}; proxy: {faults}")
    check = chaos_check.Check(journal.say if options.no_idempotence else lambda text: print(f"chaos: {text}", file=sys.stderr))
    chaos_check.read_told(check, folder)
    chaos_check.read_log(check, ",".join(cluster.addresses.values()), topics)
    check.finish(sent=int(totals.split()[1]))
    for kind, count in check.kinds.most_common(5):
        print(f"chaos: {count} times: {kind}", file=sys.stderr)
    f, s = check.found, check.states
    others = "".join(f", {count} {what}" for what, count in chaos.done.items() if count)
    print(f"chaos: Kafka {cluster.version}, rf {options.rf}{', no idempotence' * options.no_idempotence}, seed {options.seed}, {disturbed:.0f} s: "
          f"{check.records()} records, {cluster.kills} kills, {cluster.stops} stops{others}, {faults}; "
          f"{s['delivered']} delivered ({f['without offset']} without offset), {s['not-written']} not written, "
          f"{s['possibly-written']} possibly written, {s['unanswered']} unanswered, {s['refused']} refused; "
          f"{f['stored']} stored: {f['lost']} lost, {f['duplicated']} duplicated, {f['reordered']} reordered, "
          f"{f['not written but stored']} not written but stored, {f['elsewhere than told']} elsewhere than told, "
          f"{f['changed'] + f['unknown'] + f['told twice']} changed or unknown", flush=True)
    return judge(options, check, cluster.kills, int(faults.split()[0]))


def main():
    options = parse()
    chaos_check.self_test()
    memory = "/dev/shm"
    folder = tempfile.mkdtemp(prefix="ringmail-chaos.", dir=memory if os.access(memory, os.W_OK) else None)
    journal = Journal(os.path.join(folder, "journal.log"))
    cluster = Cluster(os.path.join(folder, "kafka"), journal)
    held, wrong = [], ["it did not come to an end"]
    signals = (signal.SIGINT, signal.SIGTERM)
    for number in signals:
        signal.signal(number, lambda *_: sys.exit(130))
    try:
        wrong = run(options, folder, journal, held, cluster)
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        for program in reversed(held):
            program.kill()
        cluster.end()
        if wrong or os.environ.get("KEEP"):
            print(f"chaos: the work folder is left for a look: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    if wrong:
        raise SystemExit(f"chaos: WRONG: {', '.join(wrong)}")


with contextlib.suppress(BrokenPipeError):
    main()
