//! Threads that send numbered records through ringmail, and write down what they were told of each.
//!
//! `chaos-load BOOTSTRAP DIR [OPTION VALUE]… TOPIC…` prints `ready` and sends until its standard input ends; then it
//! waits for all answers, and says how many there were. `DIR/told-THREAD` has a line per record, with tabs:
//! number, `delivered|not-written|possibly-written|unanswered`, topic, partition, offset (`-`: not known), error.
//!
//! | option | default | |
//! |---|---|---|
//! | `--rate N` | 5000 | records per second of all threads |
//! | `--seed N` | 1 | |
//! | `--limit-ms N` | | what one record in eight has for time |
//! | `-X KEY=VALUE` | | a setting of both producers |
//!
//! There are two producers of two threads each: one over io_uring, whose threads send with tags, and one over epoll,
//! whose threads hold a `Delivery` per record. A record's value is `THREAD NUMBER ` and as many dots as [`dots`] says.

mod account;

use std::error::Error;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use account::{Account, Deliveries};
use ringmail::{DeliveryError, Producer, Record, RecordMetadata, Topic};

/// Threads per producer.
const THREADS: usize = 2;
/// Which thread's record a tag stands for: its upper bits.
const NUMBER_BITS: u32 = 40;

struct Options {
    bootstrap: String,
    dir: PathBuf,
    rate: f64,
    seed: u64,
    settings: Vec<(String, String)>,
    topics: Vec<String>,
    /// What one record in eight has for time.
    limit: Option<Duration>,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, Box<dyn Error>> {
    let mut next = |what: &str| args.next().ok_or_else(|| format!("{what} is missing"));
    let (bootstrap, dir) = (next("BOOTSTRAP")?, next("DIR")?.into());
    let topics = vec![next("TOPIC")?];
    let mut options = Options { bootstrap, dir, rate: 5000.0, seed: 1, settings: Vec::new(), topics, limit: None };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--rate" => options.rate = value()?.parse()?,
            "--seed" => options.seed = value()?.parse()?,
            "--limit-ms" => options.limit = Some(Duration::from_millis(value()?.parse()?)),
            "-X" => {
                let value = value()?;
                let (key, value) = value.split_once('=').ok_or("-X takes KEY=VALUE")?;
                options.settings.push((key.into(), value.into()));
            }
            _ => options.topics.push(arg),
        }
    }
    Ok(options)
}

/// How many dots follow in a record's value: its length tells whether the value is still what was sent.
fn dots(number: u64) -> usize {
    let few = (number.wrapping_mul(7919) % 200) as usize;
    if number % 1000 == 999 { few + 5000 } else { few }
}

fn producer(
    options: &Options,
    driver: &str,
    tagged: Option<&[Arc<Mutex<Account>>]>,
) -> Result<Producer, Box<dyn Error>> {
    let mut builder = Producer::builder()
        .set("bootstrap.servers", &options.bootstrap)
        .set("client.id", &format!("chaos-{driver}"))
        .set("driver", driver);
    for (key, value) in &options.settings {
        builder = builder.set(key, value);
    }
    if let Some(accounts) = tagged {
        let accounts = accounts.to_vec();
        builder = builder.listener(move |tag: u64, result: Result<&RecordMetadata, &DeliveryError>| {
            let number = tag & ((1 << NUMBER_BITS) - 1);
            if let Some(account) = accounts.get((tag >> NUMBER_BITS) as usize) {
                account::lock(account).note(number, result);
            }
        });
    }
    Ok(builder.build()?)
}

/// What one thread does until `stop`.
struct Sending<'a> {
    thread: usize,
    tagged: bool,
    topics: Vec<(Topic, i32)>,
    account: &'a Mutex<Account>,
    stop: &'a AtomicBool,
    rate: f64,
    seed: u64,
    limit: Option<Duration>,
}

