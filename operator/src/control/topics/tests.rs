use std::sync::Arc;

use kube::runtime::{reflector, watcher};
use serde_json::{Value, json};

use super::dirty::Work;
use super::*;
use crate::control::testing::Server;
use crate::kafka_api::testing::Broker;

fn path(name: &str) -> String {
    format!("/apis/takhin.io/v1alpha1/namespaces/ns/topics/{name}")
}

fn topic(name: &str, created: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["clusterRef"] = json!({ "name": "prod" });
    json!({
        "apiVersion": "takhin.io/v1alpha1",
        "kind": "Topic",
        "metadata": {
            "name": name, "namespace": "ns", "generation": 1, "creationTimestamp": created,
        },
        "spec": spec,
    })
}

fn deleted(mut topic: Value, at: &str) -> Value {
    topic["metadata"]["deletionTimestamp"] = at.into();
    topic["metadata"]["finalizers"] = json!(["somebody/else", "takhin.io/topic"]);
    topic
}

fn cluster() -> Value {
    json!({
        "apiVersion": "takhin.io/v1alpha1",
        "kind": "TakhinCluster",
        "metadata": { "name": "prod", "namespace": "ns", "uid": "c" },
        "spec": { "replicas": 1, "storage": { "type": "Ephemeral" } },
    })
}

/// One pass over all topics that the server has.
async fn pass(server: &Server, context: &Arc<Context>, names: &[&str], cluster: Option<Value>) {
    let (topics, mut writer) = reflector::store();
    for name in names {
        let topic: Topic = serde_json::from_value(server.get(&path(name)).unwrap()).unwrap();
        writer.apply_watcher_event(&watcher::Event::Apply(topic));
    }
    let (clusters, mut writer) = reflector::store();
    if let Some(cluster) = cluster {
        let cluster: TakhinCluster = serde_json::from_value(cluster).unwrap();
        writer.apply_watcher_event(&watcher::Event::Apply(cluster));
    }
    let stores = Stores {
        topics: vec![topics],
        clusters: vec![clusters],
    };
    let clients = Arc::new(brokers::Clients::new(context));
    let key = ("ns".to_owned(), "prod".to_owned());
    pass::run(Arc::clone(context), stores, clients, key, Work::all()).await;
}

fn ready(server: &Server, name: &str) -> (String, String) {
    let topic = server.get(&path(name)).unwrap();
    let ready = &topic["status"]["conditions"][0];
    let text = |field: &str| ready[field].as_str().unwrap_or_default().to_owned();
    (text("reason"), text("message"))
}

fn finalizers(server: &Server, name: &str) -> Value {
    server.get(&path(name)).unwrap()["metadata"]["finalizers"].clone()
}

/// One topic that stays under way has the others not wait for their time, and is looked at less and less.
#[test]
fn all_topics_have_their_time_although_one_stays_under_way() {
    takhin_runtime::sim::Sim::new(1).run(|env| async move {
        let key = ("ns".to_owned(), "prod".to_owned());
        let resync = Duration::from_secs(120);
        let mut dirty = Dirty::new(env.clock.clone());
        dirty.mark(key.clone(), Work::all(), Duration::ZERO);
        let begun = env.clock.instant();
        let (mut alls, mut looks) = (Vec::new(), 0);
        while begun.elapsed() < 5 * resync {
            dirty.wait(true).await;
            let (key, over) = dirty.take_due().unwrap();
            looks += 1;
            if over.all {
                alls.push(begun.elapsed().as_secs() / resync.as_secs());
            }
            // What it says has changed once, long ago.
            let pending = Pending::from([("stuck".to_owned(), looks == 1)]);
            let again = Some((resync, Work::all()));
            follow(
                &mut dirty,
                Next {
                    key,
                    over,
                    pending,
                    again,
                },
            );
        }
        assert_eq!(alls, [0, 1, 2, 3, 4, 5]);
        // 2, 4, 8, 16 and then 30 s after each other.
        assert!((20..=32).contains(&looks), "{looks} looks in 10 minutes");
        // What has come further is looked at soon again.
        let mut dirty = Dirty::new(env.clock.clone());
        for (has_moved, pause) in [
            (false, 2),
            (false, 4),
            (false, 8),
            (true, 2),
            (false, 2),
            (false, 4),
        ] {
            let pending = Pending::from([("slow".to_owned(), has_moved)]);
            dirty.under_way(&key, &Work::all(), pending);
            let now = env.clock.instant();
            dirty.wait(true).await;
            assert_eq!(now.elapsed().as_secs(), pause);
            let (key, _) = dirty.take_due().unwrap();
            dirty.finished(&key);
        }
    });
}

const OLD: &str = "2020-01-01T00:00:00Z";
const NEW: &str = "2021-01-01T00:00:00Z";

