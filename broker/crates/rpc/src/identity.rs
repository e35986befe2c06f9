//! Who a node is, and why another one does not want to hear it.

use std::net::SocketAddr;

use bytes::Bytes;
use uuid::Uuid;

use crate::generated as proto;
use crate::generated::refusal::Reason;

/// Who a node is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The cluster; empty before one is founded.
    pub cluster_id: String,
    /// Node id.
    pub node: u32,
    /// The data directory.
    pub directory: Uuid,
    /// This run of the process.
    pub incarnation: Uuid,
}

/// Who is at the other end of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerInfo {
    /// As it said of itself.
    pub identity: Identity,
    /// Address that its connection comes from.
    pub address: SocketAddr,
}

/// Why a node does not want a link. "Theirs" is the refused one's, "ours" the refusing one's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It belongs to another cluster.
    #[error("cluster {theirs} is not cluster {ours}")]
    ForeignCluster {
        /// Cluster of the refused node.
        theirs: String,
        /// Cluster of the refusing node.
        ours: String,
    },
    /// It claims the node id of the refusing node.
    #[error("node id {node} belongs to another broker")]
    SameNode {
        /// The id.
        node: u32,
    },
    /// No node of this id belongs to the cluster.
    #[error("node {node} is not known")]
    UnknownNode {
        /// The id.
        node: u32,
    },
    /// The node is known with another data directory.
    #[error("data directory {directory} of node {node} is not known")]
    UnknownDirectory {
        /// The node.
        node: u32,
        /// Its directory.
        directory: Uuid,
    },
    /// It speaks another version of this protocol.
    #[error("link protocol {theirs} is not {ours}")]
    OtherVersion {
        /// Version of the refused node.
        theirs: u32,
        /// Version of the refusing node.
        ours: u32,
    },
    /// Its hello, or the reason for a refusal, cannot be read.
    #[error("the hello cannot be read")]
    Malformed,
}

impl From<&Identity> for proto::Identity {
    fn from(identity: &Identity) -> Self {
        Self {
            cluster_id: identity.cluster_id.clone(),
            node: identity.node,
            directory: to_bytes(identity.directory),
            incarnation: to_bytes(identity.incarnation),
        }
    }
}

impl TryFrom<proto::Identity> for Identity {
    type Error = Refusal;

    fn try_from(identity: proto::Identity) -> Result<Self, Refusal> {
        Ok(Self {
            directory: to_uuid(&identity.directory)?,
            incarnation: to_uuid(&identity.incarnation)?,
            cluster_id: identity.cluster_id,
            node: identity.node,
        })
    }
}

impl From<Refusal> for proto::Refusal {
    fn from(refusal: Refusal) -> Self {
        let reason = match refusal {
            Refusal::ForeignCluster { theirs, ours } => {
                Reason::ForeignCluster(proto::ForeignCluster { theirs, ours })
            }
            Refusal::SameNode { node } => Reason::SameNode(proto::SameNode { node }),
            Refusal::UnknownNode { node } => Reason::UnknownNode(proto::UnknownNode { node }),
            Refusal::UnknownDirectory { node, directory } => {
                Reason::UnknownDirectory(proto::UnknownDirectory {
                    node,
                    directory: to_bytes(directory),
                })
            }
            Refusal::OtherVersion { theirs, ours } => {
                Reason::OtherVersion(proto::OtherVersion { theirs, ours })
            }
            Refusal::Malformed => Reason::Malformed(proto::Malformed {}),
        };
        Self { reason: Some(reason) }
    }
}

impl From<proto::Refusal> for Refusal {
    fn from(refusal: proto::Refusal) -> Self {
        match refusal.reason {
            Some(Reason::ForeignCluster(proto::ForeignCluster { theirs, ours })) => {
                Self::ForeignCluster { theirs, ours }
            }
            Some(Reason::SameNode(proto::SameNode { node })) => Self::SameNode { node },
            Some(Reason::UnknownNode(proto::UnknownNode { node })) => Self::UnknownNode { node },
            Some(Reason::UnknownDirectory(unknown)) => {
                to_uuid(&unknown.directory).map_or(Self::Malformed, |directory| Self::UnknownDirectory {
                    node: unknown.node,
                    directory,
                })
            }
            Some(Reason::OtherVersion(proto::OtherVersion { theirs, ours })) => {
                Self::OtherVersion { theirs, ours }
            }
            Some(Reason::Malformed(proto::Malformed {})) | None => Self::Malformed,
        }
    }
}

fn to_bytes(uuid: Uuid) -> Bytes {
    Bytes::copy_from_slice(uuid.as_bytes())
}

fn to_uuid(bytes: &[u8]) -> Result<Uuid, Refusal> {
    Uuid::from_slice(bytes).map_err(|_| Refusal::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_survive_the_wire() {
        for refusal in [
            Refusal::ForeignCluster {
                theirs: "a".to_owned(),
                ours: "b".to_owned(),
            },
            Refusal::SameNode { node: 1 },
            Refusal::UnknownNode { node: 2 },
            Refusal::UnknownDirectory {
                node: 3,
                directory: Uuid::from_u128(4),
            },
            Refusal::OtherVersion { theirs: 5, ours: 6 },
            Refusal::Malformed,
        ] {
            assert_eq!(Refusal::from(proto::Refusal::from(refusal.clone())), refusal);
        }
    }
}
