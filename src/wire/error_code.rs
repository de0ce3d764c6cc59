//! The error codes of Kafka's responses, with what a producer must know of each.

use std::fmt;

/// An error code as a broker sends it. Codes that are not named here are kept as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ErrorCode(pub i16);

/// What can be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Sending again as it is does not help.
    Final,
    /// It may go away by itself.
    Retriable,
    /// What we know of leaders or topics is out of date: ask for metadata, then try again.
    Metadata,
}

macro_rules! error_codes {
    ($($code:literal $name:ident $kind:ident $text:literal;)*) => {
        impl ErrorCode {
            $(#[doc = concat!("Kafka's error ", $code, ": ", $text, ".")]
            pub const $name: Self = Self($code);)*

            /// Kafka's name, `None` for a code that is not known here.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some(stringify!($name)),)*
                    _ => None,
                }
            }

            /// A short plain sentence, without a full stop.
            pub const fn describe(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    _ => "an error that this version of ringmail does not know",
                }
            }

            const fn kind(self) -> Kind {
                match self {
                    $(Self::$name => Kind::$kind,)*
                    _ => Kind::Final,
                }
            }

            /// Every code that is named here.
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self($code)),*];
        }
    };
}

error_codes! {
    -1 UNKNOWN_SERVER_ERROR Final "the broker met an unexpected error";
    0 NONE Final "no error";
    1 OFFSET_OUT_OF_RANGE Final "the offset is not in the partition's log";
    2 CORRUPT_MESSAGE Retriable "the broker found a wrong checksum or a malformed batch";
    3 UNKNOWN_TOPIC_OR_PARTITION Metadata "the broker does not host this topic or partition";
    4 INVALID_FETCH_SIZE Final "the fetch size is invalid";
    5 LEADER_NOT_AVAILABLE Metadata "the partition has no leader at the moment";
    6 NOT_LEADER_OR_FOLLOWER Metadata "the broker no longer leads this partition";
    7 REQUEST_TIMED_OUT Retriable "the replicas did not confirm in time";
    8 BROKER_NOT_AVAILABLE Final "the broker is not available";
    9 REPLICA_NOT_AVAILABLE Metadata "the replica is not available";
    10 MESSAGE_TOO_LARGE Final "the batch is larger than the topic's max.message.bytes";
    13 NETWORK_EXCEPTION Metadata "the connection broke before the answer";
    14 COORDINATOR_LOAD_IN_PROGRESS Retriable "the coordinator is still loading its state";
    15 COORDINATOR_NOT_AVAILABLE Retriable "the coordinator is not available";
    16 NOT_COORDINATOR Retriable "the broker is not the coordinator";
    17 INVALID_TOPIC_EXCEPTION Final "the topic's name is not allowed";
    18 RECORD_LIST_TOO_LARGE Final "the batch is larger than the broker's segment size";
    19 NOT_ENOUGH_REPLICAS Retriable "fewer replicas are in sync than min.insync.replicas asks for";
    20 NOT_ENOUGH_REPLICAS_AFTER_APPEND Retriable "the batch was written, then too few replicas were in sync";
    21 INVALID_REQUIRED_ACKS Final "acks is not -1, 0 or 1";
    29 TOPIC_AUTHORIZATION_FAILED Final "not authorized for this topic";
    30 GROUP_AUTHORIZATION_FAILED Final "not authorized for this group";
    31 CLUSTER_AUTHORIZATION_FAILED Final "not authorized for this cluster";
    32 INVALID_TIMESTAMP Final "a record's timestamp is outside the range that the topic allows";
    33 UNSUPPORTED_SASL_MECHANISM Final "the broker does not offer this SASL mechanism";
    34 ILLEGAL_SASL_STATE Final "the request does not fit the state of authentication";
    35 UNSUPPORTED_VERSION Final "the broker does not support this version of the request";
    36 TOPIC_ALREADY_EXISTS Final "a topic with this name exists";
    37 INVALID_PARTITIONS Final "the number of partitions is invalid";
    38 INVALID_REPLICATION_FACTOR Final "the replication factor is below 1 or above the number of brokers";
    41 NOT_CONTROLLER Retriable "the broker is not the controller";
    42 INVALID_REQUEST Final "the broker calls the request invalid";
    43 UNSUPPORTED_FOR_MESSAGE_FORMAT Final "the topic's message format does not support this";
    44 POLICY_VIOLATION Final "a policy of the cluster refuses this";
    45 OUT_OF_ORDER_SEQUENCE_NUMBER Final "the broker expected another sequence number";
    46 DUPLICATE_SEQUENCE_NUMBER Final "the broker has this sequence number already";
    47 INVALID_PRODUCER_EPOCH Final "a newer epoch of this producer id is in use";
    48 INVALID_TXN_STATE Final "the transaction is in a state that does not allow this";
    49 INVALID_PRODUCER_ID_MAPPING Final "the producer id does not belong to this transactional id";
    50 INVALID_TRANSACTION_TIMEOUT Final "the transaction timeout is larger than the broker allows";
    51 CONCURRENT_TRANSACTIONS Retriable "the transaction before this one is still being ended";
    52 TRANSACTION_COORDINATOR_FENCED Final "the transaction coordinator was replaced";
    53 TRANSACTIONAL_ID_AUTHORIZATION_FAILED Final "not authorized for this transactional id";
    54 SECURITY_DISABLED Final "security features are disabled";
    55 OPERATION_NOT_ATTEMPTED Final "the broker did not attempt this operation";
    56 KAFKA_STORAGE_ERROR Metadata "the broker could not access its disk";
    58 SASL_AUTHENTICATION_FAILED Final "authentication failed";
    59 UNKNOWN_PRODUCER_ID Final "the broker knows nothing of this producer id";
    60 REASSIGNMENT_IN_PROGRESS Final "a reassignment of the partition is in progress";
    70 FETCH_SESSION_ID_NOT_FOUND Retriable "the fetch session is not known";
    71 INVALID_FETCH_SESSION_EPOCH Retriable "the fetch session's epoch is invalid";
    72 LISTENER_NOT_FOUND Metadata "the leader has no listener of this kind";
    73 TOPIC_DELETION_DISABLED Final "topic deletion is disabled";
    74 FENCED_LEADER_EPOCH Metadata "the leader epoch is older than the broker's";
    75 UNKNOWN_LEADER_EPOCH Retriable "the leader epoch is newer than the broker's";
    76 UNSUPPORTED_COMPRESSION_TYPE Final "the broker does not support this compression";
    77 STALE_BROKER_EPOCH Final "the broker's epoch has changed";
    78 OFFSET_NOT_AVAILABLE Retriable "the leader's high watermark has not caught up";
    80 PREFERRED_LEADER_NOT_AVAILABLE Metadata "the preferred leader is not available";
    83 ELIGIBLE_LEADERS_NOT_AVAILABLE Metadata "no eligible leader is available";
    84 ELECTION_NOT_NEEDED Metadata "the partition needs no election";
    87 INVALID_RECORD Final "the broker refuses a record of this batch";
    88 UNSTABLE_OFFSET_COMMIT Retriable "offsets of an open transaction are pending";
    89 THROTTLING_QUOTA_EXCEEDED Retriable "a quota was exceeded";
    90 PRODUCER_FENCED Final "a newer producer with the same transactional id has taken over";
    100 UNKNOWN_TOPIC_ID Metadata "the broker does not know this topic id";
    103 INCONSISTENT_TOPIC_ID Metadata "the topic id is not that of the broker's log";
    106 FETCH_SESSION_TOPIC_ID_ERROR Retriable "the fetch session mixes topic ids and names";
    120 TRANSACTION_ABORTABLE Final "the transaction must be aborted";
    129 REBOOTSTRAP_REQUIRED Final "the client should start again from its bootstrap servers";
}

