//! Metadata records: what the controller group's log holds, as JSON with a version, readable by `dump-log`.
//!
//! A record's kind is its `type` field; unknown kinds and unknown versions are refused, never skipped, so that an
//! older broker cannot silently work with half of the metadata.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::image::{BrokerInfo, Reassignment};

const VERSION: u8 = 1;

/// One change of the cluster's metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum MetadataRecord {
    /// The cluster's identity; the first record of a founded cluster.
    Cluster {
        /// 22 characters of URL-safe base64.
        cluster_id: String,
    },
    /// A broker came up, or changed its endpoints.
    RegisterBroker {
        /// What it offers.
        broker: BrokerInfo,
    },
    /// A broker is to lead nothing, or may lead again.
    DrainBroker {
        /// Its id.
        broker: i32,
        /// Whether it is to lead nothing from now on.
        draining: bool,
    },
    /// A broker is to lose all its replicas, or may have some again.
    DecommissionBroker {
        /// Its id.
        broker: i32,
        /// Whether it is to lose them from now on.
        decommissioning: bool,
    },
    /// A broker belongs to the cluster no longer.
    UnregisterBroker {
        /// Its id.
        broker: i32,
    },
    /// Replicas are as even as they can be, after brokers had come or were to go.
    Rebalanced {},
    /// A topic was created.
    CreateTopic {
        /// Its name.
        name: String,
        /// Its identity.
        id: Uuid,
        /// Replicas of each partition.
        partitions: Vec<Vec<i32>>,
        /// Configuration as given.
        overrides: BTreeMap<String, String>,
    },
    /// A topic got more partitions, after those that it had.
    CreatePartitions {
        /// Its identity.
        id: Uuid,
        /// Replicas of each new partition.
        partitions: Vec<Vec<i32>>,
    },
    /// A topic's own configuration was changed.
    TopicConfigs {
        /// Its identity.
        id: Uuid,
        /// All that is set now.
        overrides: BTreeMap<String, String>,
    },
    /// The configuration of one broker, or of all of them, was changed while they ran.
    BrokerConfigs {
        /// Which broker; none for all.
        broker: Option<i32>,
        /// All that is set there now.
        values: BTreeMap<String, String>,
    },
    /// The configuration of a consumer group was changed.
    GroupConfigs {
        /// Group id.
        group: String,
        /// All that is set now; nothing, and the group is as any other.
        values: BTreeMap<String, String>,
    },
    /// A topic was deleted.
    DeleteTopic {
        /// Its identity.
        id: Uuid,
    },
    /// The replicas of a partition are to be changed, or have been.
    ReassignPartition {
        /// The topic's identity.
        id: Uuid,
        /// Index of the partition.
        index: i32,
        /// All its replicas now, those that come and those that go among them; preferred leader first.
        replicas: Vec<i32>,
        /// Replicas that were none before, and the numbers drawn for them.
        added: Vec<(i32, Uuid)>,
        /// What they are to be; none when they are.
        reassignment: Option<Reassignment>,
        /// Whether the cluster begins the change by itself.
        #[serde(default)]
        automatic: bool,
    },
    /// Producer ids below `next` have been handed to a broker.
    ProducerIds {
        /// First id that is still free.
        next: i64,
    },
}

/// Why bytes are not a metadata record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Written by a newer release.
    #[error(
        "metadata record of version {found}, newer than {VERSION}, the newest that this release knows: \
         start the release that wrote it, or a later one"
    )]
    Newer {
        /// Version found.
        found: u8,
    },
    /// Not a record.
    #[error("metadata record cannot be decoded")]
    Malformed(#[source] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u8,
    r: T,
}

impl MetadataRecord {
    /// Bytes for the log.
    pub fn encode(&self) -> Vec<u8> {
        // Serializing plain data with string keys into memory has no failure case.
        serde_json::to_vec(&Versioned { v: VERSION, r: self }).unwrap_or_default()
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// `RecordError::Newer` before anything else is looked at, so that a newer format is named as such.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        #[derive(Deserialize)]
        struct OnlyVersion {
            v: u8,
        }
        let OnlyVersion { v } = serde_json::from_slice(bytes).map_err(RecordError::Malformed)?;
        if v > VERSION {
            return Err(RecordError::Newer { found: v });
        }
        let record: Versioned<Self> = serde_json::from_slice(bytes).map_err(RecordError::Malformed)?;
        Ok(record.r)
    }
}
