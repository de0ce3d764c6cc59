//! A record that the caller writes in place.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::{Deref, DerefMut};
use std::time::Instant;

use super::Topic;
use super::refusal::Refusal;
use crate::accumulator::{Appended, Ask, Attach, PrivateClaim};
use crate::completion::Delivery;
use crate::error::SendError;

/// A record's value, to be written in place (it derefs to its bytes) and then committed. It takes memory out of
/// `buffer.memory` until then; nobody waits for it.
///
/// The bytes are what lay there before: write all of them.
#[must_use = "a claim that is dropped sends nothing; commit() sends it"]
pub struct Claim {
    topic: Topic,
    claim: PrivateClaim,
    /// See [`Record::with_delivery_timeout`](crate::Record::with_delivery_timeout).
    timeout: Option<NonZeroU32>,
}

impl Claim {
    pub(super) fn new(topic: Topic, claim: PrivateClaim, timeout: Option<NonZeroU32>) -> Self {
        Self { topic, claim, timeout }
    }

    /// The same of another handle's producer.
    #[cfg(all(test, feature = "testing"))]
    pub(super) fn at(self, topic: Topic) -> Self {
        Self { topic, ..self }
    }

    /// Sends the record. Its place among the partition's records is that of this call, its timestamp that of the
    /// claim. Waits for a place in the partition's ring, `max.block.ms` at most.
    ///
    /// # Errors
    /// Why the record was refused; the claim is given up with it. [`Claim::try_commit`] keeps it.
    pub fn commit(self) -> Result<Delivery, SendError> {
        let appended = self.commit_as(Attach::Delivery)?;
        appended.delivery.ok_or(SendError::Closed)
    }

    /// Like [`Claim::commit`], with a tag for the producer's listener in place of a handle.
    ///
    /// # Errors
    /// As [`Claim::commit`], and [`SendError::NoListener`].
    pub fn commit_tagged(self, tag: u64) -> Result<(), SendError> {
        if !self.topic.core().has_listener {
            return Err(SendError::NoListener);
        }
        self.commit_as(Attach::Tag(tag)).map(drop)
    }

    /// Like [`Claim::commit`], but never waits: a claim that was refused comes back as it was.
    ///
    /// # Errors
    /// The claim, and why it was refused.
    #[expect(clippy::result_large_err, reason = "the claim itself comes back")]
    pub fn try_commit(self) -> Result<Delivery, (Self, SendError)> {
        if let Err(error) = self.topic.core().check_life() {
            return Err((self, error));
        }
        let Self { topic, claim, timeout } = self;
        match claim.commit_within(Attach::Delivery, timeout) {
            Ok(Appended { delivery: Some(delivery), .. }) => Ok(delivery),
            Ok(Appended { delivery: None, .. }) => unreachable!("a commit that asks for a delivery gets one"),
            Err((claim, refused)) => {
                let error = topic.error_of(&Refusal::Full(refused), || claim.len());
                Err((Self { topic, claim, timeout }, error))
            }
        }
    }

    fn commit_as(self, attach: Attach) -> Result<Appended, SendError> {
        self.topic.core().check_life()?;
        let Self { topic, claim, timeout } = self;
        let len = claim.len();
        let mut held = Some(claim);
        let mut attempt = |_: Option<&Ask>| {
            let claim = held.take().ok_or(Refusal::Life)?;
            claim.commit_within(attach, timeout).map_err(|(claim, refused)| {
                held = Some(claim);
                Refusal::Full(refused)
            })
        };
        match attempt(None) {
            Ok(appended) => Ok(appended),
            Err(refusal) => topic.insist(refusal, Instant::now(), attempt, |refusal| topic.error_of(refusal, || len)),
        }
    }
}

impl Deref for Claim {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.claim.value()
    }
}

impl DerefMut for Claim {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.claim.value_mut()
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("topic", &self.topic.name()).field("len", &self.len()).finish()
    }
}
