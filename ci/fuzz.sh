#!/usr/bin/env bash
# Fuzzing, with cargo-fuzz (installed when missing). The targets: see fuzz/README.md.
#
#   ci/fuzz.sh smoke               each target over its seeds and some thousand inputs, the same ones every time
#   ci/fuzz.sh long TARGET RUNS    so many inputs, with AddressSanitizer where a nightly toolchain is installed; the
#                                  corpus grows in fuzz/corpus/TARGET. Options of libFuzzer may follow.
#   ci/fuzz.sh list                the targets
#
# What is found lies in fuzz/artifacts/TARGET afterwards; `cargo fuzz run TARGET FILE` runs it again.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
target_dir=${CARGO_TARGET_DIR:-$root/target}/fuzz
# Target, inputs of a smoke run, longest input of a long run.
targets='
responses          200000 1024
batch_encoder       20000  256
accumulator_script  20000  400
connection          10000  400
config_text          3000  200'

usage() { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit 2; }

install() {
  command -v cargo-fuzz >/dev/null && return
  command -v c++ >/dev/null || { echo "a C++ compiler is missing: libFuzzer is built from source"; exit 2; }
  # Nothing in it is slow: without optimisation it is there in half the time.
  cargo install --debug --locked --quiet cargo-fuzz
}

# build SANITIZER TARGET…: on stable the compiler must be told that unstable flags are meant.
build() {
  local sanitizer=$1 name
  shift
  if [ $# -eq 0 ]; then set -- ''; fi
  for name; do
    RUSTC_BOOTSTRAP=1 cargo ${toolchain:-} fuzz build -s "$sanitizer" --target-dir "$target_dir/$sanitizer" $name
  done
}

# The folder of the built targets, for SANITIZER.
built() { echo "$target_dir/$1/$(rustc -vV | sed -n 's/^host: //p')/release"; }

smoke() {
  local name runs began work log status
  install
  build none
  work=$(mktemp -d)
  trap "rm -rf '$work'" EXIT
  while read -r name runs _; do
    [ -n "$name" ] || continue
    began=$(date +%s)
    log=$work/$name.log
    mkdir -p "$work/$name" "fuzz/artifacts/$name"
    status=0
    # New inputs go into the first folder, the seeds stay as they are.
    "$(built none)/$name" "$work/$name" "fuzz/seeds/$name" -runs="$runs" -seed=1 -max_len=512 -timeout=20 \
      -rss_limit_mb=1024 -artifact_prefix="fuzz/artifacts/$name/" >"$log" 2>&1 </dev/null || status=$?
    if [ $status != 0 ]; then
      tail -n 60 "$log"
      echo "FAIL $name: exit $status"
      exit 1
    fi
    echo "ok   $name: $runs inputs, $(($(date +%s) - began)) s, $(grep -a 'DONE' "$log" | sed 's/.*\(cov: [0-9]*\).*/\1/')"
  done <<<"$targets"
  echo "verified: every fuzz target"
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
  build $sanitizer "$name"
  mkdir -p "fuzz/corpus/$name" "fuzz/artifacts/$name"
  exec "$(built $sanitizer)/$name" "fuzz/corpus/$name" "fuzz/seeds/$name" -runs="$runs" -max_len="$length" \
    -artifact_prefix="fuzz/artifacts/$name/" -print_final_stats=1 "$@"
}

main() {
  case ${1:-} in
    smoke) smoke ;;
    long) [ $# -ge 3 ] || usage; shift; long "$@" ;;
    list) awk 'NF { print $1 }' <<<"$targets" ;;
    *) usage ;;
  esac
  exit 0
}

main "$@"
