#!/usr/bin/env bash
# A real Apache Kafka on loopback for tests: small, fast to start, stopped by pid.
#
#   ci/kafka.sh [--kafka VERSION] COMMAND…    the version is otherwise $RINGMAIL_KAFKA, else the one in kafka/pom.xml; a
#                                             folder with a cluster in it goes on with the version that made it
#
#   ci/kafka.sh version                       prints the version
#   ci/kafka.sh jars                          resolve the jars (once; Java 17 and Maven are installed if missing)
#   ci/kafka.sh venv                          a Python with confluent-kafka, the reader that is not ours (once)
#   ci/kafka.sh start one DIR [key=value]…    one combined broker; extra broker properties may follow
#   ci/kafka.sh start three DIR [key=value]…  a controller or ZooKeeper (node 0) and brokers 1, 2, 3
#   ci/kafka.sh start proxied DIR [key=value]…  as three, and each broker has a second listener whose advertised address
#                                             is a proxy's: DIR/routes has a line `PROXY BROKER` for each of them
#   ci/kafka.sh bootstrap DIR                 prints HOST:PORT[,HOST:PORT…]
#   ci/kafka.sh pid NODE DIR                  prints the node's process id
#   ci/kafka.sh kill9 NODE DIR                kill -9, at once
#   ci/kafka.sh restart NODE DIR              starts a stopped or killed node again, same ports and logs
#   ci/kafka.sh launch NODE DIR               the same without waiting until it is up
#   ci/kafka.sh stop DIR                      SIGTERM to every node, kill -9 after 15 s
#   ci/kafka.sh tool NAME ARG…                a tool of Kafka: TopicCommand, DumpLogSegments, ConfigCommand …, with the
#                                             newest version's options
#
# DIR holds everything of a cluster: properties, logs, pid files. Ports are free ones below the ephemeral range, or
# PORTS="p1 p2 …" (one: broker, controller; three: controller, broker 1, 2, 3; proxied: then their second listeners, then
# their proxies). What is downloaded or made once lies in $RINGMAIL_CACHE (default: .kafka in the repository, ignored by
# git), in a folder per version.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${RINGMAIL_CACHE:-$here/../.kafka}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
python=$cache/venv/bin/python
cluster_id=cmluZ21haWwtdGVzdHMtMQ
jvm=(-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true)
archiving=

say() { printf 'kafka.sh: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# ---- versions --------------------------------------------------------------------------------------------------------

# All that differs from version to version. (Which class a tool is, and in which package, `jars` finds in the jars.)
use() { # use VERSION
  version=$1
  libs=$cache/kafka-$version
  archive=$cache/kafka-$version.jsa
  # Where brokers find each other: at a controller (KRaft), which a single broker is itself, or at ZooKeeper as node 0.
  # 2.8 to 3.2 have KRaft, but not for production; ZooKeeper ended with 4.0.
  case $version in 0.* | 1.* | 2.* | 3.[0-2].*) controller=zookeeper ;; *) controller=kraft ;; esac
  # What options of the producer tools were called before KIP-1147.
  case $version in
    0.* | 1.* | 2.* | 3.* | 4.[01].*) renamed=([--reader-property]=--property [--command-config]=--producer.config) ;;
    *) renamed=() ;;
  esac
  # And before 2.5 (KIP-499).
  case $version in 0.* | 1.* | 2.[0-4].*) renamed[--bootstrap-server]=--broker-list ;; esac
}

newest() { sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/kafka/pom.xml"; }

cluster() { # cluster DIR: prints its absolute path
  [ -e "$1/version" ] || die "$1 holds no cluster"
  (cd "$1" && pwd)
}

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
  if [ ! -e "$libs/tools" ]; then
    command -v mvn >/dev/null || apt maven
    say "resolving Kafka $version with Maven"
    rm -rf "$libs"
    mvn -q -B -f "$here/kafka/pom.xml" dependency:copy-dependencies -Dkafka.version="$version" -DoutputDirectory="$libs" \
      >"$cache/mvn.out" 2>&1 || { tail -n 20 "$cache/mvn.out" >&2; die "Maven could not resolve the jars of Kafka $version"; }
    list_tools >"$libs/tools.new"
    mv "$libs/tools.new" "$libs/tools"
  fi
  [ -e "$archive" ] || make_archive
}

