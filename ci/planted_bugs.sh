#!/usr/bin/env bash
# Plants known mistakes, one at a time, in a copy of the tree, and checks that fuzzing finds each.
#   ci/planted_bugs.sh             every mistake: some minutes, most of them compiling
#   ci/planted_bugs.sh NAME…       these
# Prints how many inputs each needed. PLANTED_SECONDS bounds the search for one (default 120). Fails when a mistake is
# not found, when its pattern no longer applies, or when the clean tree does not pass.
set -euo pipefail

# NAME TARGET FILE SED-EXPRESSION
mistakes=$(cat <<'END'
varint_boundary      batch_encoder src/wire/varint.rs /pub fn put_unsigned/,/^}/s/value < 1 << 14/value <= 1 << 14/
short_limit          batch_encoder src/wire/varint.rs s/SHORT: u64 = 1 << 14/SHORT: u64 = 1 << 15/
header_count_length  batch_encoder src/wire/record.rs s/unsigned_len(zigzag_len(fields.headers.len()))/unsigned_len(fields.headers.len() as u64)/
max_timestamp        batch_encoder src/accumulator/drain.rs s/chain.max_timestamp = chain.max_timestamp.max(header.max_timestamp())/chain.max_timestamp = header.max_timestamp()/
renumbered_largest   batch_encoder src/accumulator/renumber.rs s/largest = largest.max(timestamp_delta)/largest = timestamp_delta/
trusted_count        responses src/wire/metadata.rs s/for _ in 0..r.array("topics")? {/let count = r.array("topics")?; response.topics.reserve(count); for _ in 0..count {/
unchecked_skip       responses src/wire/codec.rs s/self.take(count \* 4, what)?;/self.at += count * 4;/
negative_frame       responses src/wire/frame.rs s/usize::try_from(i32::from_be_bytes(\*size)).unwrap_or(usize::MAX)/i32::from_be_bytes(*size).unsigned_abs() as usize/
version_gate         responses src/wire/produce.rs s/log_start_offset: if version >= 5/log_start_offset: if version >= 4/
lost_answers         connection src/sender/ack.rs /batches.extend(answers.drain(..).map(|(batch, _)| Some(batch)));/d
not_written          connection src/sender/lanes.rs s/request.sent || !cut_off, kind/false, kind/
expiry_of_the_next   connection src/sender/drain.rs s/let opened = partition.seen.first().unwrap_or(now);/let opened = now;/
kept_segment         connection src/sender/split.rs s/split.left = (split.left + among).saturating_sub(1)/split.left += among/
silent_expiry        connection src/sender/shutdown.rs s/^            self.tell_expired(id);/            let _ = id;/
lost_abort           accumulator_script src/accumulator/private_claim.rs s/self.accumulator.put(prepared);$/let _ = prepared;/
skipped_settle       accumulator_script src/accumulator/drain.rs s/let _ = segment.settle(claim.bytes());/let _ = claim;/
no_first_notice      accumulator_script src/accumulator/ring.rs s/first || (before < leave_at/first \&\& (before < leave_at/
entry_over_record    accumulator_script src/accumulator/word.rs s/ENTRY \* (claim.count() + 1)/ENTRY * claim.count()/
trimmed_too_far      accumulator_script src/accumulator/drained.rs s/used.div_ceil(unit \* quarter)/(used \/ (unit * quarter)).max(1)/
nibble_not_full      accumulator_script src/accumulator/pool/level.rs s/let merged = merges \&\& (bits | bit) \& nibble == nibble/let merged = merges \&\& (bits | bit | 8 << ((run % 64) \& !3)) \& nibble == nibble/
endless_time         config_text src/config/values.rs s/Ok(Duration::from_millis(millis).min(LONGEST))/Ok(Duration::from_millis(millis))/
one_too_many         config_text src/config/rules.rs s/c.max_in_flight > REMEMBERED/c.max_in_flight > REMEMBERED + 1/
wrong_value          config_text src/config/mod.rs s/ConfigError::new(keys::KEYS\[row\].name, value, rule)/ConfigError::new(keys::KEYS[row].name, key, rule)/
port_zero            config_text src/config/values.rs s/Ok(port) if digits \&\& port > 0/Ok(port) if digits/
END
)

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
target_dir=${CARGO_TARGET_DIR:-$root/target}/planted
command -v cargo-fuzz >/dev/null || cargo install --debug --locked --quiet cargo-fuzz
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
mkdir "$tree"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$tree" 2>/dev/null || true

# Builds and searches; exit 0: nothing was found. The number of inputs is in $inputs, the build's failure ends it all.
search() { # search TARGET SECONDS
  local status=0 host
  host=$(rustc -vV | sed -n 's/^host: //p')
  if ! (cd "$tree" && RUSTC_BOOTSTRAP=1 cargo fuzz build -s none --target-dir "$target_dir" "$1") >"$work/build" 2>&1; then
    cat "$work/build"
    echo "it does not build"
    exit 1
  fi
  rm -rf "$work/new"
  mkdir "$work/new"
  # A million inputs at most: what takes more is not found for practical purposes.
  "$target_dir/$host/release/$1" "$work/new" "$tree/fuzz/seeds/$1" -seed=1 -max_len=400 -runs=1000000 \
    -max_total_time="$2" -timeout=10 -rss_limit_mb=256 -artifact_prefix="$work/" >"$work/log" 2>&1 </dev/null || status=$?
  inputs=$(grep -ao '^#[0-9]\+' "$work/log" | tail -n 1 | tr -d '#')
  return $status
}

missed=0 tried=0
while read -r name target file expression; do
  if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
  tried=$((tried + 1))
  sed -i "$expression" "$tree/$file"
  if cmp -s "$file" "$tree/$file"; then
    echo "$name: its pattern is not in $file any more"
    missed=$((missed + 1))
    continue
  fi
  began=$(date +%s%N)
  if search "$target" "${PLANTED_SECONDS:-120}"; then
    echo "$name: $target does not find it in ${inputs:-0} inputs"
    missed=$((missed + 1))
  else
    echo "$name: found by $target, ${inputs:-0} inputs beyond the seeds; $(grep -a -m 1 -A 1 'panicked at\|ERROR: libFuzzer' "$work/log" | tail -n 1 | cut -c 1-90)"
  fi
  cp "$file" "$tree/$file"
done <<<"$mistakes"
[ $tried -gt 0 ] || { echo "no such mistake"; exit 2; }
[ $missed = 0 ] && echo "each planted mistake is found ($tried)"
exit $missed