impl ErrorCode {
    /// Whether this is no error.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Whether the same request may succeed later, by Kafka's own classification. What a producer does about
    /// MESSAGE_TOO_LARGE, the sequence errors and the epoch errors is more than this says.
    pub const fn is_retriable(self) -> bool {
        !matches!(self.kind(), Kind::Final)
    }

    /// Whether it says that our metadata is out of date. All of these are retriable.
    pub const fn is_invalid_metadata(self) -> bool {
        matches!(self.kind(), Kind::Metadata)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name().unwrap_or("UNKNOWN"), self.0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree_with_another_library() {
        for code in ErrorCode::ALL {
            let theirs = kafka_protocol::ResponseError::try_from_code(code.0);
            let theirs = theirs.map_or("None".to_string(), |error| format!("{error:?}"));
            let ours = code.name().unwrap().to_lowercase().replace('_', "");
            let theirs = theirs.to_lowercase();
            let same = match code.0 {
                17 => theirs == "invalidtopic" || theirs == "invalidtopicexception",
                -1 => theirs.contains("unknown"),
                129 => true,
                _ => ours.starts_with(&theirs) || theirs.starts_with(&ours),
            };
            assert!(same, "{code}: they call it {theirs}");
        }
    }

    #[test]
    fn the_metadata_errors_are_those_that_the_java_client_refreshes_on() {
        let codes: Vec<i16> =
            ErrorCode::ALL.iter().filter(|code| code.is_invalid_metadata()).map(|code| code.0).collect();
        assert_eq!(codes, [3, 5, 6, 9, 13, 56, 72, 74, 80, 83, 84, 100, 103]);
        assert!(codes.iter().all(|&code| ErrorCode(code).is_retriable()));
    }

    #[test]
    fn only_what_may_go_away_is_retriable() {
        for code in [2, 7, 14, 15, 16, 19, 20, 51, 75, 89] {
            assert!(ErrorCode(code).is_retriable(), "{code}");
        }
        for code in [-1, 0, 10, 17, 18, 21, 29, 31, 32, 35, 45, 46, 47, 48, 53, 76, 87, 90, 120, 999] {
            assert!(!ErrorCode(code).is_retriable(), "{code}");
        }
    }

    #[test]
    fn shown_with_name_and_number() {
        assert_eq!(ErrorCode::NOT_LEADER_OR_FOLLOWER.to_string(), "NOT_LEADER_OR_FOLLOWER (6)");
        assert_eq!(ErrorCode(999).to_string(), "UNKNOWN (999)");
    }
}
