//! A topic that is deleted, and made again under its name.

use crate::batch::Batch;
use crate::script::{BY_NAME, Script};

pub fn all(script: &mut Script<'_>) {
    script.chapter("a topic deleted and made again");
    script.topic("again", &[]);
    let old = script.id_of("again");
    let nth = |n: i32| Batch::of(2).by(500, 2, 2 * n);
    for n in 0..3 {
        script.send(&format!("batch {n}"), &nth(n));
    }
    script.delete_topic("again");
    for version in [12, 13] {
        script.version = version;
        script.send(&format!("deleted, v{version}"), &nth(3));
        script.send(&format!("deleted, a wrong CRC, v{version}"), &nth(3).but(|b| b.crc = Some(1)));
    }
    script.topic("again", &[]);
    let by_id = |script: &Script<'_>, id: [u8; 16], batch: &Batch| {
        let mut request = script.produce(&[("again", 0, Some(batch.bytes()))]);
        (request.version, request.topics[0].1) = (13, id);
        request
    };
    let stale = by_id(script, old, &nth(3));
    script.request("the old sequences under the old id, v13", &stale);
    script.version = BY_NAME;
    script.send("the old sequences by name", &nth(3));
    script.send("again", &nth(3));
    script.send("what was stored in the topic before", &nth(2));
    script.send("what follows", &nth(4));
    let new = script.id_of("again");
    let mut both = by_id(script, old, &nth(5));
    both.topics.extend(by_id(script, new, &nth(5)).topics);
    script.request("under the old and the new id in one request", &both);
    script.delete_topic("again");
    script.topic("again", &[]);
    script.version = 13;
    script.send("made once more: a new epoch not at 0, v13", &nth(7));
}
