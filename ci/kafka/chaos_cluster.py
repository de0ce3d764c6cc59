"""A controller and three brokers, each behind a proxy: started by ci/kafka.sh, looked at, killed, stopped, started again."""
import contextlib
import os
import signal
import socket
import struct
import subprocess
import threading
import time

KAFKA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "kafka.sh")
BROKERS = (1, 2, 3)


class Journal:
    """What was done and when, for whoever looks for the cause of something."""

    def __init__(self, path):
        self.file = open(path, "w", encoding="utf-8")

    def say(self, text):
        now = time.time()
        self.file.write(f"{time.strftime('%H:%M:%S', time.gmtime(now))}.{int(now * 1000) % 1000:03} {text}\n")
        self.file.flush()


def metadata(address, timeout=2.0):
    """Which brokers a broker knows, and each partition's leader, replicas and in-sync replicas. Metadata v1."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=timeout) as s:
        body = struct.pack(">hhih5si", 3, 1, 1, 5, b"chaos", -1)
        s.sendall(struct.pack(">i", len(body)) + body)
        stream = s.makefile("rb")
        answer = stream.read(struct.unpack(">i", stream.read(4))[0])
    at = 4

    def take(form):
        nonlocal at
        (value,) = struct.unpack_from(">" + form, answer, at)
        at += struct.calcsize(form)
        return value

    def text():
        nonlocal at
        length = max(take("h"), 0)
        at += length
        return answer[at - length : at].decode()

    def numbers():
        return [take("i") for _ in range(take("i"))]

    brokers, partitions = set(), {}
    for _ in range(take("i")):
        brokers.add(take("i"))
        text(), take("i"), text()
    take("i")
    for _ in range(take("i")):
        take("h")
        topic = text()
        take("b")
        for _ in range(take("i")):
            take("h")
            index = take("i")
            partitions[topic, index] = {"leader": take("i"), "replicas": numbers(), "isr": numbers()}
    return brokers, partitions


class Cluster:
    """The brokers, and which of them are killed or stopped, or about to be."""

    def __init__(self, folder, journal):
        self.folder, self.journal = folder, journal
        self.lock = threading.Lock()
        self.down, self.stopped = set(), set()
        self.kills = self.stops = 0
        self.addresses, self.routes = {}, []
        self.version = None

    def start(self):
        quiet = ("auto.create.topics.enable=false", "auto.leader.rebalance.enable=false")
        if self.sh("start", "proxied", self.folder, *quiet, timeout=200).returncode != 0:
            raise SystemExit("chaos: the brokers do not start, see journal.log")
        with open(os.path.join(self.folder, "version"), encoding="ascii") as file:
            self.version = file.read().strip()
        with open(os.path.join(self.folder, "bootstrap"), encoding="ascii") as file:
            self.addresses = dict(zip(BROKERS, file.read().strip().split(",")))
        with open(os.path.join(self.folder, "routes"), encoding="ascii") as file:
            self.routes = [line.split() for line in file]

    def sh(self, *args, timeout=60):
        # A group of its own: Ctrl-C is for us to hear, and we end the brokers.
        with open(os.path.join(os.path.dirname(self.folder), f"sh.{threading.get_ident()}"), "w+", encoding="utf-8") as out:
            done = subprocess.run([KAFKA, *map(str, args)], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                  timeout=timeout, check=False, start_new_session=True)
            if done.returncode != 0:
                out.seek(0)
                self.journal.say(f"kafka.sh {args}: exit {done.returncode}: {out.read().strip()[-800:]}")
        return done

    def tool(self, name, *args):
        """A tool of Kafka's, by way of brokers that are up. False: it did not work, which with brokers dying may be."""
        up = [self.addresses[node] for node in BROKERS if node not in self.down]
        try:
            status = self.sh("tool", name, "--bootstrap-server", ",".join(up), *args).returncode if up else 1
            if status == 3:
                raise RuntimeError(f"Kafka {self.version} has no tool {name}")
            return status == 0
        except subprocess.TimeoutExpired as error:
            self.journal.say(str(error))
            return False

    def look(self):
        """Metadata from a broker that is up; (set(), {}) when none answers."""
        for node in BROKERS:
            if node not in self.down:
                with contextlib.suppress(OSError, struct.error):
                    return metadata(self.addresses[node])
        return set(), {}

    def is_whole(self):
        """All brokers are there and all replicas in sync."""
        brokers, partitions = self.look()
        return len(brokers) == len(BROKERS) and bool(partitions) and all(
            p["leader"] >= 0 and set(p["isr"]) == set(p["replicas"]) for p in partitions.values())

    def await_whole(self, seconds):
        """Waits for that, so long at most."""
        end = time.monotonic() + seconds
        while not (whole := self.is_whole()) and time.monotonic() < end:
            time.sleep(0.2)
        return whole

    def claim(self, wanted):
        """Takes the first of these brokers that is up and not taken; `None` when there is none."""
        with self.lock:
            for node in wanted:
                if node not in self.down:
                    self.down.add(node)
                    return node
        return None

    def release(self, node):
        with self.lock:
            self.down.discard(node)

    def kill(self, node):
        self.journal.say(f"kill -9 {node}")
        self.kills += self.sh("kill9", node, self.folder).returncode == 0

    def launch(self, node):
        """Starts a broker again, and waits until it serves clients."""
        self.journal.say(f"start {node}")
        self.sh("launch", node, self.folder)
        end = time.monotonic() + 60
        while time.monotonic() < end:
            with contextlib.suppress(OSError, struct.error):
                if node in metadata(self.addresses[node])[0]:
                    break
            time.sleep(0.1)
        self.journal.say(f"{node} is up")

    def signal(self, node, number):
        with open(os.path.join(self.folder, f"node{node}.pid"), encoding="ascii") as file:
            os.kill(int(file.read()), number)

    def freeze(self, node, seconds, wait):
        self.journal.say(f"stop {node} for {seconds:.1f} s")
        self.stopped.add(node)
        self.signal(node, signal.SIGSTOP)
        self.stops += 1
        wait(seconds)
        self.thaw(node)

    def thaw(self, node):
        with contextlib.suppress(OSError):
            self.signal(node, signal.SIGCONT)
        self.stopped.discard(node)
        self.journal.say(f"continue {node}")

    def end(self):
        for node in list(self.stopped):
            self.thaw(node)
        if os.path.exists(os.path.join(self.folder, "node0.properties")):
            self.sh("stop", self.folder)


def make_topics(cluster, rf):
    """`chaos1`: partitions of one replica; `chaos3`: of three, two of which must be in sync. Returns their names."""
    from confluent_kafka.admin import AdminClient, NewTopic

    alone = [[BROKERS[index % 3]] for index in range(3 if rf == 3 else 6)]
    topics = [NewTopic("chaos1", num_partitions=len(alone), replica_assignment=alone)]
    if rf == 3:
        orders = [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 3, 2], [2, 1, 3], [3, 2, 1]]
        config = {"min.insync.replicas": "2"}
        topics.append(NewTopic("chaos3", num_partitions=6, replica_assignment=orders, config=config))
    admin = AdminClient({"bootstrap.servers": ",".join(cluster.addresses.values())})
    for made in admin.create_topics(topics).values():
        made.result(timeout=60)
    if not cluster.await_whole(60):
        raise SystemExit("chaos: the topics have no leaders after a minute")
    return [topic.topic for topic in topics]
