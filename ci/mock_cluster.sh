#!/usr/bin/env bash
# ringmail against librdkafka's mock cluster (tests/mock_cluster), which is built from C source: about two minutes the
# first time. Without a C toolchain it says so and does nothing.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
for tool in cc make; do
  command -v $tool >/dev/null || { echo "mock cluster: left out, there is no $tool here"; exit 0; }
done
target=${CARGO_TARGET_DIR:-$PWD/target}
cargo fmt --manifest-path tests/mock_cluster/Cargo.toml --check
export CARGO_TARGET_DIR=$target/mock_cluster
cargo clippy --manifest-path tests/mock_cluster/Cargo.toml --all-targets -- -D warnings
cargo test --manifest-path tests/mock_cluster/Cargo.toml "$@"
