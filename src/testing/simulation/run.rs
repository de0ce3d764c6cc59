//! A seed's life: callers at work in bad weather, the healing, and what must hold then.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use super::check::{Forgotten, FoundLog, Rules, check_logs};
use super::coverage::{Coverage, Sight};
use super::deck::SharedDeck;
use super::ledger::{Ledger, PARTITIONS_MAX, Place, value};
use super::network::Storm;
use super::plan::{Dice, Plan};
use super::spoil::NAMES;
use super::world::{Weather, World};
use crate::accumulator::{Attach, Partition, PrivateClaim};
use crate::config::Acks;
use crate::error::CloseReport;
use crate::metadata::BELIEVED;
use crate::sender::{Command, Random, Ticket, TopicShared};
use crate::testing::{FirstSequence, StoredBatch};
use crate::wire::header::ApiKey;
use crate::wire::record::Fields;

const MS: Duration = Duration::from_millis(1);
/// What a run has at least.
const RECORDS: usize = 200;
const FAULTS: u64 = 5;
/// After the healing nothing takes longer, unless it is for ever.
const RECOVERY: Duration = Duration::from_secs(8);

/// What a seed came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Records that were accepted.
    pub records: u64,
    /// Faults that happened.
    pub faults: u64,
    /// A hash over everything that was sent, and when: the same for the same seed.
    pub trace: u64,
    /// What was seen.
    pub coverage: Coverage,
}

/// What a seed is about, for whoever looks into it.
pub fn describe(seed: u64) -> String {
    format!("{:#?}", Plan::new(seed))
}

/// Runs a seed.
///
/// # Panics
/// When something does not hold that should.
pub fn run(seed: u64) -> Report {
    tell(seed, false)
}

/// The same, and prints what happens.
pub fn tell(seed: u64, story: bool) -> Report {
    let mut run = Run::new(seed, Plan::new(seed));
    run.world.story = story;
    run.work();
    if run.plan.close_early {
        run.close_early();
    } else {
        run.recover();
        run.probe();
        run.close();
    }
    run.check();
    let faults = run.faults();
    let mut coverage = std::mem::take(&mut run.world.coverage);
    coverage.take_steps();
    let records = run.world.shared.stats().accepted;
    assert!(records >= RECORDS as u64 && faults >= FAULTS, "seed {seed} does too little: {records}, {faults}");
    Report { seed, records, faults, trace: run.world.trace, coverage }
}

struct Claimed {
    claim: PrivateClaim,
    id: u32,
    looks: u32,
}

struct Run {
    plan: Plan,
    world: World,
    dice: Dice,
    deck: SharedDeck,
    topics: Vec<Arc<TopicShared>>,
    /// Where each thread sends at present.
    threads: Vec<(usize, u32)>,
    claims: Vec<Claimed>,
    /// With the order of the first record that each need not wait for.
    flushes: Vec<(Arc<Ticket>, u32)>,
    /// Logs of topics that are no more.
    graves: Vec<(Place, Vec<StoredBatch>)>,
    forgotten: Vec<Forgotten>,
    free: usize,
    value: Vec<u8>,
    dropped: bool,
    /// The node that is cut off from its controller.
    cut_off: Option<i32>,
}

impl Run {
    fn new(seed: u64, plan: Plan) -> Self {
        let mut dice = Dice(Random::new(seed ^ 0x00c0_ffee));
        let partitions = 1 + dice.below(4) as i32;
        let (deck, options) = SharedDeck::new(seed ^ 0x000d_ecc5, plan.options(partitions));
        let mut world = World::new(seed, options, plan.config.clone());
        let acks = match plan.acks {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        };
        let timeout = plan.delivery_timeout;
        let mut ledger = Ledger::new(plan.topics, plan.max_in_flight, acks, timeout, plan.retries);
        ledger.idempotent = plan.idempotent;
        world.ledger = Some(ledger);
        world.deck = Some(deck.clone());
        world.first_sequence = plan.first_sequence;
        world.epochs_grow = !plan.recreates;
        (world.weather, world.storm) = (plan.weather, plan.storm);
        deck.set(plan.chances.clone());
        for node in &plan.without_identity {
            world.coverage.saw(Sight::WithoutIdentity);
            world.model.offer_api(*node, ApiKey::INIT_PRODUCER_ID.0, false);
        }
        let free = world.accumulator.free();
        let mut topics = Vec::new();
        for (at, name) in NAMES.iter().enumerate().take(plan.topics) {
            if at == 0 || !dice.chance(150) {
                let options = world.model.options.topic.clone();
                world.model.create_topic(name, options);
            }
            let topic = world.shared.topic(name);
            world.shared.want(&topic);
            topics.push(topic);
        }
        let threads = vec![(0, 0); plan.threads];
        Self {
            plan,
            world,
            dice,
            deck,
            topics,
            threads,
            claims: Vec::new(),
            flushes: Vec::new(),
            graves: Vec::new(),
            forgotten: Vec::new(),
            free,
            value: Vec::new(),
            dropped: false,
            cut_off: None,
        }
    }

