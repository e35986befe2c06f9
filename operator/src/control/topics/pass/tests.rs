//! Every reason that is given for a topic which is looked after, by what was found.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use takhin_client::{ConfigValue, ErrorCode, PartitionDescription};

use super::*;
use crate::control::testing::Server;

const PATH: &str = "/apis/takhin.io/v1alpha1/namespaces/ns/topics/orders";

fn topic(spec: &Value, seen: bool) -> Value {
    let mut topic = json!({
        "apiVersion": "takhin.io/v1alpha1",
        "kind": "Topic",
        "metadata": {
            "name": "orders", "namespace": "ns", "generation": 2,
            "creationTimestamp": Timestamp::UNIX_EPOCH.to_string(),
        },
        "spec": { "clusterRef": { "name": "prod" } },
    });
    for (field, value) in spec.as_object().unwrap() {
        topic["spec"][field] = value.clone();
    }
    if seen {
        topic["status"] = json!({ "observedGeneration": 2, "topicId": "x" });
    }
    topic
}

fn three_partitions() -> TopicDescription {
    let partition = |index| PartitionDescription {
        index,
        leader: Some(0),
        replicas: vec![0],
        in_sync: vec![0],
    };
    TopicDescription {
        name: "orders".to_owned(),
        id: [7; 16],
        partitions: (0..3).map(partition).collect(),
    }
}

fn retention(value: &str) -> Configs {
    let value = ConfigValue {
        value: Some(value.to_owned()),
        is_own: true,
    };
    [("retention.ms".to_owned(), value)].into_iter().collect()
}

/// The conditions that a pass writes: type to status, reason and message.
type Said = BTreeMap<String, (String, String, String)>;

/// What is written of a topic with this wish that was found so, and the events told of it.
async fn said(wish: Value, seen: bool, find: impl FnOnce(&mut Item)) -> (Said, Vec<String>) {
    let server = Server::default();
    let context = server.context();
    let object = topic(&wish, seen);
    server.put(PATH, object.clone());
    let parsed: Topic = serde_json::from_value(object).unwrap();
    let mut item = item(Arc::new(parsed), "orders".to_owned());
    item.found = Some(three_partitions());
    find(&mut item);
    let pass = Pass {
        context: Arc::clone(&context),
        key: ("ns".to_owned(), "prod".to_owned()),
        again: Pending::new(),
        trouble: None,
        holds_up: false,
    };
    let racks: Racks = [(0, None)].into_iter().collect();
    pass.word(&item, &racks).tell(&context).await.unwrap();
    written(&server)
}

fn written(server: &Server) -> (Said, Vec<String>) {
    let conditions = server.get(PATH).unwrap()["status"]["conditions"].clone();
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let said = conditions.as_array().unwrap().iter().map(|said| {
        let words = (text(said, "status"), text(said, "reason"), text(said, "message"));
        (text(said, "type"), words)
    });
    let events = server
        .writes()
        .into_iter()
        .filter(|write| write.contains("/events"));
    (said.collect(), events.collect())
}

#[track_caller]
fn check(said: &Said, kind: &str, status: &str, reason: &str, part: &str) {
    let (found, because, message) = &said[kind];
    assert_eq!((found.as_str(), because.as_str()), (status, reason), "{message}");
    assert!(message.contains(part), "{message}");
}

#[tokio::test]
async fn what_is_under_way_is_unknown_and_says_what_it_is() {
    let (now, _) = said(json!({}), false, |item| item.found = None).await;
    check(&now, "Ready", "Unknown", "Creating", "being made");
    let (now, _) = said(json!({ "partitions": 5 }), false, |_| {}).await;
    check(&now, "Ready", "Unknown", "IncreasingPartitions", "partitions");
    let (now, _) = said(json!({ "replicationFactor": 1 }), false, |item| item.moving = 2).await;
    check(&now, "Ready", "Unknown", "Reassigning", "2 partitions");
    let wish = json!({ "config": { "retention.ms": "1000" } });
    let (now, _) = said(wish.clone(), false, |item| item.configs = Some(retention("5"))).await;
    check(&now, "Ready", "Unknown", "Updating", "settings");
    let (now, _) = said(wish, false, |item| item.configs = Some(retention("1000"))).await;
    check(&now, "Ready", "True", "Synced", "");
}

