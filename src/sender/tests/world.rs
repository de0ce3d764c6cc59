//! The simulated network, which lives with the broker's model.

pub use crate::testing::simulation::world::{Weather, World};
