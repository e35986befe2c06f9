//! Changes of the metadata that are asked for on any broker and made by the controller.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use takhin_config::alter::Change;
use uuid::Uuid;

use super::Cluster;
use super::exchange;
use crate::controller::{ConfigTarget, Moved, NewTopic, ReplicaChange, TopicError};
use crate::links::{Class, Kind, LinkError};
use crate::metadata::{BrokerInfo, Image};

/// How long a change may take, with the search for a controller.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause before a controller is looked for again.
const SEARCH_PAUSE: Duration = Duration::from_millis(50);

/// A change of the metadata.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Command {
    /// See [`Cluster::create_topic`]; the id is drawn by who asks, so that a repetition is known for one.
    CreateTopic { id: Uuid, new: NewTopic },
    /// See [`Cluster::create_partitions`].
    CreatePartitions {
        id: Uuid,
        existing: usize,
        partitions: Vec<Vec<i32>>,
    },
    /// See [`Cluster::delete_topic`].
    DeleteTopic { id: Uuid },
    /// See [`Cluster::alter_config`].
    AlterConfig {
        target: ConfigTarget,
        change: Change,
        validate_only: bool,
    },
    /// See [`Cluster::reassign`].
    Reassign(Vec<ReplicaChange>),
    /// Changes of replicas are done.
    Reassigned(Vec<Moved>),
    /// See [`Cluster::set_draining`].
    Drain { broker: i32, draining: bool },
    /// See [`Cluster::set_decommissioning`].
    Decommission { broker: i32, decommissioning: bool },
    /// See [`Cluster::unregister_broker`].
    Unregister { broker: i32 },
    /// A block of producer ids, for the asking broker alone.
    ProducerIds,
    /// The broker has come up, or has changed what it offers.
    Register(BrokerInfo),
}

/// What the controller did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Done {
    /// The image that ends here, or a later one, shows it.
    pub(crate) end_offset: i64,
    /// First of a block of producer ids.
    pub(crate) first_id: Option<i64>,
    /// What came of each change of replicas.
    #[serde(default)]
    pub(crate) outcomes: Vec<Result<(), TopicError>>,
}

impl Done {
    fn at(end_offset: i64) -> Self {
        Self {
            end_offset,
            first_id: None,
            outcomes: Vec::new(),
        }
    }
}

impl Command {
    /// Whether an error may be so because the command was carried out before. All others can be repeated without one.
    fn fails_again(&self, error: &TopicError) -> bool {
        match (self, error) {
            (Self::DeleteTopic { .. }, TopicError::Unknown) => true,
            (Self::Unregister { .. }, TopicError::UnknownBroker { .. }) => true,
            (Self::CreatePartitions { .. }, TopicError::NotAnIncrease { current, .. }) => {
                self.partitions_after() == Some(*current)
            }
            _ => false,
        }
    }

    /// Whether an image shows such a command done.
    fn is_shown(&self, image: &Image) -> bool {
        match self {
            Self::DeleteTopic { id } => image.topic_by_id(*id).is_none(),
            Self::Unregister { broker } => !image.brokers.contains_key(broker),
            Self::CreatePartitions { id, .. } => image
                .topic_by_id(*id)
                .is_none_or(|topic| Some(topic.partitions.len()) >= self.partitions_after()),
            _ => true,
        }
    }

    fn partitions_after(&self) -> Option<usize> {
        match self {
            Self::CreatePartitions {
                existing, partitions, ..
            } => existing.checked_add(partitions.len()),
            _ => None,
        }
    }
}

/// The controller's answer to another broker.
pub(crate) type Obeyed = Result<Done, TopicError>;

impl Cluster {
    /// Has the controller carry a command out, wherever it is; on return this broker's image shows the result.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have made the change.
    pub(super) async fn command(&self, command: Command) -> Obeyed {
        let maybe_done = AtomicBool::new(false);
        let asking = self.find_and_ask(&command, &maybe_done);
        let asked = match self.env.clock.timeout(FORWARD_TIMEOUT, asking).await {
            Ok(asked) => asked,
            Err(_) if maybe_done.load(Ordering::Relaxed) => Err(TopicError::Timeout),
            Err(_) => Err(TopicError::NotController),
        };
        let shown = self.shown(&command, asked, maybe_done.into_inner());
        let shown = self.env.clock.timeout(FORWARD_TIMEOUT, shown).await;
        shown.unwrap_or(Err(TopicError::Timeout))
    }

    /// What came of a command, once the image here shows it. With `maybe_done` it may have been carried out before the
    /// controller's answer was made.
    async fn shown(&self, command: &Command, asked: Obeyed, maybe_done: bool) -> Obeyed {
        match asked {
            Ok(mut done) => {
                if maybe_done {
                    let cancelled = |outcome: &&mut _| **outcome == Err(TopicError::NoReassignment);
                    done.outcomes
                        .iter_mut()
                        .filter(cancelled)
                        .for_each(|outcome| *outcome = Ok(()));
                }
                self.controller.image_at(done.end_offset).await;
                Ok(done)
            }
            Err(error) if maybe_done && command.fails_again(&error) => {
                let image = self.controller.image_where(|image| command.is_shown(image)).await;
                Ok(Done::at(image.end_offset))
            }
            Err(error) => Err(error),
        }
    }