#[tokio::test]
async fn all_are_looked_at_in_their_time_whatever_is_under_way() {
    for over in [Work::all(), Work::of(["orders".to_owned()])] {
        let mut pass = Pass {
            context: Server::default().context(),
            key: ("ns".to_owned(), "prod".to_owned()),
            again: Pending::new(),
            trouble: None,
            holds_up: false,
        };
        pass.look_again("orders");
        let resync = pass.context.options.topic_resync;
        let done = pass.done(over);
        assert_eq!(done.again, Some((resync, Work::all())));
        assert_eq!(done.pending, Pending::from([("orders".to_owned(), false)]));
    }
}

#[tokio::test]
async fn what_cannot_be_is_said_with_the_value_that_is_wrong() {
    let (now, _) = said(json!({ "partitions": 2 }), true, |_| {}).await;
    check(
        &now,
        "Ready",
        "False",
        "PartitionDecreaseNotSupported",
        "spec.partitions is 2, and the topic has 3",
    );
    let (now, _) = said(json!({ "replicationFactor": 3 }), true, |_| {}).await;
    check(
        &now,
        "Ready",
        "False",
        "InvalidReplicationFactor",
        "is 3, and the cluster has 1",
    );
    for (code, reason) in [
        (ErrorCode::TopicAuthorizationFailed, "NotAuthorized"),
        (ErrorCode::ClusterAuthorizationFailed, "NotAuthorized"),
        (ErrorCode::InvalidConfig, "InvalidConfig"),
        (ErrorCode::PolicyViolation, "KafkaError"),
    ] {
        let refusal = Refusal {
            code: code.code(),
            name: code.name(),
            message: Some("retention.ms is -7".to_owned()),
        };
        let (now, _) = said(json!({}), true, |item| item.refused = Some(refusal)).await;
        check(&now, "Ready", "False", reason, "retention.ms is -7");
    }
}

#[tokio::test]
async fn what_others_changed_is_told_and_what_the_wish_changed_is_not() {
    let wish = json!({ "config": { "retention.ms": "1000" } });
    let reverted = |item: &mut Item| {
        item.configs = Some(retention("1000"));
        item.todo.configs = vec![("retention.ms".to_owned(), Some("1000".to_owned()))];
    };
    let (now, events) = said(wish.clone(), true, reverted).await;
    check(&now, "Ready", "True", "Synced", "");
    check(
        &now,
        "Drifted",
        "True",
        "Reverted",
        "retention.ms set back to 1000",
    );
    assert_eq!(events.len(), 1, "{events:?}");
    let (now, events) = said(wish, false, reverted).await;
    assert!(
        !now.contains_key("Drifted") && events.is_empty(),
        "{now:?} {events:?}"
    );
}

#[tokio::test]
async fn what_is_left_alone_says_so_and_claims_no_topic() {
    for (annotation, kind, reason) in [
        (MANAGED, "Ready", "Unmanaged"),
        (PAUSE, "ReconciliationPaused", "Annotation"),
    ] {
        let server = Server::default();
        let context = server.context();
        server.put(PATH, topic(&json!({}), true));
        let parsed: Topic = serde_json::from_value(server.get(PATH).unwrap()).unwrap();
        let word = match kind {
            "Ready" => Word::unmanaged(&Arc::new(parsed)),
            _ => Word::paused(&Arc::new(parsed)),
        };
        word.tell(&context).await.unwrap();
        check(&written(&server).0, kind, "True", reason, annotation);
        let id = server.get(PATH).unwrap()["status"]["topicId"].clone();
        assert_eq!(id.is_null(), kind == "Ready", "{annotation}: {id}");
    }
}
