//! The script, chapter by chapter.

mod batches;
mod changes;
mod producers;
mod questions;
mod records;
mod requests;
mod topics;

use super::script::Script;

pub fn all(script: &mut Script<'_>) {
    batches::all(script);
    records::all(script);
    changes::all(script);
    requests::all(script);
    questions::all(script);
    topics::all(script);
    producers::all(script);
}
