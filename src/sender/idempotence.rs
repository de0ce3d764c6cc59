//! Producer id, epoch and sequence numbers (KIP-98, KIP-360).

use std::time::Duration;

/// Identifies an idempotent producer to all brokers; handed out by the cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerId(pub i64);

/// Told apart from earlier lives of the same producer id; 0 to 32767.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerEpoch(pub i16);

/// Number of a record within a producer id, epoch and partition: 0 to 2^31 - 1, then 0 again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sequence(pub i32);

impl Sequence {
    /// `count` records later.
    pub const fn plus(self, count: u32) -> Self {
        Self(((self.0 as u32).wrapping_add(count) & i32::MAX as u32) as i32)
    }

    /// Whether it comes before `other`, 2^30 numbers at most.
    const fn is_before(self, other: Self) -> bool {
        matches!((other.0 as u32).wrapping_sub(self.0 as u32) & i32::MAX as u32, 1..=0x4000_0000)
    }
}

/// What makes a batch recognisable when it is sent twice.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Whose batch it is.
    pub producer: ProducerId,
    /// In which life.
    pub epoch: ProducerEpoch,
    /// Of its first record.
    pub sequence: Sequence,
    /// Records were cut out of the batch and it kept its stamp: its numbers end before those of the next batch begin.
    pub shortened: bool,
}

impl Stamp {
    /// That of the records behind the first `count`.
    pub fn after(self, count: u32) -> Self {
        Self { sequence: self.sequence.plus(count), ..self }
    }
}

/// A partition's sequence numbers. The epoch is the partition's own: it is raised only where a number was lost, and
/// nothing else needs to stop for that.
#[derive(Debug, Default)]
pub struct Sequences {
    identity: Option<(ProducerId, ProducerEpoch)>,
    next: u32,
    acked: bool,
    /// The furthest batch of this epoch that was acknowledged: its first number.
    newest: Option<Sequence>,
    spoiled: bool,
    refused: bool,
}

impl Sequences {
    /// A batch under the present producer id and epoch was acknowledged.
    pub fn acked(&self) -> bool {
        self.acked
    }

    /// Notes an acknowledgement of a batch that was sent under `stamp`; `by_leader`: it is the present leader's, who knows
    /// the producer id from now on.
    pub fn ack(&mut self, stamp: Stamp, by_leader: bool) {
        if self.identity == Some((stamp.producer, stamp.epoch)) {
            self.acked |= by_leader;
            if self.newest.is_none_or(|newest| newest.is_before(stamp.sequence)) {
                self.newest = Some(stamp.sequence);
            }
        }
    }

    /// A batch behind the one that was sent under `stamp` was acknowledged. Nothing is accepted behind a gap, so this one
    /// is in the log as well, whatever a broker says that forgot it.
    pub fn is_stored(&self, stamp: Stamp) -> bool {
        self.identity == Some((stamp.producer, stamp.epoch))
            && self.newest.is_some_and(|newest| stamp.sequence.is_before(newest))
    }

    /// The leader changed: until its first ack one batch at a time.
    pub fn leader_changed(&mut self) {
        self.acked = false;
    }

    /// A stamped batch was given up: its numbers are lost, and what comes later needs a new epoch.
    pub fn spoil(&mut self) {
        self.spoiled = true;
    }

    /// A broker wants nothing of this producer id here: the next epoch is that of another one.
    pub fn give_up_producer(&mut self) {
        self.refused = true;
    }

    /// Nothing may be stamped before a new epoch is taken.
    pub fn spoiled(&self) -> bool {
        self.spoiled
    }

    /// The next `count` numbers, under the producer id that the partition uses; at first that is `current`.
    pub fn stamp(&mut self, current: (ProducerId, ProducerEpoch), count: u32) -> Stamp {
        let (producer, epoch) = *self.identity.get_or_insert(current);
        let sequence = Sequence(self.next as i32);
        self.next = sequence.plus(count).0 as u32;
        Stamp { producer, epoch, sequence, shortened: false }
    }

    /// Takes a new epoch; to be called only when nothing stamped is unresolved. False: epochs are used up or the producer
    /// id is refused, and the partition must wait for a new one ([`Sequences::renew`]).
    pub fn bump(&mut self) -> bool {
        match &mut self.identity {
            Some(_) if self.refused => return false,
            Some((_, epoch)) if epoch.0 == i16::MAX => return false,
            Some((_, epoch)) => epoch.0 += 1,
            None => {}
        }
        *self = Self { identity: self.identity, ..Self::default() };
        true
    }

