//! Which partition a record goes to: the one it asks for, its key's hash, or, without a key, a sticky one.

mod murmur2;
mod sticky;

pub(crate) use murmur2::partition_for_key;
pub(crate) use sticky::Sticky;
