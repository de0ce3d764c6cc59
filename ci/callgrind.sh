#!/usr/bin/env bash
# Counts the instructions of the hot paths with callgrind and prints them as a Markdown table (for PERF.md).
#
#   ci/callgrind.sh             every case of benches/instructions.rs
#   ci/callgrind.sh NAME…       these alone
#
# Each case runs with N and with 2 N rounds; the difference is free of what happens once. All of that happens twice, and
# the two results must agree to 1 %. One thread, no sockets: the sender, the broker and the callback thread are driven by
# hand (io_uring does not work under valgrind). Counts hold for one compiler and one library version; the machine's load
# does not change them. ROUNDS=N overrides N (default 20).
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
rounds=${ROUNDS:-20}
work=$(mktemp -d "${TMPDIR:-/tmp}/ringmail-callgrind.XXXXXX")
trap 'rm -rf "$work"' EXIT

if ! command -v valgrind >/dev/null; then
  echo "installing valgrind" >&2
  command -v apt-get >/dev/null || { echo "no valgrind and no apt-get here: please install valgrind" >&2; exit 2; }
  root=; [ "$(id -u)" = 0 ] || root="sudo -n"
  $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends valgrind >"$work/apt" 2>&1 ||
    { $root apt-get update -q && $root apt-get install -y -q --no-install-recommends valgrind; } >"$work/apt" 2>&1 ||
    { tail -n 5 "$work/apt" >&2; exit 2; }
fi

program=$(cargo bench --no-run --bench instructions 2>&1 | tee "$work/build" | sed -n 's/.*Executable.*(\(.*\))/\1/p')
[ -x "$program" ] || { cat "$work/build" >&2; exit 1; }

# count CASE ROUNDS: the instructions inside `measured`
count() {
  valgrind --tool=callgrind --toggle-collect='*measured*' --callgrind-out-file="$work/out" \
    "$program" "$1" "$2" </dev/null >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; return 1; }
  awk '/^totals:/ { print $2; found = 1 } END { exit !found }' "$work/out"
}

# per_unit CASE UNITS: of one unit
per_unit() {
  local once twice
  once=$(count "$1" "$rounds")
  twice=$(count "$1" $((2 * rounds)))
  awk -v once="$once" -v twice="$twice" -v units=$(($2 * rounds)) 'BEGIN { printf "%.1f", (twice - once) / units }'
}

status=0
echo '| what | instructions | per | again |'
echo '|---|---:|---|---:|'
while IFS=$'\t' read -r name unit units; do
  if [ $# -gt 0 ]; then
    wanted=
    for argument; do [ "$argument" != "$name" ] || wanted=1; done
    [ -n "$wanted" ] || continue
  fi
  first=$(per_unit "$name" "$units")
  second=$(per_unit "$name" "$units")
  echo "| $name | $first | $unit | $second |"
  awk -v a="$first" -v b="$second" 'BEGIN { d = a - b; if (d < 0) d = -d; exit !(a > 0 && d <= a / 100) }' ||
    { echo "$name: no count, or the two differ by more than 1 %" >&2; status=1; }
done < <("$program" --list)
exit $status
