//! What the steps are made of: each is one request (or an administrator's deed) and one line of the transcript.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::{MetadataRequest, MetadataRequestTopic};
use kafka_protocol::messages::metadata_response::MetadataResponse;
use kafka_protocol::messages::{ApiVersionsRequest, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::batch::Batch;
use super::client::{Connection, Produce, Reply, describe_produce, encoded, frame};
use super::world::{Settings, World};

/// A version of Produce that every broker since 2.4 speaks. What 9 to 12 add, no answer to this script has in it.
pub const BY_NAME: i16 = 8;

/// The answer to what the broker says that it does not speak.
pub const UNOFFERED: &str = "closed: not offered";

/// A broker that says nothing for so long, answers others, and then again says nothing, is silent for ever.
const SILENCE: Duration = Duration::from_millis(1500);

pub struct Script<'w> {
    pub world: &'w dyn World,
    /// What the questions go over; opened anew when a broker closed it or says no more.
    connection: Option<Connection>,
    /// For what the script itself wants to know.
    control: Connection,
    /// The topic that a batch goes to, to partition 0.
    topic: String,
    ids: HashMap<String, [u8; 16]>,
    /// What the broker says that it speaks: API, lowest and highest version.
    offered: Vec<(i16, i16, i16)>,
    /// Of the Produce requests from here on.
    pub version: i16,
    pub acks: i16,
    pub transactional_id: Option<&'static str>,
    pub lines: Vec<String>,
    /// Where the log ended after the last Produce request.
    pub ended: i64,
}

impl<'w> Script<'w> {
    pub fn new(world: &'w dyn World) -> Self {
        let mut control = Connection::open(world.address());
        let versions = control.ask(&ApiVersionsRequest::default(), 0);
        let range = |api: &ApiVersion| (api.api_key, api.min_version, api.max_version);
        Self {
            world,
            connection: None,
            control,
            offered: versions.api_keys.iter().map(range).collect(),
            topic: String::new(),
            ids: HashMap::new(),
            version: BY_NAME,
            acks: -1,
            transactional_id: None,
            lines: Vec::new(),
            ended: 0,
        }
    }

    pub fn chapter(&mut self, name: &str) {
        (self.version, self.acks, self.transactional_id) = (BY_NAME, -1, None);
        self.lines.push(format!("\n== {name}"));
    }

    pub fn line(&mut self, what: &str, answer: &str) {
        self.lines.push(format!("{what}: {answer}"));
    }

    // ---- the administrator ---------------------------------------------------------------------------------------

    /// Makes a topic, to which batches go from now on. False: this broker has no such setting.
    pub fn topic(&mut self, name: &str, settings: Settings<'_>) -> bool {
        self.topic_of(name, 1, settings)
    }

    pub fn topic_of(&mut self, name: &str, partitions: i32, settings: Settings<'_>) -> bool {
        let made = self.world.create(name, partitions, settings);
        if made {
            self.turn_to(name);
        }
        let settings: Vec<_> = settings.iter().map(|(key, value)| format!(" {key}={value}")).collect();
        self.lines.push(format!("-- {}topic {name}{}", if made { "" } else { "no " }, settings.concat()));
        made
    }

    /// Batches go to this topic from now on. Waits until the broker takes them.
    pub fn turn_to(&mut self, name: &str) {
        self.topic = name.to_owned();
        self.ended = 0;
        self.until("the topic is there", |script| {
            let topics = script.metadata(Some(&[name])).topics;
            script.ids.insert(name.to_owned(), *topics[0].topic_id.as_bytes());
            topics[0].error_code == 0
        });
        // A broker that knows the topic may not lead it yet.
        self.until("the topic takes batches", |script| script.probe(100).starts_with("2 "));
    }

    pub fn delete_topic(&mut self, name: &str) {
        self.world.delete(name);
        // The name goes before the partition does.
        let gone = [(name.to_owned(), [0; 16], vec![(0, None)])];
        self.until("the topic is gone", |script| {
            script.metadata(Some(&[name])).topics[0].error_code == 3 && script.end(&gone).is_empty()
        });
        self.lines.push(format!("-- deleted {name}"));
    }

