//! The sender as a state machine: no thread, no clock, no socket.

pub mod transmit;
