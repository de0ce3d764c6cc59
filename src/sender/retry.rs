//! After an answer or a loss: done, again, in parts, or given up. Order within a partition is kept throughout: what is
//! sent again stands in the queue by number, and leaves one batch at a time with nothing else in flight.

use std::sync::Arc;
use std::time::Duration;

use super::Sender;
use super::in_flight::{Batch, Reported};
use super::knowledge::Event;
use super::outbox::Report;
use super::steps::{Step, stepped};
use crate::completion::Outcome;
use crate::error::{DeliveryError, DeliveryErrorKind, Failure};
use crate::wire::error_code::ErrorCode;

impl Sender {
    /// The batch is in the log: its records get their offsets, its memory goes back.
    pub(super) fn delivered(&mut self, batch: Batch, outcome: Outcome) {
        let now = self.now.monotonic;
        let partition = &mut self.partitions[batch.partition as usize];
        (partition.failures, partition.hints) = (0, 0);
        partition.retry_at = Duration::ZERO;
        if let Some(hint) = partition.hint.as_mut().filter(|hint| hint.leader.node == batch.node) {
            hint.good_at = now;
        }
        if let Some(stamp) = batch.stamp {
            let knows_us = batch.node == partition.leader;
            partition.sequences.ack(stamp, knows_us);
        }
        let queue = &mut partition.queue;
        // Nothing is accepted behind a gap: what was stamped before this batch is in the log as well.
        let stored = match partition.search.take() {
            Some(_) => {
                stepped(Step::SearchFound);
                queue.partition_point(|queued| queued.place() < batch.place())
            }
            None => {
                let before = |queued: &&Batch| {
                    queued.known.is_doubtful() && queued.stamp.is_some() && queued.number < batch.number
                };
                queue.iter().take_while(before).count()
            }
        };
        // But for what lost its numbers: it waits for new ones.
        let (before, unstamped): (Vec<Batch>, Vec<Batch>) =
            queue.drain(..stored).partition(|queued| queued.stamp.is_some());
        for queued in unstamped.into_iter().rev() {
            queue.push_front(queued);
        }
        if batch.stamp.is_some() {
            // Nor is a part accepted behind the whole: the other parts are where they seem to be.
            let others = queue.iter_mut().take_while(|queued| queued.number <= batch.number);
            for part in others.filter(|queued| queued.number == batch.number) {
                part.known.learn(Event::PartAccepted);
            }
        }
        if batch.stamp.is_some_and(|stamp| stamp.shortened) {
            // It was not there whole, so those of its numbers that are left out are lost.
            partition.sequences.spoil();
            partition.gap = Some(partition.gap.map_or(batch.number, |gap| gap.min(batch.number)));
        }
        for batch in before {
            self.resolve(batch, &Outcome::Delivered { base_offset: None, log_append_time: None });
        }
        self.resolve(batch, &outcome);
    }

    /// Ends a batch that neither the kernel nor a broker has any more: tells whoever waits, gives the memory back.
    pub(super) fn resolve(&mut self, mut batch: Batch, outcome: &Outcome) {
        self.tell(&mut batch, outcome);
        self.retire(batch);
    }

    /// Gives back the memory of a batch whose records all have their outcome.
    pub(super) fn retire(&mut self, mut batch: Batch) {
        debug_assert!(batch.reported() == Reported::All || batch.parts.is_empty(), "records without an outcome");
        for part in batch.parts.drain(..) {
            self.drain.give_back(part.lease);
        }
        if self.spare_parts.len() < 256 {
            self.spare_parts.push(batch.parts);
        }
        self.settled = true;
    }

    /// Tells whoever waits for the batch's records, once.
    pub(super) fn tell(&mut self, batch: &mut Batch, outcome: &Outcome) {
        let live = batch.live();
        if batch.reported() == Reported::All {
            return;
        }
        self.note_outcome(outcome);
        // First, so that whoever hears of it finds it counted.
        self.shared.tally.ended(live, batch.on_lane, outcome);
        let place = self.partitions[batch.partition as usize].ring.place.clone();
        let mut before = 0;
        for part in &mut batch.parts {
            let outcome = match outcome {
                Outcome::Delivered { base_offset, log_append_time } => Outcome::Delivered {
                    base_offset: base_offset.map(|base| base.saturating_add(before)),
                    log_append_time: *log_append_time,
                },
                failed => failed.clone(),
            };
            before += i64::from(part.lease.count());
            if std::mem::replace(&mut part.reported, true) {
                continue;
            }
            let outbox = self.shared.outbox.get();
            // Into the sink first: whoever hears of the failure may rely on that.
            if let (Some(outbox), Outcome::Failed(_)) = (outbox, &outcome)
                && outbox.has_sink()
            {
                let (place, lease) = (place.clone(), part.lease.share());
                self.outbox.push(outbox, Report::Records { place, lease, outcome, deliveries: true });
                continue;
            }
            let listened = outbox.filter(|_| part.lease.tagged()).map(|outbox| (outbox, outcome.clone()));
            part.lease.report(&place, outcome);
            if let Some((outbox, outcome)) = listened {
                let (place, lease) = (place.clone(), part.lease.share());
                self.outbox.push(outbox, Report::Records { place, lease, outcome, deliveries: false });
            }
        }
    }

