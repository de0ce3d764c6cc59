//! The command line.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use crate::escapes::Separator;

/// Produce to Apache Kafka, fast, and know what became of every record.
#[derive(Parser, Debug)]
#[command(version, arg_required_else_help = true, propagate_version = true)]
pub struct Args {
    /// Show what the producer does on standard error; repeat for more
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    Bench(BenchArgs),
    #[command(hide = true)]
    BenchBroker(BenchBrokerArgs),
    Demo(DemoArgs),
    Produce(ProduceArgs),
    VerifiableProducer(VerifiableProducerArgs),
}

/// Produce a million records to an embedded broker, read them back and verify every one
///
/// Nothing has to be installed or running: the broker lives in this process and listens on a free port of the loopback
/// interface. Several threads send at once; half of the records have keys, some have headers. Then the broker's log is
/// decoded by a second, independent decoder and compared with what was sent: every record is there exactly once, bytes
/// and headers unchanged, at the offset that was reported, in order per thread and key, keys on the partitions that
/// Java's client picks. The exit code is 0 only if all of that holds. Everything is kept in memory.
#[derive(ClapArgs, Debug)]
#[command(after_long_help = "\
Exit codes:
  0  delivered and verified
  1  something was lost, changed, out of place or not delivered
  2  wrong options or configuration
  3  the broker or the topic cannot be used")]
pub struct DemoArgs {
    /// Records to send, over all threads
    #[arg(long, short = 'n', default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    pub records: u64,
    /// Threads that send [default: one fewer than there are cores, 2 to 8]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: Option<u16>,
    /// Bytes of a record's value
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(16..=900_000))]
    pub size: u32,
    /// Partitions of the topic
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub partitions: u16,
    /// How bytes reach the kernel: auto, io_uring or epoll
    #[arg(long, default_value = "auto", value_parser = ["auto", "io_uring", "epoll"])]
    pub driver: String,
    /// A producer setting, e.g. -X linger.ms=20; may be repeated
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

/// Send lines to a topic: from a file, a pipe, or as you type
///
/// Each line becomes one record; the newline is not part of it, a carriage return is. An empty line is a record with an
/// empty value. A last line without newline counts. Lines leave as soon as they are there (after linger.ms, 5 by
/// default), not at the end of the input; memory stays bounded however long the input is.
///
/// While the input is open, standard error says when lines begin to fail and why, that a broker is out of reach or answers
/// again, and once a minute how it stands for as long as something is wrong.
#[derive(ClapArgs, Debug)]
#[command(after_long_help = "\
Examples:
  ringmail produce -b localhost:9092 -t words /usr/share/dict/words
  tail -F app.log | ringmail produce -b localhost:9092 -t logs -X linger.ms=50
  ringmail produce -b localhost:9092 -t users -K: --header source=import users.txt
  ringmail produce -b localhost:9092 --replay failed.jsonl

Exit codes:
  0    every line was delivered
  1    at least one record failed, or nobody knows; standard error says which lines and why.
       --replay: also when a line was left out
  2    wrong options or configuration
  3    no broker answered, or the topic or its partition (-p) cannot be used; nothing was sent
  4    the input could not be read to its end; what had been read was delivered
  130  interrupted (Ctrl-C, SIGTERM); what had been read was delivered. A second Ctrl-C does not wait