    fn ledger(&mut self) -> &mut Ledger {
        self.world.ledger.as_mut().unwrap()
    }

    fn saw(&mut self, sight: Sight) {
        self.world.coverage.saw(sight);
    }

    fn faults(&self) -> u64 {
        let sights = Sight::CutRequest as usize..=Sight::ClockForth as usize;
        sights.map(|at| self.world.coverage.nth(at)).sum::<u64>() + self.world.coverage.codes()
    }

    fn wait(&mut self, time: Duration) {
        let until = self.world.now + time;
        self.world.run_until(until);
        self.settle();
        self.end_forgetting();
    }

    fn settle(&mut self) {
        let now = self.world.now;
        self.ledger().settle(now);
        let oldest = self.ledger().oldest_of_all();
        for (ticket, next) in &self.flushes {
            assert!(!ticket.is_done() || oldest.is_none_or(|oldest| oldest >= *next), "a flush ends too early");
        }
    }

    // ---- the bad time -----------------------------------------------------------------------------------------

    fn work(&mut self) {
        let target = RECORDS + self.dice.below(60) as usize;
        let mut steps = 0;
        while self.world.shared.stats().accepted < target as u64 || steps < 30 || self.faults() < FAULTS {
            steps += 1;
            assert!(steps < 20_000, "callers get nothing done");
            let enough = self.world.shared.stats().accepted >= target as u64;
            if enough && steps >= 30 {
                // The weather was too fine.
                let node = self.dice.below(self.plan.brokers as u64) as i32;
                self.restart(node, 5);
            } else if !enough || steps % 2 == 0 {
                self.burst();
            }
            self.operate();
            self.go_on_with_claims(false);
            let micros = self.dice.of(&[0, 100, 500, 2000, 5000]);
            self.wait(Duration::from_micros(micros));
        }
        self.go_on_with_claims(true);
    }

    /// A thread sends some records, until there is no room.
    fn burst(&mut self) {
        let thread = self.dice.below(self.threads.len() as u64) as usize;
        if self.dice.chance(300) {
            let topic = self.dice.below(self.topics.len() as u64) as usize;
            self.threads[thread] = (topic, self.dice.below(8) as u32);
        }
        let (topic, partition) = self.threads[thread];
        let count = self.topics[topic].count();
        if count == 0 {
            let topic = self.topics[topic].clone();
            self.world.shared.want(&topic);
            self.threads[thread].0 = 0;
            return;
        }
        let Some(ring) = self.topics[topic].partition(partition % count).cloned() else { return };
        let place = topic * PARTITIONS_MAX + (partition % count) as usize;
        for _ in 0..1 + self.dice.below(12) {
            let sent = if self.dice.chance(self.plan.habits.claim) {
                self.claim(&ring, place)
            } else {
                self.append(&ring, place)
            };
            if !sent {
                self.saw(Sight::Refused);
                self.wait(MS);
                break;
            }
        }
    }

    fn len(&mut self) -> u32 {
        let most = match self.dice.below(20) {
            0 => self.plan.largest,
            1..4 => self.plan.largest / 8 + 8,
            _ => 60,
        };
        4 + self.dice.below(u64::from(most)) as u32
    }

    fn offer(&mut self, place: Place) -> (u32, u32, bool) {
        let len = self.len();
        let bad = self.plan.compacted && self.dice.chance(20);
        let id = self.ledger().offer(place, len, bad);
        let mut bytes = std::mem::take(&mut self.value);
        value(id, len, &mut bytes);
        self.value = bytes;
        (id, len, bad)
    }

