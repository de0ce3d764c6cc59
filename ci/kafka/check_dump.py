#!/usr/bin/env python3
"""check_dump.py TOPIC-PARTITION < output of DumpLogSegments: every batch is valid, and the sequences of each producer id
and epoch run on without gap. Prints one line; exits with 1 when something is wrong."""
import collections
import re
import sys

BATCH = re.compile(
    r"^baseOffset: (\d+) lastOffset: (\d+) count: (\d+) baseSequence: (-?\d+) lastSequence: (-?\d+) producerId: (-?\d+) "
    r"producerEpoch: (-?\d+) .*size: (\d+) magic: (\d+) compresscodec: (\w+) crc: \d+ isvalid: (\w+)"
)
wrong, sizes, counts, next_sequence, next_offset = [], [], [], {}, None
without_id = 0
for line in sys.stdin:
    if line.startswith("baseOffset") and not (found := BATCH.match(line)):
        wrong.append(f"cannot read: {line.strip()}")
    if not line.startswith("baseOffset") or not found:
        continue
    first, last, count, base, end, pid, epoch, size, magic = map(int, found.groups()[:9])
    codec, valid = found.groups()[9:]
    if valid != "true" or magic != 2 or codec.lower() != "none" or last - first + 1 != count:
        wrong.append(f"batch at {first}: {line.strip()}")
    if next_offset not in (None, first):
        wrong.append(f"batch at {first}: expected offset {next_offset}")
    next_offset = last + 1
    if pid < 0:
        without_id += 1
    else:
        expected = next_sequence.get((pid, epoch), 0)
        if base != expected:
            wrong.append(f"batch at {first}: producer {pid} epoch {epoch} has sequence {base}, expected {expected}")
        if end != (base + count - 1) % 2**31:
            wrong.append(f"batch at {first}: {count} records from sequence {base} to {end}")
        next_sequence[pid, epoch] = (end + 1) % 2**31
    sizes.append(size)
    counts.append(count)
if not sizes:
    wrong.append("no batch at all")
else:
    print(
        f"dump: {sys.argv[1]}: {len(sizes)} batches valid, {sum(counts)} records, {sum(sizes) // len(sizes)} bytes on average "
        f"(largest {max(sizes)}), {len(next_sequence)} producer ids and epochs, {without_id} batches without"
    )
for text in wrong[:10]:
    print(f"dump: {sys.argv[1]}: WRONG: {text}", file=sys.stderr)
sys.exit(bool(wrong))
