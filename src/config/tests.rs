//! Every key, every rule, and what is said of keys that cannot be set.

use std::collections::HashSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::wire::produce::ProduceWriter;

/// A configuration that is complete, and then these keys.
fn with(pairs: &[(&str, &str)]) -> Result<ProducerConfig, ConfigError> {
    let complete = ProducerConfig::new().bootstrap_servers("localhost:9092");
    pairs.iter().fold(complete, |config, (key, value)| config.set(key, value)).validate()
}

/// The error of these keys, as (key, value, text).
fn wrong(pairs: &[(&str, &str)]) -> (String, String, String) {
    let error = with(pairs).expect_err(&format!("{pairs:?} must be refused"));
    (error.key().to_owned(), error.value().to_owned(), error.to_string())
}

#[test]
fn every_key_accepts_its_own_default_and_changes_nothing_by_it() {
    let defaults = with(&[]).unwrap();
    for key in ProducerConfig::keys() {
        let default = match key.default() {
            Some(default) => default,
            None => {
                assert_eq!(key.name(), "bootstrap.servers", "the one key without a default");
                continue;
            }
        };
        let config = with(&[(key.name(), &default)]).unwrap_or_else(|error| panic!("{error}"));
        for other in ProducerConfig::keys().map(ConfigKey::name) {
            // Java's rules: given alone, the first pause is the only one, and what bounds a batch bounds a request.
            let pair = (key.name(), other);
            if pair != ("reconnect.backoff.ms", "reconnect.backoff.max.ms")
                && pair != ("max.request.size", "request.max.bytes")
            {
                assert_eq!(config.text(other), defaults.text(other), "{other} after {}", key.name());
            }
        }
    }
}

#[test]
fn every_key_reads_what_it_shows() {
    let values = [
        ("bootstrap.servers", "a:1,[::1]:2,b.example:65535"),
        ("client.id", "orders"),
        ("acks", "1"),
        ("enable.idempotence", "false"),
        ("connections.max.idle.ms", "-1"),
        ("send.buffer.bytes", "131072"),
        ("receive.buffer.bytes", "32768"),
        ("allow.auto.create.topics", "false"),
        ("metadata.recovery.strategy", "none"),
        ("sender.cores", "2,3"),
        ("idle.strategy", "park"),
        ("driver", "io_uring"),
        ("max.in.flight.requests.per.connection", "3"),
    ];
    for key in ProducerConfig::keys() {
        let value = values.iter().find(|(name, _)| *name == key.name()).map_or("71234", |(_, value)| value);
        assert_ne!(key.default().as_deref(), Some(value), "{}: a value that shows whether it was read", key.name());
        let config = ProducerConfig::new().set(key.name(), value);
        assert_eq!((config.text(key.name()).as_str(), config.problems.first()), (value, None), "{}", key.name());
        assert!(config.is_given(key.name()));
    }
}

#[test]
fn keys_are_named_once_and_explained() {
    let mut names = HashSet::new();
    for key in ProducerConfig::keys() {
        assert!(names.insert(key.name()), "{} twice", key.name());
        assert!(
            refused::explain(key.name(), "").is_some_and(|error| error.rule().starts_with("unknown key")),
            "{}",
            key.name()
        );
        assert!(key.about().ends_with('.') && !key.values().is_empty(), "{}", key.name());
    }
}