#[tokio::test]
async fn without_its_cluster_a_topic_waits_and_holds_up_no_deletion() {
    let server = Server::default();
    let context = server.context();
    server.put(&path("live"), topic("live", OLD, json!({})));
    server.put(&path("gone"), deleted(topic("gone", OLD, json!({})), NEW));
    pass(&server, &context, &["live", "gone"], None).await;
    assert_eq!(ready(&server, "live").0, "ClusterNotFound");
    assert_eq!(finalizers(&server, "gone"), json!(["somebody/else"]));
    server.writes();
    pass(&server, &context, &["live", "gone"], None).await;
    assert_eq!(server.writes(), Vec::<String>::new());
}

/// A cluster that is not looked at may well be there.
#[tokio::test]
async fn of_a_cluster_in_a_namespace_that_is_not_watched_that_is_said() {
    for (watched, part) in [
        ("other", "watchNamespaces"),
        (
            "ns",
            "spec.clusterRef: there is no TakhinCluster prod in namespace ns: create it",
        ),
    ] {
        let server = Server::default();
        let mut context = server.context();
        let options = &mut Arc::get_mut(&mut context).unwrap().options;
        options.namespaces = vec![watched.to_owned()];
        server.put(&path("live"), topic("live", OLD, json!({})));
        pass(&server, &context, &["live"], None).await;
        let (reason, message) = ready(&server, "live");
        assert_eq!(reason, "ClusterNotFound");
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn the_older_resource_has_the_topic_and_the_younger_is_told_so() {
    let server = Server::default();
    let context = server.context();
    server.put(
        &path("first"),
        topic("first", OLD, json!({ "topicName": "orders" })),
    );
    server.put(&path("orders"), topic("orders", NEW, json!({})));
    let names = ["first", "orders"];
    pass(&server, &context, &names, Some(cluster())).await;
    let (reason, message) = ready(&server, "orders");
    assert_eq!(reason, "TopicNameConflict");
    assert!(message.contains("ns/first"), "{message}");
    // Nobody answers, which is another matter.
    assert_eq!(ready(&server, "first").0, "ClusterNotReady");
    // The younger one may go without its topic, the older one may not.
    for name in names {
        server.edit(&path(name), |topic| *topic = deleted(topic.clone(), NEW));
    }
    let namespace = "/api/v1/namespaces/ns";
    server.put(
        namespace,
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "ns" } }),
    );
    pass(&server, &context, &names, Some(cluster())).await;
    assert_eq!(finalizers(&server, "orders"), json!(["somebody/else"]));
    assert_eq!(ready(&server, "first").0, "DeletionBlocked");
    assert_eq!(finalizers(&server, "first").as_array().unwrap().len(), 2);
    // A namespace that goes is not held up.
    server.edit(namespace, |namespace| {
        namespace["metadata"]["deletionTimestamp"] = NEW.into()
    });
    pass(&server, &context, &["first"], Some(cluster())).await;
    assert_eq!(finalizers(&server, "first"), json!(["somebody/else"]));
}