    /// Starts again under whatever producer id is current at the next stamp.
    pub fn renew(&mut self) {
        *self = Self::default();
    }

    /// The first number, of a partition that has stamped nothing.
    #[cfg(feature = "testing")]
    pub fn start_at(&mut self, next: u32) {
        if self.identity.is_none() {
            self.next = next;
        }
    }

    /// The producer id it stamps with, once it has stamped.
    pub fn producer(&self) -> Option<ProducerId> {
        self.identity.map(|(producer, _)| producer)
    }
}

/// The producer id's life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Identity {
    /// Not wanted: idempotence is off.
    Off,
    /// To be asked for, not before this time.
    Wanted { retry_at: Duration, failures: u32 },
    /// Asked for.
    Asked { failures: u32 },
    /// Ours.
    Known(ProducerId, ProducerEpoch),
}

impl Identity {
    /// At the start.
    pub fn new(idempotent: bool) -> Self {
        if idempotent { Self::Wanted { retry_at: Duration::ZERO, failures: 0 } } else { Self::Off }
    }

    /// Batches may be stamped, or need no stamp.
    pub fn ready(self) -> bool {
        matches!(self, Self::Off | Self::Known(..))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(Sequence(i32::MAX).plus(1), Sequence(0));
        assert_eq!(Sequence(i32::MAX - 1).plus(5), Sequence(3));
        assert_eq!(Sequence(0).plus(7), Sequence(7));
        assert!(Sequence(3).is_before(Sequence(4)) && !Sequence(4).is_before(Sequence(4)));
        assert!(Sequence(i32::MAX).is_before(Sequence(0)) && !Sequence(0).is_before(Sequence(i32::MAX)));
    }

    #[test]
    fn what_stands_before_an_acknowledged_batch_is_stored() {
        let mut sequences = Sequences::default();
        let stamps: [Stamp; 3] = std::array::from_fn(|_| sequences.stamp((ProducerId(9), ProducerEpoch(0)), 10));
        let stored = |sequences: &Sequences| stamps.map(|stamp| sequences.is_stored(stamp));
        assert_eq!(stored(&sequences), [false; 3]);
        sequences.ack(stamps[1], true);
        assert_eq!(stored(&sequences), [true, false, false]);
        sequences.ack(stamps[0], true);
        sequences.leader_changed();
        assert_eq!(stored(&sequences), [true, false, false], "an earlier one takes nothing back");
        sequences.bump();
        assert_eq!(stored(&sequences), [false; 3], "numbers of another epoch");
    }

    #[test]
    fn an_epoch_starts_at_zero_and_needs_an_ack() {
        let mut sequences = Sequences::default();
        let first = sequences.stamp((ProducerId(9), ProducerEpoch(0)), 10);
        assert_eq!(
            first,
            Stamp { producer: ProducerId(9), epoch: ProducerEpoch(0), sequence: Sequence(0), shortened: false }
        );
        let second = sequences.stamp((ProducerId(10), ProducerEpoch(3)), 5);
        assert_eq!((second.producer, second.sequence), (ProducerId(9), Sequence(10)), "the id stays");
        sequences.ack(first, true);
        assert!(sequences.acked());
        sequences.spoil();
        assert!(sequences.bump());
        assert!(!sequences.acked() && !sequences.spoiled());
        let third = sequences.stamp((ProducerId(9), ProducerEpoch(0)), 1);
        assert_eq!((third.epoch, third.sequence), (ProducerEpoch(1), Sequence(0)));
        sequences.ack(second, true);
        assert!(!sequences.acked(), "an ack of the old epoch says nothing of the new one");
    }

    #[test]
    fn epochs_run_out() {
        let mut sequences = Sequences::default();
        sequences.stamp((ProducerId(1), ProducerEpoch(0)), 1);
        let bumps = (0..40_000).take_while(|_| sequences.bump()).count();
        assert_eq!(bumps, i16::MAX as usize);
        sequences.renew();
        assert_eq!(sequences.stamp((ProducerId(2), ProducerEpoch(0)), 1).producer, ProducerId(2));
    }
}