#[test]
fn values_that_cannot_be_read_name_key_value_and_rule() {
    for (key, value, rule) in [
        ("linger.ms", "soon", "milliseconds, 0 or more"),
        ("linger.ms", "-1", "milliseconds, 0 or more"),
        ("linger.ms", "", "milliseconds, 0 or more"),
        ("metadata.max.idle.ms", "4999", "5000 or more"),
        ("batch.size", "16k", "from 0 to 2147483647"),
        ("buffer.memory", "65535", "from 65536 to 34359738368"),
        ("max.request.size", "1023", "from 1024"),
        ("max.in.flight.requests.per.connection", "0", "from 1"),
        ("acks", "2", "all (or -1), 1 or 0"),
        ("enable.idempotence", "yes", "true or false"),
        ("sender.cores", "1,x", "2,3"),
        ("sender.cores", "", "none, auto"),
        ("idle.strategy", "sleep", "spin-then-park"),
        ("driver", "kqueue", "io_uring"),
        ("send.buffer.bytes", "-2", "-1"),
        ("connections.max.idle.ms", "-2", "-1 for never"),
        ("client.id", "", "1 to 1000 bytes"),
    ] {
        let (named, shown, text) = wrong(&[(key, value)]);
        assert_eq!((named.as_str(), shown.as_str()), (key, value));
        assert!(text.contains(rule), "{text}");
    }
}

#[test]
fn bootstrap_servers_name_the_entry_that_is_wrong() {
    let read = |text: &str| values::read_servers(text);
    assert_eq!(read(" a:1, b:2 ,,a:1,").unwrap(), [("a".into(), 1), ("b".into(), 2)], "trimmed, each once");
    assert_eq!(read("[::1]:9092,PLAINTEXT://h:1").unwrap(), [("::1".into(), 9092), ("h".into(), 1)]);
    for (text, entry, what) in [
        ("a:1,b", "'b'", "no port"),
        ("a:0", "'a:0'", "1 to 65535"),
        ("a:65536", "'a:65536'", "1 to 65535"),
        ("a:+1", "'a:+1'", "1 to 65535"),
        ("a:", "'a:'", "1 to 65535"),
        (":9092", "':9092'", "no host"),
        ("[]:9092", "'[]:9092'", "no host"),
        ("::1:9092", "'::1:9092'", "brackets"),
        ("[::1]", "'[::1]'", "no port"),
        ("[::1", "'[::1'", "closing bracket"),
        ("SSL://a:1", "'SSL://a:1'", "not built yet"),
        ("http://a:1/", "'http://a:1/'", "not built yet"),
        ("a b:1", "'a b:1'", "character"),
        ("a/b:1", "'a/b:1'", "character"),
        ("", "", "at least one host:port"),
        (" , ", "", "at least one host:port"),
    ] {
        let rule = read(text).unwrap_err();
        assert!(rule.contains(entry) && rule.contains(what), "{text}: {rule}");
    }
}

#[test]
fn a_missing_bootstrap_server_is_said_last() {
    let error = ProducerConfig::new().validate().unwrap_err();
    assert_eq!(error.key(), "bootstrap.servers");
    assert!(error.to_string().contains("must be given"), "{error}");
    let error = ProducerConfig::new().set("lingr.ms", "1").validate().unwrap_err();
    assert_eq!(error.key(), "lingr.ms", "what was set wrong comes first");
}

#[test]
fn the_last_value_of_a_key_counts() {
    assert_eq!(with(&[("linger.ms", "x"), ("linger.ms", "7")]).unwrap().linger, Duration::from_millis(7));
    assert_eq!(wrong(&[("linger.ms", "7"), ("linger.ms", "x")]).1, "x");
}

#[test]
fn idempotence_goes_where_it_cannot_hold_unless_it_was_asked_for() {
    assert!(with(&[]).unwrap().idempotence);
    for pair in [("acks", "1"), ("acks", "0"), ("retries", "0")] {
        assert!(!with(&[pair]).unwrap().idempotence, "{pair:?}");
        let (key, value, text) = wrong(&[("enable.idempotence", "true"), pair]);
        assert_eq!((key.as_str(), value.as_str()), pair);
        assert!(text.contains("enable.idempotence=true needs"), "{text}");
        assert!(with(&[("enable.idempotence", "false"), pair]).is_ok());
    }
    let many = ("max.in.flight.requests.per.connection", "6");
    let (key, value, text) = wrong(&[many]);
    assert_eq!((key.as_str(), value.as_str()), many);
    assert!(text.contains("more than 5") && text.contains("enable.idempotence=false"), "{text}");
    assert!(with(&[many, ("acks", "1")]).is_ok(), "no idempotence, no limit");
}

