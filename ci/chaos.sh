#!/usr/bin/env bash
# A controller and three real brokers, leaders that die, and a proxy on every client connection that cuts, stalls and
# holds back; meanwhile four threads of two producers send. Afterwards librdkafka reads everything, and what it finds is
# compared with what the producers said of each record: nothing may be lost, twice, out of order, stored although "not
# written", or failed.
#
#   ci/chaos.sh [--kafka VERSION] [OPTION…]
#     --kafka VERSION    which Kafka, as the first option (default: the newest, see ci/kafka/pom.xml)
#     --minutes N        how long brokers are disturbed (default 3; with start and reading half a minute more)
#     --rf 3             (default) partitions of three replicas, min.insync.replicas 2, and some of one: leaders killed,
#                        brokers stopped for longer than the request timeout, partitions reassigned, clients throttled
#     --rf 1             partitions of one replica: a broker is killed every 6 s, so that it forgets all but a producer's
#                        last batch, and answers are held back up to 100 ms
#     --turn-answers     besides, good answers are turned into REQUEST_TIMED_OUT or NOT_ENOUGH_REPLICAS_AFTER_APPEND
#     --impatient        delivery.timeout.ms is 6 s, and one record in eight has 0.5 s of its own, so that records fail: what
#                        is told of them must be true
#     --no-idempotence   shows that the run can find something: passes if there are duplicates
#     --every MS         a fault of the proxy's on this average (default 600; RF 1: 1200), answers turned thrice as often
#     --rate R           records per second (default 5000)
#     --seed S           of all that is drawn; what it hits depends on time, so that a run is never the same again
#
# The last line has all the numbers. KEEP=1: leave the work folder (journal, logs, what was told) behind, as a failed run
# does. Java, jars and librdkafka are obtained as by ci/kafka.sh.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
case ${1:-} in -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0"; exit ;; esac
if [ "${1:-}" = --kafka ]; then export RINGMAIL_KAFKA=${2:?which version of Kafka?}; shift 2; fi
ci/kafka.sh jars
python=$(ci/kafka.sh python)
cargo build --release -q -p ringmail-chaos
CHAOS_BIN=${CARGO_TARGET_DIR:-$root/target}/release exec "$python" ci/kafka/chaos.py "$@"