    /// Sends the batch again, unless its time or its retries are over. It is out of flight already.
    pub(super) fn retry(&mut self, batch: Batch, kind: DeliveryErrorKind) {
        let now = self.now.monotonic;
        // While it may be in the log it goes on although nobody waits for it: it tells of those before it (a broker that
        // restarted may remember it alone), and a copy on its way finds no gap to fill.
        if batch.reported() == Reported::All && (self.closed || !batch.is_unclear()) {
            return self.drop_told(batch);
        }
        if now >= batch.opened + self.config.delivery_timeout {
            return self.fail(batch, DeliveryErrorKind::Expired);
        }
        if batch.attempts > self.config.retries {
            return self.fail(batch, kind);
        }
        if self.is_beyond_limit(&batch) {
            return self.give_up_alone(batch);
        }
        self.note_retry(&batch);
        let id = batch.partition;
        // What went wrong with an earlier leader says nothing of this one.
        if batch.node == self.partitions[id as usize].leader {
            self.back_off(id);
            self.suspect_leader(id);
        }
        self.partitions[id as usize].requeue(batch);
    }

    pub(super) fn back_off(&mut self, id: u32) {
        let (backoff, random) = (self.retry_backoff(), self.random.next());
        let partition = &mut self.partitions[id as usize];
        // Several batches that were in flight together fail together: that is one failure.
        if self.now.monotonic >= partition.retry_at {
            partition.failures = partition.failures.saturating_add(1);
            partition.retry_at = self.now.monotonic + backoff.after(partition.failures, random);
        }
    }

    /// An expired batch that was in flight has come back undelivered: only its sequence numbers are left to care for.
    pub(super) fn drop_told(&mut self, batch: Batch) {
        stepped(Step::ToldComesBack);
        if self.is_stored(&batch) {
            return self.delivered_before(batch);
        }
        self.lose_numbers(&batch);
        self.retire(batch);
    }

    /// Gives a batch up that is not in flight.
    pub(super) fn fail(&mut self, batch: Batch, kind: DeliveryErrorKind) {
        if batch.reported() == Reported::All {
            return self.drop_told(batch);
        }
        if self.is_stored(&batch) {
            return self.delivered_before(batch);
        }
        self.lose_numbers(&batch);
        let error = self.error(&batch, kind);
        self.resolve(batch, &Outcome::Failed(error));
    }

    /// The sequence numbers of `batch` will never be used (again).
    pub(super) fn lose_numbers(&mut self, batch: &Batch) {
        let partition = &mut self.partitions[batch.partition as usize];
        if batch.stamp.is_some() {
            // What follows needs new ones.
            partition.sequences.spoil();
            // Nothing is accepted behind one.
            let behind_gap = partition.gap.is_some_and(|gap| gap < batch.number);
            if batch.known.has_copy() && !behind_gap {
                // A broker that restarted may remember it alone: what it says of earlier ones proves nothing.
                // In a search other parts of the same batch count as well; another batch may stand further back.
                let before =
                    partition.search.map_or((batch.number, 0), |search| search.tries().min((batch.number + 1, 0)));
                let before = partition.queue.partition_point(|queued| queued.place() < before);
                for earlier in partition.queue.iter_mut().take(before).filter(|earlier| earlier.is_unclear()) {
                    earlier.known.learn(Event::NothingTells);
                }
            } else if !batch.may_be_written() {
                partition.gap = Some(partition.gap.map_or(batch.number, |gap| gap.min(batch.number)));
            }
        }
        partition.search = None;
    }

    /// Ends a batch that is in the log, nobody knows where.
    pub(super) fn delivered_before(&mut self, batch: Batch) {
        self.partitions[batch.partition as usize].search = None;
        self.resolve(batch, &Outcome::Delivered { base_offset: None, log_append_time: None });
    }

    /// What was accepted behind it proves that the batch is in the log.
    pub(super) fn is_stored(&self, batch: &Batch) -> bool {
        let sequences = &self.partitions[batch.partition as usize].sequences;
        batch.stamp.is_some_and(|stamp| sequences.is_stored(stamp))
    }

