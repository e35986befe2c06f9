//! Changes of the metadata that are asked for on any broker and made by the controller.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use takhin_config::alter::Change;
use uuid::Uuid;

use super::Cluster;
use super::exchange;
use crate::controller::{ConfigTarget, Moved, NewTopic, ReplicaChange, TopicError};
use crate::links::{Class, Kind, LinkError};
use crate::metadata::BrokerInfo;

/// How long a change may take, with the search for a controller.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause before a controller is looked for again.
const SEARCH_PAUSE: Duration = Duration::from_millis(50);

/// A change of the metadata.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Command {
    /// See [`Cluster::create_topic`].
    CreateTopic(NewTopic),
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
    /// Of a topic that was created.
    pub(crate) topic: Option<Uuid>,
    /// First of a block of producer ids.
    pub(crate) first_id: Option<i64>,
    /// What came of each change of replicas.
    #[serde(default)]
    pub(crate) outcomes: Vec<Result<(), TopicError>>,
}

/// The controller's answer to another broker.
pub(crate) type Obeyed = Result<Done, TopicError>;

impl Cluster {
    /// Has the controller carry a command out, wherever it is; on return this broker's image shows the result.
    ///
    /// # Cancel safety
    /// A dropped call may or may not have made the change.
    pub(super) async fn command(&self, command: Command) -> Obeyed {
        let asked = self
            .env
            .clock
            .timeout(FORWARD_TIMEOUT, self.find_and_ask(&command))
            .await;
        let done = asked.unwrap_or(Err(TopicError::NotController))?;
        let shown = self.controller.image_at(done.end_offset);
        match self.env.clock.timeout(FORWARD_TIMEOUT, shown).await {
            Ok(_) => Ok(done),
            Err(_) => Err(TopicError::Timeout),
        }
    }

    /// Repeats what was certainly not carried out.
    async fn find_and_ask(&self, command: &Command) -> Obeyed {
        loop {
            if self.is_controller() {
                match self.execute(command.clone()).await {
                    Err(TopicError::NotController) => {}
                    other => return other,
                }
            } else if let Ok(controller) = u32::try_from(self.controller_id()) {
                match self.ask_controller(controller, command).await {
                    Ok(Err(TopicError::NotController)) => {}
                    Ok(other) => return other,
                    Err(LinkError::Refused { .. }) => {}
                    Err(error) => {
                        tracing::debug!(%error, "the controller did not answer");
                        return Err(TopicError::Timeout);
                    }
                }
            }
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
        let (mut topic, mut first_id, mut outcomes) = (None, None, Vec::new());
        match command {
            Command::CreateTopic(new) => topic = Some(self.controller.create_topic(new).await?.id),
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
            Command::Register(broker) => self.controller.register(broker).await?,
        }
        Ok(Done {
            end_offset: self.image().end_offset,
            topic,
            first_id,
            outcomes,
        })
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
