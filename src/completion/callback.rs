//! A record's callback on its way through a listener entry: as one word.
//!
//! *Why this is sound*: (a) the word is the address of a box made in `hold`; (b) whoever holds the word frees it once:
//! the `Held` when the record was refused, else the thread that takes the record's entry.

#![allow(unsafe_code, reason = "argued above")]

use super::RecordMetadata;
use crate::error::DeliveryError;

/// What a record's sender wants called.
pub(crate) type Callback = Box<dyn FnOnce(Result<RecordMetadata, DeliveryError>) + Send>;

/// A callback as a word, until a record was accepted with it.
pub(crate) struct Held(*mut Callback);

/// Turns a callback into a word.
pub(crate) fn hold(callback: Callback) -> Held {
    Held(Box::into_raw(Box::new(callback)))
}

impl Held {
    /// The word.
    pub(crate) fn value(&self) -> u64 {
        self.0.expose_provenance() as u64
    }

    /// A record was accepted with it: whoever takes its entry calls [`take`].
    pub(crate) fn accepted(self) {
        std::mem::forget(self);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: (b), the record was refused, so no entry has the word.
        drop(unsafe { Box::from_raw(self.0) });
    }
}

/// Back from the word.
///
/// # Safety
/// `value` is a [`Held::value`] whose record was accepted, and it is taken once.
pub(crate) unsafe fn take(value: u64) -> Callback {
    let pointer = std::ptr::with_exposed_provenance_mut::<Callback>(value as usize);
    // SAFETY: (a) and (b), the caller's promise.
    *unsafe { Box::from_raw(pointer) }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::error::DeliveryErrorKind;

    #[test]
    fn freed_once_either_way() {
        let witness = Arc::new(());
        let callback = |witness: &Arc<()>| -> Callback {
            let witness = witness.clone();
            Box::new(move |_| drop(witness))
        };
        drop(hold(callback(&witness)));
        assert_eq!(Arc::strong_count(&witness), 1, "refused");
        let held = hold(callback(&witness));
        let value = held.value();
        held.accepted();
        assert_eq!(Arc::strong_count(&witness), 2, "on its way");
        // SAFETY: just made, taken once.
        let callback = unsafe { take(value) };
        callback(Err(DeliveryError::placeless(DeliveryErrorKind::Closed)));
        assert_eq!(Arc::strong_count(&witness), 1, "called");
    }
}
