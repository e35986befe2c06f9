//! Domain errors to Kafka's codes, in this place only. No wildcard arms: a new error must be decided here.
#![warn(clippy::wildcard_enum_match_arm)]

use takhin_cluster::TopicError;
use takhin_cluster::{ProduceError, ReadError};
use takhin_protocol::ErrorCode;
use takhin_protocol::record::BatchError;

/// What a client is told about an error.
pub(crate) trait ToErrorCode {
    /// The code that says it best.
    fn to_error_code(&self) -> ErrorCode;
}

impl ToErrorCode for ProduceError {
    fn to_error_code(&self) -> ErrorCode {
        match self {
            Self::NotLeader => ErrorCode::NotLeaderOrFollower,
            Self::StorageOffline { .. } => ErrorCode::KafkaStorageError,
            Self::OutOfOrderSequence { .. } => ErrorCode::OutOfOrderSequenceNumber,
            Self::InvalidProducerEpoch { .. } => ErrorCode::InvalidProducerEpoch,
            // Retriable, and clients back off; the batch was not appended.
            Self::TooManyInFlight { .. } | Self::NotEnoughReplicas { .. } => ErrorCode::NotEnoughReplicas,
            Self::NotEnoughReplicasAfterAppend { .. } => ErrorCode::NotEnoughReplicasAfterAppend,
            Self::LargerThanSegment { .. } => ErrorCode::RecordListTooLarge,
            // Appended, then in doubt: the client looks for the leader and retries; an idempotent one gets the
            // original offset if it was committed. Kafka answers produces that wait when leadership goes the same.
            Self::Unknown => ErrorCode::NotLeaderOrFollower,
            Self::Deleted => ErrorCode::UnknownTopicOrPartition,
        }
    }
}

impl ToErrorCode for BatchError {
    fn to_error_code(&self) -> ErrorCode {
        match self {
            Self::ZstdNotAllowed => ErrorCode::UnsupportedCompressionType,
            Self::TooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::Length { .. } | Self::Crc { .. } | Self::Compression(_) | Self::Record { .. } => {
                ErrorCode::CorruptMessage
            }
            Self::TimestampType | Self::Timestamp { .. } => ErrorCode::InvalidTimestamp,
            Self::NoBatch
            | Self::Trailing { .. }
            | Self::Magic { .. }
            | Self::BaseOffset { .. }
            | Self::Codec { .. }
            | Self::ReservedAttributes { .. }
            | Self::Control
            | Self::Count { .. }
            | Self::Producer { .. }
            | Self::RecordOffset { .. }
            | Self::NullKeys { .. } => ErrorCode::InvalidRecord,
        }
    }
}

impl ToErrorCode for ReadError {
    fn to_error_code(&self) -> ErrorCode {
        match self {
            Self::NotLeader => ErrorCode::NotLeaderOrFollower,
            Self::OffsetOutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            Self::StorageOffline { .. } | Self::Log(_) => ErrorCode::KafkaStorageError,
            Self::FencedLeaderEpoch { .. } => ErrorCode::FencedLeaderEpoch,
            Self::UnknownLeaderEpoch { .. } => ErrorCode::UnknownLeaderEpoch,
        }
    }
}

impl ToErrorCode for TopicError {
    fn to_error_code(&self) -> ErrorCode {
        match self {
            Self::Exists { .. } => ErrorCode::TopicAlreadyExists,
            Self::Collides { .. } => ErrorCode::InvalidTopicException,
            Self::Unknown => ErrorCode::UnknownTopicOrPartition,
            Self::NotAnIncrease { .. } => ErrorCode::InvalidPartitions,
            Self::Replicas(_) => ErrorCode::InvalidReplicaAssignment,
            Self::ReplicationFactor { .. } => ErrorCode::InvalidReplicationFactor,
            Self::NoReassignment => ErrorCode::NoReassignmentInProgress,
            Self::Config(_) => ErrorCode::InvalidConfig,
            // Kafka's answer, although the entry is the fault and not the request (KAFKA-13609).
            Self::ReadOnlyConfig(_) => ErrorCode::InvalidRequest,
            Self::NodeIdTaken { .. } => ErrorCode::DuplicateBrokerRegistration,
            Self::UnknownBroker { .. } => ErrorCode::BrokerIdNotRegistered,
            Self::BrokerNeeded { .. } => ErrorCode::InvalidRequest,
            Self::NotController => ErrorCode::NotController,
            Self::Timeout => ErrorCode::RequestTimedOut,
        }
    }
}
