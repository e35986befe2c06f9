//! Brokers on their way out: decommissioned, then unregistered; and the moves that the cluster makes by itself.
//!
//! A broker that is being decommissioned loses its replicas, its vote on the metadata and all that it leads, and gets none of
//! it back until somebody says otherwise. That stands in the metadata, so it goes on after any restart, whoever is the
//! controller.
//!
//! An unregistered broker's id is free: a broker with another data directory may take it. That is sound because nothing
//! that the old one has promised is counted any more. It holds no replica (checked here), so no partition's group has it as a
//! member, and one that is added later gets a number of its own; in the metadata group it has no vote (checked here, as
//! committed), and members there are told apart by their directories. Should the old directory come back, it is told that
//! the id is taken.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use uuid::Uuid;

use super::reassign;
use super::{Controller, ReplicaChange, TopicError};
use crate::metadata::{Image, MetadataRecord};
use crate::placement::Plan;

/// Topics that a refusal names.
const NAMED: usize = 10;

/// Voters of the metadata that there are to be at least, unless there are fewer already.
const VOTERS: usize = 3;

/// What the controller knows beside the metadata.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// Voters of the metadata group, as committed.
    pub(crate) voters: BTreeSet<i32>,
    /// Brokers that are there.
    pub(crate) present: BTreeSet<i32>,
}

impl Controller {
    /// Has a broker lose all its replicas, or have some again; nothing is written if that is so already.
    pub(crate) async fn set_decommissioning(
        &self,
        broker: i32,
        decommissioning: bool,
        surroundings: &Surroundings,
    ) -> Result<(), TopicError> {
        let _turn = self.turn.lock().await;
        let image = self.image();
        if !image.brokers.contains_key(&broker) {
            return Err(TopicError::UnknownBroker { id: broker });
        }
        if image.decommissioning.contains(&broker) == decommissioning {
            return Ok(());
        }
        if decommissioning && let Some(refusal) = why_not(&image, broker, surroundings) {
            return Err(refusal);
        }
        let record = MetadataRecord::DecommissionBroker {
            broker,
            decommissioning,
        };
        self.commit_in_turn(&[record]).await?;
        Ok(())
    }

    /// Forgets a broker that holds nothing.
    pub(crate) async fn unregister(
        &self,
        broker: i32,
        surroundings: &Surroundings,
    ) -> Result<(), TopicError> {
        let _turn = self.turn.lock().await;
        let image = self.image();
        if !image.brokers.contains_key(&broker) {
            return Err(TopicError::UnknownBroker { id: broker });
        }
        if let Some(reason) = still_has(&image, broker, surroundings) {
            return Err(TopicError::BrokerNeeded {
                id: broker,
                reason,
                to_vote: false,
            });
        }
        self.commit_in_turn(&[MetadataRecord::UnregisterBroker { broker }])
            .await?;
        Ok(())
    }

    /// Begins what is to be moved next, or takes down that replicas are even; how many changes were begun.
    pub(crate) async fn rebalance(&self, plan: impl FnOnce(&Image) -> Plan) -> Result<usize, TopicError> {
        let _turn = self.turn.lock().await;
        let image = self.image();
        let plan = plan(&image);
        let draw = || Uuid::from_bytes(self.env.rng.uuid());
        let mut records = Vec::new();
        for next in &plan.moves {
            let change = ReplicaChange {
                topic_id: next.topic_id,
                index: next.index,
                replicas: Some(next.replicas.clone()),
                may_resize: true,
            };
            records.extend(reassign::plan(&image, &change, true, draw)?);
        }
        let count = records.len();
        if plan.is_even && image.rebalance_due.is_some() {
            records.push(MetadataRecord::Rebalanced {});
        }
        if !records.is_empty() {
            self.commit_in_turn(&records).await?;
        }
        Ok(count)
    }
}

/// Why a broker cannot be decommissioned.
fn why_not(image: &Image, broker: i32, surroundings: &Surroundings) -> Option<TopicError> {
    let needed_for = |reason: String, to_vote: bool| TopicError::BrokerNeeded {
        id: broker,
        reason,
        to_vote,
    };
    let stay: BTreeSet<i32> = image.staying().filter(|id| *id != broker).collect();
    if stay.is_empty() {
        return Some(needed_for("no other broker is left".to_owned(), false));
    }
    let widths = image.topics.values().filter_map(|topic| {
        let widths = topic.partitions.iter().map(|partition| {
            let moving = partition.reassignment.as_ref();
            moving.map_or(partition.replicas.len(), |moving| moving.target.len())
        });
        let width = widths.max()?;
        (width > stay.len()).then(|| format!("{} ({width} replicas)", topic.name))
    });
    let widths: Vec<String> = widths.collect();
    if !widths.is_empty() {
        let mut reason = format!("{} brokers would be left, too few for topics ", stay.len());
        reason.push_str(&widths[..widths.len().min(NAMED)].join(", "));
        if let Some(more) = widths.len().checked_sub(NAMED).filter(|more| *more > 0) {
            let _ = write!(reason, " and {more} more");
        }
        return Some(needed_for(reason, false));
    }
    let needed = surroundings.voters.len().clamp(1, VOTERS);
    let can_vote = stay.intersection(&surroundings.present).count();
    (can_vote < needed).then(|| {
        let reason = format!(
            "the metadata need {needed} brokers to vote on them, and {can_vote} that are there would be left"
        );
        needed_for(reason, true)
    })
}

