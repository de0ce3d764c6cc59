#!/usr/bin/env bash
# Runs the tests of wire, accumulator and completion, and the accumulator's fuzz seeds, under Miri: it finds
# undefined behaviour (data races, dangling or aliased pointers, uninitialised bytes, leaks) on the paths they take.
#
#   ci/miri.sh             all of it, some five minutes on two cores
#   ci/miri.sh NAME…       only tests with these words in their names
#
# Miri comes with the nightly toolchain. Where it is missing and cannot be added, this says "Miri was skipped" and why,
# and ends well: MIRI_REQUIRED=1 makes that an error.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
target=${CARGO_TARGET_DIR:-$PWD/target}/miri

skip() {
  echo "Miri was skipped: $1"
  [ -z "${MIRI_REQUIRED:-}" ]
  exit
}

command -v rustup >/dev/null || skip "there is no rustup here, which brings the nightly toolchain"
cargo +nightly --version >/dev/null 2>&1 || skip "no nightly toolchain (rustup toolchain install nightly)"
if ! cargo +nightly miri --version >/dev/null 2>&1; then
  rustup +nightly component add miri rust-src >/dev/null 2>&1 ||
    skip "the nightly toolchain has no miri (rustup +nightly component add miri rust-src failed)"
fi
# The clock and the folder of regressions are real; all else is Miri's. Cases of properties are few: see cfg(miri).
export MIRIFLAGS="${MIRIFLAGS:-} -Zmiri-disable-isolation" PROPTEST_CASES=${PROPTEST_CASES:-4}
miri() { cargo +nightly miri test --lib --target-dir "$target" "$@"; }
miri --no-run || exit
if [ $# -gt 0 ]; then
  miri -- "$@" || exit
else
  # Miri uses one core. wire::server is the broker's half: no unsafe code there, nor in renumber, and both take long.
  miri -- accumulator::tests &
  rings=$!
  miri -- wire:: accumulator:: completion:: fuzzing::tests::every_seed --skip wire::server \
    --skip accumulator::tests --skip accumulator::renumber
  rest=$?
  wait "$rings" && [ $rest = 0 ] || exit 1
fi
echo "verified: $(cargo +nightly miri --version)"
