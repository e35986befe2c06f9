//! What other brokers ask of this one, handed to whom it concerns.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use takhin_runtime::Env;
use uuid::Uuid;

use super::Cluster;
use super::forming::Standing;
use crate::leaders::{Announcement, Leaders};
use crate::links::Kind;
use crate::partition::PartitionId;
use crate::raft::{Answer, Group, decode_pass, decode_purge, group_of};

/// The groups of this node and what else others may ask about.
pub(crate) struct Exchange {
    env: Env,
    /// The groups of partitions.
    pub(crate) groups: RwLock<BTreeMap<PartitionId, Arc<Group>>>,
    /// The group of the cluster's metadata.
    pub(crate) metadata: OnceLock<Arc<Group>>,
    pub(crate) leaders: Arc<Leaders>,
    /// How this node stands to the cluster.
    pub(crate) standing: Mutex<Standing>,
    cluster: OnceLock<Weak<Cluster>>,
}

impl Exchange {
    pub(crate) fn new(env: Env, leaders: Arc<Leaders>, standing: Standing) -> Arc<Self> {
        Arc::new(Self {
            env,
            groups: RwLock::default(),
            metadata: OnceLock::new(),
            leaders,
            standing: Mutex::new(standing),
            cluster: OnceLock::new(),
        })
    }

    /// All groups of this node, that of the metadata last.
    pub(crate) fn all_groups(&self) -> Vec<Arc<Group>> {
        let groups = self.groups.read();
        groups.values().chain(self.metadata.get()).cloned().collect()
    }

    /// From now on commands are taken.
    pub(crate) fn serve(&self, cluster: &Arc<Cluster>) {
        // Set once, when the node starts.
        let _ = self.cluster.set(Arc::downgrade(cluster));
    }

    /// The data directory of a registered broker.
    pub(crate) fn directory_of(&self, node: u32) -> Option<Uuid> {
        let cluster = self.cluster.get().and_then(Weak::upgrade)?;
        let image = cluster.image();
        let broker = image.brokers.get(&i32::try_from(node).ok()?)?;
        Some(broker.directory)
    }

    /// Takes a request of broker `from`. Does not block.
    pub(crate) fn ask(&self, from: u32, kind: Kind, body: Bytes, answer: Answer) {
        match kind {
            Kind::Append | Kind::Vote | Kind::PreVote | Kind::Transfer | Kind::Park => {
                self.ask_group(kind, body, answer);
            }
            Kind::Standing => answer(encode(&self.standing())),
            Kind::Leaders => answer(self.hear(from, &body)),
            Kind::Purge => answer(self.purge(body)),
            Kind::Pass => self.pass(body, answer),
            Kind::Copy => self.copy(body, answer),
            Kind::Recall => self.recall(body, answer),
            Kind::Quorum => answer(self.quorum()),
            Kind::Command => match self.cluster.get().and_then(Weak::upgrade) {
                Some(cluster) => {
                    let obey = async move { answer(encode(&cluster.obey(&body).await)) };
                    drop(self.env.tasks.spawn("command", obey));
                }
                None => answer(Err("the broker is starting".to_owned())),
            },
            Kind::Report => match self.cluster.get().and_then(Weak::upgrade) {
                Some(cluster) => {
                    let telling = async move { answer(cluster.tell_report().await) };
                    drop(self.env.tasks.spawn("report", telling));
                }
                None => answer(Err("the broker is starting".to_owned())),
            },
            Kind::Room => match self.cluster.get().and_then(Weak::upgrade) {
                Some(cluster) => {
                    let giving = async move { answer(cluster.give_room(body).await) };
                    drop(self.env.tasks.spawn("room", giving));
                }
                None => answer(Err("the broker is starting".to_owned())),
            },
        }
    }

    /// How this node stands to its cluster now.
    fn standing(&self) -> Standing {
        let mut standing = self.standing.lock().clone();
        standing.clock_ms = Some(self.env.clock.now_ms());
        if let Some(cluster) = self.cluster.get().and_then(Weak::upgrade) {
            standing.controller = cluster.controller_id();
            standing.cluster_id.clone_from(&cluster.image().cluster_id);
        }
        standing
    }

