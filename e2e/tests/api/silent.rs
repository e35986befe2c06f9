//! A namespace goes although a topic in it cannot be deleted: after a minute, in which another test runs.

use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result};
use serde_json::json;
use takhin_e2e::kubernetes::{ControlPlane, Operator, condition};

use crate::room::{Aside, Room, SOON};
use crate::stage::Suites;

/// Where the topic is. The operator's rights there go with it.
const SHOP: &str = "room-silent-shop";

/// What waits for the minute to pass.
static WAITING: Mutex<Option<Aside>> = Mutex::new(None);

/// What comes before the minute.
pub(crate) fn add_first(suites: &mut Suites) {
    suites.add("topics: it is said what holds up a deletion", |plane| {
        let begun = begin(plane)?.set_aside();
        *WAITING.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
        Ok(())
    });
}

/// What comes after it.
pub(crate) fn add_last(suites: &mut Suites) {
    suites.add(
        "topics: a namespace goes although the brokers are silent",
        |plane| {
            let waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner).take();
            // Alone, or after a test that has failed, it begins here.
            let held = match waiting.and_then(|aside| Held::take_up(plane, aside)) {
                Some(held) => held,
                None => begin(plane)?,
            };
            // Roles in it go with it; the operator has to let go of the topic all the same, a minute after it was deleted.
            held.room
                .kube()
                .gone("Namespace", "", SHOP, SOON * 2)
                .with_context(|| held.operator.tail())?;
            held.room.leave()
        },
    );
}

/// A namespace that is going, and an operator that looks after it.
struct Held<'a> {
    room: Room<'a>,
    operator: Operator,
}

impl<'a> Held<'a> {
    fn set_aside(self) -> Aside {
        self.room.set_aside(self.operator)
    }

    fn take_up(plane: &'a ControlPlane, aside: Aside) -> Option<Self> {
        let (room, operator) = Room::take_up(plane, aside)?;
        Some(Self { room, operator })
    }
}

fn begin(plane: &ControlPlane) -> Result<Held<'_>> {
    let room = Room::with(plane, "silent", &[SHOP])?;
    let operator = room.lone_operator()?;
    let spec = json!({ "replicas": 1, "storage": { "type": "Ephemeral" }, "topicNamespaces": [SHOP] });
    room.kube().apply(&room.ours("TakhinCluster", "prod", spec))?;
    let broker = room.broker("prod").with_context(|| operator.tail())?;
    let mut topic = room.ours(
        "Topic",
        "orders",
        json!({ "clusterRef": { "name": "prod", "namespace": room.name } }),
    );
    topic["metadata"]["namespace"] = SHOP.into();
    room.kube().apply(&topic)?;
    let says = |status: &'static str, reason: &'static str| {
        room.kube()
            .wait(("Topic", SHOP, "orders"), reason, SOON, |topic| {
                let (is, why, _) = condition(topic, "Ready")?;
                (is == status && why == reason).then_some(())
            })
    };
    says("True", "Synced")?;
    drop(broker);
    room.kube().delete("Topic", SHOP, "orders")?;
    says("False", "DeletionBlocked").with_context(|| operator.tail())?;
    room.kube().delete("Namespace", "", SHOP)?;
    Ok(Held { room, operator })
}
