#!/usr/bin/env bash
# Runs every check of this repository, and installs what they need.
#
#   ci/test.sh            everything
#   ci/test.sh --quick    without real Kafka (no Java, no librdkafka, no downloads beyond crates); says so at the end
#   ci/test.sh STAGE…     only these stages, by name (see below)
#
# A stage is one line with its time; what it printed lies in target/ci/STAGE.log and is shown when it fails.
#
# Cheap failures come first, and each profile is built once: clippy and docs share what `cargo check` makes; tests,
# examples, benches and the tests of kafka share the debug build; drivers, demo, simulation, the command in kafka and chaos
# the release build; planted, loom, fuzz, miri and mock have their own.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export CARGO_TERM_COLOR=never
# The same cases in every run, so that a run judges the change and not the dice; other seeds are for long runs by hand.
export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-20261122}
target=${CARGO_TARGET_DIR:-$root/target}
logs=$target/ci
mkdir -p "$logs"
began=$(date +%s)
failures=()
ran=()
child=

# Nothing stays behind: a stage runs in a process group of its own, which ends with this script.
stop() { [ -z "$child" ] || kill -TERM -- "-$child" 2>/dev/null || true; }
trap stop EXIT
trap 'stop; exit 130' INT TERM

stage() { # stage NAME COMMAND…
  local name=$1 start end status=0 words
  shift
  if [ ${#only[@]} -gt 0 ] && [[ " ${only[*]} " != *" $name "* ]]; then return; fi
  ran+=("$name")
  start=$(date +%s)
  set -m
  "$@" >"$logs/$name.log" 2>&1 </dev/null &
  child=$!
  set +m
  wait "$child" || status=$?
  child=
  end=$(date +%s)
  words=$(summary "$logs/$name.log")
  if [ $status = 0 ]; then
    printf 'ok    %-10s %4d s   %s\n' "$name" $((end - start)) "$words"
  else
    printf 'FAIL  %-10s %4d s   exit %d; what failed in %s, and its end:\n' "$name" $((end - start)) $status "$logs/$name.log"
    { grep -E '^test .*FAILED$|panicked at|^error|^minimal failing' -A 2 "$logs/$name.log" | head -n 40; echo ...
      tail -n 30 "$logs/$name.log"; } | sed 's/^/      | /'
    failures+=("$name")
  fi
}

# How many tests passed or were left out, or the last line of a checker.
summary() {
  awk '/^test result:/ { passed += $4; ignored += $8 } /^(verified|real Kafka:|licences:|planted:|fuzz:|miri:|simulation:|chaos:)/ { last = $0 }
       END { if (passed) printf "%d tests passed, %d ignored ", passed, ignored; printf "%s", last }' "$1"
}

# Each model in a process of its own: loom maps a stack per thread and execution, and threads of one process wait for
# each other there.
loom() {
  local built
  built=$(RUSTFLAGS="--cfg loom" cargo test --release --lib --target-dir "$target/loom" --no-run 2>&1 | tee /dev/stderr |
    sed -n 's/.*Executable.*(\(.*\))/\1/p')
  [ -x "$built" ] || return
  "$built" --list | sed -n 's/^\(.*models::.*\): test$/\1/p' | xargs -P "$(nproc)" -n 1 "$built" --exact
}

simulation() { SEEDS=${SEEDS:-3000} cargo run --release -p ringmail-simulation; }

# Each measurement once, so that none rots. Without `--bench` on its command line criterion only tests.
benches() { cargo test --bench '*'; }

drivers() {
  cargo build --release -p ringmail-cli || return
  for driver in io_uring epoll; do "$target/release/ringmail" demo -n 200000 --driver $driver || return; done
  command -v python3 >/dev/null || { echo "no python3 here: io_uring forbidden by seccomp was not tried"; return 0; }
  python3 ci/kafka/forbid_io_uring.py "$target/release/ringmail" demo -n 200000
}

examples() {
  local source
  for source in examples/*.rs; do
    echo "== $source"
    cargo run -q --example "$(basename "$source" .rs)" || return
  done
}

docs() { RUSTDOCFLAGS="-D warnings" cargo doc --no-deps --workspace --features ringmail/testing; }

# A function, so that editing this file does not change a run that is under way.
main() {
  quick=
  only=()
  for argument in "$@"; do
    case $argument in
      --quick) quick=1 ;;
      -*) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 2 ;;
      *) only+=("$argument") ;;
    esac
  done
  command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.95 or newer from https://rustup.rs"; exit 2; }

  stage format cargo fmt --all --check
  stage licences ci/licences.py
  stage clippy cargo clippy --workspace --all-targets -- -D warnings
  # As its users build it: in the workspace the feature `testing` is always on.
  stage alone cargo clippy -p ringmail --lib -- -D warnings
  stage docs docs
  stage planted ci/planted.py
  stage tests ci/side_by_side.py
  stage examples examples
  stage benches benches
  stage drivers drivers
  stage demo cargo run --release -q -p ringmail-cli -- demo
  stage simulation simulation
  stage loom loom
  [ ! -x ci/fuzz.sh ] || stage fuzz ci/fuzz.sh smoke
  [ ! -x ci/miri.sh ] || stage miri ci/miri.sh
  [ -n "$quick" ] || stage mock ci/mock_cluster.sh
  [ -n "$quick" ] || stage kafka ci/real_kafka.sh
  [ -n "$quick" ] || stage chaos ci/chaos.sh --minutes 0.5

  for name in ${only[@]+"${only[@]}"}; do
    [[ " ${ran[*]-} " == *" $name "* ]] || { echo "there is no stage $name"; failures+=("$name"); }
  done
  total=$(($(date +%s) - began))
  if [ ${#failures[@]} -gt 0 ]; then
    printf 'FAILED after %d min %d s: %s\n' $((total / 60)) $((total % 60)) "${failures[*]}"
    exit 1
  fi
  printf 'all passed in %d min %d s%s\n' $((total / 60)) $((total % 60)) "${quick:+ (--quick: real Kafka was left out)}"
  exit 0
}

main "$@"
