#!/usr/bin/env bash
# Plants known mistakes in a copy of the tree, all at once but asleep, builds it once, and wakes them one at a time: the
# simulation must find each.
#   ci/simulation_mutations.sh             every mistake: some minutes
#   ci/simulation_mutations.sh NAME…       these
# Prints how many seeds each needed. SEEDS bounds the search for one (default 20000). Fails when a mistake is not found,
# when its pattern no longer applies, or when the clean tree does not pass.
set -euo pipefail

# NAME FILE SED-EXPRESSION; @ stands for the question whether the mistake is awake.
mistakes=$(cat <<'END'
sequence_reuse       src/sender/idempotence.rs s/^        self.spoiled = true;/        self.spoiled = !@; if @ { self.next = 0; }/
recycled_early       src/sender/shutdown.rs s/^\( *\)sender.tell(batch, &Outcome::Failed(error));/&\n if @ { for part in \&batch.parts { sender.shared.accumulator.release(part.run.segment); } }/
break_for_continue   src/sender/drain.rs /peek.complete) != Verdict::Now/,/continue;/s/continue;/if @ { break } else { continue }/
early_pipelining     src/sender/in_flight.rs s/(idempotent && !self.sequences.acked())/(idempotent \&\& !self.sequences.acked() \&\& !@)/
no_wrap              src/sender/idempotence.rs /pub const fn plus/,/^    }/{s/pub const fn plus/pub fn plus/;s/& i32::MAX as u32/\& if @ { u32::MAX } else { i32::MAX as u32 }/}
dropped_expiry       src/sender/drain.rs s/if let Some(at) = self.expiry_due(id) {/if let Some(at) = self.expiry_due(id).filter(|_| !@) {/
lost_doorbell        src/accumulator/ring.rs s/if self.ready.push(&partition.link, partition.id) {/if self.ready.push(\&partition.link, partition.id) \&\& !@ {/
lane_change          src/sender/drain.rs s/if partition.unacked > 0 && partition.lane != lane {/if partition.unacked > 0 \&\& partition.lane != lane \&\& !@ {/
duplicate_fails      src/sender/ack.rs s/DUPLICATE_SEQUENCE_NUMBER if idempotent =>/DUPLICATE_SEQUENCE_NUMBER if idempotent \&\& !@ =>/
no_search            src/sender/retry.rs s/rposition(Batch::is_unclear)/&.filter(|_| !@)/
stale_metadata       src/metadata/mod.rs s/leader.epoch >= known.epoch ||/leader.epoch >= known.epoch || @ ||/
late_answer_ignored  src/sender/ack.rs s/^        let first_attempt = batch.attempts == 1;/        if @ \&\& batch.told { return; }\n&/
window_of_six        src/sender/in_flight.rs s/{ 1 } else { max_in_flight }/{ 1 } else { max_in_flight + u32::from(@) }/
epoch_too_early      src/sender/drain.rs s/\.unacked == 0 && self.partitions\[id as usize\].sequences.spoiled()/.unacked <= if @ { 5 } else { 0 } \&\& self.partitions[id as usize].sequences.spoiled()/
retries_behind       src/sender/in_flight.rs s/queued.number >= batch.number)/queued.number >= batch.number \&\& !@)/
not_written          src/sender/lanes.rs s/request.sent || !cut_off, kind/(request.sent || !cut_off) \&\& !@, kind/
stamped_again        src/sender/retry.rs s/let ends = |queued: &Batch| queued.doubtful ||/let ends = |queued: \&Batch| queued.doubtful \&\& !@ ||/
flush_in_flight      src/sender/in_flight.rs s/self.unacked_positions.iter().all(|position| /&@ || /
kept_segment         src/sender/split.rs s/split.left = (split.left + among).saturating_sub(1)/split.left = (split.left + among).saturating_sub(u32::from(!@))/
limit_not_written    src/sender/deadline.rs s/told.possibly_written |= in_flight;/told.possibly_written |= in_flight \&\& !@;/
limit_forgotten      src/sender/deadline.rs s/if timeout < self.config.delivery_timeout {/if timeout < self.config.delivery_timeout \&\& !@ {/
limit_told_twice     src/sender/in_flight.rs s/self.parts.iter().filter(|part| !part.told)/self.parts.iter().filter(|part| !part.told || @)/
limit_sent_all_same  src/sender/drain.rs s/batch.stamp.is_none() && batch.has_told() =>/batch.stamp.is_none() \&\& batch.has_told() \&\& !@ =>/
batch_never_ends     src/sender/drain.rs s/if now >= partition.begun + most {/if now >= partition.begun + most \&\& !@ {/
metadata_untimed     src/sender/control.rs s/flatten().filter(|due| \*due > now)/flatten().filter(|due| *due > now \&\& !@)/
log_created_again    src/sender/learn.rs s/self.partitions\[\*id as usize\].lose_log();/if !@ { & }/
looked_at_late       src/sender/drain.rs s/if self.waits_for_a_look() {/if self.waits_for_a_look() \&\& !@ {/
cut_as_if_unwritten  src/sender/size_limit.rs s/^        self.divide(batch, room);/        let batch = Batch { possibly_written: batch.possibly_written \&\& !@, doubtful: batch.doubtful \&\& !@, ..batch };\n&/
END
)
# A commit without its ordering shows on no machine that runs one thread: a model finds it, by loom.
model='relaxed_commit      commit accumulator::models::between_seal_and_settle'

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
# Its own: cargo would take a mutated tree's build for that of the tree.
target=${CARGO_TARGET_DIR:-$root/target}/mutations
seeds=${SEEDS:-20000}
unset FROM
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
mkdir "$tree"
git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$tree" 2>/dev/null || true

missed=0 tried=0
while read -r name file expression; do
  cp "$tree/$file" "$work/before"
  sed -i "${expression//@/crate::planted(\"$name\")}" "$tree/$file"
  if cmp -s "$work/before" "$tree/$file"; then
    echo "$name: its pattern is not in $file any more"
    missed=$((missed + 1))
  fi
done <<<"$mistakes"
cat >>"$tree/src/lib.rs" <<'END'

pub(crate) fn planted(name: &str) -> bool {
    static AWAKE: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    AWAKE.get_or_init(|| std::env::var("PLANTED").ok()).as_deref() == Some(name)
}
END
if ! (cd "$tree" && cargo test --release --test simulation --no-run --target-dir "$target") >"$work/build" 2>&1; then
  cat "$work/build"
  exit 1
fi
built=$(sed -n 's/.*Executable.*(\(.*\))/\1/p' "$work/build")
case $built in /*) ;; *) built=$tree/$built ;; esac

# search PLANTED SEEDS; exit 0: nothing was found
search() {
  RUST_BACKTRACE=0 PLANTED=$1 SEEDS=$2 timeout "${PLANTED_SECONDS:-300}" "$built" --nocapture what_is_told >"$work/log" 2>&1 </dev/null
}
if ! search none 300; then
  grep -a -m 1 -A 2 'panicked at' "$work/log" || tail "$work/log"
  echo "the clean tree does not pass"
  exit 1
fi
while read -r name _; do
  if [ $# -gt 0 ] && [[ " $* " != *" $name "* ]]; then continue; fi
  tried=$((tried + 1))
  if search "$name" "$seeds"; then
    echo "$name: not found in $seeds seeds"
    missed=$((missed + 1))
    continue
  fi
  seed=$(sed -n 's/^SEEDS=1 FROM=\([0-9]*\) .*/\1/p' "$work/log" | head -n 1)
  if [ -z "$seed" ]; then
    echo "$name: it ended without naming a seed: $(tail -n 1 "$work/log")"
    missed=$((missed + 1))
    continue
  fi
  said=$(grep -a -m 1 -A 1 'panicked at' "$work/log" | tail -n 1 | cut -c 1-100)
  echo "$name: found by $((seed + 1)) seeds; $said"
done <<<"$mistakes"

read -r name mutation path <<<"$model"
if [ $# -eq 0 ] || [[ " $* " == *" $name "* ]]; then
  tried=$((tried + 1))
  RUSTFLAGS="--cfg loom" cargo test --release --lib --target-dir "$target/loom" --no-run >"$work/build" 2>&1 || { cat "$work/build"; exit 1; }
  loom=$(sed -n 's/.*Executable.*(\(.*\))/\1/p' "$work/build")
  if RINGMAIL_MUTATION=$mutation timeout 120 "$loom" --exact "$path" >"$work/log" 2>&1; then
    echo "$name: the model does not find it"
    missed=$((missed + 1))
  else
    grep -q '^running 1 test' "$work/log" || { echo "no model $path"; exit 1; }
    echo "$name: no seed can; found by the loom model $path"
  fi
fi
[ $tried -gt 0 ] || { echo "no such mistake"; exit 2; }
[ $missed = 0 ] && echo "each mistake is found ($tried)"
exit $missed