`ringmail produce --settings` lists every key that -X knows.")]
pub struct ProduceArgs {
    /// Brokers to ask first, separated by commas [default: bootstrap.servers of -F or -X]
    #[arg(short = 'b', long = "bootstrap-server", value_name = "HOST:PORT")]
    pub brokers: Option<String>,
    /// Topic to send to
    #[arg(short, long, required_unless_present_any = ["list_settings", "replay"], default_value = "", hide_default_value = true)]
    pub topic: String,
    /// What stands between key and value: text with escapes, as for -D, e.g. -K '\t'. A line without it has no key; an empty
    /// key is a key
    #[arg(
        short = 'K',
        long,
        value_name = "SEP",
        conflicts_with = "key",
        allow_hyphen_values = true,
        value_parser = crate::escapes::separator
    )]
    pub key_separator: Option<Separator>,
    /// The key of every record
    #[arg(short, long)]
    pub key: Option<String>,
    /// Send everything to this partition [default: by key as Java does, else spread]. One that is not there is waited for
    /// once, for max.block.ms and 5 s at most
    #[arg(short, long, value_parser = clap::value_parser!(i32).range(0..))]
    pub partition: Option<i32>,
    /// A header of every record, in this order; without "=" its value is null; may be repeated
    #[arg(short = 'H', long = "header", value_name = "KEY=VALUE", value_parser = header)]
    pub headers: Vec<String>,
    /// Send empty values (and with -K empty keys) as null: tombstones on a compacted topic
    #[arg(short = 'Z', long)]
    pub null: bool,
    /// What ends a record: text in which \n, \t, \r, \0, \\ and \xHH are escapes, e.g. -D '\r\n'
    #[arg(
        short = 'D',
        long,
        value_name = "SEP",
        default_value = "\\n",
        allow_hyphen_values = true,
        value_parser = crate::escapes::separator
    )]
    pub delimiter: Separator,
    /// A producer setting with Kafka's name, e.g. -X acks=all; may be repeated
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// A file of settings, in Java's .properties format; -b and -X override it
    #[arg(short = 'F', long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Send the records of a file of failed records again, each to its topic and partition, with its timestamp: one that
    /// ringmail's FailedRecordsFile wrote. A line that is none is named and left out. Possibly written records are left
    /// out, too (exit code 1)
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = ["topic", "key_separator", "key", "partition", "headers", "null", "delimiter", "file"]
    )]
    pub replay: Option<PathBuf>,
    /// Send possibly written records again as well: they may then be there twice
    #[arg(long)]
    pub replay_possibly_written: bool,
    /// Show neither progress nor summary, only errors and what is wrong
    #[arg(short, long)]
    pub quiet: bool,
    /// List every producer setting and end
    #[arg(long = "settings")]
    pub list_settings: bool,
    /// File to read; - or nothing: standard input
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// Send 0, 1, 2… and say in JSON lines what became of each, as Kafka's own VerifiableProducer does
///
/// For Kafka's system tests, and for whoever wants to check by program that nothing is lost. Standard output has a JSON
/// object per line: startup_complete, then producer_send_success or producer_send_error for every record, in the order
/// of the answers, then shutdown_complete and tool_data. An error's "written" says whether the record may be in the log
/// all the same: "no" or "possibly". Unlike Kafka's, this one retries and is idempotent unless the file says otherwise.
///
/// SIGTERM or Ctrl-C: nothing more is sent, what was accepted gets its line within delivery.timeout.ms. A second signal
/// does not wait.
#[derive(ClapArgs, Debug)]
#[command(after_long_help = "\
Exit codes:
  0    ended by --max-messages or a signal, with a line for every record (failed ones included), or because standard
       output was closed
  1    standard output could not be written, or ringmail met a bug of its own
  2    wrong options or configuration
  130  a second signal: records without a line are possibly written")]
pub struct VerifiableProducerArgs {
    /// Brokers to ask first, separated by commas
    #[arg(long = "bootstrap-server", alias = "broker-list", value_name = "HOST:PORT")]
    pub brokers: String,
    /// Topic to send to
    #[arg(long)]
    pub topic: String,
    /// Records to send; -1: until a signal comes
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    pub max_messages: i64,
    /// Records per second; -1: as fast as it goes
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true)]
    pub throughput: i64,
    /// Who must have a record: -1 or all, 1 (the leader), 0 (nobody). With 0 or 1 retries may duplicate
    #[arg(long, default_value = "-1", value_parser = ["-1", "all", "0", "1"], allow_negative_numbers = true)]
    pub acks: String,
    /// Values are N.0, N.1, N.2…
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub value_prefix: Option<i32>,
    /// Keys are 0 to N-1, again and again [default: no keys]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub repeating_keys: Option<u32>,
    /// The first record's timestamp in ms since 1970; each next one adds the ms since the start. -1: the clock's
    #[arg(
        long = "message-create-time",
        value_name = "MS",
        default_value_t = -1,
        value_parser = clap::value_parser!(i64).range(-1..),
        allow_negative_numbers = true
    )]
    pub create_time: i64,
    /// A file of producer settings, in Java's .properties format; it overrides the options
    #[arg(long = "command-config", alias = "producer.config", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Measure throughput, or latency at a fixed rate, and what they cost
///
/// Sends records of pseudo-random bytes and hears of each as --handle says. Without --rate: as fast as they are taken;
/// one record in 61 has its times taken, so that the clock costs little. With --rate: record i is due
/// i/R seconds after the start, whatever became of those before it, and its ack time counts from then on, so that a
/// stall shows in every record that was due meanwhile; each record has its times taken.
///
/// A warm-up comes first: a record to each partition, then as many as take twice buffer.memory (with --rate: those of
/// a second), at most as many as are measured.
///
/// Until a record is due its thread sleeps, and spins for the last 20 µs, but for 2 % of the time at most. When records
/// of a thread are due more often than every 100 µs, it sleeps that long and sends what has become due. How late
/// records were sent is shown; it is part of the ack time.
///
/// What is shown: MB/s are millions of bytes of values and keys. CPU is this process's, user and system, from the
/// first send to the last answer. Memory is this process's peak. "send" is the time of the call, less what taking the
/// time takes (the p50 of two readings in a row). "ack" ends when
/// somebody hears of the record. Allocations are those of the
/// whole process during the run, progress not counted.
#[derive(ClapArgs, Debug)]
#[command(after_long_help = "\
Examples:
  ringmail bench --records 10000000
  ringmail bench -b localhost:9092 -t load --records 100000 --rate 2000 --size 1000 -X linger.ms=0 --json

