//! The sender over a simulated network, against the broker's model: seeds, faults, and a clock that jumps from event to
//! event. The oracle is the broker's log. `stage` is a simpler one, for tests of when and whom the sender asks.

mod bootstrap;
mod metadata;
mod scenarios;
mod stage;
mod world;
