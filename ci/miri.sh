#!/usr/bin/env bash
# Runs the tests of wire, accumulator and completion, and the accumulator's fuzz seeds, under Miri: it finds
# undefined behaviour (data races, dangling or aliased pointers, uninitialised bytes, leaks) on the paths they take.
#
#   ci/miri.sh             all of it; wire:: takes three minutes, and of accumulator:: the ring's and the stress tests many
#   ci/miri.sh NAME…       only tests with these words in their names: ci/test.sh asks for completion::, half a minute
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
# wire::server is the broker's half: no unsafe code there, and it takes long.
[ $# -gt 0 ] || set -- wire:: accumulator:: completion:: fuzzing::tests::every_seed --skip wire::server
# The clock and the folder of regressions are real; all else is Miri's. Cases of properties are few: see cfg(miri).
export MIRIFLAGS="${MIRIFLAGS:-} -Zmiri-disable-isolation" PROPTEST_CASES=${PROPTEST_CASES:-4}
cargo +nightly miri test --lib --target-dir "$target" -- "$@" || exit
echo "verified: $(cargo +nightly miri --version)"
