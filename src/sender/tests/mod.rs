//! The sender over a simulated network, against the broker's model: seeds, faults, and a clock that jumps from event to
//! event. The oracle is the broker's log.

mod found_by_seeds;
mod scenarios;
mod world;
