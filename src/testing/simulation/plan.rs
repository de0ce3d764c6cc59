//! From a seed to a configuration, a cluster, and what goes wrong in it.

use std::time::Duration;

use super::deck::Chances;
use super::network::Storm;
use super::world::Weather;
use crate::config::{Acks, ProducerConfig};
use crate::sender::Random;
use crate::testing::{BrokerOptions, FirstSequence, TopicOptions};

const MS: Duration = Duration::from_millis(1);

/// What a seed does.
#[derive(Debug)]
pub struct Plan {
    pub config: ProducerConfig,
    pub acks: Acks,
    pub idempotent: bool,
    pub max_in_flight: usize,
    pub delivery_timeout: Duration,
    pub retries: u32,
    pub batch_size: u32,
    pub largest: u32,
    pub brokers: i32,
    pub version: i16,
    pub topics: usize,
    pub auto_create: bool,
    pub compacted: bool,
    /// The first sequence number of a partition.
    pub first_sequence: u32,
    /// Callers' threads.
    pub threads: usize,
    pub weather: Weather,
    pub storm: Storm,
    pub chances: Chances,
    /// How often callers and operators do what, by weight.
    pub habits: Habits,
    /// Producer ids may be forgotten, and topics created again: nobody can keep order then.
    pub forgetful: bool,
    pub recreates: bool,
    pub close_early: bool,
    /// Records with a limit of their own, in thousandths.
    pub limits: u64,
    /// Brokers that have no InitProducerId until all is healed, by node id.
    pub without_identity: Vec<i32>,
    /// A broker that is cut off from its controller, and on, in thousandths of the steps; and one of them is never healed.
    pub cut_off: u64,
    pub cut_off_for_good: bool,
    /// The largest request that brokers take, if they have such a limit.
    pub request_max: Option<usize>,
    /// What a partition accepts first of a producer that it does not know.
    pub first_accepted: FirstSequence,
}

/// Weights of what happens between two looks of the run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Habits {
    pub claim: u64,
    pub flush: u64,
    pub drop_deliveries: u64,
    pub move_leader: u64,
    pub restart: u64,
    pub outage: u64,
    pub freeze: u64,
    pub limit: u64,
    pub grow: u64,
    pub jump: u64,
}

