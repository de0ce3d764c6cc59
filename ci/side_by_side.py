#!/usr/bin/env python3
"""`cargo test --workspace`, with three test programs at a time: most of them wait for clocks and peers.

Each program's output is printed whole when it has ended. Ends with 1 if one failed.
"""
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

build = subprocess.run(["cargo", "test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"],
                       stdout=subprocess.PIPE, text=True)
if build.returncode:
    sys.exit(build.returncode)
programs = [message for message in map(json.loads, build.stdout.splitlines())
            if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]]


def run(program):
    home = os.path.dirname(program["manifest_path"])
    # As cargo runs them: in their package's folder.
    done = subprocess.run([program["executable"]], cwd=home, env={**os.environ, "CARGO_MANIFEST_DIR": home},
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    print(f"     Running {program['target']['src_path']}\n{done.stdout}\n", end="", flush=True)
    return done.returncode


# The library's own are the longest, and keep two cores busy.
programs.sort(key=lambda program: "lib" not in program["target"]["kind"])
# These have dozens of servers and clients at once already, and brokers that must answer within a second.
alone = [program for program in programs if program["target"]["name"] == "hostile"]
together = [program for program in programs if program not in alone]
with ThreadPoolExecutor(3) as lanes:
    failed = [program for program, code in zip(together, lanes.map(run, together)) if code]
failed += [program for program in alone if run(program)]
documented = subprocess.run(["cargo", "test", "--workspace", "--doc"]).returncode
for program in failed:
    print(f"error: {program['target']['name']} failed: {program['target']['src_path']}")
sys.exit(1 if failed or documented else 0)
