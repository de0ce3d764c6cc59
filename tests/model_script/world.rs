//! Whom the script talks to: the embedded broker, or a real Kafka.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use kafka_protocol::messages::delete_records_request::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicsRequest;
use kafka_protocol::messages::describe_configs_request::{DescribeConfigsRequest, DescribeConfigsResource};
use kafka_protocol::messages::describe_producers_request::{DescribeProducersRequest, TopicRequest};
use kafka_protocol::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use kafka_protocol::protocol::StrBytes;
use ringmail::testing::{Broker, BrokerOptions, TimestampType, TopicOptions};

use super::client::Connection;
use super::cluster::Cluster;

/// A topic's settings, by Kafka's names.
pub type Settings<'a> = &'a [(&'a str, &'a str)];

/// What a broker's administrator can do. None of it has to be visible when the call returns.
pub trait World {
    fn address(&self) -> SocketAddr;
    /// False: this broker has no such setting.
    fn create(&self, topic: &str, partitions: i32, settings: Settings<'_>) -> bool;
    fn delete(&self, topic: &str);
    fn set(&self, topic: &str, setting: (&str, &str));
    /// Moves the start of partition 0.
    fn delete_records(&self, topic: &str, before: i64);
    /// Kills the broker and starts it again.
    fn restart(&self);
    /// Lets `producer.id.expiration.ms` pass for this topic's producers, and then sets it so that others stay. False:
    /// this broker has no such setting (before Kafka 3.4).
    fn expire_producers(&self, topic: &str) -> bool;
}

/// The embedded broker, as it is when no test asks for less or more than Kafka does.
pub struct Embedded(Broker);

impl Embedded {
    pub fn start() -> Self {
        let options = BrokerOptions { auto_create: false, any_offset_deltas: true, ..BrokerOptions::default() };
        Self(Broker::start(options).unwrap())
    }
}

fn apply(options: &mut TopicOptions, (key, value): (&str, &str)) {
    match key {
        "max.message.bytes" => options.max_message_bytes = value.parse().unwrap(),
        "cleanup.policy" => options.compacted = value == "compact",
        "message.timestamp.type" => options.timestamp_type = TimestampType::LogAppendTime,
        "message.timestamp.before.max.ms" => options.timestamp_before_max_ms = value.parse().unwrap(),
        "message.timestamp.after.max.ms" => options.timestamp_after_max_ms = value.parse().unwrap(),
        // There is one replica, and Kafka asks for no more of them than there are.
        "min.insync.replicas" => {}
        _ => panic!("the embedded broker knows no {key}"),
    }
}

impl World for Embedded {
    fn address(&self) -> SocketAddr {
        self.0.address()
    }

    fn create(&self, topic: &str, partitions: i32, settings: Settings<'_>) -> bool {
        let mut options = TopicOptions { partitions, ..TopicOptions::default() };
        settings.iter().for_each(|setting| apply(&mut options, *setting));
        assert!(self.0.create_topic_with(topic, options));
        true
    }

    fn delete(&self, topic: &str) {
        assert!(self.0.with_model(|model| model.delete_topic(topic)));
    }

    fn set(&self, topic: &str, setting: (&str, &str)) {
        assert!(self.0.with_model(|model| model.configure_topic(topic, |options| apply(options, setting))));
    }

    fn delete_records(&self, topic: &str, before: i64) {
        assert!(self.0.with_model(|model| model.delete_records(topic, 0, before)));
    }

    fn restart(&self) {
        self.0.close_connections();
        self.0.with_model(|model| model.restart_node(0));
    }

