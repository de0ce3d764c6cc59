//! What this room needs of `completion`; under loom a stand-in without atomics, since completion has models of its own.

pub(crate) use crate::record::Place;

#[cfg(loom)]
pub(crate) use self::stand_in::{CompletionPool, CompletionRef, Delivery};
#[cfg(not(loom))]
pub(crate) use crate::completion::{CompletionPool, CompletionRef, Delivery};

#[cfg(loom)]
mod stand_in {
    #![allow(unsafe_code, reason = "the signatures of the real ones")]

    use std::sync::Arc;

    /// Stands in for `completion::CompletionPool`.
    #[derive(Debug)]
    pub struct CompletionPool;

    /// Stands in for `completion::CompletionRef`.
    #[derive(Debug)]
    pub struct CompletionRef;

    /// Stands in for `completion::Delivery`.
    #[derive(Debug)]
    pub struct Delivery {
        pub index: u32,
        pub timestamp: i64,
    }

    impl CompletionPool {
        pub fn new() -> Arc<Self> {
            Arc::new(Self)
        }
        pub fn take(self: &Arc<Self>) -> CompletionRef {
            CompletionRef
        }
    }

    impl CompletionRef {
        pub fn put_unused(&self) {}
        pub fn finish(&self, _: u32, _: Option<()>) {}
        pub fn into_raw(self) -> *mut () {
            std::ptr::null_mut()
        }
        /// # Safety
        /// From `into_raw`.
        pub unsafe fn from_raw(_: *mut ()) -> Self {
            Self
        }
    }

    impl Delivery {
        /// # Safety
        /// As the real one.
        pub unsafe fn new(_: CompletionRef, index: u32, timestamp: i64) -> Self {
            Self { index, timestamp }
        }
    }
}