# A line `NAME CLASS` for each class that may be a tool. Tools moved from Scala to Java over the years, and some left an
# older namesake behind: the first line counts.
list_tools() {
  python3 - "$libs" <<'P'
import glob, re, sys, zipfile
packages = ("org/apache/kafka/tools/", "org/apache/kafka/tools/consumer/", "org/apache/kafka/tools/reassign/", "kafka/tools/", "kafka/admin/")
names = sorted(name for jar in glob.glob(f"{sys.argv[1]}/kafka*.jar") for name in zipfile.ZipFile(jar).namelist())
for package in packages:
    for name in names:
        if tool := re.fullmatch(package + r"(\w+)\.class", name):
            print(tool[1], name.removesuffix(".class").replace("/", "."))
P
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
  [ -e "$libs/tools" ] || jars
  local name=$1 class word words=()
  shift
  class=$(sed -n "s/^$name //p" "$libs/tools" | head -n 1)
  [ -n "$class" ] || { say "Kafka $version has no tool $name"; exit 3; }
  for word in "$@"; do
    case $name in ConsoleProducer | VerifiableProducer) word=${renamed[$word]:-$word} ;; esac
    words+=("$word")
  done
  set -- ${words[@]+"${words[@]}"}
  (java_run -Xmx256m -Dlog4j2.configurationFile="$here/kafka/log4j2.properties" -Dringmail.log.level=ERROR -cp "$libs/*" "$class" "$@")
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
  local dir=$1 node=$2 roles=$3 meeting=$4 port=$5 replication=$6 listeners= advertised= client proxy
  shift 6
  if [ "$roles" = zookeeper ]; then zookeeper_properties "$dir/node$node" "$meeting"; return; fi
  case $roles in *broker*) listeners=PLAINTEXT://127.0.0.1:${port%%:*} advertised=$listeners ;; esac
  if [[ $port = *:* ]]; then
    IFS=: read -r _ client proxy <<<"$port"
    listeners=$listeners,CLIENT://127.0.0.1:$client advertised=$advertised,CLIENT://127.0.0.1:$proxy
  fi
  case $roles in *controller*) listeners=${listeners:+$listeners,}CONTROLLER://127.0.0.1:$meeting ;; esac
  local controller_node=1
  [ "$replication" = 1 ] || controller_node=0
  case $controller in
    kraft) cat <<P ;;
process.roles=$roles
node.id=$node
controller.quorum.voters=$controller_node@127.0.0.1:$meeting
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,CLIENT:PLAINTEXT
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
$(printf '%s=1\n' share.coordinator.state.topic.num.partitions share.coordinator.state.topic.min.isr)
share.coordinator.state.topic.replication.factor=$replication
P
    zookeeper) cat <<P ;;
broker.id=$node
zookeeper.connect=127.0.0.1:$meeting
zookeeper.session.timeout.ms=3000
controlled.shutdown.retry.backoff.ms=500
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CLIENT:PLAINTEXT
P
  esac
  cat <<P
listeners=$listeners
${advertised:+advertised.listeners=$advertised}
$(case $roles in *broker*) echo inter.broker.listener.name=PLAINTEXT ;; esac)
log.dirs=$dir/node$node
$(printf '%s=1\n' offsets.topic.num.partitions transaction.state.log.num.partitions)
$(printf "%s=$replication\n" offsets.topic.replication.factor transaction.state.log.replication.factor default.replication.factor)
transaction.state.log.min.isr=1
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
replica.lag.time.max.ms=6000
$(printf '%s\n' "$@")
P
}

# Sessions last for two ticks at least.
zookeeper_properties() { # zookeeper_properties DATA PORT
  cat <<P
clientPort=$2
clientPortAddress=127.0.0.1
dataDir=$1
tickTime=500
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=dump
P
}

# A pid file may outlive its process and the kernel may give the number to another: look at the command line too.
alive() { [ -e "$2/node$1.pid" ] && grep -q -s -F "$2/node$1.properties" "/proc/$(cat "$2/node$1.pid")/cmdline"; }