/// What a broker still has that no broker may be unregistered with.
fn still_has(image: &Image, broker: i32, surroundings: &Surroundings) -> Option<String> {
    let mut held = 0_usize;
    let mut example = None;
    for topic in image.topics.values() {
        for (index, _) in (0..)
            .zip(&topic.partitions)
            .filter(|(_, partition): &(i32, _)| partition.replicas.contains(&broker))
        {
            held += 1;
            example.get_or_insert_with(|| format!("{}-{index}", topic.name));
        }
    }
    if let Some(example) = example {
        return Some(format!(
            "it has replicas of {held} partitions, {example} among them: decommission it first"
        ));
    }
    if surroundings.voters.contains(&broker) {
        return Some("it votes on the metadata: decommission it first".to_owned());
    }
    let is_present = surroundings.present.contains(&broker);
    is_present.then(|| "it is running: stop it first".to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use takhin_config::live::Settings;

    use super::*;
    use crate::metadata::{BrokerInfo, Origin};

    fn image(brokers: i32, topics: &[(&str, &[i32])]) -> Image {
        let origin = Origin {
            broker: 1,
            settings: Arc::new(Settings::default()),
        };
        let mut image = Image::first(&origin);
        for id in 1..=brokers {
            let broker = BrokerInfo {
                id,
                rack: None,
                endpoints: Vec::new(),
                rpc: String::new(),
                directory: Uuid::nil(),
            };
            image.replay(&MetadataRecord::RegisterBroker { broker }, &origin);
        }
        for (name, replicas) in topics {
            let topic = MetadataRecord::CreateTopic {
                name: (*name).to_owned(),
                id: Uuid::from_u128(image.version.into()),
                partitions: vec![replicas.to_vec()],
                overrides: BTreeMap::new(),
            };
            image.replay(&topic, &origin);
        }
        image
    }

    fn surroundings(voters: &[i32], present: &[i32]) -> Surroundings {
        Surroundings {
            voters: voters.iter().copied().collect(),
            present: present.iter().copied().collect(),
        }
    }

    /// Whether a broker is needed to vote, and the reason that is given.
    fn refused(image: &Image, broker: i32, surroundings: &Surroundings) -> (bool, String) {
        match why_not(image, broker, surroundings) {
            Some(TopicError::BrokerNeeded { reason, to_vote, .. }) => (to_vote, reason),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn brokers_of_the_release_before_read_why_and_are_read() {
        let old = r#"{"BrokerNeeded":{"id":1,"reason":"no other broker is left"}}"#;
        let new = TopicError::BrokerNeeded {
            id: 1,
            reason: "no other broker is left".to_owned(),
            to_vote: false,
        };
        assert_eq!(serde_json::from_str::<TopicError>(old).unwrap(), new);
        let sent = serde_json::to_value(&new).unwrap();
        assert_eq!(sent["BrokerNeeded"]["reason"], "no other broker is left");
    }

    #[test]
    fn a_broker_that_the_others_cannot_replace_stays() {
        let narrow = image(4, &[("two", &[1, 2]), ("three", &[1, 2, 3])]);
        let all = surroundings(&[1, 2, 3], &[1, 2, 3, 4]);
        assert_eq!(why_not(&narrow, 1, &all), None);
        let mut less = narrow.clone();
        less.decommissioning.insert(4);
        assert_eq!(
            refused(&less, 1, &all),
            (
                false,
                "2 brokers would be left, too few for topics three (3 replicas)".to_owned()
            )
        );
        let names: Vec<String> = (10..30).map(|i| format!("t{i}")).collect();
        let topics: Vec<(&str, &[i32])> = names.iter().map(|name| (name.as_str(), &[1, 2][..])).collect();
        let (_, reason) = refused(&image(2, &topics), 1, &all);
        assert!(reason.ends_with("t19 (2 replicas) and 10 more"), "{reason}");
        assert_eq!(
            refused(&image(1, &[]), 1, &surroundings(&[1], &[1])),
            (false, "no other broker is left".to_owned())
        );
    }

    #[test]
    fn enough_brokers_are_left_to_vote() {
        let topics: &[(&str, &[i32])] = &[("one", &[1])];
        let missing = surroundings(&[1, 2, 3], &[1, 2, 3]);
        assert_eq!(
            refused(&image(4, topics), 1, &missing),
            (
                true,
                "the metadata need 3 brokers to vote on them, and 2 that are there would be left".to_owned()
            )
        );
        // One that is dead leaves for one that is not.
        assert_eq!(why_not(&image(4, topics), 4, &missing), None);
        assert_eq!(why_not(&image(2, topics), 1, &surroundings(&[1], &[1, 2])), None);
        // Of five voters three are enough.
        let five = surroundings(&[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]);
        assert_eq!(why_not(&image(5, topics), 1, &five), None);
    }

    #[test]
    fn only_a_broker_that_has_nothing_is_forgotten() {
        let image = image(4, &[("t", &[1, 2])]);
        let reason = |broker, voters: &[i32], present: &[i32]| {
            still_has(&image, broker, &surroundings(voters, present)).unwrap_or_default()
        };
        assert!(reason(2, &[1], &[1]).starts_with("it has replicas of 1 partitions, t-0"));
        assert!(reason(3, &[1, 3], &[1]).starts_with("it votes"));
        assert!(reason(3, &[1], &[1, 3]).starts_with("it is running"));
        assert_eq!(reason(3, &[1], &[1, 2]), "");
    }
}