#[test]
fn a_delivery_takes_at_least_a_linger_and_a_request() {
    let (key, value, text) = wrong(&[("delivery.timeout.ms", "30004")]);
    assert_eq!((key.as_str(), value.as_str()), ("delivery.timeout.ms", "30004"));
    assert!(text.contains("linger.ms=5") && text.contains("request.timeout.ms=30000"), "{text}");
    assert!(with(&[("delivery.timeout.ms", "30005")]).is_ok());
    let raised = with(&[("request.timeout.ms", "200000")]).unwrap();
    assert_eq!(raised.delivery_timeout, Duration::from_millis(200_005));
    // The sum saturates, too.
    let most = "99999999999999999999999";
    let saturated = with(&[("linger.ms", most), ("request.timeout.ms", most), ("delivery.timeout.ms", most)]).unwrap();
    assert_eq!(saturated.delivery_timeout, Duration::from_millis(i32::MAX as u64));
}

#[test]
fn pauses_do_not_begin_above_their_end() {
    for (first, last) in [
        ("retry.backoff.ms", "retry.backoff.max.ms"),
        ("reconnect.backoff.ms", "reconnect.backoff.max.ms"),
        ("socket.connection.setup.timeout.ms", "socket.connection.setup.timeout.max.ms"),
    ] {
        let (key, value, text) = wrong(&[(first, "50000"), (last, "40000")]);
        assert_eq!((key.as_str(), value.as_str()), (first, "50000"));
        assert!(text.contains(&format!("{last}=40000")), "{text}");
        assert_eq!(with(&[(first, "50000")]).unwrap().text(last), "50000", "raised where it was not given");
        assert_eq!(with(&[(first, "50"), (last, "50")]).unwrap().text(first), "50");
    }
    let config = with(&[("reconnect.backoff.ms", "20")]).unwrap();
    assert_eq!(config.reconnect_backoff_max, Duration::from_millis(20), "as the Java client has it");
    let config = with(&[("retry.backoff.ms", "20")]).unwrap();
    assert_eq!(config.retry_backoff_max, Duration::from_millis(1000));
}

#[test]
fn sizes_fit_into_each_other() {
    assert_eq!(with(&[("batch.size", "0")]).unwrap().batch_size, 1);
    let small = with(&[("buffer.memory", "65536")]).unwrap();
    assert_eq!(small.max_request_size, 65_536, "lowered where it was not given");
    for (memory, room) in [("65536", "65536"), ("600000", "262144"), ("1048576", "1048576"), ("3145727", "2097152")] {
        let more = (room.parse::<u32>().unwrap() + 1).to_string();
        assert!(with(&[("buffer.memory", memory), ("max.request.size", room)]).is_ok(), "{memory} {room}");
        let (key, value, text) = wrong(&[("buffer.memory", memory), ("max.request.size", &more)]);
        assert_eq!((key.as_str(), &value), ("max.request.size", &more));
        assert!(text.contains(&format!("buffer.memory={memory}")) && text.contains(room), "{text}");
    }
    let (key, value, text) = wrong(&[("batch.size", "1048577")]);
    assert_eq!((key.as_str(), value.as_str()), ("batch.size", "1048577"));
    assert!(text.contains("max.request.size=1048576"), "{text}");
}

