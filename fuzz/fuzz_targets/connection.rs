//! The sender against brokers that say anything: src/fuzzing/connection.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmail::fuzzing::connection(data));
