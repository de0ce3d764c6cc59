//! Writers and sender against a list: src/fuzzing/accumulator.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmail::fuzzing::accumulator_script(data));
