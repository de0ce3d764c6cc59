//! What is known of whether a batch's records are in the log, and how every event changes it.
//!
//! A record is reported as *not written* exactly where [`Knowledge::written`] says so. The table in [`Copies::after`] is the
//! whole of the reasoning; ARCHITECTURE.md shows it, and a test compares the two.

use crate::error::Written;

/// What is known of the copies of a batch that were sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Copies {
    /// There is none, or each was refused for certain.
    NotWritten,
    /// One may be in the log. Sent again under the same numbers, the batch will tell.
    PossiblyWritten,
    /// The batch is a part of one that may be in the log whole, and was not sent by itself. A broker that accepts the part
    /// before it has not got the whole.
    PartOfWhole,
    /// One may be in the log, and what brokers say of later copies proves nothing.
    Doubtful,
}

/// What happens to a batch that bears on its copies. A broker that accepts it ends it, so that is no event here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Its connection ended, or its answer cannot be trusted, and the kernel had taken all of the request.
    Lost,
    /// It failed with an error that leaves open whether this copy was appended; or it is reported before its answer came.
    LeftOpen,
    /// OUT_OF_ORDER_SEQUENCE_NUMBER, where that is an answer to the question whether it is there.
    OutOfSequence,
    /// It goes on as a part of what it was: divided, or without some of its records.
    Divided,
    /// The part before it was accepted.
    PartAccepted,
    /// A batch behind it that may be in the log was given up, or the log is gone: nothing is left that could tell.
    NothingTells,
    /// A batch before it never was and never will be in the log, so neither can this be, under its numbers.
    BehindGap,
}

impl Copies {
    /// All of them, in the order of the table.
    #[cfg(test)]
    const ALL: [Self; 4] = [Self::NotWritten, Self::PossiblyWritten, Self::PartOfWhole, Self::Doubtful];

    /// The transition table.
    const fn after(self, event: Event) -> Self {
        use Copies::{Doubtful, NotWritten, PartOfWhole, PossiblyWritten};
        match (event, self) {
            (Event::Lost | Event::LeftOpen, NotWritten | PossiblyWritten) => PossiblyWritten,
            // It has a copy of its own now, of which the acceptance of another part says nothing.
            (Event::Lost | Event::LeftOpen, PartOfWhole | Doubtful) => Doubtful,
            (Event::OutOfSequence, NotWritten | PossiblyWritten) => NotWritten,
            (Event::OutOfSequence, PartOfWhole) => PartOfWhole,
            (Event::OutOfSequence, Doubtful) => Doubtful,
            (Event::Divided, NotWritten) => NotWritten,
            (Event::Divided, PossiblyWritten | PartOfWhole | Doubtful) => PartOfWhole,
            (Event::PartAccepted, NotWritten | PartOfWhole) => NotWritten,
            (Event::PartAccepted, PossiblyWritten) => PossiblyWritten,
            (Event::PartAccepted, Doubtful) => Doubtful,
            (Event::NothingTells, NotWritten) => NotWritten,
            (Event::NothingTells, PossiblyWritten | Doubtful) => Doubtful,
            (Event::NothingTells, PartOfWhole) => PartOfWhole,
            (Event::BehindGap, _) => NotWritten,
        }
    }
}

/// What is known of a batch: of the copies that a broker may have, and of those that may still be on their way to one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Knowledge {
    copies: Copies,
    /// A copy left whole on a connection that ended without an answer. It may still reach its broker: what that says of
    /// later copies holds only until then, and never makes the batch certainly not written.
    astray: bool,
}

impl Default for Knowledge {
    /// Of a batch that was not sent.
    fn default() -> Self {
        Self { copies: Copies::NotWritten, astray: false }
    }
}

impl Knowledge {
    /// Takes in what happened.
    pub fn learn(&mut self, event: Event) {
        self.copies = self.copies.after(event);
        self.astray |= event == Event::Lost;
    }

    /// What is known of the copies that were sent.
    pub fn copies(self) -> Copies {
        self.copies
    }

    /// A broker may have a copy.
    pub fn has_copy(self) -> bool {
        self.copies != Copies::NotWritten
    }

    /// A broker may have a copy, and the batch's own numbers cannot tell.
    pub fn is_doubtful(self) -> bool {
        matches!(self.copies, Copies::PartOfWhole | Copies::Doubtful)
    }

    /// What its records are reported as when they fail: *not written* only if no copy is in the log, nor ever will be.
    pub fn written(self) -> Written {
        if self.has_copy() || self.astray { Written::Possibly } else { Written::No }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 7] = [
        Event::Lost,
        Event::LeftOpen,
        Event::OutOfSequence,
        Event::Divided,
        Event::PartAccepted,
        Event::NothingTells,
        Event::BehindGap,
    ];

    fn table() -> String {
        let cells = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
        let mut table = cells([vec![String::new()], Copies::ALL.map(|of| format!("{of:?}")).into()].concat());
        table += &"|---".repeat(Copies::ALL.len() + 1);
        table += "|\n";
        for event in EVENTS {
            let row = Copies::ALL.map(|of| match of.after(event) {
                to if to == of => "same".to_owned(),
                to => format!("{to:?}"),
            });
            table += &cells([vec![format!("**{event:?}**")], row.into()].concat());
        }
        table
    }

    #[test]
    fn the_architecture_shows_the_table() {
        let table = table();
        println!("{table}");
        assert!(
            include_str!("../../ARCHITECTURE.md").contains(&table),
            "put this table into ARCHITECTURE.md:\n{table}"
        );
    }

    /// Whatever happens in whatever order: a copy that may arrive is never forgotten, and doubt ends only by an event that
    /// proves something.
    #[test]
    fn nothing_is_forgotten() {
        for first in EVENTS {
            for second in EVENTS {
                for third in EVENTS {
                    let mut known = Knowledge::default();
                    let events = [first, second, third];
                    events.into_iter().for_each(|event| known.learn(event));
                    let lost = events.contains(&Event::Lost);
                    assert!(!lost || known.written() == Written::Possibly, "{events:?}: {known:?}");
                    let sent = |event: &Event| matches!(event, Event::Lost | Event::LeftOpen);
                    let proof =
                        |event: &Event| matches!(event, Event::OutOfSequence | Event::PartAccepted | Event::BehindGap);
                    let open = events.iter().rposition(sent).map(|at| !events[at..].iter().any(proof));
                    assert!(open != Some(true) || known.has_copy(), "{events:?}: {known:?}");
                    assert!(events.iter().any(sent) || known == Knowledge::default(), "{events:?}: {known:?}");
                }
            }
        }
    }
}
