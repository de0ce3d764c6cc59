//! The entry points over the seeds in the tree, over inputs that were once wrong, and over some random bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

type Target = (&'static str, fn(&[u8]));

fn config_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let pairs: Vec<_> = text.lines().filter_map(|line| line.split_once('=')).collect();
    config(&pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect::<Vec<_>>());
}

const TARGETS: [Target; 5] = [
    ("batch_encoder", batch_encoder),
    ("responses", |data| responses(data, || 0)),
    ("connection", connection),
    ("accumulator_script", accumulator_script),
    ("config_text", config_text),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 300 }, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes(data in vec(any::<u8>(), 0..300), target in 0..TARGETS.len()) {
        TARGETS[target].1(&data);
    }
}
