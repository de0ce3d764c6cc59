#!/bin/sh
# Makes known mistakes on purpose, one at a time, and checks that a loom model catches each.
#   ci/mutations.sh                    each mistake against the model that is known to catch it: about a minute
#   ci/mutations.sh --all [name…]      each mistake (or those named) against every model; says what is caught by what
# The models are built once; RINGMAIL_MUTATION chooses the mistake. A name given to `order(…)` in the code makes that
# access Relaxed; the others are `mutated(…)`. LOOM_MAX_PREEMPTIONS overrides the models' bounds; MODEL_TIMEOUT is in
# seconds per model (default 60): a model that takes longer has caught nothing.
#
# Caught by no model: next_after_clear (a partition queued again during the walk: needs a third record),
# full_unchecked (needs a lap of history), base_load, base_store, ring, park (loom runs RMWs in one order and cannot
# show a CAS that comes too early), census_begin (loom lets no store overtake an RMW before it). Those are right by
# argument only.
known='
plain_zero          between_seal_and_settle
notify_early        doorbell_full_segments
no_opened_notice    doorbell_one_partition
clear_by_store      last_commit_notifies
drop_keeps_run      given_up::claims_dropped_and_leaked
commit_keeps_run    given_up::close_against_commit
link_by_store       given_up::close_against_commit
flush_short         given_up::flush_against_append
share_read_twice    given_up::leader_changes_under_a_writer
no_drop_wake        memory::room_from_a_dropped_claim
no_slot_wake        memory::a_slot_from_the_sender
no_ask_wake         memory::an_ask_lets_go_of_the_others
ask_keeps_window    memory::an_ask_lets_go_of_the_others
no_generation       recycled_segment
no_generation_check recycled_segment
help_unchecked      doorbell_full_segments
end_by_store        continue_or_end
no_lap              rotate_and_help
chain_fills_ring    private_claim
close_without_slot  close_against_append
doorbell_load       doorbell_one_partition
no_ended_notice     an_ended_chain_is_told
walk_past_start     a_writer_ends_the_chain
no_install_wake     memory::room_from_another_writer
refused_by_store    memory::room_from_another_writer
refused_set         memory::room_from_another_writer
refused_take        memory::room_from_another_writer
no_split_wake       memory::room_from_a_split
no_second_take      memory::room_from_a_split
missed_set          memory::room_from_a_split
missed_take         memory::room_from_a_split
no_release_wake     memory::room_from_the_sender
wait_load           memory::nobody_sleeps_through_a_change
wait_store          memory::nobody_sleeps_through_a_change
wait_set            memory::nobody_sleeps_through_a_change
wait_take           memory::nobody_sleeps_through_a_change
leave_at_early      leave_at_against_append
leave_at_late       leave_at_against_append
seal                commit_meets_seal
claim_load          recycled_segment
commit              between_seal_and_settle
settle              patient_sender
complete_load       continue_or_end
take                continue_or_end
open_store          recycled_segment
put                 continue_or_end
merge               memory::siblings_merge
split               memory::split_hands_over
tail_load           rotate_and_help
tail_advance        rotate_and_help
slot_load           rotate_and_help
install             rotate_and_help
link                private_claim
free_slot           commit_meets_seal
queued_set          last_commit_notifies
queued_clear        last_commit_notifies
ready_push          doorbell_two_partitions
ready_take          doorbell_two_partitions
completion_done            completion::wait_against_complete
completion_look            completion::wait_against_complete
completion_release         completion::drop_against_complete
completion_zero_by_load    completion::drop_against_complete
completion_done_by_load    completion::wait_against_complete
completion_flag_by_load    completion::wait_against_complete
completion_flag_first      completion::two_waits_against_complete
completion_register_blind  completion::wait_against_resolve
completion_pop             completion::take_against_put
completion_push            completion::take_against_put
completion_no_count        completion::take_against_take_and_put
completion_grow_blind      completion::take_against_take_that_grows
census_unchecked    census_against_drain
census_end          census_against_drain
census_read         census_against_drain'
others='next_after_clear full_unchecked base_load base_store ring park census_begin'

cd "$(dirname "$0")/.." || exit 1
target=${CARGO_TARGET_DIR:-target}/loom
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
built=$(RUSTFLAGS="--cfg loom" cargo test --release --lib --target-dir "$target" --no-run 2>&1 | tee "$out/build" |
    sed -n 's/.*Executable.*(\(.*\))/\1/p')
[ -x "$built" ] || { cat "$out/build"; exit 1; }

# The exit status of a model under a mistake; 124: it took too long. A model's name is relative to accumulator::models,
# or begins with its room.
try() {
    case $2 in
        completion::*) path=completion::models::${2#completion::} ;;
        *) path=accumulator::models::$2 ;;
    esac
    RUST_BACKTRACE=0 RINGMAIL_MUTATION=$1 timeout "${MODEL_TIMEOUT:-60}" "$built" --exact "$path" >"$out/log" 2>&1
    code=$?
    # A model that does not exist passes too.
    grep -q '^running 1 test' "$out/log" || { echo "no model $2"; exit 1; }
    return $code
}

if [ "$1" = --all ]; then
    shift
    [ $# -gt 0 ] || set -- $(echo "$known" | sed 's/ .*//') $others
    for name; do
        caught=
        for model in $("$built" --list | sed -n 's/^accumulator::models::\(.*\): test/\1/p
            s/^\(completion::\)models::\(.*\): test/\1\2/p'); do
            start=$(date +%s%N)
            try "$name" "$model"
            code=$?
            took=$((($(date +%s%N) - start) / 1000000))
            case $code in
                0) ;;
                124) echo "$name: $model took longer" ;;
                *) caught=1; echo "$name: caught by $model, $took ms" ;;
            esac
        done
        [ -n "$caught" ] || echo "$name: not caught"
    done
    exit 0
fi

missed=0
while read -r name model; do
    [ -n "$name" ] || continue
    try "$name" "$model"
    case $? in
        0) echo "$name: $model does not catch it"; missed=$((missed + 1)) ;;
        124) echo "$name: $model took longer"; missed=$((missed + 1)) ;;
    esac
done <<LIST
$known
LIST
[ $missed -eq 0 ] && echo "each known mistake is caught"
exit $missed