#[test]
fn a_request_has_batches_and_is_bounded_by_what_is_given() {
    let bytes = |pairs: &[_]| with(pairs).map(|config| (config.max_request_size, config.request_max_bytes)).unwrap();
    let (batch, request) = ("max.request.size", "request.max.bytes");
    assert_eq!(bytes(&[]), (1 << 20, 8 << 20));
    assert_eq!(bytes(&[("buffer.memory", "4194304")]), (1 << 20, 1 << 20), "a quarter");
    assert_eq!(bytes(&[("buffer.memory", "65536")]), (65_536, 65_536));
    assert_eq!(bytes(&[(batch, "1048576")]), (1 << 20, 1 << 20), "the default, but given");
    assert_eq!(bytes(&[(batch, "20000000")]), (20_000_000, 20_000_000));
    assert_eq!(bytes(&[(batch, "300000"), (request, "30000000")]), (300_000, 30_000_000));
    assert_eq!(bytes(&[(request, "300000")]), (300_000, 300_000), "lowered where it was not given");
    let (key, _, text) = wrong(&[(batch, "300000"), (request, "200000")]);
    assert!(key == request && text.contains("max.request.size=300000"), "{text}");
}

/// Settings for other clients often have the largest int.
#[test]
fn the_largest_request_fits_a_frame() {
    for near in [0, 1, 100, 200, 1 << 20] {
        let given = (i32::MAX - near).to_string();
        let pairs = [("max.request.size", &*given), ("request.max.bytes", &given), ("buffer.memory", "4294967296")];
        let config = with(&pairs).unwrap();
        // With the longest names, in the version that says most.
        let (client, topic) = ("c".repeat(1000), "t".repeat(249));
        let mut head = Vec::new();
        let writer = ProduceWriter::begin(&mut head, 12, i32::MAX, &client, -1, i32::MAX, 1);
        writer.topic(&mut head, &topic, &[0; 16], 1);
        writer.partition(&mut head, i32::MAX, config.max_request_size as usize);
        writer.end_partition(&mut head);
        writer.end_topic(&mut head);
        writer.end(&mut head);
        writer.patch_size(&mut head, config.max_request_size as usize);
        assert!(config.max_request_size >= i32::MAX as u32 - (2 << 20) && config.request_max_bytes > 2_000_000_000);
    }
}

#[test]
fn what_is_not_built_is_refused_with_not_yet() {
    for (key, value) in [
        ("compression.type", "zstd"),
        ("compression.zstd.level", "3"),
        ("security.protocol", "SASL_SSL"),
        ("ssl.truststore.location", "/x"),
        ("sasl.mechanism", "PLAIN"),
        ("transactional.id", "t"),
        ("transaction.timeout.ms", "1000"),
        ("interceptor.classes", "a.B"),
        ("partitioner.class", "a.B"),
        ("partitioner.adaptive.partitioning.enable", "true"),
        ("client.rack", "r1"),
        ("metrics.num.samples", "2"),
        ("enable.metrics.push", "true"),
    ] {
        let (named, _, text) = wrong(&[(key, value)]);
        assert_eq!(named, key);
        assert!(text.contains("not yet"), "{text}");
    }
    for (key, value) in
        [("compression.type", "none"), ("security.protocol", "PLAINTEXT"), ("security.protocol", "plaintext")]
    {
        assert!(with(&[(key, value)]).is_ok(), "{key}={value} asks for what is so anyway");
    }
}

#[test]
fn java_only_keys_are_explained() {
    let (_, _, text) = wrong(&[("key.serializer", "org.apache.kafka.common.serialization.StringSerializer")]);
    assert!(text.contains("Java") && text.contains("bytes"), "{text}");
    assert!(wrong(&[("config.providers.file.class", "x")]).2.contains("Java"));
}

#[test]
fn unknown_keys_name_the_one_that_was_meant() {
    for (key, meant) in [
        ("lingr.ms", "linger.ms"),
        ("linger", "linger.ms"),
        ("linger_ms", "linger.ms"),
        ("Batch.Size", "batch.size"),
        ("bootstrap.server", "bootstrap.servers"),
        ("enable.idempotent", "enable.idempotence"),
        ("max.in.flight", "max.in.flight.requests.per.connection"),
        ("metadata.broker.list", "bootstrap.servers"),
        ("queue.buffering.max.ms", "linger.ms"),
        ("transactional.ids", "transactional.id"),
    ] {
        let (named, _, text) = wrong(&[(key, "1")]);
        assert_eq!(named, key);
        assert!(text.ends_with(&format!("unknown key; did you mean {meant}?")), "{text}");
    }
    for key in ["x", "", "group.id", "retention"] {
        let (_, _, text) = wrong(&[(key, "1")]);
        assert!(text.ends_with("unknown key"), "{text}");
    }
}