--json prints one object: records (delivered), errors (not delivered), seconds, records_per_s, mb_per_s, cpu_s,
cpu_s_per_million, max_rss_kib, send_ns {p50, p99, p999, max}, ack_us {p50, p99, p999, max}, allocations_per_record,
driver. What the clock takes, and with --rate how late records were sent, is on standard error.

Exit codes:
  0    every record was delivered
  1    at least one record failed, or nobody knows; standard error says why
  2    wrong options or configuration
  3    no broker answered, or the topic cannot be used; nothing was sent
  130  interrupted (Ctrl-C, SIGTERM); shows what was measured so far. A second Ctrl-C does not wait")]
pub struct BenchArgs {
    /// Brokers to ask first, separated by commas [default: an embedded broker in a process of its own]
    #[arg(short = 'b', long = "bootstrap-server", value_name = "HOST:PORT")]
    pub brokers: Option<String>,
    /// Topic to send to
    #[arg(short, long, default_value = "bench")]
    pub topic: String,
    /// Records to measure, over all threads
    #[arg(long, short = 'n', default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub records: u64,
    /// Bytes of a record's value
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=100_000_000))]
    pub size: u32,
    /// Bytes of a record's key, one of 1024 [default: no key]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub key_size: Option<u32>,
    /// Records per second, over all threads [default: as fast as it goes]
    #[arg(long, value_parser = rate)]
    pub rate: Option<f64>,
    /// Threads that send; each has its share of the records and of the rate
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub threads: u16,
    /// Without -b: partitions of the embedded broker's topic [default: 1]. With -b: send to the first so many
    /// partitions in turn [default: the partitioner picks among all]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub partitions: Option<u16>,
    /// How the caller hears of a record
    #[arg(long, value_enum, default_value_t = Handle::Tag)]
    pub handle: Handle,
    /// Records sent ahead of the clock, after one to each partition [default: see above]
    #[arg(long, value_name = "RECORDS")]
    pub warm_up: Option<u64>,
    /// How bytes reach the kernel: auto, io_uring or epoll
    #[arg(long, value_parser = ["auto", "io_uring", "epoll"])]
    pub driver: Option<String>,
    /// A producer setting with Kafka's name, e.g. -X acks=1; may be repeated
    #[arg(short = 'X', value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
    /// A file of settings, in Java's .properties format; -X, -b and --driver override it
    #[arg(short = 'F', long = "config", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Print one JSON object instead of a table, and show no progress
    #[arg(long)]
    pub json: bool,
    /// Show no progress and no notes, only the result and errors
    #[arg(short, long)]
    pub quiet: bool,
}

/// How whoever sends a record hears what became of it.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub enum Handle {
    /// A listener gets the record's tag back (`send_tagged`)
    Tag,
    /// A Delivery each (`send`): a thread waits for those whose time is taken, the others are dropped, and nobody
    /// hears whether they failed
    Delivery,
    /// A callback each (`send_with`)
    Callback,
}

