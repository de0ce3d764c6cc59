//! Every byte of a batch changed in several ways, one after the other: what nobody thought of.

use crate::batch::{Batch, Rec, reseal};
use crate::script::Script;

/// What becomes of a byte, by name.
type Change = (&'static str, fn(u8) -> u8);

const CHANGES: [Change; 5] = [
    ("+1", |b| b.wrapping_add(1)),
    ("-1", |b| b.wrapping_sub(1)),
    ("^80", |b| b ^ 0x80),
    ("00", |_| 0),
    ("ff", |_| 0xff),
];

pub fn all(script: &mut Script<'_>) {
    let ways =
        [("the CRC as it was", "changed", -1), ("its CRC right", "resealed", -1), ("of a producer", "produced", 100)];
    for (way, topic, producer_id) in ways {
        script.chapter(&format!("every byte of a batch changed, {way}"));
        script.topic(topic, &[]);
        let resealed = topic != "changed";
        let header = (Some("h".to_owned()), Some("x".to_owned()));
        let records = [Rec::nth(0), Rec::nth(1).but(|r| r.headers = vec![header]), Rec::nth(2).but(|r| r.key = None)];
        // Times are left out of the changes: what comes of them depends on the day.
        let (epoch, sequence) = if producer_id < 0 { (-1, -1) } else { (3, 50) };
        // At a time whose CRC each of the changes does change.
        let at = |time| Batch::new(&records).by(producer_id, epoch, sequence).but(|b| b.base_timestamp += time).bytes();
        let is_changed = |batch: &Vec<u8>| batch[17..21].iter().all(|byte| !matches!(byte, 0 | 0xff));
        let good = (0..).map(at).find(is_changed).unwrap();
        let wanted = |at: &usize| if producer_id < 0 { resealed || *at < 66 } else { (43..61).contains(at) };
        for at in (0..27).chain(43..good.len()).filter(wanted) {
            let answers = CHANGES.map(|(name, change)| {
                let mut changed = good.clone();
                changed[at] = change(changed[at]);
                if resealed && !(17..21).contains(&at) {
                    reseal(&mut changed);
                }
                let before = script.ended;
                let answer = script.answer_to_bytes(changed);
                let error = answer.split(' ').next().unwrap_or_default().to_owned();
                let stored = script.ended - before;
                format!("{name} {error}{}", if stored == 0 { String::new() } else { format!(" (+{stored})") })
            });
            script.line(&format!("byte {at}"), &answers.join(", "));
        }
    }
}
