#!/usr/bin/env bash
# Everything that needs a real Kafka: the command `ringmail` as a new user meets it, a million lines read back by a client
# that is not ours, what Kafka's own DumpLogSegments says of our batches, `ringmail verifiable-producer` beside Kafka's
# own, tests/model_script (is the embedded broker as strict?), and tests/real_kafka (kills, restarts).
#
#   ci/real_kafka.sh [--kafka VERSION] [SCENARIO…]     all scenarios, or those named (see the list at the end)
#
# VERSION is one of Kafka's (default: the newest, see ci/kafka/pom.xml). With another one than that `script` prints what
# it decides otherwise.
#
# LINES=N: lines of the round trip (default 1000000). KEEP=1: leave the work folder behind.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
kafka=$root/ci/kafka.sh
if [ "${1:-}" = --kafka ]; then export RINGMAIL_KAFKA=${2:?which version of Kafka?}; shift 2; fi
work=$(mktemp -d "${TMPDIR:-/tmp}/ringmail-kafka.XXXXXX")
target=${CARGO_TARGET_DIR:-$root/target}
ringmail=$target/release/ringmail
failed=0
helpers=()

finish() {
  local status=$?
  trap - EXIT
  for pid in ${helpers[@]+"${helpers[@]}"}; do kill "$pid" 2>/dev/null || true; done
  for cluster in "$work"/*/bootstrap; do [ -e "$cluster" ] && "$kafka" stop "$(dirname "$cluster")"; done
  if [ "$status" = 0 ] && [ "$failed" = 0 ] && [ -z "${KEEP:-}" ]; then rm -rf "$work"; else echo "the work folder is left for a look: $work"; fi
  [ "$status" != 0 ] || status=$failed
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT TERM

ok() { printf '  ok    %s\n' "$*"; }
bad() { printf '  FAIL  %s\n' "$*"; failed=1; }

# expect NAME CODE PATTERN COMMAND…: the exit code, and a pattern in what is printed ('' = anything)
expect() {
  local name=$1 code=$2 pattern=$3 got=0
  shift 3
  timeout -k 5 120 "$@" >"$work/out" 2>&1 </dev/null || got=$?
  if [ "$got" != "$code" ]; then
    bad "$name: exit code $got instead of $code"
  elif ! grep -q -i -E -- "$pattern" "$work/out"; then
    bad "$name: nothing says '$pattern'"
  else
    ok "$name: exit $code, $(grep -m 1 -i -E -- "$pattern" "$work/out" | cut -c1-150)"
    return 0
  fi
  head -n 5 "$work/out" | sed 's/^/        /'
}

# check COMMAND…: a checker that prints a line and exits with 0
check() {
  if "$@" >"$work/out" 2>&1; then while read -r line; do ok "$line"; done <"$work/out"; else bad "$*"; sed 's/^/        /' "$work/out"; fi
}

topic() { # topic NAME OPTION…
  local name=$1
  shift
  reader "$name" create "$@" >"$work/out" 2>&1 || { cat "$work/out"; bad "cannot make topic $name"; }
}
reader() { "$python" "$root/ci/foreign_reader.py" "$B" "$@"; }
produce() { timeout -k 5 300 "$ringmail" produce -b "$B" -q "$@"; }

dump() { # dump TOPIC…
  local name logs=()
  for name; do logs+=("$one/node1/$name"-[0-9]*/*.log); done
  "$kafka" tool DumpLogSegments --files "$(IFS=, && echo "${logs[*]}")" >"$work/dump" 2>&1 || true
  check python3 "$root/ci/kafka/check_dump.py" "${#logs[@]}" <"$work/dump"
}

# What ringmail and this broker agree on.
negotiated() {
  echo hello >"$work/hello"
  "$ringmail" produce -vv -b "$B" -t many "$work/hello" 2>&1 >/dev/null | sed -n 's/.*agreed on versions.*\(produce=.*\)/\1/p' | sort -u >"$work/versions" || true
  [ "$(wc -l <"$work/versions")" = 1 ] || bad "not one set of versions: $(paste -sd';' "$work/versions")"
  echo "Kafka $("$kafka" version): $(cat "$work/versions")"
}

# ---- scenarios -------------------------------------------------------------------------------------------------------

