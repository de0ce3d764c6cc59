#!/usr/bin/env bash
# A real Apache Kafka on loopback for tests: small, fast to start, stopped by pid.
#
#   ci/kafka.sh jars                          resolve the jars (once; Java 17 and Maven are installed if missing)
#   ci/kafka.sh venv                          a Python with confluent-kafka, the reader that is not ours (once)
#   ci/kafka.sh start one DIR [key=value]…    one combined broker; extra broker properties may follow
#   ci/kafka.sh start three DIR [key=value]…  a controller (node 0) and brokers 1, 2, 3
#   ci/kafka.sh start proxied DIR [key=value]…  as three, and each broker has a second listener whose advertised address
#                                             is a proxy's: DIR/routes has a line `PROXY BROKER` for each of them
#   ci/kafka.sh bootstrap DIR                 prints HOST:PORT[,HOST:PORT…]
#   ci/kafka.sh pid NODE DIR                  prints the node's process id
#   ci/kafka.sh kill9 NODE DIR                kill -9, at once
#   ci/kafka.sh restart NODE DIR              starts a stopped or killed node again, same ports and logs
#   ci/kafka.sh launch NODE DIR               the same without waiting until it is up
#   ci/kafka.sh stop DIR                      SIGTERM to every node, kill -9 after 15 s
#   ci/kafka.sh tool CLASS ARG…               a tool of Kafka: TopicCommand, DumpLogSegments, kafka.admin.ConfigCommand …
#
# DIR holds everything of a cluster: properties, logs, pid files. Ports are free ones below the ephemeral range, or
# PORTS="p1 p2 …" (one: broker, controller; three: controller, broker 1, 2, 3; proxied: then their second listeners, then
# their proxies). What is downloaded or made once lies in
# $RINGMAIL_CACHE (default: .kafka in the repository, ignored by git).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${RINGMAIL_CACHE:-$here/../.kafka}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
version=$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/kafka/pom.xml")
libs=$cache/kafka-$version
archive=$cache/kafka-$version.jsa
python=$cache/venv/bin/python
cluster_id=cmluZ21haWwtdGVzdHMtMQ
jvm=(-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true)
archiving=

say() { printf 'kafka.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# ---- installing ------------------------------------------------------------------------------------------------------

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }

apt() {
  command -v apt-get >/dev/null || die "cannot install $*: no apt-get here; please install it yourself"
  say "installing $*"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >"$cache/apt.out" 2>&1 && return
  as_root apt-get update -q >"$cache/apt.out" 2>&1 || true
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@" >"$cache/apt.out" 2>&1 ||
    { tail -n 5 "$cache/apt.out" >&2; return 1; }
}

java_major() { java -version 2>&1 | sed -n '1s/[^"]*"\([0-9]*\).*/\1/p'; }

need_java() {
  local major
  major=$(java_major || true)
  [ "${major:-0}" -ge 17 ] && return
  apt openjdk-17-jre-headless || apt openjdk-21-jre-headless || apt default-jre-headless
  [ "$(java_major)" -ge 17 ] || die "Kafka $version needs Java 17 or newer, found $(java_major)"
}

jars() {
  command -v python3 >/dev/null || apt python3
  need_java
  if [ ! -e "$libs/.complete" ]; then
    command -v mvn >/dev/null || apt maven
    say "resolving Kafka $version with Maven"
    rm -rf "$libs"
    mvn -q -B -f "$here/kafka/pom.xml" dependency:copy-dependencies -DoutputDirectory="$libs" >"$cache/mvn.out" 2>&1 ||
      { tail -n 20 "$cache/mvn.out" >&2; die "Maven could not resolve the jars"; }
    cp "$here/kafka/log4j2.yaml" "$libs/"
    touch "$libs/.complete"
  fi
  [ -e "$archive" ] || make_archive
}

# A class-data archive halves the start of every JVM. It fits one class path and one Java; a JVM that cannot use it
# starts without.
make_archive() {
  local dir
  dir=$(mktemp -d "$cache/archive.XXXXXX")
  say "making the class-data archive"
  archiving=$dir/jsa
  start_one "$dir" && stop "$dir" || true
  archiving=
  if [ -s "$dir/jsa" ]; then
    mv "$dir/jsa" "$archive" && rm -rf "$dir"
  else
    say "no archive, JVMs will start slower; see $dir"
    touch "$archive"
  fi
}

venv() {
  [ -e "$cache/venv/.complete" ] && return
  rm -rf "$cache/venv"
  python3 -m venv "$cache/venv" >/dev/null 2>&1 || { apt python3-venv && rm -rf "$cache/venv" && python3 -m venv "$cache/venv"; }
  say "installing confluent-kafka"
  "$cache/venv/bin/pip" install -q "confluent-kafka>=2.6,<3" >"$cache/pip.out" 2>&1 || { tail -n 5 "$cache/pip.out" >&2; die "pip could not install confluent-kafka"; }
  touch "$cache/venv/.complete"
}