    fn append(&mut self, ring: &Arc<Partition>, place: Place) -> bool {
        let (id, len, bad) = self.offer(place);
        let keyed = (self.plan.compacted && !bad) || (!self.plan.compacted && id % 3 == 0);
        let fields = Fields { key: keyed.then_some(b"key"), value: Some(&self.value), headers: &[] };
        let limits = self.plan.limits;
        let limit = (limits > 0 && self.dice.chance(limits)).then(|| self.dice.of(&[1, 2, 5, 20, 60, 200, 100_000]));
        match self.world.accumulator.append(
            ring,
            &fields,
            None,
            Attach::Delivery,
            true,
            limit.and_then(NonZeroU32::new),
        ) {
            Ok(appended) => {
                self.world.note_accepted();
                if let Some(limit) = limit {
                    self.saw(Sight::OwnLimit);
                    self.ledger().limit(id, limit * MS);
                }
                let large = len > self.plan.batch_size;
                self.saw(if large { Sight::LargeRecord } else { Sight::SmallRecord });
                self.accept(id, appended.delivery);
                true
            }
            Err(refused) => {
                assert!(refused.is_full(), "{refused:?}");
                self.ledger().withdraw(id);
                false
            }
        }
    }

    fn accept(&mut self, id: u32, delivery: Option<crate::Delivery>) {
        let forgets = self.plan.forgetful || self.plan.recreates;
        let keep = forgets || !self.dice.chance(self.plan.habits.drop_deliveries);
        if !keep {
            self.saw(Sight::DeliveryDropped);
            self.dropped = true;
        }
        let now = self.world.now;
        self.ledger().accept(id, now, delivery.filter(|_| keep));
    }

    fn claim(&mut self, ring: &Arc<Partition>, place: Place) -> bool {
        let (id, len, bad) = self.offer(place);
        let key: Option<&[u8]> = (self.plan.compacted && !bad).then_some(b"key");
        let fields = Fields { key, ..Fields::default() };
        match self.world.accumulator.claim(ring, &fields, len as usize, None, None) {
            Ok(mut claim) => {
                claim.value_mut().copy_from_slice(&self.value);
                let looks = self.dice.of(&[0, 0, 1, 5]);
                if looks > 0 {
                    self.saw(Sight::ClaimKept);
                }
                self.claims.push(Claimed { claim, id, looks });
                true
            }
            Err(refused) => {
                assert!(refused.is_full(), "{refused:?}");
                self.ledger().withdraw(id);
                false
            }
        }
    }

    fn go_on_with_claims(&mut self, all: bool) {
        for mut claimed in std::mem::take(&mut self.claims) {
            if claimed.looks > 0 && !all {
                claimed.looks -= 1;
                self.claims.push(claimed);
                continue;
            }
            if self.dice.chance(250) {
                self.saw(Sight::ClaimDropped);
                continue;
            }
            match claimed.claim.commit(Attach::Delivery) {
                Ok(appended) => {
                    self.world.note_accepted();
                    self.saw(Sight::ClaimCommitted);
                    self.accept(claimed.id, appended.delivery);
                }
                Err((claim, refused)) => {
                    assert!(refused.is_full(), "{refused:?}");
                    if !all {
                        self.claims.push(Claimed { claim, id: claimed.id, looks: 1 });
                    }
                }
            }
        }
    }

