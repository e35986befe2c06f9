//! Settings of brokers and topics, with a real broker: what is wished comes, without a restart, and what others change goes.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use takhin_e2e::kubernetes::{ControlPlane, condition, text};
use takhin_e2e::wire::{Connection, Of};
use takhin_e2e::{Broker, wait};

use crate::room::{Room, SOON};
use crate::stage::Suites;

pub(crate) fn add(suites: &mut Suites) {
    suites.add(
        "settings: brokers take what they can while they run, and no pod is replaced",
        dynamic,
    );
    suites.add(
        "settings: what others change of a topic is taken back with the resync, unless it is unmanaged",
        drift,
    );
}

/// The value that the broker has of it.
fn value(broker: &Broker, of: Of<'_>, name: &str) -> Result<Option<String>> {
    Connection::open(broker.address())?.config(of, name)
}

/// Waits until the broker has this value, or another than it.
fn becomes(broker: &Broker, of: Of<'_>, name: &str, (is, wanted): (bool, &str)) -> Result<()> {
    let what = format!(
        "{name} of {of:?} {} {wanted}",
        if is { "to be" } else { "not to be" }
    );
    wait::until(what, SOON, || {
        Ok((value(broker, of, name)?.as_deref() == Some(wanted)) == is)
    })
}

fn dynamic(plane: &ControlPlane) -> Result<()> {
    const NAME: &str = "log.retention.ms";
    let room = Room::new(plane, "dynamic")?;
    let operator = room.lone_operator()?;
    room.small_cluster("prod")?;
    let broker = room.broker("prod").with_context(|| operator.tail())?;
    let before = room.soon("Pod", "prod-0")?;
    let wish = |value: Value| {
        let patch = json!({ "spec": { "config": { NAME: value } } });
        room.kube().merge("TakhinCluster", &room.name, "prod", &patch)
    };
    ensure!(value(&broker, Of::Broker("0"), NAME)?.as_deref() != Some("1234567"));
    wish(json!("1234567"))?;
    becomes(&broker, Of::Broker("0"), NAME, (true, "1234567")).with_context(|| operator.tail())?;
    // What somebody else sets it to does not stay.
    Connection::open(broker.address())?.set_config(Of::Broker(""), NAME, "7654321")?;
    becomes(&broker, Of::Broker("0"), NAME, (true, "7654321"))?;
    becomes(&broker, Of::Broker("0"), NAME, (true, "1234567")).with_context(|| operator.tail())?;
    wish(Value::Null)?;
    becomes(&broker, Of::Broker("0"), NAME, (false, "1234567")).with_context(|| operator.tail())?;
    let after = room.soon("Pod", "prod-0")?;
    ensure!(
        text(&before, "/metadata/uid") == text(&after, "/metadata/uid"),
        "the pod was replaced"
    );
    room.condition("TakhinCluster", "prod", "Progressing", ("False", "Idle"))?;
    room.leave()
}

fn drift(plane: &ControlPlane) -> Result<()> {
    const NAME: &str = "retention.ms";
    let room = Room::new(plane, "drift")?;
    let arguments = ["--no-leader-election", "--topic-resync-seconds", "5"];
    let mut operator = room.operator("operator", &arguments)?;
    operator.ready()?;
    room.small_cluster("prod")?;
    let broker = room.broker("prod").with_context(|| operator.tail())?;
    for name in ["kept", "alone"] {
        room.topic(name, "prod", json!({ "config": { NAME: "1000000" } }))?;
        room.condition("Topic", name, "Ready", ("True", "Synced"))?;
    }
    let unmanaged = json!({ "metadata": { "annotations": { "takhin.io/managed": "false" } } });
    room.kube().merge("Topic", &room.name, "alone", &unmanaged)?;
    room.condition("Topic", "alone", "Ready", ("True", "Unmanaged"))?;
    // The one that is to be taken back last: whatever looks at it has looked at the other.
    for name in ["alone", "kept"] {
        Connection::open(broker.address())?.set_config(Of::Topic(name), NAME, "2000000")?;
    }
    becomes(&broker, Of::Topic("kept"), NAME, (true, "1000000")).with_context(|| operator.tail())?;
    ensure!(
        value(&broker, Of::Topic("alone"), NAME)?.as_deref() == Some("2000000"),
        "an unmanaged topic was touched"
    );
    wait::until("an event about it", SOON, || {
        let events = room.kube().list("Event", &room.name)?;
        Ok(events
            .iter()
            .any(|event| text(event, "/reason") == "TopicDrifted"))
    })?;
    // It is told for one pass only.
    room.wait("Topic", "kept", "to be as it is to be again", |topic| {
        let (is, reason, _) = condition(topic, "Ready")?;
        ((is, reason) == ("True", "Synced") && condition(topic, "Drifted").is_none()).then_some(())
    })?;
    room.leave()
}
