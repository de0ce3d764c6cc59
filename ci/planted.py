#!/usr/bin/env python3
"""Plants known mistakes (ci/planted.txt) in a copy of the tree, all at once but asleep, and wakes them one at a time.

  ci/planted.py                      each has its place, and all together compile: seconds
  ci/planted.py loom [NAME…]         a loom model must find each: a minute and a half
  ci/planted.py loom --all [NAME…]   the same, by every model; says which find it
  ci/planted.py simulation [NAME…]   seeds of the simulation must find each: some minutes
  ci/planted.py fuzz [NAME…]         fuzzing must find each: some minutes

The copy is target/planted/tree. MODEL_TIMEOUT, PLANTED_SECONDS bound the search for one, in seconds (60, 300), and SEEDS
the seeds (20000). LOOM_MAX_PREEMPTIONS overrides the models' bounds. Fails when a mistake is not found, when its place
is gone, or when the clean tree does not pass.
"""
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / "ci/planted.txt"
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "planted"
TREE = TARGET / "tree"
# A million inputs at most: what takes more is not found for practical purposes.
INPUTS = 1_000_000
AWAKE = """

/// The mistake that is awake.
pub(crate) fn planted(name: &str) -> bool {
    static AWAKE: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    AWAKE.get_or_init(|| std::env::var("PLANTED").ok()).as_deref() == Some(name)
}
"""


class Mistake:
    def __init__(self, line, name, finders):
        self.line, self.name, self.places = line, name, []
        self.finders = dict((finder.split(maxsplit=1) + [""])[:2] for finder in finders.split(", "))


def read_list():
    mistakes, within = [], None
    for number, line in enumerate(LIST.read_text().splitlines(), 1):
        word, _, rest = line.strip().partition(" ")
        if not word or word.startswith("#"):
            continue
        if not line.startswith(" "):
            mistakes.append(Mistake(number, word.rstrip(":"), rest))
        elif word == "within":
            within = rest.strip()
        elif word == "find":
            mistakes[-1].places.append([number, within, rest.strip(), None])
            within = None
        elif word == "plant":
            mistakes[-1].places[-1][3] = rest.strip()
        else:
            sys.exit(f"{LIST.name}:{number}: not understood: {line}")
    names = [mistake.name for mistake in mistakes]
    for name in {name for name in names if names.count(name) > 1}:
        sys.exit(f"{LIST.name}: {name} is there twice")
    return mistakes


def pattern(text):
    return re.compile(r"\s+".join(re.escape(word) for word in text.split()))


def find(sources, text):
    return [(path, found.span()) for path, source in sources.items() for found in pattern(text).finditer(source)]


def place(sources, within, text):
    """The file and span of `text`, or what is wrong with it."""
    if within is None:
        found = find(sources, text)
        if len(found) == 1:
            return found[0], None
        return None, f"is there {len(found)} times: {', '.join(sorted({path for path, _ in found}))}" if found else "is gone"
    begins = find(sources, within)
    if len(begins) != 1:
        return None, f"cannot be found: '{within}' is there {len(begins)} times"
    path, (_, end) = begins[0]
    found = pattern(text).search(sources[path], end)
    return ((path, found.span()), None) if found else (None, f"is not after '{within}' in {path}")