impl Sending<'_> {
    fn run(&self) -> Deliveries {
        let (began, mut number) = (Instant::now(), 0_u64);
        let mut value = Vec::new();
        let mut deliveries = Deliveries::default();
        while !self.stop.load(Ordering::Relaxed) {
            let due = (began.elapsed().as_secs_f64() * self.rate) as u64;
            while number < due && !self.stop.load(Ordering::Relaxed) {
                value.clear();
                let _ = write!(value, "{} {number} ", self.thread);
                value.resize(value.len() + dots(number), b'.');
                self.send(number, &value, &mut deliveries);
                number += 1;
            }
            deliveries.note_done(self.account);
            std::thread::sleep(Duration::from_millis(2));
        }
        deliveries
    }

    /// One in four by key, one without anything, the others to each partition in turn.
    fn send(&self, number: u64, value: &[u8], deliveries: &mut Deliveries) {
        let turn = number.wrapping_add(self.seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
        let Some((topic, partitions)) = self.topics.get(turn as usize % self.topics.len()) else { return };
        let key = (turn % 97).to_string();
        let record = match turn / 97 % 4 {
            0 => Record::value(value).with_key(&key),
            1 => Record::value(value),
            _ => Record::value(value).with_partition((number % *partitions as u64) as i32),
        };
        let record = match self.limit {
            Some(limit) if number % 8 == 7 => record.with_delivery_timeout(limit),
            _ => record,
        };
        let refused = if self.tagged {
            topic.send_tagged(record, (self.thread as u64) << NUMBER_BITS | number).err()
        } else {
            topic.send(record).map(|delivery| deliveries.hold(number, delivery)).err()
        };
        match refused {
            None => account::lock(self.account).sent(),
            Some(error) => account::lock(self.account).refused(number, &error),
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let accounts = (0..THREADS * 2)
        .map(|thread| Ok(Arc::new(Mutex::new(Account::create(&options.dir.join(format!("told-{thread}")))?))))
        .collect::<std::io::Result<Vec<_>>>()?;
    let producers = [producer(options, "io_uring", Some(&accounts))?, producer(options, "epoll", None)?];
    let mut sendings = Vec::new();
    let stop = AtomicBool::new(false);
    for (thread, account) in accounts.iter().enumerate() {
        let Some(producer) = producers.get(thread / THREADS) else { continue };
        let topics =
            options.topics.iter().map(|name| Ok((producer.topic(name)?, producer.partitions_for(name)?.len() as i32)));
        sendings.push(Sending {
            thread,
            tagged: thread < THREADS,
            topics: topics.collect::<Result<_, ringmail::SendError>>()?,
            account,
            stop: &stop,
            rate: options.rate / accounts.len() as f64,
            seed: options.seed.wrapping_add(thread as u64),
            limit: options.limit,
        });
    }
    println!("ready");
    let deliveries: Vec<Deliveries> = std::thread::scope(|scope| {
        let threads: Vec<_> = sendings.iter().map(|sending| scope.spawn(|| sending.run())).collect();
        // Its end is the signal; what is read does not matter.
        let mut sink = [0; 64];
        while std::io::stdin().read(&mut sink).is_ok_and(|read| read > 0) {}
        stop.store(true, Ordering::Relaxed);
        threads.into_iter().map(|thread| thread.join().unwrap_or_default()).collect()
    });
    for producer in &producers {
        producer.flush()?;
        let stats = producer.stats();
        println!("{stats:?}");
        println!("{}", producer.close(Duration::from_secs(10))?);
    }
    let mut all = account::Totals::default();
    for (account, deliveries) in accounts.iter().zip(deliveries) {
        deliveries.finish(account);
        all.add(account::lock(account).finish()?);
    }
    println!("{all}");
    Ok(())
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::DEBUG)
        .with_writer(std::io::stderr)
        .init();
    match parse(std::env::args().skip(1)).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chaos-load: {error}");
            ExitCode::FAILURE
        }
    }
}
