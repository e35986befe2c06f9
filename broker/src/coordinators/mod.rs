//! Group coordinators: finds the shard of a group, hands it requests, and sends replies once they are committed.
//!
//! ```text
//! handler ──▶ Coordinators::call ──▶ inbox ──▶ actor of the shard ──▶ state machine ──▶ batch of records
//!    ◀────────────────── reply, in the order of decisions ◀── committed ◀── partition of __consumer_offsets
//! ```
//!
//! A shard has one actor while its partition lives here. The actor serves only between the end of loading and the loss
//! of leadership or the first batch that is not committed; then the shard is dropped and loaded again, so that what was
//! decided and never written is forgotten.

mod actor;
pub(crate) mod census;
mod load;
mod observe;
mod serving;
mod settings;
mod topic;
mod view;

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use takhin_cluster::{Image, Partition, PartitionId};
use takhin_coordinator::{Context, Outcome, Reply, Shard};
use takhin_protocol::ErrorCode;
use tokio::sync::{mpsc, oneshot};

use self::actor::Actor;
use crate::context::{Broker, RequestContext};
use crate::replicas::View;

/// The topic that groups live in.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Requests that wait for one shard; a connection that brings one more is not read until there is room.
const INBOX: usize = 1024;

/// What a request does to its shard.
pub(crate) type Job = Box<dyn FnOnce(&mut Shard, &Context<'_>) -> Vec<Outcome> + Send>;

/// What goes to a shard.
pub(crate) enum Message {
    /// A request, which is answered.
    Request(Request),
    /// A look at its groups; dropped where there is nothing to be seen.
    Look(Box<dyn FnOnce(&Shard) + Send>),
}

/// A request on its way to a shard.
pub(crate) struct Request {
    job: Job,
    version: i16,
    client_id: String,
    client_host: String,
    reply: oneshot::Sender<Result<Reply, ErrorCode>>,
}

impl Message {
    fn refuse(self, code: ErrorCode) {
        if let Self::Request(request) = self {
            // Whoever asked may have gone.
            let _ = request.reply.send(Err(code));
        }
    }
}

/// A partition of the topic that lives here, and the actor that serves its groups.
#[derive(Debug)]
struct Served {
    partition: Arc<Partition>,
    inbox: mpsc::Sender<Message>,
}

/// All shards of this broker.
#[derive(Debug, Default)]
pub(crate) struct Coordinators {
    shards: Mutex<BTreeMap<PartitionId, Served>>,
    creation: topic::Creation,
}

impl Coordinators {
    /// The broker that coordinates `group`. Makes the topic if it is missing, as Kafka does.
    ///
    /// # Errors
    /// COORDINATOR_NOT_AVAILABLE while the topic is being made or its partition has no leader; clients ask again.
    pub(crate) async fn find(broker: &Arc<Broker>, group: &str) -> Result<i32, ErrorCode> {
        broker.coordinators.creation.ensure(broker).await?;
        let view = View::new(&broker.cluster);
        let id = partition_of(&view.image, group).ok_or(ErrorCode::CoordinatorNotAvailable)?;
        match view.leadership(id.topic_id, id.index).leader {
            -1 => Err(ErrorCode::CoordinatorNotAvailable),
            leader => Ok(leader),
        }
    }

    /// Has the shard of `group` do `job`, and returns its reply once it is committed.
    ///
    /// # Errors
    /// NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE: clients ask again, or elsewhere.
    ///
    /// # Cancel safety
    /// The job is done all the same once this has been polled to its first wait.
    pub(crate) async fn call(cx: &RequestContext, group: &str, job: Job) -> Result<Reply, ErrorCode> {
        let image = cx.cluster().image();
        let id = partition_of(&image, group).ok_or(ErrorCode::NotCoordinator)?;
        let shard = {
            let shards = cx.broker().coordinators.shards.lock();
            shards.get(&id).map(|shard| shard.inbox.clone())
        };
        let shard = shard.ok_or(ErrorCode::NotCoordinator)?;
        ask(cx, &shard, job).await
    }

    /// Has every shard on this broker do a job; replies in the order of partitions.
    pub(crate) async fn call_all(
        cx: &RequestContext,
        job: impl Fn() -> Job,
    ) -> Vec<Result<Reply, ErrorCode>> {
        let shards = cx.broker().coordinators.inboxes();
        let asked = shards.iter().map(|shard| ask(cx, shard, job()));
        futures_util::future::join_all(asked).await
    }

    /// Keeps an actor for each partition of the topic that lives on this broker, until the broker stops.
    pub(crate) async fn keep(broker: Arc<Broker>) {
        loop {
            let image = broker.cluster.image();
            // Partitions come after the image that names them.
            let followed = async {
                broker.cluster.reconciled(image.end_offset).await;
                broker.coordinators.reconcile(&broker, &image);
                broker.cluster.image_after(image.end_offset).await;
            };
            tokio::select! {
                biased;
                () = broker.stopping.wait() => return,
                () = followed => {}
            }
        }
    }

    /// Keeps the metrics of groups up to date, until the broker stops.
    pub(crate) async fn observe(broker: Arc<Broker>) {
        observe::observe(broker).await;
    }

    /// The ways to all shards.
    fn inboxes(&self) -> Vec<mpsc::Sender<Message>> {
        let shards = self.shards.lock();
        shards.values().map(|shard| shard.inbox.clone()).collect()
    }

    fn reconcile(&self, broker: &Arc<Broker>, image: &Image) {
        let topic = image.topic(OFFSETS_TOPIC);
        let mut shards = self.shards.lock();
        // The actor of a partition that is gone ends when nobody can reach it any more. A replica that has come back is another
        // one, and gets an actor of its own.
        shards.retain(|id, shard| {
            let here = broker.cluster.partition(id.topic_id, id.index);
            here.is_some_and(|here| Arc::ptr_eq(&here, &shard.partition))
        });
        let Some(topic) = topic else { return };
        for index in 0..as_i32(topic.partitions.len()) {
            let id = PartitionId {
                topic_id: topic.id,
                index,
            };
            let Some(partition) = broker.cluster.partition(topic.id, index) else {
                continue;
            };
            shards.entry(id).or_insert_with(|| {
                let (sender, inbox) = mpsc::channel(INBOX);
                let actor = Actor::new(Arc::clone(broker), Arc::clone(&partition), inbox);
                broker.env.tasks.spawn("coordinator", actor.run());
                Served {
                    partition,
                    inbox: sender,
                }
            });
        }
    }
}

async fn ask(cx: &RequestContext, shard: &mpsc::Sender<Message>, job: Job) -> Result<Reply, ErrorCode> {
    let (reply, receiver) = oneshot::channel();
    let message = Message::Request(Request {
        job,
        version: cx.version,
        client_id: cx.client_id.as_ref().map(|id| id.to_string()).unwrap_or_default(),
        // As Java prints an address without a name.
        client_host: format!("/{}", cx.peer.address.ip()),
        reply,
    });
    let gone = |_| ErrorCode::NotCoordinator;
    shard.send(message).await.map_err(|_| ErrorCode::NotCoordinator)?;
    receiver.await.map_err(gone)?
}

fn as_i32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// The partition that a group lives in, as Kafka's tools compute it: Java's hash of the group id.
fn partition_of(image: &Image, group: &str) -> Option<PartitionId> {
    let topic = image.topic(OFFSETS_TOPIC)?;
    let hash = group.encode_utf16().fold(0i32, |hash, unit| {
        hash.wrapping_mul(31).wrapping_add(i32::from(unit))
    });
    // `Utils.abs` of Kafka: the least number, which has no absolute value, counts as 0.
    let positive = hash.checked_abs().unwrap_or(0);
    let index = positive.checked_rem(as_i32(topic.partitions.len()))?;
    Some(PartitionId {
        topic_id: topic.id,
        index,
    })
}
