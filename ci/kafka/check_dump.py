#!/usr/bin/env python3
"""check_dump.py FILES < output of DumpLogSegments: so many log files are there, every batch is valid, and in each partition
the sequences of each producer id and epoch run on without gap. Prints a line for each partition; exits with 1 when
something is wrong."""
import collections
import re
import sys

BATCH = re.compile(
    r"^baseOffset: (\d+) lastOffset: (\d+) count: (\d+) baseSequence: (-?\d+) lastSequence: (-?\d+) producerId: (-?\d+) "
    r"producerEpoch: (-?\d+) .*size: (\d+) magic: (\d+) compresscodec: (\w+) crc: \d+ isvalid: (\w+)"
)
FILE = re.compile(r"^Dumping .*/([^/]+)/\d+\.log$")


class Partition:
    def __init__(self):
        self.sizes, self.records, self.next_sequence, self.next_offset, self.without_id = [], 0, {}, None, 0

    def add(self, found, wrong):
        first, last, count, base, end, pid, epoch, size, magic = map(int, found.groups()[:9])
        codec, valid = found.groups()[9:]
        if valid != "true" or magic != 2 or codec.lower() != "none" or last - first + 1 != count:
            wrong.append(f"batch at {first}: {found[0]}")
        if self.next_offset not in (None, first):
            wrong.append(f"batch at {first}: expected offset {self.next_offset}")
        self.next_offset = last + 1
        if pid < 0:
            self.without_id += 1
        else:
            expected = self.next_sequence.get((pid, epoch), 0)
            if base != expected:
                wrong.append(f"batch at {first}: producer {pid} epoch {epoch} has sequence {base}, expected {expected}")
            if end != (base + count - 1) % 2**31:
                wrong.append(f"batch at {first}: {count} records from sequence {base} to {end}")
            self.next_sequence[pid, epoch] = (end + 1) % 2**31
        self.sizes.append(size)
        self.records += count


files, partitions, wrong = 0, collections.defaultdict(Partition), collections.defaultdict(list)
at = "?"
for line in sys.stdin:
    if named := FILE.match(line):
        files += 1
        at = named[1]
    if line.startswith("baseOffset"):
        if found := BATCH.match(line):
            partitions[at].add(found, wrong[at])
        else:
            wrong[at].append(f"cannot read: {line.strip()}")
if files != int(sys.argv[1]):
    wrong["?"].append(f"{files} log files instead of {sys.argv[1]}")
for name, partition in sorted(partitions.items()):
    sizes = partition.sizes
    print(
        f"dump: {name}: {len(sizes)} batches valid, {partition.records} records, {sum(sizes) // len(sizes)} bytes on average "
        f"(largest {max(sizes)}), {len(partition.next_sequence)} producer ids and epochs, {partition.without_id} batches without"
    )
texts = [f"dump: {name}: WRONG: {text}" for name, said in wrong.items() for text in said]
print("\n".join(texts[:10]), file=sys.stderr)
sys.exit(bool(texts))
