//! Any keys and values: what is refused names its key, value and rule; what is accepted lies in the documented ranges,
//! contradicts nothing, and is shown as text that reads the same.

use std::time::Duration;

use crate::config::{Acks, ProducerConfig};

/// The longest time that a key can say.
const LONGEST: Duration = Duration::from_millis(i32::MAX as u64);
/// Runs of memory that a record can have in one piece: these, and whole multiples of the last.
const RUNS: [usize; 6] = [1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20];

/// Sets these keys, in this order.
pub fn config(pairs: &[(String, String)]) {
    let config = pairs.iter().fold(ProducerConfig::new(), |config, (key, value)| config.set(key, value));
    match config.validate() {
        Ok(config) => check(&config),
        Err(error) => {
            let (key, value, text) = (error.key(), error.value(), error.to_string());
            assert!(text.starts_with(&format!("{key}={value}: ")), "{text}");
            assert!(!error.rule().is_empty(), "{text}");
            let given = pairs.iter().rev().find(|(given, _)| given.trim() == key).map(|(_, value)| value.trim());
            match given {
                Some(given) => assert!(value == "(hidden)" || same(key, value, given), "{text}, but given was {given}"),
                // A rule may be broken by a key that has its default.
                None => assert!(ProducerConfig::keys().any(|known| known.name() == key), "{text}"),
            }
        }
    }
}

/// As it was given, or as it was understood, which is what a rule about several keys shows.
fn same(key: &str, value: &str, given: &str) -> bool {
    value == given || show(&ProducerConfig::new().set(key, given), key).as_deref() == Some(value)
}

fn show(config: &ProducerConfig, key: &str) -> Option<String> {
    Some(config.text(key)).filter(|_| ProducerConfig::keys().any(|known| known.name() == key))
}

fn check(config: &ProducerConfig) {
    assert!(!config.bootstrap_servers.is_empty());
    for (host, port) in &config.bootstrap_servers {
        assert!(!host.is_empty() && *port > 0 && !host.contains(char::is_whitespace), "{host:?}:{port}");
    }
    assert!((1..=1000).contains(&config.client_id.len()));
    assert!((1..=i32::MAX as u32).contains(&config.batch_size));
    assert!((64 << 10..=32 << 30).contains(&config.buffer_memory));
    assert!((1024..=i32::MAX as u32).contains(&config.max_request_size));
    assert!(config.batch_size <= config.max_request_size && config.max_request_size <= config.request_max_bytes);
    assert!(config.request_max_bytes < i32::MAX as u32);
    let memory = config.buffer_memory;
    let room = if memory >= 1 << 20 { memory >> 20 << 20 } else { *RUNS.iter().rfind(|run| **run <= memory).unwrap() };
    assert!(config.max_request_size as usize <= room, "a record of that size finds no room in {memory}");
    assert!(config.max_in_flight >= 1 && config.retries <= i32::MAX as u32);
    if config.idempotence {
        assert!(config.acks == Acks::All && config.retries > 0 && config.max_in_flight <= 5);
    }
    for (value, least) in [
        (config.linger, 0),
        (config.max_block, 0),
        (config.delivery_timeout, 0),
        (config.request_timeout, 1),
        (config.retry_backoff, 0),
        (config.retry_backoff_max, 0),
        (config.reconnect_backoff, 0),
        (config.reconnect_backoff_max, 0),
        (config.connection_setup_timeout, 1),
        (config.connection_setup_timeout_max, 1),
        (config.metadata_max_age, 1),
        (config.metadata_max_idle, 5000),
        (config.rebootstrap_trigger, 0),
        (config.close_timeout, 0),
    ] {
        assert!((Duration::from_millis(least)..=LONGEST).contains(&value), "{value:?}");
    }
    assert!(config.delivery_timeout >= (config.linger + config.request_timeout).min(LONGEST));
    assert!(config.retry_backoff <= config.retry_backoff_max);
    assert!(config.reconnect_backoff <= config.reconnect_backoff_max);
    assert!(config.connection_setup_timeout <= config.connection_setup_timeout_max);
    assert!(config.send_buffer.into_iter().chain(config.receive_buffer).all(|bytes| bytes <= i32::MAX as usize));
    // Shown, set and shown again.
    let keys = || ProducerConfig::keys().map(|key| key.name());
    let again = keys().fold(ProducerConfig::new(), |again, key| again.set(key, &config.text(key)));
    let again = again.validate().expect("what is shown can be set");
    for key in keys() {
        assert_eq!(again.text(key), config.text(key), "{key}");
    }
}