# ---- running ---------------------------------------------------------------------------------------------------------

java_run() {
  local flags=("${jvm[@]}")
  [ -s "$archive" ] && flags+=("-XX:SharedArchiveFile=$archive" -Xshare:auto -Xlog:disable -Xlog:all=error:stderr)
  exec java "${flags[@]}" "$@"
}

tool() {
  [ -e "$libs/.complete" ] || jars
  local class=$1
  shift
  case $class in *.*) ;; ConsoleConsumer) class=org.apache.kafka.tools.consumer.ConsoleConsumer ;; *) class=org.apache.kafka.tools.$class ;; esac
  (java_run -Xmx256m -Dlog4j2.configurationFile="$libs/log4j2.yaml" -Dringmail.log.level=ERROR -cp "$libs/*" "$class" "$@")
}

# Free ports below the range from which the kernel picks ports for outgoing connections, else a client could take a
# broker's port while the broker is down.
free_ports() {
  python3 - "$1" <<'P'
import random, socket, sys
held = []
while len(held) < int(sys.argv[1]):
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", random.randrange(15000, 32000)))
        held.append(s)
    except OSError:
        s.close()
print(*(s.getsockname()[1] for s in held))
P
}

# properties DIR NODE ROLES CONTROLLER_PORT BROKER_PORT[:CLIENT_PORT:PROXY_PORT] REPLICATION [key=value]…
properties() {
  local dir=$1 node=$2 roles=$3 controller=$4 port=$5 replication=$6 listeners= advertised= client proxy
  shift 6
  case $roles in *broker*) listeners=PLAINTEXT://127.0.0.1:${port%%:*} advertised=$listeners ;; esac
  if [[ $port = *:* ]]; then
    IFS=: read -r _ client proxy <<<"$port"
    listeners=$listeners,CLIENT://127.0.0.1:$client advertised=$advertised,CLIENT://127.0.0.1:$proxy
  fi
  case $roles in *controller*) listeners=${listeners:+$listeners,}CONTROLLER://127.0.0.1:$controller ;; esac
  local controller_node=1
  [ "$replication" = 1 ] || controller_node=0
  cat <<P
process.roles=$roles
node.id=$node
controller.quorum.voters=$controller_node@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=$listeners
${advertised:+advertised.listeners=$advertised}
$(case $roles in *broker*) echo inter.broker.listener.name=PLAINTEXT ;; esac)
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,CLIENT:PLAINTEXT
log.dirs=$dir/node$node
$(printf '%s=1\n' offsets.topic.num.partitions transaction.state.log.num.partitions share.coordinator.state.topic.num.partitions)
$(printf "%s=$replication\n" offsets.topic.replication.factor transaction.state.log.replication.factor share.coordinator.state.topic.replication.factor default.replication.factor)
$(printf '%s=1\n' transaction.state.log.min.isr share.coordinator.state.topic.min.isr)
group.initial.rebalance.delay.ms=0
num.network.threads=1
num.io.threads=2
num.replica.fetchers=1
num.recovery.threads.per.data.dir=1
background.threads=2
log.cleaner.enable=false
log.cleaner.dedupe.buffer.size=2097152
log.index.size.max.bytes=1048576
log.segment.bytes=268435456
metric.reporters=
auto.create.topics.enable=true
num.partitions=3
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
replica.lag.time.max.ms=6000
$(printf '%s\n' "$@")
P
}

# A pid file may outlive its process and the kernel may give the number to another: look at the command line too.
alive() { [ -e "$2/node$1.pid" ] && grep -q -s -F "$2/node$1.properties" "/proc/$(cat "$2/node$1.pid")/cmdline"; }

launch() { # launch NODE DIR: starts the process and returns at once
  local node=$1 dir=$2
  alive "$node" "$dir" && die "node $node of $dir is running already"
  (java_run ${archiving:+"-XX:ArchiveClassesAtExit=$archiving"} -Xms128m -Xmx"${KAFKA_HEAP:-512m}" -Dlog4j2.configurationFile="$libs/log4j2.yaml" -Dringmail.log.level=INFO -cp "$libs/*" kafka.Kafka \
    "$dir/node$node.properties" </dev/null >>"$dir/node$node.log" 2>&1) &
  echo $! >"$dir/node$node.pid"
  disown
}

format() { # format NODE DIR
  (java_run -Xmx256m -Dlog4j2.configurationFile="$libs/log4j2.yaml" -Dringmail.log.level=ERROR -cp "$libs/*" kafka.tools.StorageTool format -t "$cluster_id" -c "$2/node$1.properties") \
    >"$2/format$1.out" 2>&1 || { cat "$2/format$1.out" >&2; die "could not format node $1"; }
}

