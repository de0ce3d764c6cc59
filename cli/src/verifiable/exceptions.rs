//! Which exception Java's producer would have thrown: the names that Kafka's system tests and their readers know.

use ringmail::{DeliveryErrorKind, ErrorCode, SendError, WaitedFor};

const ERRORS: &str = "org.apache.kafka.common.errors";
/// For what Java has no name of its own.
const OTHER: &str = "org.apache.kafka.common.KafkaException";

/// The class for a record that was refused at the door.
pub fn of_refusal(error: &SendError) -> String {
    let name = match error {
        SendError::BufferFull | SendError::Timeout { waited_for: WaitedFor::Memory, .. } => {
            return "org.apache.kafka.clients.producer.BufferExhaustedException".to_string();
        }
        SendError::InvalidTimestamp { .. } => return "java.lang.IllegalArgumentException".to_string(),
        SendError::Closed => return "java.lang.IllegalStateException".to_string(),
        SendError::RecordTooLarge { .. } => "RecordTooLargeException",
        SendError::InvalidTopic { .. } => "InvalidTopicException",
        SendError::TopicAuthorization { .. } => "TopicAuthorizationException",
        // Java waits for topics and partitions that are not there, too, until max.block.ms is over.
        SendError::NotReady { .. }
        | SendError::UnknownTopic { .. }
        | SendError::InvalidPartition { .. }
        | SendError::Timeout { .. } => "TimeoutException",
        _ => return OTHER.to_string(),
    };
    format!("{ERRORS}.{name}")
}

/// The class for a record that was accepted and failed.
pub fn of_failure(kind: DeliveryErrorKind) -> String {
    let name = match kind {
        DeliveryErrorKind::Broker(code) => return of_code(code),
        DeliveryErrorKind::Expired | DeliveryErrorKind::RequestTimedOut => "TimeoutException",
        DeliveryErrorKind::Disconnected => "NetworkException",
        // Java waits for the partition until delivery.timeout.ms is over.
        DeliveryErrorKind::PartitionGone => "TimeoutException",
        DeliveryErrorKind::TooLarge | DeliveryErrorKind::RequestTooLarge => "RecordTooLargeException",
        DeliveryErrorKind::UnsupportedVersion => "UnsupportedVersionException",
        _ => return OTHER.to_string(),
    };
    format!("{ERRORS}.{name}")
}

/// A broker's error. Kafka names nearly all its classes after the code: NOT_LEADER_OR_FOLLOWER is
/// NotLeaderOrFollowerException.
fn of_code(code: ErrorCode) -> String {
    let name = match code {
        ErrorCode::INVALID_RECORD => return "org.apache.kafka.common.InvalidRecordException".to_string(),
        ErrorCode::CORRUPT_MESSAGE => "CorruptRecord".to_string(),
        ErrorCode::REQUEST_TIMED_OUT => "Timeout".to_string(),
        ErrorCode::MESSAGE_TOO_LARGE => "RecordTooLarge".to_string(),
        ErrorCode::RECORD_LIST_TOO_LARGE => "RecordBatchTooLarge".to_string(),
        ErrorCode::TOPIC_ALREADY_EXISTS => "TopicExists".to_string(),
        ErrorCode::INVALID_PRODUCER_ID_MAPPING => "InvalidPidMapping".to_string(),
        ErrorCode::INVALID_TRANSACTION_TIMEOUT => "InvalidTxnTimeout".to_string(),
        _ => camel(code.name().unwrap_or("UNKNOWN_SERVER_ERROR")),
    };
    format!("{ERRORS}.{name}Exception")
}

fn camel(code: &str) -> String {
    let ends = ["_EXCEPTION", "_ERROR", "_FAILED", "_NUMBER"];
    let stem = ends.iter().find_map(|end| code.strip_suffix(end)).unwrap_or(code);
    let word = |word: &str| word.split_at_checked(1).map(|(first, rest)| first.to_string() + &rest.to_lowercase());
    stem.split('_').filter_map(word).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_javas_names() {
        let names = [
            (ErrorCode(-1), "UnknownServerException"),
            (ErrorCode(2), "CorruptRecordException"),
            (ErrorCode(3), "UnknownTopicOrPartitionException"),
            (ErrorCode(6), "NotLeaderOrFollowerException"),
            (ErrorCode(7), "TimeoutException"),
            (ErrorCode(10), "RecordTooLargeException"),
            (ErrorCode(13), "NetworkException"),
            (ErrorCode(17), "InvalidTopicException"),
            (ErrorCode(18), "RecordBatchTooLargeException"),
            (ErrorCode(19), "NotEnoughReplicasException"),
            (ErrorCode(20), "NotEnoughReplicasAfterAppendException"),
            (ErrorCode(29), "TopicAuthorizationException"),
            (ErrorCode(31), "ClusterAuthorizationException"),
            (ErrorCode(45), "OutOfOrderSequenceException"),
            (ErrorCode(46), "DuplicateSequenceException"),
            (ErrorCode(47), "InvalidProducerEpochException"),
            (ErrorCode(56), "KafkaStorageException"),
            (ErrorCode(59), "UnknownProducerIdException"),
            (ErrorCode(90), "ProducerFencedException"),
            (ErrorCode(4711), "UnknownServerException"),
        ];
        for (code, name) in names {
            assert_eq!(of_failure(DeliveryErrorKind::Broker(code)), format!("{ERRORS}.{name}"), "{code}");
        }
        let invalid = of_failure(DeliveryErrorKind::Broker(ErrorCode::INVALID_RECORD));
        assert_eq!(invalid, "org.apache.kafka.common.InvalidRecordException");
    }
}
