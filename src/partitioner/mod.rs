//! Placeholder: see the architecture.