    /// Asks until a controller has answered for good. One that dies, hangs or loses its office over a command leaves open
    /// whether it is done: the next one is asked again, with `maybe_done` set from then on.
    async fn find_and_ask(&self, command: &Command, maybe_done: &AtomicBool) -> Obeyed {
        loop {
            let answer = if self.is_controller() {
                self.execute(command.clone()).await
            } else if let Ok(controller) = u32::try_from(self.controller_id()) {
                tokio::select! {
                    biased;
                    asked = self.ask_controller(controller, command) => match asked {
                        Ok(answer) => answer,
                        Err(LinkError::Refused { .. }) => Err(TopicError::NotController),
                        Err(error) => {
                            tracing::debug!(%error, "the controller did not answer");
                            Err(TopicError::Timeout)
                        }
                    },
                    () = self.another_controller(controller) => Err(TopicError::Timeout),
                }
            } else {
                Err(TopicError::NotController)
            };
            match answer {
                Err(TopicError::NotController) => {}
                Err(TopicError::Timeout) => maybe_done.store(true, Ordering::Relaxed),
                answer => return answer,
            }
            self.env.clock.sleep(SEARCH_PAUSE).await;
        }
    }

    /// Until another broker is the controller, as far as is known here.
    async fn another_controller(&self, than: u32) {
        while u32::try_from(self.controller_id()).is_ok_and(|id| id == than) {
            self.env.clock.sleep(SEARCH_PAUSE).await;
        }
    }

    pub(super) async fn ask_controller(&self, node: u32, command: &Command) -> Result<Obeyed, LinkError> {
        let refused = |reason: String| LinkError::Refused { node, reason };
        let body = exchange::encode(command).map_err(refused)?;
        let call = self.host.links.call(
            node,
            Class::Control,
            0,
            Kind::Command,
            vec![body],
            FORWARD_TIMEOUT,
        );
        serde_json::from_slice(&call.await?).map_err(|e| refused(e.to_string()))
    }

    /// Carries out what another broker forwards.
    pub(crate) async fn obey(&self, body: &Bytes) -> Obeyed {
        match serde_json::from_slice(body) {
            Ok(command) => self.execute(command).await,
            Err(error) => Err(TopicError::Config(format!(
                "a command of a newer release, or none: {error}"
            ))),
        }
    }

    async fn execute(&self, command: Command) -> Obeyed {
        if !self.is_controller() {
            return Err(TopicError::NotController);
        }
        let (mut first_id, mut outcomes) = (None, Vec::new());
        match command {
            Command::CreateTopic { id, new } => self.controller.create_topic(id, new).await?,
            Command::CreatePartitions {
                id,
                existing,
                partitions,
            } => {
                self.controller
                    .create_partitions(id, existing, partitions)
                    .await?
            }
            Command::DeleteTopic { id } => self.controller.delete_topic(id).await?,
            Command::AlterConfig {
                target,
                change,
                validate_only,
            } => {
                self.controller
                    .alter_config(&target, &change, validate_only)
                    .await?
            }
            Command::Reassign(changes) => outcomes = self.controller.reassign(&changes).await?,
            Command::Reassigned(moved) => self.controller.reassigned(&moved).await?,
            Command::Drain { broker, draining } => self.controller.set_draining(broker, draining).await?,
            Command::Decommission {
                broker,
                decommissioning,
            } => self.decommission_as_told(broker, decommissioning).await?,
            Command::Unregister { broker } => self.unregister_as_told(broker).await?,
            Command::ProducerIds => first_id = Some(self.controller.producer_id_block().await?),
            Command::Register(broker) => {
                self.learn_address(&broker);
                self.controller.register(broker).await?;
                // Where nothing has changed nothing is written, and it would learn with the next heartbeat only, seconds
                // later, up to where its metadata are committed.
                self.metadata_group.send_heartbeat().await;
            }
        }
        Ok(Done {
            first_id,
            outcomes,
            ..Done::at(self.image().end_offset)
        })
    }

    /// Links to a broker where it says that it is now. Where all addresses have changed at once, nothing could be
    /// committed before that, and so not the new address either.
    fn learn_address(&self, broker: &BrokerInfo) {
        let image = self.image();
        let is_it = |known: &BrokerInfo| known.directory == broker.directory && known.rpc != broker.rpc;
        if broker.id != self.node_id() && image.brokers.get(&broker.id).is_some_and(is_it) {
            let address = (broker.id.unsigned_abs(), broker.rpc.clone());
            self.host.links.add_peers([address].into());
        }
    }

    /// A producer id that was never given to anybody.
    ///
    /// # Errors
    /// [`TopicError::NotController`], [`TopicError::Timeout`].
    pub async fn next_producer_id(self: &Arc<Self>) -> Result<i64, TopicError> {
        if let Some(id) = self.producer_ids.lock().next() {
            return Ok(id);
        }
        let done = self.command(Command::ProducerIds).await?;
        let first = done.first_id.ok_or(TopicError::Timeout)?;
        let mut ids = self.producer_ids.lock();
        // Somebody may have fetched a block meanwhile: its rest comes first, and this block is lost, never reused.
        if ids.is_empty() {
            *ids = first..first + crate::controller::PRODUCER_ID_BLOCK;
        }
        ids.next().ok_or(TopicError::Timeout)
    }
}
