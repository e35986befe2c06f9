//! The brokers by the Kafka protocol, as far as the operator needs it: questions as they come, changes within the fence.
//!
//! What a change needs before it is sent, such as a connection, may take long; it is not sent then. What was sent and is not
//! answered may still be done, whoever leads (`fence` says what that leaves open).

use takhin_client::{
    Client, ClientConfig, ClientError, ConfigChange, ConfigResource, Configs, OngoingReassignment, Outcomes,
    Refusal, TopicDescription, TopicToCreate,
};
use takhin_runtime::Env;

use crate::fence::{Fence, Lapsed};

/// Why brokers were not asked, or did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KafkaError {
    /// None answers, or one refuses the request as a whole.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The Lease has run out.
    #[error(transparent)]
    Lapsed(#[from] Lapsed),
}

/// What comes of a question about the settings of each resource.
type Settings = Vec<(String, Result<Configs, Refusal>)>;

/// Which of all topics that ever have a name.
pub(crate) type TopicId = [u8; 16];

/// What becomes of each topic that is to be deleted.
type Deleted = Vec<(TopicId, Result<(), Refusal>)>;

/// Asks the brokers of one cluster; clones share connections.
#[derive(Debug, Clone)]
pub(crate) struct KafkaApi {
    client: Client,
    fence: Fence,
}

impl KafkaApi {
    /// A client that connects when it is first used.
    pub(crate) fn new(env: Env, fence: Fence, config: ClientConfig) -> Self {
        let client = Client::new(env, config);
        Self { client, fence }
    }

    /// The ids of the brokers that clients are told of.
    ///
    /// # Errors
    /// [`KafkaError`], as for all others.
    pub(crate) async fn brokers(&self) -> Result<Vec<i32>, KafkaError> {
        self.client.refresh(&[]).await?;
        Ok(self.client.metadata().brokers().map(|(id, _)| id).collect())
    }

    /// [`Client::describe_topics`].
    ///
    /// # Errors
    /// [`KafkaError`]
    pub(crate) async fn describe_topics(
        &self,
        names: Option<&[&str]>,
    ) -> Result<Vec<TopicDescription>, KafkaError> {
        Ok(self.client.describe_topics(names).await?)
    }

    /// [`Client::describe_configs`].
    ///
    /// # Errors
    /// [`KafkaError`]
    pub(crate) async fn describe_configs(
        &self,
        resources: &[(ConfigResource, Option<Vec<String>>)],
    ) -> Result<Settings, KafkaError> {
        Ok(self.client.describe_configs(resources).await?)
    }

    /// [`Client::list_reassignments`].
    ///
    /// # Errors
    /// [`KafkaError`]
    pub(crate) async fn list_reassignments(&self) -> Result<Vec<OngoingReassignment>, KafkaError> {
        Ok(self.client.list_reassignments().await?)
    }

    /// [`Client::create_topics`].
    ///
    /// # Errors
    /// [`KafkaError`]
    pub(crate) async fn create_topics(&self, topics: &[TopicToCreate]) -> Result<Outcomes, KafkaError> {
        self.within(self.client.create_topics(topics)).await
    }

    /// [`Client::create_partitions`].
    ///
    /// # Errors
    /// [`KafkaError`]
    pub(crate) async fn create_partitions(&self, topics: &[(&str, i32)]) -> Result<Outcomes, KafkaError> {
        self.within(self.client.create_partitions(topics)).await
    }

    /// [`Client::alter_configs`].
    ///
    /// # Errors
    /// [`KafkaError`]
    pub(crate) async fn alter_configs(
        &self,
        changes: &[(ConfigResource, Vec<ConfigChange>)],
    ) -> Result<Outcomes, KafkaError> {
        self.within(self.client.alter_configs(changes)).await
    }

    /// [`Client::reassign`].
    ///
    /// # Errors
    /// [`KafkaError`]
    pub(crate) async fn reassign(
        &self,
        name: &str,
        partitions: &[(i32, Vec<i32>)],
    ) -> Result<Vec<(i32, Refusal)>, KafkaError> {
        self.within(self.client.reassign(name, partitions)).await
    }

    /// [`Client::delete_topics_by_id`].
    ///
    /// # Errors
    /// [`KafkaError`]
    pub(crate) async fn delete_topics(&self, ids: &[TopicId]) -> Result<Deleted, KafkaError> {
        self.within(self.client.delete_topics_by_id(ids)).await
    }

    /// [`Client::unregister_broker`].
    ///
    /// # Errors
    /// [`KafkaError`]
    pub(crate) async fn unregister_broker(&self, broker: i32) -> Result<(), KafkaError> {
        self.within(self.client.unregister_broker(broker)).await
    }

    async fn within<T>(&self, change: impl Future<Output = Result<T, ClientError>>) -> Result<T, KafkaError> {
        Ok(self.fence.within(change).await??)
    }
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::future::BoxFuture;
    use takhin_runtime::sim::Sim;

    use super::testing::Broker;
    use super::*;

    /// Every change, each with a client of its own, which has no connection yet.
    fn changes(api: impl Fn() -> KafkaApi) -> Vec<BoxFuture<'static, Result<(), KafkaError>>> {
        let topic = TopicToCreate {
            name: "orders".to_owned(),
            ..TopicToCreate::default()
        };
        let [a, b, c, d, e, f] = std::array::from_fn(|_| api());
        vec![
            async move { a.create_topics(&[topic]).await.map(drop) }.boxed(),
            async move { b.create_partitions(&[("orders", 2)]).await.map(drop) }.boxed(),
            async move {
                let change = (ConfigResource::AllBrokers, Vec::new());
                c.alter_configs(&[change]).await.map(drop)
            }
            .boxed(),
            async move { d.reassign("orders", &[(0, vec![1])]).await.map(drop) }.boxed(),
            async move { e.delete_topics(&[[1; 16]]).await.map(drop) }.boxed(),
            async move { f.unregister_broker(1).await }.boxed(),
        ]
    }

    /// The Lease goes while the connection is being made: nothing that changes anything is sent on it.
    #[test]
    fn no_change_is_sent_on_an_old_word() {
        let mut sim = Sim::new(1);
        let machine = sim.add_machine("broker");
        sim.run(|env| async move {
            let broker = Broker::default();
            broker.listen(&machine.env(), "0.0.0.0:9092").await;
            let (renewal, fence) = Fence::new(env.clock.clone());
            let api = || KafkaApi::new(env.clone(), fence.clone(), ClientConfig::new(["broker:9092"]));
            for is_lost in [true, false] {
                for (at, change) in changes(api).into_iter().enumerate() {
                    broker.hold(true);
                    renewal.until(env.clock.instant() + std::time::Duration::from_secs(3600));
                    let meanwhile = async {
                        broker.greeted().await;
                        if is_lost {
                            renewal.until(env.clock.instant());
                        }
                        broker.hold(false);
                    };
                    let (done, ()) = tokio::join!(change, meanwhile);
                    let is_lapsed = matches!(done, Err(KafkaError::Lapsed(_)));
                    assert_eq!(is_lapsed, is_lost, "{at}: {done:?}");
                    assert_eq!(broker.asked().len(), usize::from(!is_lost), "{at}");
                }
            }
        });
    }
}
