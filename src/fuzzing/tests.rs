//! The entry points over the seeds in the tree, over inputs that once showed a mistake, and over some random bytes.

use std::fs;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

use super::seeds::seeds;
use super::*;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 5] = [
    ("batch_encoder", batch_encoder),
    ("responses", |data| responses(data, || 0)),
    ("connection", connection),
    ("accumulator_script", accumulator_script),
    ("config_text", config_text),
];

/// As `fuzz_targets/config_text.rs`, which reads lines as the command does.
fn config_text(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let pairs = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    config(&pairs.map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned())).collect::<Vec<_>>());
}

/// `WRITE_SEEDS=1 cargo test --lib fuzzing` writes them anew. Files whose name begins with `found` are not made but
/// were found: they stay.
#[test]
fn the_seeds_in_the_tree_are_those_that_are_made() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    if !root.parent().is_some_and(Path::is_dir) {
        return; // A package has no fuzz/.
    }
    let mut wrong = Vec::new();
    for (target, name, bytes) in seeds() {
        let path = root.join(target).join(name);
        if std::env::var("WRITE_SEEDS").is_ok() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &bytes).unwrap();
        }
        if fs::read(&path).ok() != Some(bytes) {
            wrong.push(path);
        }
    }
    assert!(wrong.is_empty(), "missing or other than made (WRITE_SEEDS=1 writes them): {wrong:?}");
}

#[test]
fn every_seed_passes() {
    // Under Miri what has unsafe code; the others take minutes there.
    for (target, run) in TARGETS.into_iter().filter(|(target, _)| cfg!(not(miri)) || *target == "accumulator_script") {
        let made = seeds().into_iter().filter(|(of, ..)| *of == target).map(|(_, name, bytes)| (name, bytes));
        let made: Vec<_> = made.collect();
        assert!(made.len() >= 4, "{target}");
        for (name, bytes) in made {
            println!("{target} {name}");
            run(&bytes);
        }
    }
}

/// A scenario in which nothing happens finds nothing.
#[test]
#[cfg_attr(miri, ignore = "minutes")]
fn the_scenarios_reach_what_they_are_about() {
    let of = |target| seeds().into_iter().filter(move |(of, ..)| *of == target).map(|(_, name, bytes)| (name, bytes));
    let mut all_failed = 0;
    for (name, bytes) in of("connection") {
        let [delivered, failed] = super::connection::run(&bytes);
        println!("{name}: {delivered} delivered, {failed} failed");
        assert!(delivered > 0, "{name}");
        all_failed += failed;
    }
    assert!(all_failed > 0);
    for (name, bytes) in of("accumulator_script") {
        let batches = super::accumulator::run(&bytes);
        println!("{name}: {batches} batches");
        assert!(batches > 1, "{name}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "minutes")]
fn what_was_found_once_passes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for (target, run) in TARGETS {
        for file in fs::read_dir(root.join(target)).into_iter().flatten() {
            let path = file.unwrap().path();
            if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("found")) {
                println!("{}", path.display());
                run(&fs::read(path).unwrap());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(miri, ignore = "minutes")]
    fn random_bytes_pass(data in vec(any::<u8>(), 0..300), target in 0..TARGETS.len()) {
        TARGETS[target].1(&data);
    }
}
