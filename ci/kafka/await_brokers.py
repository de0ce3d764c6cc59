#!/usr/bin/env python3
"""await_brokers.py COUNT ADDRESS…: waits (60 s at most) until every address answers a Metadata request with COUNT
brokers. Speaks Metadata v1 itself, so that it needs nothing but Python."""
import socket
import struct
import sys
import time


def brokers(address):
    """How many brokers this one knows; 0 when it does not answer (yet)."""
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), timeout=2) as s:
            client = b"await"
            body = struct.pack(">hhih", 3, 1, 1, len(client)) + client + struct.pack(">i", 0)
            s.sendall(struct.pack(">i", len(body)) + body)
            stream = s.makefile("rb")
            (size,) = struct.unpack(">i", stream.read(4))
            answer = stream.read(size)
            return struct.unpack(">i", answer[4:8])[0]
    except (OSError, struct.error):
        return 0


deadline = time.monotonic() + 60
for address in sys.argv[2:]:
    while brokers(address) != int(sys.argv[1]):
        if time.monotonic() > deadline:
            sys.exit(f"{address} does not show {sys.argv[1]} broker(s) after 60 s")
        time.sleep(0.05)
