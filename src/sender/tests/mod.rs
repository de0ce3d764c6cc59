//! The sender over a simulated network, against the broker's model: seeds, faults, and a clock that jumps from event to
//! event. The oracle is the broker's log.

mod accepted_behind;
mod scenarios;
mod world;