# Waits until each broker named in the list answers Metadata with that many brokers. An open port is not enough.
await_brokers() { # await_brokers DIR COUNT ADDRESS…
  local dir=$1
  shift
  python3 "$here/kafka/await_brokers.py" "$@" || {
    for log in "$dir"/node*.log; do say "last lines of $log:"; tail -n 5 "$log" >&2; done
    die "the brokers did not come up"
  }
}

prepare() { # makes DIR and its absolute path
  mkdir -p "$1"
  dir=$(cd "$1" && pwd)
  ls "$dir"/node*.properties >/dev/null 2>&1 && die "$dir holds a cluster already"
  return 0
}

start_one() { # start_one DIR [key=value]…
  prepare "$1"
  shift
  local ports
  read -r -a ports <<<"${PORTS:-$(free_ports 2)}"
  properties "$dir" 1 broker,controller "${ports[1]}" "${ports[0]}" 1 "$@" >"$dir/node1.properties"
  echo "127.0.0.1:${ports[0]}" >"$dir/bootstrap"
  format 1 "$dir"
  launch 1 "$dir"
  await_brokers "$dir" 1 "127.0.0.1:${ports[0]}"
}

start_three() { # start_three three|proxied DIR [key=value]…
  local kind=$1 ports node port count=4
  prepare "$2"
  shift 2
  [ "$kind" = three ] || count=10
  read -r -a ports <<<"${PORTS:-$(free_ports $count)}"
  properties "$dir" 0 controller "${ports[0]}" 0 3 "$@" >"$dir/node0.properties"
  for node in 1 2 3; do
    port=${ports[$node]}
    if [ "$kind" = proxied ]; then
      port=$port:${ports[$((node + 3))]}:${ports[$((node + 6))]}
      echo "127.0.0.1:${ports[$((node + 6))]} 127.0.0.1:${ports[$((node + 3))]}" >>"$dir/routes"
    fi
    properties "$dir" $node broker "${ports[0]}" "$port" 3 "$@" >"$dir/node$node.properties"
  done
  echo "127.0.0.1:${ports[1]},127.0.0.1:${ports[2]},127.0.0.1:${ports[3]}" >"$dir/bootstrap"
  for node in 0 1 2 3; do format $node "$dir"; KAFKA_HEAP=384m launch $node "$dir"; done
  await_brokers "$dir" 3 "127.0.0.1:${ports[1]}" "127.0.0.1:${ports[2]}" "127.0.0.1:${ports[3]}"
}

kill9() { # kill9 NODE DIR
  alive "$1" "$2" || die "node $1 of $2 is not running"
  kill -9 "$(cat "$2/node$1.pid")"
  while alive "$1" "$2"; do sleep 0.02; done
}

restart() { # restart NODE DIR: waits until the node sees the whole cluster again
  launch "$1" "$2"
  local brokers=1 address
  [ -e "$2/node3.properties" ] && brokers=3
  address=$(sed -n 's;^advertised.listeners=PLAINTEXT://\([^,]*\).*;\1;p' "$2/node$1.properties")
  [ -z "$address" ] || await_brokers "$2" "$brokers" "$address"
}

stop() { # stop DIR: the brokers first, since each takes its leave of the controller
  stop_nodes "$1" 1 2 3
  stop_nodes "$1" 0
}

stop_nodes() { # stop_nodes DIR NODE…
  local dir=$1 node waited=0
  shift
  for node in "$@"; do alive "$node" "$dir" && kill "$(cat "$dir/node$node.pid")" 2>/dev/null || true; done
  for node in "$@"; do
    while alive "$node" "$dir"; do
      sleep 0.1
      waited=$((waited + 1))
      [ $waited -lt 150 ] || kill -9 "$(cat "$dir/node$node.pid")" 2>/dev/null || true
    done
    rm -f "$dir/node$node.pid"
  done
}

case ${1:-help} in
  jars) jars ;;
  venv) venv ;;
  python) venv; echo "$python" ;;
  start)
    jars
    [ $# -ge 3 ] || die "start one|three|proxied DIR [key=value]…"
    case $2 in one) start_one "${@:3}" ;; three | proxied) start_three "${@:2}" ;; *) die "start one, three or proxied?" ;; esac
    ;;
  bootstrap) cat "$2/bootstrap" ;;
  pid) cat "$3/node$2.pid" ;;
  kill9 | restart | launch) "$1" "$2" "$(cd "$3" && pwd)" ;;
  stop) stop "$(cd "$2" && pwd)" ;;
  tool) tool "${@:2}" ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" ;;
esac
