//! Stands in for `sync::doorbell` until that is merged.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::*};

#[derive(Default)]
pub struct Doorbell {
    word: AtomicU32,
    unpark: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Doorbell {
    pub fn bind(&self, unpark: Box<dyn Fn() + Send + Sync>) {
        let _ = self.unpark.set(unpark);
    }
    pub fn ring(&self) {
        if self.word.swap(1, AcqRel) == 2
            && let Some(unpark) = self.unpark.get()
        {
            unpark();
        }
    }
    pub fn is_rung(&self) -> bool {
        self.word.load(Relaxed) == 1
    }
    pub fn try_park(&self) -> bool {
        self.word.compare_exchange(0, 2, AcqRel, Acquire).is_ok()
    }
    pub fn awake(&self) {
        self.word.swap(0, AcqRel);
    }
}
