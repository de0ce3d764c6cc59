//! Keys that cannot be set: what is not built yet, what only the Java client has, and what was meant by another name.

use super::keys;
use crate::error::ConfigError;

/// Known, not built: the key, the values that ask for no more than is done anyway, and how things are. A key that ends
/// in a dot stands for all that begin with it.
const NOT_YET: &[(&str, &[&str], &str)] = &[
    ("compression.type", &["none"], "only none is built"),
    ("compression.", &[], "compression is not built"),
    ("security.protocol", &["plaintext"], "only PLAINTEXT is built"),
    ("ssl.", &[], "encrypted connections are not built"),
    ("sasl.", &[], "authentication is not built"),
    ("transactional.id", &[], "transactions are not built"),
    ("transaction.", &[], "transactions are not built"),
    ("interceptor.classes", &[""], "interceptors are not built"),
    (
        "partitioner.class",
        &[""],
        "give a record's partition with the record, else its key's hash or a sticky one is used",
    ),
    ("partitioner.ignore.keys", &["false"], "give a record's partition with the record"),
    ("partitioner.adaptive.partitioning.enable", &["false"], "partitions are chosen evenly"),
    ("partitioner.availability.timeout.ms", &["0"], "partitions are chosen evenly"),
    ("partitioner.rack.aware", &["false"], "partitions are chosen evenly"),
    ("client.rack", &[""], "partitions are chosen evenly"),
    (
        "client.dns.lookup",
        &["use_all_dns_ips"],
        "only use_all_dns_ips is built; canonical names serve Kerberos, which is not",
    ),
    ("metadata.cluster.check.enable", &["false"], "only false is built"),
    ("bootstrap.resolve.timeout.ms", &["0"], "names are resolved in the background"),
    ("enable.metrics.push", &["false"], "only false is built"),
    ("metrics.", &[], "metrics are not built"),
];

/// Of the Java client alone, and why there is nothing like it here. A key that ends in a dot stands for all that begin
/// with it.
const JAVA_ONLY: &[(&str, &str)] = &[
    ("key.serializer", "keys are bytes here, whatever made them"),
    ("value.serializer", "values are bytes here, whatever made them"),
    ("buffer.memory.allocation.strategy", "memory is taken in pieces as records come"),
    ("metric.reporters", "it names Java classes"),
    ("auto.include.jmx.reporter", "it is about the Java virtual machine"),
    ("security.providers", "it names Java classes"),
    ("config.providers", "it names Java classes"),
    ("config.providers.", "it names Java classes"),
];

/// librdkafka's names, which many people know, and Kafka's.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("metadata.broker.list", "bootstrap.servers"),
    ("request.required.acks", "acks"),
    ("queue.buffering.max.ms", "linger.ms"),
    ("queue.buffering.max.kbytes", "buffer.memory"),
    ("message.max.bytes", "max.request.size"),
    ("message.timeout.ms", "delivery.timeout.ms"),
    ("message.send.max.retries", "retries"),
    ("max.in.flight", "max.in.flight.requests.per.connection"),
    ("compression.codec", "compression.type"),
    ("topic.metadata.refresh.interval.ms", "metadata.max.age.ms"),
    ("socket.send.buffer.bytes", "send.buffer.bytes"),
    ("socket.receive.buffer.bytes", "receive.buffer.bytes"),
];

/// What is wrong with a key that is not in the table of keys; `None`: nothing, it asks for what is so anyway.
pub(super) fn explain(key: &str, value: &str) -> Option<ConfigError> {
    let names = |name: &str| key == name || (name.ends_with('.') && key.starts_with(name));
    if let Some((_, accepted, instead)) = NOT_YET.iter().find(|(name, ..)| names(name)) {
        if accepted.iter().any(|accepted| value.eq_ignore_ascii_case(accepted)) {
            return None;
        }
        return Some(ConfigError::new(key.to_owned(), value, format!("not yet: {instead}; leave the key out")));
    }
    if let Some((_, why)) = JAVA_ONLY.iter().find(|(name, _)| names(name)) {
        return Some(ConfigError::new(
            key.to_owned(),
            value,
            format!("only the Java client has this: {why}; leave it out"),
        ));
    }
    let rule = match meant(key) {
        Some(meant) => format!("unknown key; did you mean {meant}?"),
        None => "unknown key".to_owned(),
    };
    Some(ConfigError::new(key.to_owned(), value, rule))
}

/// The known key that is nearest, if it is near: another's name for it, other punctuation, or a few typing errors.
fn meant(key: &str) -> Option<&'static str> {
    let plain = |key: &str| key.to_ascii_lowercase().replace(['_', '-'], ".");
    let key = plain(key);
    if let Some((_, kafkas)) = OTHER_NAMES.iter().find(|(other, _)| *other == key) {
        return Some(kafkas);
    }
    let known = keys::KEYS.iter().map(|row| row.name).chain(NOT_YET.iter().map(|(name, ..)| *name));
    // A third of a key may be wrong; more, and it is another word. Lengths alone tell for most, and for endless keys.
    let (length, most) = (key.chars().count(), key.len() / 3);
    let near = known.filter(|known| known.len().abs_diff(length) <= most);
    let nearest = near.map(|known| (distance(&key, known), known)).min().filter(|(errors, _)| *errors <= most);
    // `linger` for `linger.ms` is meant, too.
    let mut names = keys::KEYS.iter().map(|row| row.name);
    let same_start = |known: &&str| known.strip_prefix(key.as_str()).is_some_and(|rest| rest.starts_with('.'));
    nearest.map(|(_, known)| known).or_else(|| names.find(same_start))
}

/// How many single characters must be put in, taken out or changed to make `a` into `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let changed = diagonal + usize::from(ca != *cb);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