    /// Now and then somebody does something else.
    fn operate(&mut self) {
        let habits = self.plan.habits;
        let node = self.dice.below(self.plan.brokers as u64) as i32;
        let topic = self.dice.below(self.topics.len() as u64) as usize;
        if self.dice.chance(habits.flush) {
            self.saw(Sight::Flush);
            let ticket: Arc<Ticket> = Arc::default();
            self.world.shared.command(Command::Flush(ticket.clone()));
            let next = self.ledger().next_order();
            self.flushes.push((ticket, next));
        }
        if self.dice.chance(habits.move_leader) {
            self.move_leader(topic);
        }
        if self.dice.chance(habits.restart) {
            let away = self.dice.of(&[2, 10, 40]);
            self.restart(node, away);
        }
        if self.dice.chance(habits.outage) {
            self.saw(Sight::LongOutage);
            let away = self.dice.of(&[300, 900]);
            self.restart(node, away);
        }
        if self.dice.chance(habits.freeze) {
            self.saw(Sight::Freeze);
            self.world.tell(|| format!("broker {node} stands still"));
            let time = self.dice.of(&[3, 30, 150, 400]) * MS;
            self.world.freeze(node, time);
        }
        if self.dice.chance(self.plan.cut_off) {
            self.cut_off(node);
        }
        if self.dice.chance(habits.limit) {
            self.saw(Sight::LimitChanged);
            let limit = self.dice.of(&[300, 700, 2500, 1 << 20]);
            if let Some(topic) = self.world.model.topics.get_mut(NAMES[topic]) {
                topic.options.max_message_bytes = limit;
            }
        }
        if self.dice.chance(habits.grow) {
            let count = self.world.model.topics.get(NAMES[topic]).map_or(0, |topic| topic.partitions.len());
            if count > 0 && count < PARTITIONS_MAX {
                self.saw(Sight::TopicGrown);
                self.world.model.grow_topic(NAMES[topic], count as i32 + 1);
            }
        }
        if self.dice.chance(habits.jump) {
            let far = self.dice.below(50 * 60_000) as i64;
            let back = self.world.wall_jump_ms > 0;
            self.saw(if back { Sight::ClockBack } else { Sight::ClockForth });
            self.world.wall_jump_ms = if back { -far } else { far };
        }
        if self.plan.forgetful && self.dice.chance(30) {
            self.forget();
        }
        if self.dice.chance(if self.plan.recreates { 60 } else { 15 }) {
            self.make_topic(topic);
        }
    }

    fn restart(&mut self, node: i32, away: u32) {
        self.saw(Sight::Restart);
        self.world.kill_for(node, away * MS);
    }

    /// The node knows only what is known now, from now on; or, if one does, that one catches up.
    fn cut_off(&mut self, node: i32) {
        match self.cut_off.take() {
            Some(node) => {
                self.world.tell(|| format!("broker {node} catches up"));
                self.world.model.catch_up(node);
            }
            None => {
                self.saw(Sight::CutOff);
                self.world.tell(|| format!("broker {node} is cut off"));
                self.world.model.cut_off(node);
                self.cut_off = Some(node);
            }
        }
    }

    fn move_leader(&mut self, topic: usize) {
        let Some(known) = self.world.model.topics.get(NAMES[topic]) else { return };
        let index = self.dice.below(known.partitions.len() as u64) as usize;
        let old = &known.partitions[index];
        let place = topic * PARTITIONS_MAX + index;
        self.world.old_leaders.retain(|(of, ..)| *of != place);
        self.world.old_leaders.push((place, old.leader, old.leader_epoch));
        let node = if self.dice.chance(100) { -1 } else { self.dice.below(self.plan.brokers as u64) as i32 };
        self.saw(if node < 0 { Sight::Leaderless } else { Sight::LeaderMove });
        self.world.tell(|| format!("place {place} is led by {node}"));
        self.world.model.move_leader(NAMES[topic], index as i32, node);
    }

    /// The topic is created if it is not there, and deleted if it is.
    fn make_topic(&mut self, topic: usize) {
        self.world.note_topics();
        let name = NAMES[topic];
        let known = self.world.topic_ids.iter().any(|(_, number)| *number == topic);
        if !self.world.model.topics.contains_key(name) {
            let mut options = self.world.model.options.topic.clone();
            if known && self.dice.chance(400) {
                self.saw(Sight::TopicShrank);
                options.partitions = 1 + self.dice.below(options.partitions as u64) as i32;
            }
            self.world.model.create_topic(name, options);
            self.saw(if known { Sight::TopicRecreated } else { Sight::TopicLate });
        } else if self.plan.recreates {
            self.saw(Sight::TopicDeleted);
            let count = self.world.model.topics.get(name).map_or(0, |topic| topic.partitions.len());
            for index in 0..count {
                let log = self.world.model.log(name, index as i32).map(|log| log.batches().to_vec());
                self.graves.push((topic * PARTITIONS_MAX + index, log.unwrap_or_default()));
            }
            self.world.model.delete_topic(name);
            // The next one of this name has epochs of its own.
            self.world.old_leaders.retain(|(place, ..)| place / PARTITIONS_MAX != topic);
            let kept_apart = self.plan.version >= 13 || self.plan.first_accepted != FirstSequence::Any;
            self.begin_forgetting(topic..topic + 1, kept_apart);
        }
    }