#[test]
fn typed_setters_are_the_keys() {
    let ms = Duration::from_millis;
    let typed = ProducerConfig::new()
        .bootstrap_servers("h:1")
        .client_id("me")
        .acks(Acks::Leader)
        .enable_idempotence(false)
        .linger(ms(1))
        .batch_size(2)
        .buffer_memory(100_000)
        .max_block(ms(3))
        .max_in_flight(4)
        .max_request_size(5000)
        .request_timeout(ms(6))
        .delivery_timeout(ms(70))
        .retries(8)
        .retry_backoff(ms(9), ms(10))
        .reconnect_backoff(ms(11), ms(12))
        .metadata_max_age(ms(13))
        .metadata_max_idle(ms(14_000))
        .allow_auto_create_topics(false)
        .sender_cores(&Cores::List(vec![1, 5]))
        .idle_strategy(IdleStrategy::Spin)
        .driver(DriverChoice::Epoll)
        .close_timeout(ms(15))
        .validate()
        .unwrap();
    for (key, value) in [
        ("bootstrap.servers", "h:1"),
        ("client.id", "me"),
        ("acks", "1"),
        ("enable.idempotence", "false"),
        ("linger.ms", "1"),
        ("batch.size", "2"),
        ("buffer.memory", "100000"),
        ("max.block.ms", "3"),
        ("max.in.flight.requests.per.connection", "4"),
        ("max.request.size", "5000"),
        ("request.timeout.ms", "6"),
        ("delivery.timeout.ms", "70"),
        ("retries", "8"),
        ("retry.backoff.ms", "9"),
        ("retry.backoff.max.ms", "10"),
        ("reconnect.backoff.ms", "11"),
        ("reconnect.backoff.max.ms", "12"),
        ("metadata.max.age.ms", "13"),
        ("metadata.max.idle.ms", "14000"),
        ("allow.auto.create.topics", "false"),
        ("sender.cores", "1,5"),
        ("idle.strategy", "spin"),
        ("driver", "epoll"),
        ("close.timeout.ms", "15"),
    ] {
        assert_eq!(typed.text(key), value, "{key}");
        assert!(typed.is_given(key), "{key}");
    }
}

#[test]
fn typed_durations_keep_their_nanoseconds_and_saturate() {
    let config = ProducerConfig::new().linger(Duration::from_micros(250)).max_block(Duration::MAX);
    assert_eq!(config.linger, Duration::from_micros(250));
    assert_eq!(config.max_block, Duration::from_millis(i32::MAX as u64));
    let error = ProducerConfig::new().request_timeout(Duration::from_micros(1)).validate().unwrap_err();
    assert_eq!(error.key(), "request.timeout.ms", "less than a millisecond is none");
}

proptest! {
    #[test]
    fn no_text_is_too_strange(key in ".{0,40}", value in ".{0,40}", known in 0..keys::KEYS.len()) {
        drop(with(&[(key.as_str(), value.as_str())]));
        let name = keys::KEYS[known].name;
        if let Ok(config) = with(&[(name, value.as_str())]) {
            // Whatever was read is shown as something that reads the same.
            let shown = config.text(name);
            prop_assert_eq!(with(&[(name, shown.as_str())]).unwrap().text(name), shown);
        }
    }

    #[test]
    fn numbers_read_are_numbers_shown(n in 65_536..1_000_000u32, known in 0..keys::KEYS.len()) {
        let name = keys::KEYS[known].name;
        let config = ProducerConfig::new().set(name, &n.to_string());
        if config.problems.is_empty() {
            prop_assert_eq!(config.text(name), n.to_string());
        }
    }
}
