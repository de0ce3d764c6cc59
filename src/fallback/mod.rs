//! Beside the way: ready sinks for what could not be delivered ([`UndeliverableSink`](crate::UndeliverableSink)).
//!
//! `file` appends to a file of JSON lines, `json` is its format, `dead_letter` sends to another topic. A spool that also
//! survives the end of the process belongs here: it would take records when they are accepted, not when they fail.

mod dead_letter;
mod file;
mod json;

pub use dead_letter::DeadLetterTopic;
pub use file::FailedRecordsFile;