mistakes() {
  local dead http
  dead=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  python3 -u -m http.server --bind 127.0.0.1 0 >"$work/http" 2>&1 &
  helpers+=($!)
  until http=$(grep -o -m 1 'port [0-9]*' "$work/http" | cut -d' ' -f2) && [ -n "$http" ]; do sleep 0.05; done
  echo hello >"$work/hello"
  local p=("$ringmail" produce)
  expect "broker unreachable" 3 "connection refused" "${p[@]}" -b "127.0.0.1:$dead" -t t -X max.block.ms=2000 "$work/hello"
  expect "host unknown" 3 "lookup" "${p[@]}" -b no-such-host.invalid:9092 -t t -X max.block.ms=2000 "$work/hello"
  expect "wrong port: a web server" 3 "is this a Kafka broker" "${p[@]}" -b "127.0.0.1:$http" -t t -X max.block.ms=2000 "$work/hello"
  local controller zookeeper
  controller=$(sed -n 's/.*voters=1@//p' "$one/node1.properties")
  zookeeper=$(sed -n 's/zookeeper.connect=//p' "$one/node1.properties")
  [ -z "$controller" ] || expect "wrong port: the controller" 3 "controller answers" "${p[@]}" -b "$controller" -t t -X max.block.ms=2000 "$work/hello"
  [ -z "$zookeeper" ] || expect "wrong port: ZooKeeper" 3 "is this a Kafka broker" "${p[@]}" -b "$zookeeper" -t t -X max.block.ms=2000 "$work/hello"
  expect "unknown topic" 3 "'absent' does not exist" "${p[@]}" -b "$B" -t absent "$work/hello"
  expect "topic name that cannot be" 3 "a b" "${p[@]}" -b "$B" -t "a b" "$work/hello"
  expect "partition that is not there" 3 "no partition 99" "${p[@]}" -b "$B" -t many -p 99 "$work/hello"
  expect "wrong value" 2 "acks.*7" "${p[@]}" -b "$B" -t many -X acks=7 "$work/hello"
  expect "misspelt key" 2 "linger.ms" "${p[@]}" -b "$B" -t many -X linger.msec=5 "$work/hello"
  expect "key of a later version" 2 "not.*yet" "${p[@]}" -b "$B" -t many -X compression.type=gzip "$work/hello"
  expect "contradiction" 2 "enable.idempotence" "${p[@]}" -b "$B" -t many -X acks=1 -X enable.idempotence=true "$work/hello"
  expect "no broker given" 2 "-b" "${p[@]}" -t many "$work/hello"
  expect "no such file" 4 "/no/such/file" "${p[@]}" -b "$B" -t many /no/such/file
  { echo small; head -c 2000000 /dev/zero | tr '\0' x; echo; echo last; } >"$work/large"
  topic large --partitions 1
  expect "record over max.request.size" 1 "line 2" "${p[@]}" -b "$B" -t large "$work/large"
  { echo small; echo last; } >"$work/small"
  check reader large lines "$work/small"
  expect "key over max.request.size" 1 "max.request.size" "${p[@]}" -b "$B" -t large -X max.request.size=5000 -X batch.size=5000 -k "$(head -c 6000 /dev/zero | tr '\0' k)" "$work/hello"
}

typing() {
  topic typed --partitions 1
  mkfifo "$work/keys"
  "$ringmail" produce -b "$B" -q -t typed --header h=1 --header n <"$work/keys" >"$work/typed" 2>&1 &
  local pid=$! status=0
  exec 7>"$work/keys"
  echo "typed first" >&7
  for ((i = 0; i < 50; i++)); do
    reader typed dump >"$work/out" 2>&1 && grep -q "typed first" "$work/out" && break
    sleep 0.1
  done
  if grep -q '"value": "typed first", "headers": \[\["h", "1"\], \["n", null\]\]' "$work/out"; then
    ok "a typed line is in the log while the input is still open, with its headers"
  else
    bad "a typed line does not go out at once"; sed 's/^/        /' "$work/typed" "$work/out"
  fi
  printf 'typed second\nno newline' >&7
  sleep 0.5
  kill -INT "$pid"
  wait "$pid" || status=$?
  exec 7>&-
  [ "$status" = 130 ] && ok "Ctrl-C: exit 130" || bad "Ctrl-C: exit $status instead of 130"
  reader typed dump | grep -q "typed second" && ok "what was typed before Ctrl-C is in the log" || bad "Ctrl-C lost a line"
  topic nulls --partitions 1
  printf 'k:\n:v\n:\nnone\n' >"$work/nulls"
  produce -t nulls -K: -Z "$work/nulls"
  produce -t nulls -K: "$work/nulls"
  reader nulls dump | sed 's/.*"key": \(.*\), "value": \(.*\), "headers.*/\1 \2/' | paste -sd, >"$work/out"
  local wanted='"k" null,null "v",null null,null "none","k" "","" "v","" "",null "none"'
  [ "$(cat "$work/out")" = "$wanted" ] && ok "null and empty keys and values: as given" || bad "null and empty: $(cat "$work/out")"
}

