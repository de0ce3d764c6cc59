#!/usr/bin/env python3
"""make_lines.py COUNT FILE: lines for the round trip through a real broker. Two of three begin with a key and a colon,
the others have no colon; from empty to 900 kB long, a carriage return here and there, no newline at the end."""
import random
import sys

rng = random.Random(20261122)
count = int(sys.argv[1])
filler = bytes(rng.choices(range(ord("A"), ord("z")), k=1 << 20))
huge = {rng.randrange(count) for _ in range(60)}
with open(sys.argv[2], "wb", buffering=1 << 20) as out:
    for i in range(count):
        if i in huge:
            length = rng.randrange(1 << 16, 900_000)
        elif rng.random() < 0.05:
            length = 0
        else:
            length = int(rng.expovariate(1 / 80))
        start = rng.randrange(1 << 16)
        value = filler[start : start + length].replace(b":", b"_")
        if length > 20:
            value = b"%d " % i + value[len(str(i)) + 1 :]
        if i % 997 == 0:
            value += b"\r"
        key = b""
        if i % 3:
            key = b"%s:" % (b"" if i % 5003 == 1 else "schlüssel-{}".format(rng.randrange(20_000)).encode())
        last = i == count - 1
        out.write(key + (value or b"x" if last else value) + (b"" if last else b"\n"))