def plant(mistakes):
    """Makes the copy; ends with a list of what has no place."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                            cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    files = {name for name in listed if name and (ROOT / name).is_file()}
    sources = {name: (ROOT / name).read_text() for name in sorted(files) if name.startswith("src/") and name.endswith(".rs")}
    problems, edits = [], {}
    ordered = set(re.findall(r'\border\("(\w+)"', "".join(sources.values())))
    for mistake in mistakes:
        if not mistake.places:
            if mistake.name not in ordered:
                problems.append(f"{LIST.name}:{mistake.line}: {mistake.name}: nothing in src/ is ordered under this name")
            continue
        for line, within, text, planted in mistake.places:
            found, problem = place(sources, within, text)
            if problem:
                problems.append(f"{LIST.name}:{line}: {mistake.name}: its place '{text}' {problem}")
            else:
                edits.setdefault(found[0], []).append((found[1], planted.replace("@", f'crate::planted("{mistake.name}")'), mistake.name))
    for name in sorted(ordered - {mistake.name for mistake in mistakes}):
        problems.append(f"{LIST.name}: order(\"{name}\", …) in src/ is not in the list")
    for path, here in edits.items():
        here.sort(reverse=True)
        for (span, _, name), (before, _, other) in zip(here, here[1:]):
            if before[1] > span[0]:
                problems.append(f"{LIST.name}: {name} and {other} want the same place in {path}")
        for (start, end), planted, _ in here:
            sources[path] = sources[path][:start] + planted + sources[path][end:]
    if problems:
        sys.exit("\n".join(problems))
    sources["src/lib.rs"] += AWAKE
    for name in files:
        write(TREE / name, sources[name].encode() if name in sources else (ROOT / name).read_bytes())
    for old in [path for path in TREE.rglob("*") if path.is_file() and str(path.relative_to(TREE)) not in files]:
        old.unlink()


def write(path, content):
    # What is the same keeps its time, so that cargo builds no more than it must.
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def cargo(*arguments, **environment):
    """Runs cargo in the copy and returns what it printed; ends if it fails."""
    done = subprocess.run(["cargo", *arguments], cwd=TREE, env={**os.environ, **environment}, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        sys.exit(f"{done.stdout}\nwith the mistakes planted, it does not build: cargo {' '.join(arguments)}")
    return done.stdout


def executable(printed):
    return TREE / re.search(r"Executable.*\((.*)\)", printed)[1]


def run(planted, seconds, *command, **environment):
    """The exit code, None if it took too long, and what was printed."""
    try:
        done = subprocess.run([str(word) for word in command], cwd=TREE, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=seconds,
                              stderr=subprocess.STDOUT, env={**os.environ, **environment, "RUST_BACKTRACE": "0", "PLANTED": planted})
    except subprocess.TimeoutExpired as late:
        return None, (late.stdout or b"").decode(errors="replace")
    return done.returncode, done.stdout.decode(errors="replace")


def said(printed):
    found = re.search(r"(?:panicked at|ERROR: libFuzzer).*\n(.*)", printed)
    return found[1][:100] if found else (printed.strip().splitlines() or ["nothing"])[-1][:100]


def loom(mistakes, every):
    built = executable(cargo("test", "--release", "--lib", "--no-run", "--target-dir", str(TARGET / "loom"), RUSTFLAGS="--cfg loom"))
    models = [name.replace("accumulator::models::", "").replace("completion::models::", "completion::")
              for name in re.findall(r"^(\S*models::\S+): test$", run("", 60, built, "--list")[1], re.M)]
    seconds = int(os.environ.get("MODEL_TIMEOUT", 60))
    missed = 0
    for mistake in mistakes:
        found = False
        for model in models if every else [mistake.finders["loom"]]:
            room, _, rest = model.partition("::")
            path = f"completion::models::{rest}" if room == "completion" else f"accumulator::models::{model}"
            if model not in models:
                print(f"{mistake.name}: no model {model}")
                continue
            began = time.time()
            code, _ = run(mistake.name, seconds, built, "--exact", path)
            if code is None:
                print(f"{mistake.name}: {model} took longer")
            elif code:
                found = True
                if every:
                    print(f"{mistake.name}: found by {model}, {(time.time() - began) * 1000:.0f} ms")
        if not found:
            print(f"{mistake.name}: not found")
            missed += 1
    return missed


def simulation(mistakes, _):
    cargo("build", "--release", "-p", "ringmail-simulation", "--target-dir", str(TARGET))

    def search(name, seeds):
        environment = {"SEEDS": str(seeds), "FROM": "0"}
        return run(name, int(os.environ.get("PLANTED_SECONDS", 300)), TARGET / "release/ringmail-simulation", **environment)

    code, printed = search("", 300)
    if code:
        sys.exit(f"{printed}\nthe clean tree does not pass")
    missed = 0
    for mistake in mistakes:
        code, printed = search(mistake.name, os.environ.get("SEEDS", 20000))
        seed = re.search(r"^SEEDS=1 FROM=(\d+) ", printed, re.M)
        if code and seed:
            print(f"{mistake.name}: found by {int(seed[1]) + 1} seeds; {said(printed)}")
        else:
            print(f"{mistake.name}: not found" if code == 0 else f"{mistake.name}: it ended without naming a seed: {said(printed)}")
            missed += 1
    return missed


def fuzz(mistakes, _):
    subprocess.run(["bash", str(TREE / "ci/fuzz.sh"), "build"], check=True, env={**os.environ, "CARGO_TARGET_DIR": str(TARGET)})
    host = re.search(r"^host: (.*)", subprocess.run(["rustc", "-vV"], check=True, capture_output=True, text=True).stdout, re.M)[1]

    def search(name, target, inputs, seconds):
        new = TARGET / "new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        code, printed = run(name, None, TARGET / "fuzz/smoke" / host / "release" / target, new, TREE / "fuzz/seeds" / target, "-seed=1", "-max_len=400",
                            f"-runs={inputs}", f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=256", f"-artifact_prefix={TARGET}/")
        counted = re.findall(r"^#(\d+)", printed, re.M)
        return code, counted[-1] if counted else "no", printed

    for target in sorted({mistake.finders["fuzz"] for mistake in mistakes}):
        code, _, printed = search("", target, 2000, 60)
        if code:
            sys.exit(f"{printed}\nthe clean tree does not pass {target}")
    missed = 0
    for mistake in mistakes:
        target = mistake.finders["fuzz"]
        code, inputs, printed = search(mistake.name, target, INPUTS, int(os.environ.get("PLANTED_SECONDS", 300)))
        if code:
            print(f"{mistake.name}: found by {target}, {inputs} inputs beyond the seeds; {said(printed)}")
        else:
            print(f"{mistake.name}: {target} does not find it in {inputs} inputs")
            missed += 1
    return missed


def main(arguments):
    sys.stdout.reconfigure(line_buffering=True)
    mistakes = read_list()
    finder, names = (arguments[0], arguments[1:]) if arguments else (None, [])
    if finder not in (None, "loom", "simulation", "fuzz"):
        sys.exit(__doc__)
    plant(mistakes)
    if finder is None:
        cargo("check", "--lib", "--features", "fuzzing", "--target-dir", str(TARGET))
        print(f"planted: {len(mistakes)} mistakes, each has its place")
        return
    every = "--all" in names
    names = [name for name in names if name != "--all"]
    chosen = [mistake for mistake in mistakes
              if (mistake.name in names if names else finder in mistake.finders or every and not {"simulation", "fuzz"} & set(mistake.finders))]
    if not chosen or (not every and any(finder not in mistake.finders for mistake in chosen)):
        sys.exit(f"no such mistake for {finder}")
    missed = {"loom": loom, "simulation": simulation, "fuzz": fuzz}[finder](chosen, every)
    if missed:
        sys.exit(f"not found: {missed} of {len(chosen)}")
    print(f"each mistake is found ({len(chosen)})")


main(sys.argv[1:])