    /// Changes `max.message.bytes`.
    pub fn limit(&mut self, bytes: usize) {
        self.world.set(&self.topic, ("max.message.bytes", &bytes.to_string()));
        self.until("the limit is in force", |script| {
            [(bytes, "2 "), (bytes + 1, "10 ")].iter().all(|(len, error)| script.probe(*len).starts_with(error))
        });
        self.lines.push(format!("-- max.message.bytes={bytes}"));
    }

    /// The answer to a batch of `len` bytes with a wrong CRC, which can be stored nowhere. Brokers look at the size
    /// before.
    fn probe(&mut self, len: usize) -> String {
        let probe = Batch::filled(len).but(|batch| batch.crc = Some(1)).bytes();
        let produce = Produce { version: BY_NAME, acks: 1, ..self.produce(&[(&self.topic, 0, Some(probe))]) };
        self.control.send(&produce.frame());
        self.control.receive().describe(|answer| describe_produce(answer, BY_NAME, |_| String::new()))
    }

    pub fn restart(&mut self) {
        self.world.restart();
        self.connection = None;
        self.control = Connection::open(self.world.address());
        let topic = self.topic.clone();
        self.turn_to(&topic);
        self.lines.push("-- broker killed and started again".to_owned());
    }

    /// Lets the topic's producers expire. False: this broker cannot be told to.
    pub fn expire_producers(&mut self) -> bool {
        let expired = self.world.expire_producers(&self.topic);
        self.lines.push(format!("-- producers expired{}", if expired { "" } else { ": not on demand" }));
        expired
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < Duration::from_secs(60), "waited in vain until {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub fn metadata(&mut self, topics: Option<&[&str]>) -> MetadataResponse {
        let query = |topic: &&str| MetadataRequestTopic::default().with_name(Some(name(topic)));
        let topics = topics.map(|topics| topics.iter().map(query).collect());
        self.control.ask(&MetadataRequest::default().with_topics(topics), self.newest(3, 12))
    }

    /// The newest version of an API that the broker speaks, up to `ours`.
    fn newest(&self, api: i16, ours: i16) -> i16 {
        self.offered.iter().find(|(of, ..)| *of == api).map_or(ours, |(.., max)| ours.min(*max))
    }

    pub fn id_of(&self, topic: &str) -> [u8; 16] {
        self.ids.get(topic).copied().unwrap_or([0x77; 16])
    }

    // ---- questions -------------------------------------------------------------------------------------------------

    /// Sends bytes and waits for what comes back.
    pub fn exchange(&mut self, bytes: &[u8]) -> Reply {
        let address = self.world.address();
        let connection = self.connection.get_or_insert_with(|| Connection::open(address));
        connection.send(bytes);
        let mut silent = !connection.says_something_within(SILENCE);
        if silent {
            // It may be slow, the machine being busy: then this is slow as well.
            self.metadata(Some(&[]));
        }
        let Some(connection) = &mut self.connection else { return Reply::Closed };
        silent = silent && !connection.says_something_within(SILENCE);
        let reply = if silent { Reply::Silence } else { connection.receive() };
        if !matches!(reply, Reply::Frame(_)) {
            self.connection = None;
        }
        reply
    }

    /// Asks and notes the answer in `describe`'s words.
    pub fn ask(&mut self, what: &str, bytes: &[u8], describe: impl FnOnce(&[u8]) -> String) {
        let answer = self.answer_in_words(bytes, describe);
        self.line(what, &answer);
    }

    pub fn answer_in_words(&mut self, bytes: &[u8], describe: impl FnOnce(&[u8]) -> String) -> String {
        match self.exchange(bytes) {
            Reply::Closed if !self.offers(bytes) => UNOFFERED.to_owned(),
            reply => reply.describe(describe),
        }
    }