    fn expire_producers(&self, _topic: &str) -> bool {
        self.0.with_model(|model| model.expire_producers());
        true
    }
}

const EXPIRATION: &str = "producer.id.expiration.ms";
const TOPIC_ALREADY_EXISTS: i16 = 36;
const INVALID_CONFIG: i16 = 40;

/// One Kafka broker of the script's own.
pub struct Real(Cluster);

fn string(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn name(topic: &str) -> TopicName {
    string(topic).into()
}

impl Real {
    pub fn start() -> Self {
        let properties = ["auto.create.topics.enable=false", "producer.id.expiration.check.interval.ms=100"];
        Self(Cluster::start("script", "one", &properties))
    }

    fn admin(&self) -> Connection {
        Connection::open(self.address())
    }

    /// Changes a setting of a topic (2) or of all brokers (4).
    fn alter(&self, kind: i8, resource: &str, (key, value): (&str, &str)) {
        let config = AlterableConfig::default().with_name(string(key)).with_value(Some(string(value)));
        let resource = AlterConfigsResource::default().with_resource_type(kind).with_resource_name(string(resource));
        let resource = resource.with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.admin().ask(&request, 1);
        assert!(answer.responses.iter().all(|answer| answer.error_code == 0), "{answer:?}");
    }

    fn setting_of_broker(&self, key: &str) -> String {
        let resource = DescribeConfigsResource::default().with_resource_type(4).with_resource_name(string("1"));
        let resource = resource.with_configuration_keys(Some(vec![string(key)]));
        let answer = self.admin().ask(&DescribeConfigsRequest::default().with_resources(vec![resource]), 2);
        let setting = answer.results.iter().flat_map(|result| &result.configs).find_map(|config| config.value.clone());
        setting.unwrap_or_default().to_string()
    }

    /// How many producers the broker knows on the topic's first partition.
    fn producers(&self, topic: &str) -> usize {
        let topic = TopicRequest::default().with_name(name(topic)).with_partition_indexes(vec![0]);
        let answer = self.admin().ask(&DescribeProducersRequest::default().with_topics(vec![topic]), 0);
        let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
        partitions.map(|partition| partition.active_producers.len()).sum()
    }

    fn until(&self, mut done: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < Duration::from_secs(60), "waited in vain");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl World for Real {
    fn address(&self) -> SocketAddr {
        self.0.bootstrap.parse().unwrap()
    }

    fn create(&self, topic: &str, partitions: i32, settings: Settings<'_>) -> bool {
        let config = |&(key, value): &(&str, &str)| {
            CreatableTopicConfig::default().with_name(string(key)).with_value(Some(string(value)))
        };
        let mut creatable = CreatableTopic::default().with_name(name(topic)).with_num_partitions(partitions);
        creatable = creatable.with_replication_factor(1).with_configs(settings.iter().map(config).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![creatable]).with_timeout_ms(50_000);
        let mut error = 0;
        // With ZooKeeper a topic that no broker knows any more may still be there.
        self.until(|real| {
            let answer = real.admin().ask(&request, 5);
            error = answer.topics[0].error_code;
            assert!(matches!(error, 0 | INVALID_CONFIG | TOPIC_ALREADY_EXISTS), "{answer:?}");
            error != TOPIC_ALREADY_EXISTS
        });
        error == 0
    }

    fn delete(&self, topic: &str) {
        let request = DeleteTopicsRequest::default().with_topic_names(vec![name(topic)]).with_timeout_ms(50_000);
        let answer = self.admin().ask(&request, 4);
        assert!(answer.responses.iter().all(|topic| topic.error_code == 0), "{answer:?}");
    }

    fn set(&self, topic: &str, setting: (&str, &str)) {
        self.alter(2, topic, setting);
    }

    fn delete_records(&self, topic: &str, before: i64) {
        let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(before);
        let topic = DeleteRecordsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(50_000);
        let answer = self.admin().ask(&request, 1);
        assert!(answer.topics[0].partitions[0].error_code == 0, "{answer:?}");
    }

    fn restart(&self) {
        self.0.kill9(1);
        self.0.restart(1);
    }

    fn expire_producers(&self, topic: &str) -> bool {
        if self.setting_of_broker(EXPIRATION).is_empty() {
            return false;
        }
        self.alter(4, "", (EXPIRATION, "1"));
        self.until(|real| real.producers(topic) == 0);
        self.alter(4, "", (EXPIRATION, "86400000"));
        self.until(|real| real.setting_of_broker(EXPIRATION) == "86400000");
        // What the broker says of itself is in force a moment later.
        std::thread::sleep(Duration::from_millis(500));
        true
    }
}