/// Roles go with their namespace, often before its topics: what was said once is not said again in other words.
#[tokio::test]
async fn in_a_namespace_that_goes_it_is_said_once_why_a_topic_stays() {
    let server = Server::default();
    let context = server.context();
    let now = context.now().to_string();
    server.put(&path("orders"), deleted(topic("orders", OLD, json!({})), &now));
    let namespace = "/api/v1/namespaces/ns";
    server.put(
        namespace,
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "ns" } }),
    );
    pass(&server, &context, &["orders"], Some(cluster())).await;
    let (reason, why) = ready(&server, "orders");
    assert_eq!(reason, "DeletionBlocked");
    for (goes, says) in [(true, "otherwise"), (false, why.as_str())] {
        server.edit(&path("orders"), |topic| {
            topic["status"]["conditions"][0]["message"] = "otherwise".into()
        });
        server.edit(namespace, |namespace| {
            namespace["metadata"]["deletionTimestamp"] = if goes { now.as_str().into() } else { Value::Null };
        });
        server.writes();
        pass(&server, &context, &["orders"], Some(cluster())).await;
        assert_eq!(ready(&server, "orders").1, says);
        assert_eq!(server.writes().len(), usize::from(!goes));
    }
    assert_eq!(finalizers(&server, "orders").as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn of_two_made_in_the_same_second_the_one_that_has_the_topic_keeps_it() {
    for (has, lacks) in [("a", "b"), ("b", "a")] {
        let server = Server::default();
        let context = server.context();
        for name in [has, lacks] {
            let mut one = topic(name, OLD, json!({ "topicName": "orders" }));
            one["metadata"]["uid"] = name.into();
            server.put(&path(name), one);
        }
        server.edit(&path(has), |topic| {
            topic["status"] = json!({ "topicId": "mXnV0gqfT5a6Vt3n1l0rJw" })
        });
        pass(&server, &context, &["a", "b"], Some(cluster())).await;
        let (reason, message) = ready(&server, lacks);
        assert_eq!(reason, "TopicNameConflict");
        assert!(message.contains(&format!("ns/{has} ")), "{message}");
        assert_eq!(ready(&server, has).0, "ClusterNotReady", "nobody answers");
        // Who is left alone has nothing any more, whatever it had.
        server.edit(&path(has), |topic| {
            topic["metadata"]["annotations"]["takhin.io/managed"] = "false".into();
        });
        pass(&server, &context, &["a", "b"], Some(cluster())).await;
        assert_eq!(ready(&server, lacks).0, "ClusterNotReady");
        server.edit(&path(lacks), |topic| {
            topic["status"]["topicId"] = "mXnV0gqfT5a6Vt3n1l0rJw".into()
        });
        server.edit(&path(has), |topic| topic["metadata"]["annotations"] = json!({}));
        pass(&server, &context, &["a", "b"], Some(cluster())).await;
        assert_eq!(ready(&server, has).0, "TopicNameConflict");
    }
}

#[tokio::test]
async fn what_is_kept_or_nobodys_business_goes_at_once() {
    let server = Server::default();
    let context = server.context();
    server.put(
        &path("kept"),
        deleted(topic("kept", OLD, json!({ "deletionPolicy": "Retain" })), NEW),
    );
    let mut free = deleted(topic("free", OLD, json!({})), NEW);
    free["metadata"]["annotations"] = json!({ "takhin.io/managed": "false" });
    server.put(&path("free"), free);
    let mut paused = deleted(topic("paused", OLD, json!({})), NEW);
    paused["metadata"]["annotations"] = json!({ "takhin.io/pause-reconciliation": "true" });
    server.put(&path("paused"), paused);
    pass(&server, &context, &["kept", "free", "paused"], Some(cluster())).await;
    for name in ["kept", "free", "paused"] {
        assert_eq!(finalizers(&server, name), json!(["somebody/else"]), "{name}");
    }
}

#[tokio::test]
async fn only_namespaces_that_the_cluster_names_may_have_topics_in_it() {
    let server = Server::default();
    let context = server.context();
    let mut other = topic("t", OLD, json!({}));
    other["metadata"]["namespace"] = "team".into();
    other["spec"]["clusterRef"]["namespace"] = "ns".into();
    let there = "/apis/takhin.io/v1alpha1/namespaces/team/topics/t";
    server.put(there, other.clone());
    let (topics, mut writer) = reflector::store();
    writer.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(other).unwrap()));
    let told = async |cluster: Value| {
        let (clusters, mut writer) = reflector::store();
        writer.apply_watcher_event(&watcher::Event::Apply(serde_json::from_value(cluster).unwrap()));
        let stores = Stores {
            topics: vec![topics.clone()],
            clusters: vec![clusters],
        };
        let clients = Arc::new(brokers::Clients::new(&context));
        let key = ("ns".to_owned(), "prod".to_owned());
        pass::run(Arc::clone(&context), stores, clients, key, Work::all()).await;
        server.get(there).unwrap()["status"]["conditions"][0]["reason"].clone()
    };
    assert_eq!(told(cluster()).await, "ClusterNotFound");
    let mut open = cluster();
    open["spec"]["topicNamespaces"] = json!(["team"]);
    assert_eq!(told(open).await, "ClusterNotReady");
}

/// A request to delete may come late: what is made under the name meanwhile is not what it was for.
#[tokio::test]
async fn a_topic_that_is_made_anew_is_not_the_one_that_was_to_go() {
    let server = Server::default();
    let context = server.context();
    let broker = Broker::default();
    let port = broker.listen(&context.env, "127.0.0.1:0").await;
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "prod-0", "namespace": "ns",
            "labels": { "takhin.io/cluster": "prod", "app.kubernetes.io/component": "broker" },
        },
        "status": { "podIP": "127.0.0.1", "conditions": [{ "type": "Ready", "status": "True" }] },
    });
    server.put("/api/v1/namespaces/ns/pods/prod-0", pod);
    let mut cluster = cluster();
    cluster["spec"]["listeners"] = json!([{ "name": "internal", "port": port, "type": "Internal" }]);
    let names = ["anew", "gone", "there"];
    for name in names {
        server.put(&path(name), deleted(topic(name, OLD, json!({})), NEW));
    }
    broker.put("anew");
    broker.put("there");
    broker.make_anew("anew");
    pass(&server, &context, &names, Some(cluster.clone())).await;
    assert_eq!([broker.has("anew"), broker.has("there")], [true, false]);
    for (name, left) in [("anew", 2), ("gone", 1), ("there", 1)] {
        assert_eq!(
            finalizers(&server, name).as_array().unwrap().len(),
            left,
            "{name}"
        );
    }
    // It is looked at again, and what has the name then is deleted.
    pass(&server, &context, &["anew"], Some(cluster)).await;
    assert!(!broker.has("anew"));
    assert_eq!(finalizers(&server, "anew"), json!(["somebody/else"]));
}