    /// Whether the broker says that it speaks the API and version of this request.
    fn offers(&self, request: &[u8]) -> bool {
        let Some(&[a, b, c, d]) = request.get(4..8) else { return true };
        let (api, version) = (i16::from_be_bytes([a, b]), i16::from_be_bytes([c, d]));
        self.offered.iter().any(|&(of, min, max)| of == api && (min..=max).contains(&version))
    }

    /// A request for these partitions, as the script's fields say.
    pub fn produce(&self, entries: &[(&str, i32, Option<Vec<u8>>)]) -> Produce {
        let entry = |(topic, index, records): &(&str, i32, Option<Vec<u8>>)| {
            ((*topic).to_owned(), self.id_of(topic), vec![(*index, records.clone())])
        };
        let topics = entries.iter().map(entry).collect();
        Produce { version: self.version, acks: self.acks, transactional_id: self.transactional_id, topics }
    }

    /// What comes back for a Produce request, in words; and where the log ends then.
    pub fn answer_to(&mut self, produce: &Produce) -> String {
        let mut bytes = produce.frame();
        if produce.acks == 0 {
            // Whoever still answers this took the batch.
            bytes.extend(frame(18, 0, 8, false, &[]));
        }
        // Over null records a broker may stumble later, and end whatever is asked then.
        let is_null = produce.topics.iter().flat_map(|(.., entries)| entries).any(|(_, records)| records.is_none());
        if is_null {
            self.connection = None;
        }
        let names = self.ids.clone();
        let name_of = |id: &[u8; 16]| names.iter().find(|(_, of)| *of == id).map_or("?", |(name, _)| name).to_owned();
        let answer = self.answer_in_words(&bytes, |answer| match produce.acks {
            0 => "taken".to_owned(),
            // Of before 0.11, which brokers answered until 4.0.
            _ if produce.version < 3 => "answered".to_owned(),
            _ => describe_produce(answer, produce.version, name_of),
        });
        if is_null {
            self.connection = None;
        }
        let end = self.end(&produce.topics);
        format!("{answer}{end}")
    }

    pub fn request(&mut self, what: &str, produce: &Produce) {
        let answer = self.answer_to(produce);
        self.line(what, &answer);
    }

    /// Sends one batch to the topic and notes what comes of it.
    pub fn send(&mut self, what: &str, batch: &Batch) {
        self.bytes(what, batch.bytes());
    }

    pub fn bytes(&mut self, what: &str, records: Vec<u8>) {
        let answer = self.answer_to_bytes(records);
        self.line(what, &answer);
    }

    pub fn answer_to_bytes(&mut self, records: Vec<u8>) -> String {
        let produce = self.produce(&[(&self.topic, 0, Some(records))]);
        self.answer_to(&produce)
    }

    /// Where the logs end that a request was for.
    fn end(&mut self, topics: &[(String, [u8; 16], super::client::Entries)]) -> String {
        let mut ends = Vec::new();
        for (topic, _, entries) in topics {
            for (index, _) in entries {
                let partition = ListOffsetsPartition::default().with_partition_index(*index).with_timestamp(-1);
                let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
                let answer = self.control.ask(&ListOffsetsRequest::default().with_topics(vec![topic]), 5);
                let partition = &answer.topics[0].partitions[0];
                if partition.error_code == 0 {
                    self.ended = partition.offset;
                    ends.push(partition.offset.to_string());
                }
            }
        }
        if ends.is_empty() { String::new() } else { format!(" | end {}", ends.join(",")) }
    }

    /// Whether the connection still answers.
    pub fn ping(&mut self, what: &str) {
        self.ask(what, &frame(18, 4, 9, true, &encoded(&software("a", "1"), 4)), |_| "answered".to_owned());
    }
}

pub fn name(topic: &str) -> TopicName {
    StrBytes::from_string(topic.to_owned()).into()
}

pub fn software(name: &str, version: &str) -> ApiVersionsRequest {
    let string = |text: &str| StrBytes::from_string(text.to_owned());
    ApiVersionsRequest::default().with_client_software_name(string(name)).with_client_software_version(string(version))
}
