//! The sender over a simulated network, against the broker's model. No part of the API: it changes with the tests.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::type_complexity,
    reason = "a finding is a panic"
)]

mod check;
mod coverage;
mod deck;
pub(crate) mod last_answer;
mod ledger;
mod network;
mod plan;
mod run;
mod spoil;
#[cfg_attr(not(test), allow(dead_code, reason = "driven by the tests of the sender"))]
pub(crate) mod stage;
#[cfg_attr(not(test), allow(dead_code, reason = "driven by the tests of the sender"))]
pub(crate) mod world;

pub use coverage::Coverage;
pub use last_answer::no_batch_is_forgotten;
pub use run::{Report, describe, run, tell};
