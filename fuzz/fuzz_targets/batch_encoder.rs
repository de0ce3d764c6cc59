//! What is encoded, other decoders read back: src/fuzzing/batch.rs.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringmail::fuzzing::batch_encoder(data));