    fn quorum(&self) -> Result<Bytes, String> {
        let cluster = self.cluster.get().and_then(Weak::upgrade);
        let quorum = cluster.and_then(|cluster| cluster.led_quorum());
        encode(&quorum.ok_or("this broker is not the controller")?)
    }

    fn ask_group(&self, kind: Kind, mut body: Bytes, answer: Answer) {
        let id = match group_of(&mut body) {
            Ok(id) => id,
            Err(error) => return answer(Err(error.to_string())),
        };
        let metadata = self.metadata.get().filter(|group| group.spec.id == id);
        let group = metadata.cloned().or_else(|| self.groups.read().get(&id).cloned());
        match group {
            Some(group) => {
                let hears_leader = || self.hears_leader(id);
                if let Some(asking) = group.ask(kind, body, answer, hears_leader) {
                    drop(self.env.tasks.spawn("raft request", asking));
                }
            }
            None => answer(Err(format!("no replica of partition {id} is here"))),
        }
    }

    /// Done in the background: the leader that tells it does so again with its next look at the segments.
    fn purge(&self, mut body: Bytes) -> Result<Bytes, String> {
        let id = group_of(&mut body).map_err(|e| e.to_string())?;
        let upto = decode_purge(body).map_err(|e| e.to_string())?;
        let group = self.groups.read().get(&id).cloned();
        if let (Some(group), Some(cluster)) = (group, self.cluster.get().and_then(Weak::upgrade)) {
            let purging = async move { cluster.purge_as_told(&group, upto).await };
            drop(self.env.tasks.spawn("purge", purging));
        }
        Ok(Bytes::new())
    }

    fn pass(&self, mut body: Bytes, answer: Answer) {
        let asked = group_of(&mut body).and_then(|id| Ok((id, decode_pass(body)?)));
        let (id, to) = match asked {
            Ok(asked) => asked,
            Err(error) => return answer(Err(error.to_string())),
        };
        let group = self.groups.read().get(&id).cloned();
        let (Some(group), Some(cluster)) = (group, self.cluster.get().and_then(Weak::upgrade)) else {
            return answer(Err(format!("no replica of partition {id} is here")));
        };
        let passing = async move { answer(cluster.pass(&group, to).await.map(|()| Bytes::new())) };
        drop(self.env.tasks.spawn("pass leadership", passing));
    }

    fn copy(&self, mut body: Bytes, answer: Answer) {
        let group = match self.group_asked(&mut body) {
            Ok(group) => group,
            Err(reason) => return answer(Err(reason)),
        };
        let Some(cluster) = self.cluster.get().and_then(Weak::upgrade) else {
            return answer(Err("the broker is starting".to_owned()));
        };
        let receiving = async move { answer(cluster.receive(&group, body).await) };
        drop(self.env.tasks.spawn("receive a copy", receiving));
    }

    /// The group of a partition that a request names, taken off it.
    fn group_asked(&self, body: &mut Bytes) -> Result<Arc<Group>, String> {
        let id = group_of(body).map_err(|e| e.to_string())?;
        let group = self.groups.read().get(&id).cloned();
        group.ok_or_else(|| format!("no replica of partition {id} is here"))
    }

    fn recall(&self, mut body: Bytes, answer: Answer) {
        let group = match self.group_asked(&mut body) {
            Ok(group) => group,
            Err(reason) => return answer(Err(reason)),
        };
        let is_led = self.hears_leader(group.spec.id);
        let recalling = async move { answer(group.answer_doubt(body, is_led).await) };
        drop(self.env.tasks.spawn("recall", recalling));
    }

    fn hears_leader(&self, id: PartitionId) -> bool {
        let cluster = self.cluster.get().and_then(Weak::upgrade);
        cluster.is_some_and(|cluster| cluster.host.hears_leader(id))
    }

    fn hear(&self, from: u32, body: &[u8]) -> Result<Bytes, String> {
        let announcement: Announcement = serde_json::from_slice(body).map_err(|e| e.to_string())?;
        let from = i32::try_from(from).map_err(|e| e.to_string())?;
        if self.leaders.hear(from, announcement)
            && let Some(cluster) = self.cluster.get().and_then(Weak::upgrade)
        {
            cluster.host.elections.notify_one();
        }
        Ok(Bytes::new())
    }
}

pub(crate) fn encode(value: &impl serde::Serialize) -> Result<Bytes, String> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|e| e.to_string())
}
