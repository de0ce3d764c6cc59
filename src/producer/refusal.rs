//! Why a call is refused, and how that is put into words.

use super::topic::Topic;
use crate::accumulator::Refused as Full;
use crate::error::{Refused, SendError};
use crate::record::Record;
use crate::sender::Life;
use crate::wire::record::Shape;
use crate::wire::record_batch;

/// Why a record was not taken, before it is put into words.
#[derive(Debug)]
pub enum Refusal {
    /// The ring's or the pool's word.
    Full(Full),
    /// The topic's partitions are not known.
    NotReady,
    /// The topic has no such partition.
    NoPartition(i32),
    /// A negative timestamp: this one.
    Timestamp(i64),
    /// Forked.
    Life,
}

impl Refusal {
    /// Waiting may help.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Full(full) => full.is_full(),
            Self::NotReady => true,
            Self::NoPartition(partition) => *partition >= 0,
            Self::Timestamp(_) | Self::Life => false,
        }
    }
}

/// No record has more bytes; a length beyond it was never measured.
const LONGEST: usize = isize::MAX as usize / 2;

impl Topic {
    #[cold]
    pub(super) fn refused<'a>(&self, refusal: &Refusal, record: Record<'a>) -> Refused<'a> {
        Refused { record, error: self.error(refusal, &record) }
    }

    #[cold]
    pub(super) fn error(&self, refusal: &Refusal, record: &Record<'_>) -> SendError {
        self.error_of(refusal, || size(record, record.fields.value.map(<[u8]>::len)))
    }

    #[cold]
    pub(super) fn claim_error(&self, refusal: &Refusal, record: &Record<'_>, value_len: usize) -> SendError {
        self.error_of(refusal, || size(record, Some(value_len.min(LONGEST))))
    }

    /// In words that a user can act on; `size` is the record's in a batch of its own.
    #[cold]
    pub(super) fn error_of(&self, refusal: &Refusal, size: impl Fn() -> usize) -> SendError {
        let (core, shared) = (self.core(), self.shared());
        if let Err(error) = core.check_life() {
            return error;
        }
        match refusal {
            Refusal::Full(Full::TooLarge) => {
                let config = &core.shared.config;
                let (size, limit) = (size(), config.max_request_size as usize);
                if size > limit {
                    SendError::RecordTooLarge { size, limit, key: "max.request.size" }
                } else {
                    SendError::RecordTooLarge { size, limit: config.buffer_memory, key: "buffer.memory" }
                }
            }
            Refusal::Full(Full::Closed) => match core.shared.life() {
                Life::Panicked => SendError::SenderPanicked,
                _ => SendError::Closed,
            },
            Refusal::Full(_) => SendError::BufferFull,
            Refusal::NotReady => match core.topic_step(shared) {
                Some(Err(error)) => error,
                _ => SendError::NotReady { topic: shared.name.clone() },
            },
            Refusal::NoPartition(partition) => {
                // It may have been added: the next call finds it then.
                core.shared.want(shared);
                core.no_partition(shared, *partition)
            }
            Refusal::Timestamp(timestamp) => SendError::InvalidTimestamp { timestamp: *timestamp },
            Refusal::Life => SendError::Closed,
        }
    }
}

fn size(record: &Record<'_>, value_len: Option<usize>) -> usize {
    Shape::with_value_len(&record.fields, value_len).len_max() + record_batch::LEN
}