    /// All brokers forget all producers.
    fn forget(&mut self) {
        self.saw(Sight::Forget);
        self.world.tell(|| "all producers are forgotten".to_owned());
        self.world.model.expire_producers();
        self.begin_forgetting(0..self.topics.len(), false);
    }

    fn begin_forgetting(&mut self, topics: std::ops::Range<usize>, kept_apart: bool) {
        for place in topics.start * PARTITIONS_MAX..topics.end * PARTITIONS_MAX {
            let next = self.ledger().next_order();
            let from = self.ledger().oldest_on_its_way(place).unwrap_or(next);
            self.forgotten.push(Forgotten { place, from, to: None, kept_apart });
        }
    }

    /// What the broker learned anew counts, once nothing of before is left and something was stored.
    fn end_forgetting(&mut self) {
        if self.forgotten.iter().all(|forgotten| forgotten.to.is_some()) {
            return;
        }
        let ledger = self.world.ledger.as_ref().unwrap();
        for forgotten in self.forgotten.iter_mut().filter(|forgotten| forgotten.to.is_none()) {
            let (topic, index) = (forgotten.place / PARTITIONS_MAX, forgotten.place % PARTITIONS_MAX);
            let log = self.world.model.log(NAMES[topic], index as i32);
            let knows = log.is_some_and(|log| log.knows_producers());
            let rest = ledger.oldest(forgotten.place).is_none();
            let ring = self.topics[topic].partition(index as u32);
            if knows && rest && ring.is_some_and(|ring| self.world.sender.is_at_rest(ring)) {
                forgotten.to = Some(ledger.next_order());
            }
        }
    }

    // ---- the good time afterwards -----------------------------------------------------------------------------

    fn heal(&mut self) {
        self.world.tell(|| "healed".to_owned());
        self.deck.set(Default::default());
        self.world.weather = Weather::default();
        self.world.storm = Storm { epoch: self.plan.storm.epoch, ..Storm::default() };
        self.world.frozen.clear();
        for node in std::mem::take(&mut self.plan.without_identity) {
            // It is another version from now on.
            self.world.model.offer_api(node, ApiKey::INIT_PRODUCER_ID.0, true);
            self.world.kill_for(node, MS);
        }
        // One that is cut off for good has its partitions taken away; nobody else lags behind.
        match self.cut_off.take() {
            Some(node) if self.plan.cut_off_for_good => {
                self.saw(Sight::CutOffForGood);
                self.cut_off = Some(node);
            }
            Some(node) => self.world.model.catch_up(node),
            None => {}
        }
        let sound = self.cut_off.map_or(0, |node| (node + 1) % self.plan.brokers);
        for (topic, name) in NAMES.into_iter().enumerate().take(self.topics.len()) {
            if !self.world.model.topics.contains_key(name) {
                self.make_topic(topic);
            }
            let leaders: Vec<i32> = self.world.model.topics[name].partitions.iter().map(|p| p.leader).collect();
            for (index, leader) in (0..).zip(leaders) {
                if leader < 0 || Some(leader) == self.cut_off {
                    self.world.model.move_leader(name, index, sound);
                }
            }
        }
    }

    /// Everything that was accepted has its outcome soon.
    fn recover(&mut self) {
        self.heal();
        let healed = self.world.now;
        while self.ledger().outstanding() > 0 || self.flushes.iter().any(|(ticket, _)| !ticket.is_done()) {
            self.wait(5 * MS);
            let time = self.world.now - healed;
            // Each record that is too large for its broker costs some connections.
            let slow = self.plan.recreates || self.plan.request_max.is_some();
            let limit = if slow { self.plan.delivery_timeout } else { Duration::ZERO };
            // What only the one that lags has told is not believed against the others at once.
            let limit = if self.cut_off.is_some() { limit.max(2 * BELIEVED) } else { limit };
            let open = self.ledger().outstanding();
            assert!(time < RECOVERY + limit, "{open} records without an outcome {time:?} after the healing");
        }
    }