    pub(super) fn error(&self, batch: &Batch, kind: DeliveryErrorKind) -> DeliveryError {
        let gone = self.partitions[batch.partition as usize].gone_since.is_some();
        let stuck = batch.attempts == 0 && batch.last_error.is_none() || gone;
        let why_stuck = || stuck.then(|| self.trouble_of_partition(batch.partition)).flatten();
        let failure = Failure {
            kind,
            written: batch.known.written(),
            waited: self.now.monotonic.saturating_sub(batch.opened),
            attempts: batch.attempts,
            broker: batch.last_error.clone(),
            trouble: batch.trouble.clone().filter(|_| !gone).or_else(why_stuck),
        };
        DeliveryError::new(&self.partitions[batch.partition as usize].ring.place, failure)
    }

    /// The connection was lost, or its answer was no answer. `whole`: the kernel had taken all of the request, so the
    /// batches may be in the log. `trouble`: which connection, and why, in words.
    pub(super) fn lose_batches(
        &mut self,
        mut batches: Vec<Option<Batch>>,
        whole: bool,
        kind: DeliveryErrorKind,
        trouble: &Arc<str>,
    ) {
        for mut batch in batches.drain(..).flatten() {
            self.book_out(&mut batch);
            if whole {
                batch.known.learn(Event::Lost);
            }
            batch.trouble = Some(trouble.clone());
            let id = batch.partition;
            if self.config.acks == crate::config::Acks::None && whole {
                self.fail(batch, kind);
            } else {
                self.retry(batch, kind);
            }
            self.consider(id);
        }
        if self.spare_batches.len() < 64 {
            self.spare_batches.push(batches);
        }
    }

    /// OUT_OF_ORDER_SEQUENCE_NUMBER, or an older broker's word for that. With something before it unresolved that is no news.
    /// Alone and first, it means a gap, or a broker that restarted and remembers only the last batch.
    pub(super) fn out_of_sequence(&mut self, mut batch: Batch, error: ErrorCode) {
        if self.is_stored(&batch) {
            return self.delivered_before(batch);
        }
        let partition = &mut self.partitions[batch.partition as usize];
        if partition.search.is_some() {
            // Not this one either: this copy is not in the log, as far as this broker remembers.
            batch.known.learn(Event::OutOfSequence);
            let place = batch.place();
            partition.requeue(batch);
            if partition.search(Some(place)) {
                stepped(Step::SearchFurther);
            } else {
                stepped(Step::SearchInVain);
                partition.sequences.spoil();
            }
            return;
        }
        let alone = partition.unacked == 0;
        let first = partition.queue.front().is_none_or(|queued| queued.number >= batch.number);
        if !(alone && first) {
            return self.retry(batch, DeliveryErrorKind::Broker(error));
        }
        // The newest that may be stored decides for all before it.
        if partition.search(None) {
            stepped(Step::Search);
        } else {
            batch.known.learn(Event::OutOfSequence);
            partition.sequences.spoil();
        }
        partition.requeue(batch);
    }

    /// Nothing stamped is in flight any more, and numbers were lost: what waits is stamped again under a new epoch,
    /// after it is clear which of it is stored.
    pub(super) fn take_new_epoch(&mut self, id: u32) {
        let partition = &mut self.partitions[id as usize];
        if std::mem::take(&mut partition.log_gone) {
            // Copies may lie in the log that is gone, or, where topics go by name, in the new one already. What the new
            // log accepts proves nothing of them: also a search that began since is over.
            partition.search = None;
            for batch in partition.queue.iter_mut().filter(|batch| batch.is_unclear()) {
                batch.known.learn(Event::NothingTells);
            }
        }
        if partition.search.is_some() {
            return;
        }
        // Stamped again, a batch that is in the log would be there twice: first find out which are.
        if partition.search(None) {
            stepped(Step::Search);
            return;
        }
        let out_of_order = DeliveryErrorKind::Broker(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
        let kind = if partition.gone_since.is_some() { DeliveryErrorKind::PartitionGone } else { out_of_order };
        let ends = |queued: &Batch| queued.known.is_doubtful() || queued.reported() == Reported::All;
        while let Some(at) = self.partitions[id as usize].queue.iter().position(ends)
            && let Some(batch) = self.partitions[id as usize].queue.remove(at)
        {
            if batch.known.is_doubtful() {
                stepped(Step::DoubtfulGivenUp);
            }
            self.fail(batch, kind);
        }
        let partition = &mut self.partitions[id as usize];
        partition.gap = None;
        if partition.sequences.bump() {
            stepped(Step::NewEpoch);
        } else {
            stepped(Step::NewProducerId);
            partition.sequences.renew();
            self.want_producer_id();
        }
        let partition = &mut self.partitions[id as usize];
        for batch in &mut partition.queue {
            (batch.stamp, batch.crc) = (None, None);
        }
    }
}