million() {
  local lines=${LINES:-1000000}
  python3 "$root/ci/kafka/make_lines.py" "$lines" "$work/lines"
  topic keyed --partitions 6
  topic spread --partitions 6
  topic java --partitions 6
  timed "$lines lines, keyed and unkeyed mixed, from a file" produce -t keyed -K: "$work/lines"
  check reader keyed lines "$work/lines" -K:
  timed "$lines lines without keys, through a pipe, epoll" produce -t spread -X driver=epoll < <(cat "$work/lines")
  check reader spread lines "$work/lines"
  # Java's own producer decides where keys belong.
  grep -a -m 20000 '^schl.*:' "$work/lines" | tr -d '\r' >"$work/java"
  "$kafka" tool ConsoleProducer --bootstrap-server "$B" --topic java --reader-property parse.key=true --reader-property key.separator=: <"$work/java" >"$work/out" 2>&1 || bad "Java's producer: $(cat "$work/out")"
  check reader keyed like java
  dump keyed spread
}

timed() {
  local name=$1 start status=0
  shift
  start=$(date +%s%N)
  "$@" >"$work/out" 2>&1 || status=$?
  local ms=$((($(date +%s%N) - start) / 1000000))
  if [ "$status" = 0 ]; then ok "$name: $ms ms"; else bad "$name: exit $status"; tail -n 5 "$work/out" | sed 's/^/        /'; fi
}

acks() {
  head -n 100000 "$work/lines" >"$work/some" 2>/dev/null || python3 "$root/ci/kafka/make_lines.py" 100000 "$work/some"
  local a driver more
  for a in 0 1 all; do
    for driver in io_uring epoll; do
      topic "acks-$a-$driver" --partitions 6
      # A new topic's broker may refuse its first batch, of which nobody hears with acks=0: not once its leaders answer.
      [ $a != 0 ] || check reader "acks-$a-$driver" dump
      # Without idempotence only this keeps the order then.
      [ $a != 1 ] && more=() || more=(-X max.in.flight.requests.per.connection=1)
      timed "acks=$a, $driver" produce -t "acks-$a-$driver" -K: -X acks=$a -X driver=$driver "${more[@]}" "$work/some"
      [ $a != 0 ] || sleep 1
      check reader "acks-$a-$driver" lines "$work/some" -K:
    done
  done
}

small_batches() {
  topic small --partitions 6 --config max.message.bytes=20000
  awk 'BEGIN { for (i = 0; i < 300000; i++) printf "k%d:%d %s\n", i % 1000, i, substr("....................................................................................................", 1, i % 100) }' >"$work/split"
  timed "max.message.bytes=20000 at full speed" produce -t small -K: -X linger.ms=50 -X batch.size=200000 "$work/split"
  check reader small lines "$work/split" -K:
  dump small
  { awk 'BEGIN { for (i = 0; i < 1000; i++) print i }'; head -c 30000 /dev/zero | tr '\0' x; echo; awk 'BEGIN { for (i = 0; i < 1000; i++) print i }'; } >"$work/poison"
  topic poison --partitions 1 --config max.message.bytes=20000
  expect "one record larger than its topic takes" 1 "max.message.bytes" "$ringmail" produce -b "$B" -t poison "$work/poison"
  grep -q "line 1001$" "$work/out" && ok "and only that line is named" || bad "other lines are named: $(cat "$work/out")"
  grep -v xxxxx "$work/poison" >"$work/healthy"
  check reader poison lines "$work/healthy"
}

drivers() {
  local demo=("$ringmail" demo -n 200000)
  expect "demo over io_uring" 0 "driver io_uring" "${demo[@]}" --driver io_uring
  expect "demo over epoll" 0 "driver epoll" "${demo[@]}" --driver epoll
  expect "io_uring forbidden by seccomp, auto" 0 "driver epoll" python3 "$root/ci/kafka/forbid_io_uring.py" "${demo[@]}" -v
  local said
  said=$(grep -c -i "io_uring" "$work/out" || true)
  [ "$said" = 1 ] && ok "the fallback is said once" || { bad "the fallback is said $said times"; sed 's/^/        /' "$work/out"; }
  expect "io_uring forbidden, and asked for" 0 "driver epoll" python3 "$root/ci/kafka/forbid_io_uring.py" "${demo[@]}" --driver io_uring
}