    /// And what is sent from then on is delivered.
    fn probe(&mut self) {
        self.wait(2000 * MS);
        let mut probes = Vec::new();
        for (topic, name) in NAMES.into_iter().enumerate().take(self.topics.len()) {
            let there = self.world.model.topics[name].partitions.len();
            for index in 0..there.min(self.topics[topic].count() as usize) {
                let Some(ring) = self.topics[topic].partition(index as u32).cloned() else { continue };
                let place = topic * PARTITIONS_MAX + index;
                let id = self.ledger().offer(place, 8, false);
                value(id, 8, &mut self.value);
                let fields = Fields { key: Some(b"key"), value: Some(&self.value), headers: &[] };
                let appended =
                    self.world.accumulator.append(&ring, &fields, None, Attach::Delivery, true, None).unwrap();
                self.world.note_accepted();
                let now = self.world.now;
                self.ledger().accept(id, now, appended.delivery);
                probes.push(id);
            }
        }
        let began = self.world.now;
        while self.ledger().outstanding() > 0 {
            self.wait(2 * MS);
            assert!(self.world.now - began < RECOVERY, "what is sent after the healing gets no outcome");
        }
        for id in probes {
            let told = self.ledger().records[id as usize].told;
            // A leader that moved unnoticed takes a try or two.
            let few_tries = self.plan.retries < i32::MAX as u32;
            assert!(
                few_tries || matches!(told, super::ledger::Told::Delivered(_)),
                "record {id}, sent after the healing: {told:?}"
            );
        }
    }

    fn close(&mut self) {
        self.world.shared.command(Command::Close(Duration::from_secs(1)));
        self.ledger().closed = true;
        let report = self.wait_for_the_end();
        assert!(report.is_clean(), "nothing was left to do: {report}");
    }

    fn close_early(&mut self) {
        self.saw(Sight::CloseEarly);
        let time = self.dice.of(&[0, 5, 100, 1000]) * MS;
        self.world.shared.command(Command::Close(time));
        self.ledger().closed = true;
        let reported = self.wait_for_the_end().records();
        let left = self.ledger().outcomes[5];
        assert!(reported == left || self.dropped && reported > left, "{left} left behind, {reported} reported");
        self.heal();
    }

    fn wait_for_the_end(&mut self) -> CloseReport {
        let began = self.world.now;
        while !self.world.sender.is_closed() {
            self.wait(2 * MS);
            assert!(self.world.now - began < RECOVERY, "it never closes: {:?}", self.world.sender);
        }
        assert!(self.flushes.iter().all(|(ticket, _)| ticket.is_done()), "a flush never ends");
        let open = self.ledger().outstanding();
        assert_eq!(open, 0, "records without an outcome after close");
        self.world.shared.report().expect("closed, and nobody says so")
    }

    fn check(&mut self) {
        // What is still on its way may arrive.
        self.wait(2000 * MS);
        let outcomes = self.ledger().outcomes;
        let sights = [
            Sight::Delivered,
            Sight::DeliveredBlind,
            Sight::NotWritten,
            Sight::PossiblyWritten,
            Sight::Expired,
            Sight::LeftByClose,
        ];
        sights.into_iter().zip(outcomes).for_each(|(sight, count)| self.world.coverage.add_sights(sight, count));
        self.claims.clear();
        assert_eq!(self.world.accumulator.free(), self.free, "all memory is back");
        let mut coverage = std::mem::take(&mut self.world.coverage);
        let mut logs: Vec<FoundLog<'_>> =
            self.graves.iter().map(|(place, batches)| FoundLog { place: *place, batches }).collect();
        for (topic, name) in NAMES.into_iter().enumerate().take(self.topics.len()) {
            for index in 0..PARTITIONS_MAX {
                if let Some(log) = self.world.model.log(name, index as i32) {
                    logs.push(FoundLog { place: topic * PARTITIONS_MAX + index, batches: log.batches() });
                }
            }
        }
        let ledger = self.world.ledger.as_ref().unwrap();
        let rules = Rules {
            idempotent: self.plan.idempotent,
            max_in_flight: self.plan.max_in_flight,
            acks: i16::from(self.plan.acks != Acks::None),
            forgotten: &self.forgotten,
        };
        check_logs(&logs, ledger, &rules, &mut coverage);
        self.world.coverage = coverage;
    }
}