/// Draws.
pub struct Dice(pub Random);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0.next() % n.max(1)
    }

    pub fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }

    pub fn chance(&mut self, thousandths: u64) -> bool {
        self.below(1000) < thousandths
    }

    /// Most seeds have no such fault, some a little of it, few much.
    fn swarm(&mut self, much: u64) -> u64 {
        match self.below(10) {
            0..6 => 0,
            6..9 => 1 + self.below(much / 4 + 1),
            _ => much,
        }
    }
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let dice = &mut Dice(Random::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x0051_3a7e));
        let acks = match dice.below(16) {
            0..13 => Acks::All,
            13 => Acks::Leader,
            _ => Acks::None,
        };
        let idempotent = acks == Acks::All && !dice.chance(120);
        let max_in_flight = dice.of(&[1, 2, 3, 4, 5, 5, 5]);
        let request_timeout = dice.of(&[40, 100, 250]) * MS;
        let linger = dice.of(&[0, 0, 1, 5, 15]) * MS;
        let delivery_timeout = (request_timeout + linger).max(dice.of(&[120, 400, 1500, 5000, 20_000]) * MS);
        let retries = if dice.chance(80) { dice.below(4) as u32 + 1 } else { i32::MAX as u32 };
        let batch_size = dice.of(&[1, 150, 600, 2000, 8000, 16_384]);
        let buffer_memory = dice.of(&[64, 64, 96, 128, 256, 1024]) << 10;
        let backoff = dice.of(&[1, 3, 10, 50]);
        let config = ProducerConfig::new()
            .acks(acks)
            .enable_idempotence(idempotent)
            .max_in_flight(max_in_flight)
            .linger(linger)
            .batch_size(batch_size)
            .buffer_memory(buffer_memory)
            .max_request_size(if dice.chance(200) { 16_384 } else { 32_768 })
            .request_timeout(request_timeout)
            .delivery_timeout(delivery_timeout)
            .retries(retries)
            .retry_backoff(backoff * MS, backoff * 4 * MS)
            .reconnect_backoff(dice.of(&[1, 5, 20]) * MS, dice.of(&[20, 60]) * MS)
            .set("socket.connection.setup.timeout.ms", dice.of(&["30", "90"]))
            // It doubles with each vain attempt, and what was begun in bad weather is waited for.
            .set("socket.connection.setup.timeout.max.ms", "100")
            .set("connections.max.idle.ms", dice.of(&["-1", "540000", "60"]))
            .set("metadata.max.age.ms", dice.of(&["300000", "100", "25"]))
            .set("metadata.max.idle.ms", dice.of(&["300000", "5000"]));
        let version = dice.of(&[13, 13, 13, 13, 12, 11, 10, 9, 8, 7, 5, 3]);
        let mut codes: Vec<i16> = Chances::all_codes().collect();
        // Some seeds meet all codes, some the same few again and again.
        if dice.chance(600) {
            let kept: Vec<i16> = (0..1 + dice.below(4)).map(|_| dice.of(&codes)).collect();
            codes = kept;
        }
        let chances = Chances {
            error: dice.swarm(200),
            codes,
            stored_error: dice.swarm(80),
            close_before: dice.swarm(60),
            close_after: dice.swarm(60),
            hang_before: dice.swarm(40),
            hang_after: dice.swarm(40),
            delay: dice.swarm(300),
            throttle: dice.swarm(100),
            longest: dice.of(&[3, 20, 60]) * MS,
        };
        let storm = Storm {
            pieces: dice.swarm(400),
            drip: dice.swarm(500),
            half_answer: dice.swarm(50),
            deaf: dice.swarm(30),
            mute: dice.swarm(30),
            slow: dice.swarm(200),
            refuse: dice.swarm(300),
            silent: dice.swarm(150),
            late: dice.swarm(1000),
            shuffle: dice.swarm(1000),
            stale: dice.swarm(500),
            leaderless: dice.swarm(200),
            identity: dice.swarm(400),
            identity_code: dice.of(&[14, 15, 16, 51, 31]),
            epoch: dice.of(&[0, 0, 0, i16::MAX - 1, i16::MAX]),
        };
        let weather = Weather { cut_request: dice.swarm(80), cut_answer: dice.swarm(80), restart: dice.swarm(30) };
        let habits = Habits {
            claim: dice.swarm(60),
            flush: dice.swarm(40),
            drop_deliveries: dice.swarm(30),
            move_leader: dice.swarm(60),
            restart: dice.swarm(40),
            outage: dice.swarm(8),
            freeze: dice.swarm(40),
            limit: dice.swarm(30),
            grow: dice.swarm(20),
            jump: dice.swarm(40),
        };
        let brokers = 2 + dice.below(2) as i32;
        let mut plan = Self {
            config,
            acks,
            idempotent,
            max_in_flight,
            delivery_timeout,
            retries,
            batch_size,
            largest: dice.of(&[100, 1000, 4000, 12_000]),
            brokers,
            version,
            topics: 1 + dice.below(3) as usize,
            auto_create: dice.chance(300),
            compacted: dice.chance(100),
            first_sequence: dice.of(&[0, 0, (1 << 31) - 1, (1 << 31) - 20, (1 << 31) - 100]),
            threads: 1 + dice.below(4) as usize,
            weather,
            storm,
            chances,
            habits,
            forgetful: dice.chance(70),
            recreates: dice.chance(80),
            close_early: dice.chance(200),
            // Where all have one, whole batches end.
            limits: if dice.chance(100) { 950 } else { dice.swarm(300) },
            first_accepted: FirstSequence::Any,
            request_max: None,
            without_identity: Vec::new(),
            cut_off: 0,
            cut_off_for_good: false,
        };
        if dice.chance(40) {
            plan.without_identity = (0..brokers).filter(|_| dice.chance(600)).collect();
        }
        if dice.chance(120) {
            plan.cut_off = dice.of(&[5, 30, 100]);
            // It takes some tries to find out, and longer where a topic that it knows was replaced.
            let least = if plan.recreates { 20_000 * MS } else { 1500 * MS };
            plan.cut_off_for_good = dice.chance(600) && plan.delivery_timeout >= least;
        }
        plan.request_max = dice.chance(200).then(|| dice.of(&[4_000, 6_000, 9_000, 14_000]));
        // Whatever is drawn last leaves the other draws of known seeds as they are.
        plan.first_accepted = match dice.below(10) {
            0..6 => FirstSequence::Any,
            6..9 => FirstSequence::ZeroWhenNew,
            _ => FirstSequence::Zero,
        };
        if plan.first_accepted != FirstSequence::Any {
            // A start near the end of the numbers is our short cut to their wrap; such a broker would refuse it, and no
            // producer begins there.
            plan.first_sequence = 0;
        }
        plan
    }

    /// The cluster.
    pub fn options(&self, partitions: i32) -> BrokerOptions {
        BrokerOptions {
            brokers: self.brokers as usize,
            auto_create: self.auto_create,
            topic: TopicOptions { partitions, compacted: self.compacted, ..TopicOptions::default() },
            first_sequence: self.first_accepted,
            produce_max_version: self.version,
            socket_request_max_bytes: self.request_max.unwrap_or(usize::MAX),
            ..BrokerOptions::default()
        }
    }
}
