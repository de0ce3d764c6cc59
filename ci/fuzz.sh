#!/usr/bin/env bash
# Fuzzing. The targets: see fuzz/README.md.
#
#   ci/fuzz.sh smoke               each target over its seeds and some thousand inputs, the same ones every time
#   ci/fuzz.sh build               builds for that
#   ci/fuzz.sh long TARGET RUNS    so many inputs, with cargo-fuzz (installed when missing), and AddressSanitizer where a
#                                  nightly toolchain is installed; the corpus grows in fuzz/corpus/TARGET. Options of
#                                  libFuzzer may follow.
#   ci/fuzz.sh list                the targets
#
# What is found lies in fuzz/artifacts/TARGET afterwards; `cargo fuzz run TARGET FILE` runs it again.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
target_dir=${CARGO_TARGET_DIR:-$root/target}/fuzz
# Target, inputs of a smoke run, longest input of a long run.
targets='
connection          10000  400
responses          200000 1024
batch_encoder       20000  256
accumulator_script  20000  400
config_text          3000  200'

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 2; }

compiler() { command -v c++ >/dev/null || { echo "a C++ compiler is missing: libFuzzer is built from source"; exit 2; }; }

install() {
  compiler
  command -v cargo-fuzz >/dev/null && return
  # Nothing in it is slow: without optimisation it is there in half the time.
  cargo install --debug --locked --quiet cargo-fuzz
}

host() { rustc -vV | sed -n 's/^host: //p'; }

# What cargo-fuzz asks of the compiler, all of it stable without a sanitizer; but it has to be built itself, and it
# builds on one core. So few inputs are run sooner than code is optimised for them.
build_smoke() {
  compiler
  local flags='-Cpasses=sancov-module --cfg fuzzing -Cdebug-assertions' flag
  for flag in level=4 inline-8bit-counters pc-table trace-compares stack-depth; do
    flags+=" -Cllvm-args=-sanitizer-coverage-$flag"
  done
  flags+=" -Cllvm-args=-simplifycfg-branch-fold-threshold=0"
  RUSTFLAGS=$flags CARGO_PROFILE_RELEASE_OPT_LEVEL=1 cargo build --release --bins \
    --manifest-path fuzz/Cargo.toml --target "$(host)" --target-dir "$target_dir/smoke"
}

# built KIND: the folder of the built targets, for a sanitizer or the smoke run.
built() { echo "$target_dir/$1/$(host)/release"; }

smoke() {
  build_smoke
  work=$(mktemp -d)
  trap "rm -rf '$work'" EXIT
  export work
  # Two at a time.
  awk 'NF { print $1, $2 }' <<<"$targets" | xargs -P 2 -L 1 "$root/ci/fuzz.sh" smoke_one
  echo "verified: every fuzz target"
}

smoke_one() {
  local name=$1 runs=$2 began log status=0
  began=$(date +%s)
  log=$work/$name.log
  mkdir -p "$work/$name" "fuzz/artifacts/$name"
  # New inputs go into the first folder, the seeds stay as they are.
  "$(built smoke)/$name" "$work/$name" "fuzz/seeds/$name" -runs="$runs" -seed=1 -max_len=512 -timeout=20 \
    -rss_limit_mb=1024 -artifact_prefix="fuzz/artifacts/$name/" >"$log" 2>&1 </dev/null || status=$?
  if [ $status != 0 ]; then
    tail -n 60 "$log"
    echo "FAIL $name: exit $status"
    exit 1
  fi
  echo "ok   $name: $runs inputs, $(($(date +%s) - began)) s, $(grep -a 'DONE' "$log" | sed 's/.*\(cov: [0-9]*\).*/\1/')"
}

long() {
  local name=$1 runs=$2 sanitizer=none length
  shift 2
  length=$(awk -v name="$name" '$1 == name { print $3 }' <<<"$targets")
  [ -n "$length" ] || { echo "no target $name"; exit 2; }
  install
  if cargo +nightly --version >/dev/null 2>&1; then
    toolchain=+nightly sanitizer=address
  else
    echo "no nightly toolchain: without AddressSanitizer"
  fi
  # On stable the compiler must be told that unstable flags are meant.
  RUSTC_BOOTSTRAP=1 cargo ${toolchain:-} fuzz build -s "$sanitizer" --target-dir "$target_dir/$sanitizer" "$name"
  mkdir -p "fuzz/corpus/$name" "fuzz/artifacts/$name"
  exec "$(built $sanitizer)/$name" "fuzz/corpus/$name" "fuzz/seeds/$name" -runs="$runs" -max_len="$length" \
    -artifact_prefix="fuzz/artifacts/$name/" -print_final_stats=1 "$@"
}

main() {
  case ${1:-} in
    smoke) smoke ;;
    smoke_one) shift; smoke_one "$@" ;;
    build) build_smoke ;;
    long) [ $# -ge 3 ] || usage; shift; long "$@" ;;
    list) awk 'NF { print $1 }' <<<"$targets" ;;
    *) usage ;;
  esac
  exit 0
}

main "$@"
