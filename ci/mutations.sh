#!/bin/sh
# Makes each known mistake on purpose and says which loom model catches it: `ci/mutations.sh [name…]`. The models are
# built once; RINGMAIL_MUTATION chooses the mistake. Ends with the mistakes that no model caught. A name given to
# `order(…)` makes that access Relaxed; the others are `mutated(…)` in the code. LOOM_MAX_PREEMPTIONS is honoured;
# MODEL_TIMEOUT is seconds per model (default 60); a model that runs longer than that has not caught anything.
cd "$(dirname "$0")/.." || exit 1
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT
[ $# -gt 0 ] || set -- none plain_zero notify_early no_opened_notice clear_by_store next_after_clear \
    no_generation no_generation_check help_unchecked end_by_store no_lap full_unchecked chain_fills_ring \
    close_without_slot doorbell_load no_ended_notice walk_past_start no_install_wake no_release_wake wait_load \
    wait_store seal claim_load base_load base_store commit settle complete_load take open_store put merge split \
    tail_load tail_advance slot_load install link free_slot queued_set queued_clear ready_push ready_take ring park \
    wait_set wait_take
built=$(RUSTFLAGS="--cfg loom" cargo test --release --lib --no-run 2>&1 | tee "$out/build" |
    sed -n 's/.*Executable.*(\(.*\))/\1/p')
[ -x "$built" ] || { cat "$out/build"; exit 1; }
missed=
for name; do
    caught=
    for model in $("$built" --list | sed -n 's/^\(accumulator::models::.*\): test/\1/p'); do
        start=$(date +%s%N)
        RUST_BACKTRACE=0 RINGMAIL_MUTATION=$name timeout "${MODEL_TIMEOUT:-60}" \
            "$built" --exact "$model" >"$out/$model" 2>&1
        code=$?
        took=$((($(date +%s%N) - start) / 1000000))
        case $code in
            0) [ "$name" != none ] || echo "none: ${model##*:} passes, $took ms" ;;
            124) echo "$name: ${model##*:} took longer" ;;
            *) caught=1; echo "$name: caught by ${model##*:}, $took ms" ;;
        esac
    done
    [ -n "$caught" ] || [ "$name" = none ] || missed="$missed $name"
done
echo "not caught:${missed:- none}"
