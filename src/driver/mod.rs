//! The only room that knows an operating system.
