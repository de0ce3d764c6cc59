//! Per-partition lock-free rings of pooled segments.

pub mod arena;