verifiable() {
  local tool config=$work/impatient.properties
  echo max.block.ms=700 >"$config"
  topic shape-ours --partitions 1
  topic shape-theirs --partitions 1
  for tool in ours theirs; do
    local run=("$kafka" tool VerifiableProducer --bootstrap-server "$B" --max-messages 5)
    [ $tool = theirs ] || run=("$ringmail" verifiable-producer --bootstrap-server "$B" --max-messages 5)
    {
      "${run[@]}" --topic shape-$tool --value-prefix 3 --repeating-keys 2
      "${run[@]}" --topic shape-$tool --acks 1 --throughput 1000
      "${run[@]}" --topic shape-$tool --acks 0
      "${run[@]}" --topic absent --command-config "$config"
    } >"$work/$tool" 2>"$work/out" || { bad "$tool: exit $?"; cat "$work/out"; }
  done
  check "$root/ci/kafka/verifiable.py" same "$work/ours" "$work/theirs"
  topic terminated --partitions 6
  terminated_after 20000 terminated --throughput 20000 --repeating-keys 10
  topic bounced --partitions 6
  between=bounce terminated_after 100000 bounced --throughput 50000 --value-prefix 2
}

# terminated_after LINES TOPIC OPTION…: SIGTERM after so many lines, and as many again after $between was done
terminated_after() {
  local lines=$1 name=$2 pid status=0
  shift 2
  : >"$work/said"
  "$ringmail" verifiable-producer --bootstrap-server "$B" --topic "$name" "$@" >"$work/said" 2>"$work/errors" &
  pid=$!
  helpers+=("$pid")
  more_lines "$lines" && { [ -z "${between:-}" ] || { $between && more_lines "$lines"; }; } || bad "$name: no more lines after $(wc -l <"$work/said")"
  kill -TERM "$pid"
  wait "$pid" || status=$?
  [ $status = 0 ] && ok "$name: SIGTERM: exit 0" || { bad "$name: exit $status"; cat "$work/errors"; }
  check "$root/ci/kafka/verifiable.py" all-acked "$work/said" "$work/outcomes"
  check reader "$name" outcomes "$work/outcomes"
}

more_lines() {
  local i from
  from=$(wc -l <"$work/said")
  for ((i = 0; i < 600; i++)); do [ "$(wc -l <"$work/said")" -lt $((from + $1)) ] || return 0; sleep 0.1; done
  return 1
}

bounce() { "$kafka" kill9 1 "$one" && "$kafka" restart 1 "$one"; }

library() {
  timed "tests/real_kafka.rs" env RINGMAIL_PYTHON="$python" RINGMAIL_WORK="$work" RINGMAIL_BOOTSTRAP="$B" cargo test -q --test real_kafka -- --ignored --test-threads=2 --nocapture
  grep -a -E "^(foreign reader|test |dump)" "$work/out" | cut -c1-200 | sed 's/^/        /' || true
}

# One script of requests to Kafka and to the embedded broker: here Kafka's half. TAKE=1 takes the transcript anew.
script() {
  local run=(env RINGMAIL_WORK="$work" cargo test -q --test model_script -- --ignored --nocapture)
  if "${run[@]}" >"$work/out" 2>&1; then
    ok "tests/model_script"
  else
    bad "tests/model_script"
    grep -a -A 10 panicked "$work/out" | sed 's/^/        /' || true
  fi
  grep -a -E "answers as in the transcript" "$work/out" | sed 's/^/        /' || true
}

# ---- run -------------------------------------------------------------------------------------------------------------

scenarios=("$@")
[ ${#scenarios[@]} -gt 0 ] || scenarios=(mistakes typing million acks small_batches drivers verifiable script library)
"$kafka" jars
python=$("$kafka" python)
cargo build --release -q -p ringmail-cli
one=$work/one
"$kafka" start one "$one" auto.create.topics.enable=false
B=$("$kafka" bootstrap "$one")
topic many --partitions 6
negotiated
for scenario in "${scenarios[@]}"; do
  echo "$scenario"
  began=$SECONDS
  "$scenario"
  echo "  $((SECONDS - began)) s"
done
[ $failed = 0 ] && echo "real Kafka: all as it should be" || echo "real Kafka: something FAILED, see above"