/// As kcat has it: a header has a name.
fn header(text: &str) -> Result<String, String> {
    match text.split('=').next() {
        None | Some("") => Err("a header needs a name: NAME=VALUE, or NAME for a null value".to_string()),
        Some(_) => Ok(text.to_string()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(rate) if (0.001..=1e9).contains(&rate) => Ok(rate),
        _ => Err("records per second are a number from 0.001 to 1000000000".to_string()),
    }
}

/// The embedded broker of `bench`: prints where it listens, and ends with its standard input
#[derive(ClapArgs, Debug)]
pub struct BenchBrokerArgs {
    /// Partitions of every topic
    #[arg(long, default_value_t = 1)]
    pub partitions: u16,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn kcat_spellings_work() {
        let args =
            ["ringmail", "produce", "-b", "h:1", "-t", "t", "-K:", "-X", "acks=1", "-X", "linger.ms=0", "-p0", "f"];
        let Command::Produce(produce) = Args::parse_from(args).command else { panic!("not produce") };
        assert_eq!(produce.key_separator, Some(Separator(b":".to_vec())));
        assert_eq!(produce.settings, ["acks=1", "linger.ms=0"]);
        assert_eq!((produce.partition, produce.delimiter), (Some(0), Separator(b"\n".to_vec())));
    }

    /// What a text that is typed means, and so who reads it.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Means {
        /// No text: it is there or not.
        Switch,
        /// One of a few words; clap reads them.
        Choice,
        /// A whole number from a range; clap reads it.
        Number,
        /// A number with a fraction: `rate`.
        Rate,
        /// `host:port,…`: the library reads it (`bootstrap.servers`).
        Servers,
        /// `KEY=VALUE`, both without blanks around them: `Settings::add_options`, then the library.
        Setting,
        /// Java's properties: `properties::read`, then the library.
        Properties,
        /// `\t` and its like are escapes, and it is not empty: `escapes::separator`.
        Separator,
        /// `NAME=VALUE`, and blanks count: `header`.
        Header,
        /// A topic's name: the library checks it.
        Topic,
        /// As it stands, blanks and all; empty is a text, too.
        Literal,
        /// A path; `-` is standard input where it says so.
        Path,
    }

    use Means::{
        Choice, Header, Literal, Number, Path, Properties, Rate, Separator as Sep, Servers, Setting, Switch, Topic,
    };

    /// Every option of every command. Whoever adds one says here what it takes.
    const TYPED: &[(&str, &[(&str, Means)])] = &[
        ("", &[("verbose", Switch)]),
        (
            "demo",
            &[
                ("records", Number),
                ("threads", Number),
                ("size", Number),
                ("partitions", Number),
                ("driver", Choice),
                ("settings", Setting),
            ],
        ),
        (
            "produce",
            &[
                ("brokers", Servers),
                ("topic", Topic),
                ("key_separator", Sep),
                ("key", Literal),
                ("partition", Number),
                ("headers", Header),
                ("null", Switch),
                ("delimiter", Sep),
                ("settings", Setting),
                ("config", Properties),
                ("replay", Path),
                ("replay_possibly_written", Switch),
                ("quiet", Switch),
                ("list_settings", Switch),
                ("file", Path),
            ],
        ),
        (
            "verifiable-producer",
            &[
                ("brokers", Servers),
                ("topic", Topic),
                ("max_messages", Number),
                ("throughput", Number),
                ("acks", Choice),
                ("value_prefix", Number),
                ("repeating_keys", Number),
                ("create_time", Number),
                ("config", Properties),
            ],
        ),
        (
            "bench",
            &[
                ("brokers", Servers),
                ("topic", Topic),
                ("records", Number),
                ("size", Number),
                ("key_size", Number),
                ("rate", Rate),
                ("threads", Number),
                ("partitions", Number),
                ("handle", Choice),
                ("warm_up", Number),
                ("driver", Choice),
                ("settings", Setting),
                ("config", Properties),
                ("json", Switch),
                ("quiet", Switch),
            ],
        ),
        ("bench-broker", &[("partitions", Number)]),
    ];

    /// Texts that are wrong for what an option takes, as far as the command line itself can tell.
    fn wrong(means: Means) -> &'static [&'static str] {
        match means {
            Choice => &["", " ", "no-such-word"],
            Number => &["", " ", "x", " 1", "1 ", "1e3", "0x1", "1.5", "99999999999999999999999", "１"],
            Rate => &["", " ", "x", "0", "-1", "inf", "NaN", "1e99"],
            Sep => &["", "\\q", "\\x1"],
            Header => &["", "=", "=v"],
            Switch | Servers | Setting | Properties | Topic | Literal | Path => &[],
        }
    }

    #[test]
    fn every_option_is_in_the_table_and_refuses_what_is_wrong() {
        let command = Args::command();
        let mut commands: Vec<_> = command.get_subcommands().map(|sub| (sub.get_name(), sub)).collect();
        commands.push(("", &command));
        assert_eq!(commands.len(), TYPED.len(), "a command has no table");
        for (name, command) in commands {
            let (_, table) = TYPED.iter().find(|(known, _)| *known == name).unwrap();
            let options: Vec<_> = command.get_arguments().map(|arg| arg.get_id().as_str()).collect();
            let known: Vec<_> = table.iter().map(|(option, _)| *option).collect();
            assert_eq!(options, known, "{name}");
            for (arg, (option, means)) in command.get_arguments().zip(*table) {
                assert_eq!(arg.get_action().takes_values(), *means != Switch, "{name} {option}");
                for text in wrong(*means) {
                    let typed = arg.get_long().map_or(text.to_string(), |long| format!("--{long}={text}"));
                    let parsed = Args::try_parse_from(["ringmail", name, &typed]);
                    let kind = parsed.expect_err(&typed).kind();
                    let refused = [clap::error::ErrorKind::InvalidValue, clap::error::ErrorKind::ValueValidation];
                    assert!(refused.contains(&kind), "{name} {typed}: {kind:?}");
                }
            }
        }
    }
}
