//! The topics that records go to. What is not there is waited for once, and never again for each record.
//!
//! | what is missing | how long it is waited for | what then |
//! |---|---|---|
//! | a broker, metadata, a producer id | `max.block.ms` (15 s unless it is given) | the command ends |
//! | the topic of all lines (`-t`), or of the first record to be sent again | the same, 5 s at most once a broker says so | the command ends |
//! | the partition of all lines (`-p`) | the same, 5 s at most | the command ends |
//! | the topic of a later record to be sent again | the same, once | its records fail |
//! | the partition of a record to be sent again | the same, once for each topic | the records of such partitions fail |
//! | a partition that was there (the topic was created again, with fewer) | 0.5 s, once | as above: with `-p` nothing more is read |
//! | room in `buffer.memory` | until there is room: `delivery.timeout.ms` ends what takes it | |

use std::collections::HashMap;
use std::time::Duration;

use ringmail::{Producer, SendError, Topic};

use crate::connect::{wait_for_partition, warm_up};
use crate::exit::{Exit, Failure};
use crate::settings::Settings;

/// The topics that were asked for, each waited for once.
pub struct Topics {
    producer: Producer,
    settings: Settings,
    patience: Duration,
    /// Those that cannot be used, too: with the reason.
    known: HashMap<String, Result<Known, String>>,
}

/// A topic that can be used.
struct Known {
    topic: Topic,
    /// How many partitions it has, as far as is known.
    partitions: i32,
    /// Another partition was waited for, in vain.
    waited: bool,
}

impl Topics {
    /// None was asked for. `settings` are the producer's; a broker is waited for `patience` at most.
    pub fn new(producer: Producer, settings: Settings, patience: Duration) -> Self {
        Self { producer, settings, patience, known: HashMap::new() }
    }

    /// The topic of all lines; it has this partition, if one is asked for.
    pub fn open(&self, name: &str, partition: Option<i32>) -> Result<Topic, Failure> {
        let topic = self.producer.topic(name).map_err(|e| Failure::new(Exit::NotReady, e))?;
        warm_up(&self.producer, name, &self.settings, self.patience)?;
        if let Some(partition) = partition {
            let count = wait_for_partition(&self.producer, name, partition, self.patience)?;
            if partition >= count {
                return Err(Failure::new(Exit::NotReady, no_partition(name, partition, count)));
            }
        }
        Ok(topic)
    }

    /// The topic of a record to be sent again, to this partition; or why it cannot be used. Ends everything only when
    /// nothing was asked for before.
    pub fn of(&mut self, name: &str, partition: i32) -> Result<Result<Topic, String>, Failure> {
        if !self.known.contains_key(name) {
            let first = self.known.is_empty();
            let known = match self.open(name, None) {
                Ok(topic) => Ok(Known { topic, partitions: 0, waited: false }),
                Err(failure) if first => return Err(failure),
                Err(failure) => Err(failure.text),
            };
            self.known.insert(name.to_string(), known);
        }
        Ok(match self.known.get_mut(name) {
            Some(Ok(known)) => {
                if partition >= known.partitions {
                    let patience = if known.waited { Duration::ZERO } else { self.patience };
                    match wait_for_partition(&self.producer, name, partition, patience) {
                        Ok(count) => known.partitions = count,
                        Err(failure) => return Ok(Err(failure.text)),
                    }
                    known.waited |= partition >= known.partitions;
                }
                match partition < known.partitions {
                    true => Ok(known.topic.clone()),
                    false => Err(no_partition(name, partition, known.partitions)),
                }
            }
            Some(Err(why)) => Err(why.clone()),
            None => Err(String::new()),
        })
    }

    /// It was there, and is no more: the topic was created again. The next record looks anew.
    pub fn lost_partition(&mut self, name: &str) {
        if let Some(Ok(known)) = self.known.get_mut(name) {
            (known.partitions, known.waited) = (0, true);
        }
    }
}

fn no_partition(topic: &str, partition: i32, count: i32) -> String {
    SendError::InvalidPartition { topic: topic.into(), partition, count }.to_string()
}
