//! Which transitions are taken: counted for a simulation that must not miss one, and free of cost otherwise.

use super::ack::Decision;
use super::connection;

/// Steps of the sender that are rarely taken.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A search for what is stored begins at the newest batch that may be.
    Search,
    /// It goes on one batch further back.
    SearchFurther,
    /// It ends: none is stored.
    SearchInVain,
    /// It ends: this one is stored, and so is what stands before.
    SearchFound,
    /// A partition takes a new epoch.
    NewEpoch,
    /// Its epochs are used up: it waits for a new producer id.
    NewProducerId,
    /// A batch whose callers were told comes back.
    ToldComesBack,
    /// A doubtful batch is given up.
    DoubtfulGivenUp,
    /// A record's own time is over, and its batch goes on with it.
    ToldAlone,
    /// A record's own time is over, and it is taken out of its batch.
    TakenOut,
    /// A batch could leave, and waits to be larger.
    WaitsToGrow,
    /// A second connection is begun beside one that is slow.
    BeginsRival,
    /// It is up first.
    RivalWins,
    /// A broker whose metadata did not help is left for another one.
    LeavesLagging,
    /// A batch is cut, for its broker may take smaller requests only.
    CutDown,
}

/// How often each transition was taken on this thread.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taken {
    /// By state and event.
    pub connection: [[u64; 4]; 5],
    /// By decision.
    pub decision: [u64; 6],
    /// By step.
    pub step: [u64; 15],
}

#[cfg(feature = "testing")]
thread_local! {
    static TAKEN: std::cell::RefCell<Taken> = std::cell::RefCell::default();
}

/// What was counted since the last call.
#[cfg(feature = "testing")]
pub fn take_counts() -> Taken {
    TAKEN.take()
}

fn count(_note: impl FnOnce(&mut Taken) -> &mut u64) {
    #[cfg(feature = "testing")]
    TAKEN.with_borrow_mut(|taken| *_note(taken) += 1);
}

pub(super) fn moved(state: connection::State, event: connection::Event) {
    count(|taken| &mut taken.connection[state as usize][event as usize]);
}

pub(super) fn decided(decision: Decision) {
    count(|taken| &mut taken.decision[decision as usize]);
}

pub(super) fn stepped(step: Step) {
    count(|taken| &mut taken.step[step as usize]);
}