launch() { # launch NODE DIR: starts the process and returns at once
  local node=$1 dir=$2 main=kafka.Kafka flags=()
  alive "$node" "$dir" && die "node $node of $dir is running already"
  [ -z "$archiving" ] || flags=("-XX:ArchiveClassesAtExit=$archiving")
  if [ "$controller" = zookeeper ]; then
    if [ "$node" = 0 ]; then main=org.apache.zookeeper.server.quorum.QuorumPeerMain flags=(); else await_leave "$node" "$dir"; fi
  fi
  (java_run ${flags[@]+"${flags[@]}"} -Xms128m -Xmx"${KAFKA_HEAP:-512m}" -Dlog4j2.configurationFile="$here/kafka/log4j2.properties" -Dringmail.log.level=INFO -cp "$libs/*" "$main" \
    "$dir/node$node.properties" </dev/null >>"$dir/node$node.log" 2>&1) &
  echo $! >"$dir/node$node.pid"
  disown
}

# A broker that was killed stays registered at ZooKeeper until its session ends, and ends itself when it is started before.
await_leave() { # await_leave NODE DIR
  python3 - "$1" "$(sed -n 's/^clientPort=//p' "$2/node0.properties")" <<'P'
import contextlib, re, socket, sys, time
end = time.monotonic() + 60
while time.monotonic() < end:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=2) as s:
        s.sendall(b"dump")
        said = s.makefile("rb").read().decode()
        if "ephemeral" in said and not re.search(rf"/brokers/ids/{sys.argv[1]}\s", said):
            sys.exit()
    time.sleep(0.1)
sys.exit(f"kafka.sh: node {sys.argv[1]} is still registered at ZooKeeper after 60 s, or ZooKeeper does not answer")
P
}

format() { # format NODE DIR
  [ "$controller" = kraft ] || return 0
  (java_run -Xmx256m -Dlog4j2.configurationFile="$here/kafka/log4j2.properties" -Dringmail.log.level=ERROR -cp "$libs/*" kafka.tools.StorageTool format -t "$cluster_id" -c "$2/node$1.properties") \
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
  echo "$version" >"$dir/version"
}

start_one() { # start_one DIR [key=value]…
  prepare "$1"
  shift
  local ports node nodes=1 roles=broker,controller
  read -r -a ports <<<"${PORTS:-$(free_ports 2)}"
  if [ "$controller" = zookeeper ]; then
    nodes="0 1" roles=broker
    properties "$dir" 0 zookeeper "${ports[1]}" 0 1 >"$dir/node0.properties"
  fi
  properties "$dir" 1 $roles "${ports[1]}" "${ports[0]}" 1 "$@" >"$dir/node1.properties"
  echo "127.0.0.1:${ports[0]}" >"$dir/bootstrap"
  for node in $nodes; do format "$node" "$dir"; launch "$node" "$dir"; done
  await_brokers "$dir" 1 "127.0.0.1:${ports[0]}"
}

start_three() { # start_three three|proxied DIR [key=value]…
  local kind=$1 ports node port count=4 roles=controller
  prepare "$2"
  shift 2
  [ "$kind" = three ] || count=10
  [ "$controller" = kraft ] || roles=zookeeper
  read -r -a ports <<<"${PORTS:-$(free_ports $count)}"
  properties "$dir" 0 $roles "${ports[0]}" 0 3 "$@" >"$dir/node0.properties"
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

stop() { # stop DIR: the brokers first, since each takes its leave of the controller or ZooKeeper
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

declare -A renamed=()
use "${RINGMAIL_KAFKA:-$(newest)}"
if [ "${1:-}" = --kafka ]; then use "${2:?which version of Kafka?}"; shift 2; fi
case ${1:-help} in
  version) echo "$version" ;;
  jars) jars ;;
  venv) venv ;;
  python) venv; echo "$python" ;;
  start)
    [ $# -ge 3 ] || die "start one|three|proxied DIR [key=value]…"
    jars
    case $2 in one) start_one "${@:3}" ;; three | proxied) start_three "${@:2}" ;; *) die "start one, three or proxied?" ;; esac
    ;;
  bootstrap) cat "$2/bootstrap" ;;
  pid) cat "$3/node$2.pid" ;;
  kill9 | restart | launch)
    dir=$(cluster "$3")
    use "$(<"$dir/version")"
    "$1" "$2" "$dir"
    ;;
  stop) stop "$(cluster "$2")" ;;
  tool) tool "${@:2}" ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" ;;
esac
