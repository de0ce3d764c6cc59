//! The entry points of `fuzz/`: each turns bytes into a scenario, runs it, and panics when something is wrong.
//!
//! They live here because what they drive is not public, and because so the ordinary tests (and Miri) run them too, over
//! the seeds in `fuzz/seeds` and over some random bytes. Not part of the API: behind the feature `fuzzing`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a finding is a panic")]

mod accumulator;
mod batch;
mod config;
mod connection;
mod input;
mod responses;
#[cfg(test)]
mod seeds;
#[cfg(test)]
mod tests;

pub use accumulator::accumulator_script;
pub use batch::batch_encoder;
pub use config::config;
pub use connection::connection;
pub use responses::responses;
