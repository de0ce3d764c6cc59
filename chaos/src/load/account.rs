//! What a thread was told of its records, one line each.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ringmail::{Delivery, DeliveryError, RecordMetadata, SendError, Written};

pub fn lock(account: &Mutex<Account>) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many records ended in which way.
#[derive(Clone, Copy, Default)]
pub struct Totals {
    sent: u64,
    refused: u64,
    delivered: u64,
    not_written: u64,
    possibly_written: u64,
}

impl Totals {
    pub fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.refused += other.refused;
        self.delivered += other.delivered;
        self.not_written += other.not_written;
        self.possibly_written += other.possibly_written;
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, refused, delivered, not_written, possibly_written } = self;
        write!(f, "sent {sent} refused {refused} delivered {delivered} ")?;
        write!(f, "not-written {not_written} possibly-written {possibly_written}")
    }
}

/// One thread's file, and its counts.
pub struct Account {
    file: BufWriter<File>,
    totals: Totals,
    /// The first thing that went wrong while writing.
    trouble: Option<io::Error>,
}

impl Account {
    pub fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { file: BufWriter::new(File::create(path)?), totals: Totals::default(), trouble: None })
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        if let Err(error) = self.file.write_fmt(line) {
            self.trouble.get_or_insert(error);
        }
    }

    /// A record was accepted.
    pub fn sent(&mut self) {
        self.totals.sent += 1;
    }

    /// A record was not accepted.
    pub fn refused(&mut self, number: u64, error: &SendError) {
        self.totals.refused += 1;
        self.line(format_args!("{number}\trefused\t-\t-\t-\t{error}\n"));
    }

    /// A record has its answer.
    pub fn note(&mut self, number: u64, result: Result<&RecordMetadata, &DeliveryError>) {
        match result {
            Ok(metadata) => {
                self.totals.delivered += 1;
                let (topic, partition) = (metadata.topic(), metadata.partition());
                match metadata.offset() {
                    Some(offset) => self.line(format_args!("{number}\tdelivered\t{topic}\t{partition}\t{offset}\t\n")),
                    None => self.line(format_args!("{number}\tdelivered\t{topic}\t{partition}\t-\t\n")),
                }
            }
            Err(error) => {
                let state = match error.written() {
                    Written::No => {
                        self.totals.not_written += 1;
                        "not-written"
                    }
                    Written::Possibly => {
                        self.totals.possibly_written += 1;
                        "possibly-written"
                    }
                };
                let (topic, partition) = (error.topic().unwrap_or("-"), error.partition().unwrap_or(-1));
                self.line(format_args!("{number}\t{state}\t{topic}\t{partition}\t-\t{error}\n"));
            }
        }
    }

    /// Writes out what is left.
    pub fn finish(&mut self) -> io::Result<Totals> {
        if let Some(error) = self.trouble.take() {
            return Err(error);
        }
        self.file.flush()?;
        Ok(self.totals)
    }
}

/// Deliveries of a thread, the oldest first. Partitions end at their own pace, so that some behind the first may be done.
#[derive(Default)]
pub struct Deliveries(VecDeque<(u64, Delivery)>);

impl Deliveries {
    pub fn hold(&mut self, number: u64, delivery: Delivery) {
        self.0.push_back((number, delivery));
    }

    /// Notes those that are done, from the front.
    pub fn note_done(&mut self, account: &Mutex<Account>) {
        while let Some((number, result)) = self.0.front().and_then(|(number, held)| Some((*number, held.try_result()?)))
        {
            self.0.pop_front();
            lock(account).note(number, result.as_ref());
        }
    }

    /// After the flush: all are done, else they never will be.
    pub fn finish(self, account: &Mutex<Account>) {
        let mut account = lock(account);
        for (number, delivery) in self.0 {
            match delivery.try_result() {
                Some(result) => account.note(number, result.as_ref()),
                None => account.line(format_args!("{number}\tunanswered\t-\t-\t-\t\n")),
            }
        }
    }
}
