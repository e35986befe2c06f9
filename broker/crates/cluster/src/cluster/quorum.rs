//! The controller's quorum as clients may see it.

use uuid::Uuid;

use super::Cluster;

/// Who keeps the cluster's metadata, and how far it has got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quorum {
    /// Broker id of the leader.
    pub leader: i32,
    /// Its epoch.
    pub leader_epoch: i32,
    /// First offset of the metadata log that is not committed.
    pub high_watermark: i64,
    /// Offset that the next record of the metadata log will get.
    pub log_end_offset: i64,
    /// The voters; there is one, the leader.
    pub voters: Vec<QuorumVoter>,
}

/// A voter of the controller's quorum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuorumVoter {
    /// Broker id.
    pub id: i32,
    /// The directory that holds its vote.
    pub directory: Uuid,
}

impl Cluster {
    /// The controller's quorum, if this broker leads it.
    pub fn quorum(&self) -> Option<Quorum> {
        let partition = &self.metadata_group.spec.partition;
        let leader_epoch = partition.leadership()?;
        let offsets = partition.offsets();
        let voters = self.metadata_group.voters()?.into_iter();
        let voters = voters.filter_map(|(id, directory)| {
            let id = i32::try_from(id).ok()?;
            Some(QuorumVoter { id, directory })
        });
        Some(Quorum {
            leader: self.node_id(),
            leader_epoch,
            high_watermark: offsets.high_watermark,
            log_end_offset: offsets.log_end_offset,
            voters: voters.collect(),
        })
    }
}
