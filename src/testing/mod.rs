//! The embedded broker, for tests and demos.
