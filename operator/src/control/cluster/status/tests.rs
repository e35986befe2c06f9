//! Every reason that is given for a cluster, by what was seen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use takhin_runtime::telemetry::health::Health;
use takhin_runtime::telemetry::http::{self, Answer, Call, Endpoints};
use takhin_runtime::{Env, Shutdown};

use super::*;
use crate::broker_api::{Broker, ClusterHealth, Disk, Reason};
use crate::control::cluster::volumes::Growth;
use crate::control::cluster::{BUSY, act};
use crate::control::testing::Server;
use crate::decide::roll::{self, Observed, Pod, PodState};
use crate::decide::scale::Plan;

fn cluster(replicas: i32) -> TakhinCluster {
    serde_json::from_value(json!({
        "apiVersion": "takhin.io/v1alpha1",
        "kind": "TakhinCluster",
        "metadata": { "name": "prod", "namespace": "ns", "generation": 3 },
        "spec": {
            "replicas": replicas,
            "storage": { "type": "PersistentVolumeClaim", "size": "1Gi" },
            "listeners": [
                { "name": "internal", "port": 9092, "type": "Internal" },
                { "name": "external", "port": 9094, "type": "LoadBalancer" },
            ],
        },
    }))
    .unwrap()
}

fn object<K: serde::de::DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

fn broker(id: i32) -> Broker {
    Broker {
        id,
        rack: None,
        state: "alive".to_owned(),
        draining: false,
        decommissioning: false,
        controller: id == 0,
        replicas: 1,
        leaders: 1,
        version: None,
        disk: Some(Disk {
            total_bytes: 1000,
            used_bytes: 10,
        }),
    }
}

/// Three brokers, of which so many are ready, and all is well but for that.
fn seen(ready: i32) -> Seen {
    let pod = |id: i32| {
        let is_ready = if id < ready { "True" } else { "False" };
        let condition = json!({ "type": "Ready", "status": is_ready });
        object(json!({
            "metadata": { "name": format!("prod-{id}") },
            "status": { "phase": "Running", "conditions": [condition] },
        }))
    };
    let service = json!({
        "metadata": { "name": "prod-external-bootstrap" },
        "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.10" }] } },
    });
    Seen {
        set: Some(object(json!({
            "metadata": { "name": "prod" },
            "spec": { "replicas": 3, "serviceName": "x", "selector": {}, "template": {} },
        }))),
        pods: (0..3).map(|id| (id, pod(id))).collect(),
        services: BTreeMap::from([("prod-external-bootstrap".to_owned(), object(service))]),
        brokers: Some((0..3).map(broker).collect()),
        health: Some(ClusterHealth {
            healthy: true,
            controller: Some(0),
            reasons: Vec::new(),
            counts: BTreeMap::new(),
        }),
        ..Seen::default()
    }
}

fn unwell(seen: &mut Seen, message: &str) {
    let health = seen.health.as_mut().unwrap();
    health.healthy = false;
    health.reasons.push(Reason {
        kind: "x".to_owned(),
        message: message.to_owned(),
    });
}

fn report(cluster: &TakhinCluster) -> Report {
    Report::new(cluster, Timestamp::UNIX_EPOCH)
}

fn observed(cluster: &TakhinCluster, seen: &Seen) -> Report {
    let names = Names::of(cluster, "cluster.local");
    let mut report = report(cluster);
    report.observed(cluster, &names, seen);
    report
}

/// Status and reason of a condition, with its message.
#[track_caller]
fn says(report: &Report, kind: &str, is: (&str, &str)) -> String {
    let said = report.conditions.get(kind).unwrap();
    assert_eq!(
        (said.status.as_str(), said.reason.as_str()),
        is,
        "{}",
        said.message
    );
    assert_eq!(said.observed_generation, Some(3));
    said.message.clone()
}

#[test]
fn reasons_for_being_ready_or_not() {
    let cluster = cluster(3);
    let ready = |change: &dyn Fn(&mut Seen), brokers: i32, is: (&str, &str)| {
        let mut seen = seen(brokers);
        change(&mut seen);
        says(&observed(&cluster, &seen), "Ready", is)
    };
    ready(&|_| {}, 3, ("True", "Serving"));
    // Two of three are a majority.
    ready(&|_| {}, 2, ("True", "Serving"));
    let said = ready(&|_| {}, 1, ("False", "BrokersNotReady"));
    assert!(said.contains("1 of 3"), "{said}");
    let lost = |seen: &mut Seen| seen.health.as_mut().unwrap().controller = None;
    ready(&lost, 3, ("False", "QuorumLost"));
    let unbound = |seen: &mut Seen| {
        let claim = json!({ "metadata": { "name": "data-prod-2" }, "status": { "phase": "Pending" } });
        seen.claims.insert(2, object(claim));
    };
    let said = ready(&unbound, 2, ("False", "StorageNotBound"));
    assert!(said.contains("data-prod-2"), "{said}");
    let unprovided = |seen: &mut Seen| {
        unbound(seen);
        seen.unprovided = Some("there is no storage class x".to_owned());
    };
    let said = ready(&unprovided, 2, ("False", "StorageNotBound"));
    assert!(
        said.ends_with("data-prod-2: there is no storage class x"),
        "{said}"
    );
    let said = ready(&|seen| seen.services.clear(), 0, ("False", "ListenerNotReady"));
    assert!(
        said.contains("0 of 3") && said.contains("Service prod-external-bootstrap"),
        "{said}"
    );
    let said = ready(&|seen| seen.services.clear(), 3, ("False", "ListenerNotReady"));
    assert!(said.contains("Service prod-external-bootstrap"), "{said}");
    let mut report = report(&cluster);
    report.reconciling();
    says(&report, "Ready", ("Unknown", "Reconciling"));
    report.failed(&Error::NameConflict {
        kind: "Service".to_owned(),
        name: "prod".to_owned(),
        owner: "TakhinCluster prod".to_owned(),
    });
    says(&report, "Ready", ("False", "NameConflict"));
    report.config_not_applied("the broker refuses x");
    let said = says(&report, "Ready", ("False", "ReconcileError"));
    assert!(
        said.contains("spec.config") && said.contains("refuses x"),
        "{said}"
    );
    let mut looked_at = cluster.clone();
    looked_at.status.get_or_insert_default().observed_generation = Some(3);
    assert!(report.paused(&looked_at).is_some(), "news");
    says(&report, "ReconciliationPaused", ("True", "Annotation"));
}

#[test]
fn each_broker_is_told_with_where_it_is_and_what_it_has() {
    let cluster = cluster(3);
    let mut all = seen(2);
    all.brokers.as_mut().unwrap().truncate(2);
    let report = observed(&cluster, &all);
    let told = serde_json::to_value(&report.status.brokers).unwrap();
    assert_eq!(
        told[1],
        json!({
            "id": 1, "pod": "prod-1", "ready": true, "state": "alive", "leaders": 1, "replicas": 1,
            "address": "prod-1.prod-brokers.ns.svc.cluster.local:9092",
        })
    );
    // Nobody knows it yet.
    assert_eq!(told[2]["ready"], false);
    assert!(
        told[2].get("leaders").is_none() && told[2].get("state").is_none(),
        "{told}"
    );
}

#[tokio::test]
async fn reasons_for_being_degraded() {
    let cluster = cluster(3);
    let mut all = seen(3);
    says(&observed(&cluster, &all), "Degraded", ("False", "Healthy"));
    unwell(&mut all, "orders-0 has 2 of 3 replicas");
    let said = says(&observed(&cluster, &all), "Degraded", ("True", "UnderReplicated"));
    assert_eq!(said, "orders-0 has 2 of 3 replicas");
    all.brokers.as_mut().unwrap()[2].state = "silent".to_owned();
    says(&observed(&cluster, &all), "Degraded", ("True", "BrokerDown"));
    let full = Disk {
        total_bytes: 100_000,
        used_bytes: 85_100,
    };
    let mut all = seen(3);
    all.brokers.as_mut().unwrap()[1].disk = Some(full);
    let said = says(&observed(&cluster, &all), "Degraded", ("True", "DiskPressure"));
    assert!(said.contains("broker 1"), "{said}");
    told_once(&cluster, &all).await;
    unwell(&mut all, "orders-0 lacks a replica");
    let said = says(&observed(&cluster, &all), "Degraded", ("True", "UnderReplicated"));
    assert!(
        said.contains("orders-0") && said.contains("of the disk in use"),
        "{said}"
    );
    all.health = None;
    says(&observed(&cluster, &all), "Degraded", ("Unknown", "BrokerDown"));

    // Said when the status is written: whatever else is wrong, this is what somebody has to look at.
    let server = Server::default();
    let path = "/apis/takhin.io/v1alpha1/namespaces/ns/takhinclusters/prod";
    server.put(path, serde_json::to_value(&cluster).unwrap());
    let mut report = observed(&cluster, &seen(3));
    let slow = rolling(601);
    report.rolling(&cluster, &slow, &roll::decide(&slow));
    report.write(&server.context(), &cluster, BUSY).await.unwrap();
    let written = server.get(path).unwrap()["status"]["conditions"].clone();
    let degraded = written
        .as_array()
        .unwrap()
        .iter()
        .find(|said| said["type"] == "Degraded")
        .unwrap();
    assert_eq!(degraded["reason"], "RolloutBlocked");
    assert!(
        degraded["message"].as_str().unwrap().contains("prod-1"),
        "{degraded}"
    );
}

#[test]
fn a_volume_that_is_lost_or_leaving_degrades_a_cluster_whose_brokers_are_well() {
    let cluster = cluster(3);
    for (deleted, phase, reason) in [
        (Some("2026-11-23T10:00:00Z"), "Bound", "VolumeTerminating"),
        (None, "Lost", "VolumeLost"),
    ] {
        let mut seen = seen(3);
        let claim = json!({
            "metadata": { "name": "data-prod-2", "deletionTimestamp": deleted }, "status": { "phase": phase },
        });
        seen.claims.insert(2, object(claim));
        let said = says(&observed(&cluster, &seen), "Degraded", ("True", reason));
        assert!(said.contains("claim data-prod-2"), "{said}");
        unwell(&mut seen, "orders-0 has 2 of 3 replicas");
        let said = says(&observed(&cluster, &seen), "Degraded", ("True", reason));
        assert!(said.ends_with("orders-0 has 2 of 3 replicas"), "{said}");
        seen.health = None;
        says(&observed(&cluster, &seen), "Degraded", ("True", reason));
    }
}

/// A claim that is being deleted goes with its pod: the operator is not the one who takes what is on it.
#[tokio::test]
async fn no_pod_is_replaced_whose_volume_would_go_with_it() {
    for is_leaving in [true, false] {
        let server = Server::default();
        let cluster = cluster(3);
        let names = Names::of(&cluster, "cluster.local");
        let mut seen = seen(2);
        let status = json!({ "replicas": 3, "updateRevision": "new" });
        seen.set.as_mut().unwrap().status = Some(object(status));
        let pod = seen.pods.get_mut(&2).unwrap();
        pod.status.as_mut().unwrap().phase = Some("Pending".to_owned());
        let deleted = is_leaving.then_some("2026-11-23T10:00:00Z");
        let claim = json!({ "metadata": { "name": "data-prod-2", "deletionTimestamp": deleted } });
        seen.claims.insert(2, object(claim));
        let path = "/api/v1/namespaces/ns/pods/prod-2";
        server.put(
            path,
            json!({ "metadata": { "name": "prod-2", "namespace": "ns" } }),
        );
        let plan = Plan {
            replicas: 3,
            ..Plan::default()
        };
        let mut report = report(&cluster);
        act::roll(&server.context(), &cluster, &names, &seen, &plan, &mut report)
            .await
            .unwrap();
        assert_eq!(server.get(path).is_some(), is_leaving);
        let waits = report.status.rollout.unwrap().waiting_for.unwrap_or_default();
        assert_eq!(waits.contains("claim data-prod-2"), is_leaving, "{waits}");
    }
}

/// That a disk is full is an event when it becomes so, and not again with each word of the same.
async fn told_once(cluster: &TakhinCluster, seen: &Seen) {
    let server = Server::default();
    let path = "/apis/takhin.io/v1alpha1/namespaces/ns/takhinclusters/prod";
    server.put(path, serde_json::to_value(cluster).unwrap());
    let context = server.context();
    let events = || {
        let writes = server.writes();
        writes.iter().filter(|write| write.contains("/events")).count()
    };
    observed(cluster, seen)
        .write(&context, cluster, BUSY)
        .await
        .unwrap();
    assert_eq!(events(), 1);
    let mut written: TakhinCluster = serde_json::from_value(server.get(path).unwrap()).unwrap();
    written.metadata.generation = Some(77);
    observed(&written, seen)
        .write(&context, &written, BUSY)
        .await
        .unwrap();
    assert_eq!(events(), 0);
}

/// Leaders that move are told with each look: a status that is written begins the next pass at once.
#[tokio::test(start_paused = true)]
async fn counts_that_move_are_written_with_each_look_and_all_else_at_once() {
    let server = Server::default();
    let path = "/apis/takhin.io/v1alpha1/namespaces/ns/takhinclusters/prod";
    server.put(path, serde_json::to_value(cluster(3)).unwrap());
    let context = server.context();
    let begun = context.env.clock.instant();
    let mut seen = seen(3);
    let mut writes = 0;
    for leaders in 2.. {
        let now: TakhinCluster = serde_json::from_value(server.get(path).unwrap()).unwrap();
        seen.brokers.as_mut().unwrap()[0].leaders = leaders;
        seen.health.as_mut().unwrap().reasons.clear();
        unwell(&mut seen, &format!("{leaders} partitions lack replicas"));
        observed(&now, &seen).write(&context, &now, BUSY).await.unwrap();
        let wrote = server.writes().len();
        writes += wrote;
        let pause = if wrote == 0 {
            BUSY
        } else {
            Duration::from_millis(200)
        };
        context.env.clock.sleep(pause).await;
        if begun.elapsed() > Duration::from_secs(60) {
            break;
        }
    }
    assert!((10..=21).contains(&writes), "{writes} in a minute");
    for ready in [2, 3] {
        let now: TakhinCluster = serde_json::from_value(server.get(path).unwrap()).unwrap();
        let mut seen = self::seen(ready);
        unwell(&mut seen, "a broker is away");
        observed(&now, &seen).write(&context, &now, BUSY).await.unwrap();
        assert_eq!(server.writes().len(), 1, "{ready} ready is news");
    }
}

/// Brokers that go unchecked are named in an event, once: they are gone from the StatefulSet with the same pass.
#[tokio::test]
async fn who_insists_on_a_smaller_cluster_is_told_who_goes() {
    let server = Server::default();
    let context = server.context();
    let mut cluster = cluster(1);
    for (insists, wanted) in [(false, 0), (true, 1)] {
        let annotations = [(crate::api::SKIP_SCALE_DOWN_CHECK.to_owned(), insists.to_string())];
        cluster.metadata.annotations = Some(annotations.into());
        let mut seen = seen(3);
        let mut plan = crate::decide::scale::decide(&seen.scaling(&cluster));
        let mut report = report(&cluster);
        act::leave(&context, &cluster, &mut seen, &mut plan, &mut report).await;
        assert_eq!(plan.replicas, if insists { 1 } else { 3 });
        let writes = server.writes();
        assert_eq!(writes.len(), wanted, "{writes:?}");
        assert!(writes.iter().all(|write| write.contains("/events")), "{writes:?}");
    }
}

/// A restart of broker 1 that has waited for broker 2 for so long.
fn rolling(seconds: u64) -> Observed {
    let pod = |broker: i32, state: PodState, reasons: &[&str]| Pod {
        broker,
        name: format!("prod-{broker}"),
        state,
        reasons: reasons.iter().map(|reason| (*reason).to_owned()).collect(),
    };
    Observed {
        pods: vec![
            pod(0, PodState::Ready, &[]),
            pod(1, PodState::Ready, &["ConfigChanged"]),
            pod(2, PodState::NotReady, &[]),
        ],
        wished: 3,
        words: Some(BTreeMap::new()),
        current: Some("prod-1".to_owned()),
        since: Duration::from_secs(seconds),
        drain_timeout: Duration::from_secs(60),
    }
}

#[test]
fn reasons_for_progressing() {
    let now = cluster(3);
    says(&observed(&now, &seen(3)), "Progressing", ("False", "Idle"));

    let mut report = report(&now);
    let slow = rolling(10);
    report.rolling(&now, &slow, &roll::decide(&slow));
    let said = says(&report, "Progressing", ("True", "RollingUpdate"));
    assert!(
        said.contains("prod-1") && said.contains("prod-2 to become ready"),
        "{said}"
    );
    assert!(report.is_busy() && report.blocked.is_none());

    let smaller = cluster(2);
    let mut report = observed(&smaller, &seen(3));
    let plan = Plan {
        replicas: 3,
        waiting_for: Some("7 replicas to move away from broker 2".to_owned()),
        ..Plan::default()
    };
    report.scaling(&smaller, &plan);
    let said = says(&report, "Progressing", ("True", "ScalingDown"));
    assert!(said.contains("broker 2") && said.contains("7 replicas"), "{said}");

    let mut before = cluster(3);
    before.status = Some(TakhinClusterStatus {
        replicas: Some(2),
        ..TakhinClusterStatus::default()
    });
    let mut report = observed(&before, &seen(2));
    let plan = Plan {
        replicas: 3,
        ..Plan::default()
    };
    report.scaling(&before, &plan);
    says(&report, "Progressing", ("True", "ScalingUp"));
}

#[test]
fn reasons_for_volumes() {
    let now = cluster(3);
    let claim = || vec!["data-prod-0".to_owned()];
    let said = |growth: &Growth, is: (&str, &str)| {
        let mut report = observed(&now, &seen(3));
        report.volumes(growth);
        says(&report, "StorageExpanded", is);
        report
    };
    let mut growth = Growth::default();
    said(&growth, ("True", "Expanded"));
    growth.resizing = claim();
    let report = said(&growth, ("False", "Resizing"));
    says(&report, "Progressing", ("True", "VolumeExpansion"));
    growth.restart = vec![0];
    said(&growth, ("False", "RestartRequired"));
    growth.denied = vec!["exceeded quota: disks".to_owned()];
    said(&growth, ("False", "ResizeRefused"));
    growth.refused = claim();
    said(&growth, ("False", "ResizeNotSupported"));
}

/// A broker that answers every call so.
struct Broken(u16, Value);

impl Endpoints for Broken {
    fn answer(&self, _: Call) -> std::pin::Pin<Box<dyn Future<Output = Answer> + Send + '_>> {
        let answer = Answer {
            status: self.0,
            content_type: "application/json",
            headers: Vec::new(),
            body: self.1.to_string(),
        };
        Box::pin(std::future::ready(answer))
    }
}

#[tokio::test]
async fn reasons_against_a_smaller_cluster() {
    let problem =
        |name: &str, detail: &str| json!({ "type": format!("urn:takhin:problem:{name}"), "detail": detail });
    let busy = json!({ "done": false, "replicas": 4, "reasons": [{ "kind": "no_place", "message": "orders-0 has no place" }] });
    for (status, answer, reason) in [
        (200, busy, "PartitionsRemaining"),
        (
            409,
            problem("broker_needed", "orders needs 3 brokers"),
            "ReplicationFactorTooHigh",
        ),
        (
            409,
            problem("broker_needed", "orders needs 3 brokers to vote on it"),
            "ReplicationFactorTooHigh",
        ),
        (
            409,
            problem("voter_needed", "in whatever words"),
            "LastController",
        ),
    ] {
        let cluster = cluster(2);
        let (report, plan) = left(&cluster, seen(3), (status, answer)).await;
        says(&report, "ScaleDownBlocked", ("True", reason));
        assert_eq!(plan.replicas, 3, "nobody goes");
    }
}

/// A broker that is late with its word is no reason to call a cluster that serves unready.
#[tokio::test]
async fn a_late_broker_holds_up_a_restart_and_no_more() {
    let now = cluster(3);
    let (env, stop) = (Env::real(), Shutdown::new());
    let mut seen = seen(3);
    // Somebody listens there, and never answers in the way that is asked for.
    let listener = env.net.listen("127.0.0.1:0", "test").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let health = Health::start(&env, &stop);
    let serving = (env.clone(), stop.clone());
    env.tasks.spawn("broker", async move {
        let broken: Arc<dyn Endpoints> = Arc::new(Broken(504, json!({ "detail": "no answer in time" })));
        http::serve(&serving.0, listener, health, Some(broken), serving.1).await
    });
    let context = Server::default().context();
    seen.admin = Some(context.http.brokers(vec![address], "token".to_owned()));
    let mut report = report(&now);
    let restart = rolling(10);
    report.rolling(&now, &restart, &roll::decide(&restart));
    assert!(!act::may_restart(&context, &now, &seen, 1, &mut report).await);
    report.observed(&now, &Names::of(&now, "cluster.local"), &seen);
    stop.trigger();
    says(&report, "Ready", ("True", "Serving"));
    let waits = report.status.rollout.unwrap().waiting_for.unwrap();
    assert!(waits.contains("whether broker 1 may be restarted"), "{waits}");
}

/// One request that fails changes no word on settings, and lets no wish pass for one that holds.
#[test]
fn settings_that_are_not_known_leave_what_was_said_of_them() {
    let refused = "spec.config is not applied: no";
    for (before, generation, is) in [
        (("True", "Serving", "fine"), 3, ("True", "Serving")),
        (
            ("False", "ReconcileError", refused),
            3,
            ("False", "ReconcileError"),
        ),
        (("Unknown", "Reconciling", "new"), 3, ("Unknown", "Reconciling")),
        (("True", "Serving", "fine"), 2, ("Unknown", "Reconciling")),
    ] {
        let mut now = cluster(3);
        let ready = json!({
            "type": "Ready", "status": before.0, "reason": before.1, "message": before.2,
            "observedGeneration": generation, "lastTransitionTime": "2026-11-23T10:00:00Z",
        });
        now.status = Some(object(json!({ "conditions": [ready] })));
        let mut report = report(&now);
        report.config_not_known(&now, "no answer");
        report.observed(&now, &Names::of(&now, "cluster.local"), &seen(3));
        says(&report, "Ready", is);
        assert!(report.is_busy());
    }
}

/// What is said and planned where brokers answer everything they are asked to do so.
async fn left(cluster: &TakhinCluster, mut seen: Seen, (status, answer): (u16, Value)) -> (Report, Plan) {
    let (env, stop) = (Env::real(), Shutdown::new());
    let listener = env.net.listen("127.0.0.1:0", "test").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let health = Health::start(&env, &stop);
    let serving = (env.clone(), stop.clone());
    env.tasks.spawn("broker", async move {
        let broken: Arc<dyn Endpoints> = Arc::new(Broken(status, answer));
        http::serve(&serving.0, listener, health, Some(broken), serving.1).await
    });
    let context = Server::default().context();
    seen.admin = Some(context.http.brokers(vec![address], "token".to_owned()));
    let mut plan = crate::decide::scale::decide(&seen.scaling(cluster));
    let mut report = report(cluster);
    act::leave(&context, cluster, &mut seen, &mut plan, &mut report).await;
    report.observed(cluster, &Names::of(cluster, "cluster.local"), &seen);
    stop.trigger();
    (report, plan)
}

#[tokio::test]
async fn a_broker_without_its_data_is_renewed_or_it_is_said_what_to_do() {
    let ended =
        "takhin: node id 2 belongs to a broker with another data directory than this one, 7f: start it";
    let without = || {
        let mut seen = seen(2);
        let terminated = json!({ "terminated": { "exitCode": 1, "message": ended } });
        let container = json!({
            "name": "broker", "image": "x", "imageID": "", "ready": false, "restartCount": 1,
            "state": { "waiting": { "reason": "CrashLoopBackOff" } }, "lastState": terminated,
        });
        let pod = seen.pods.get_mut(&2).unwrap();
        pod.status.as_mut().unwrap().container_statuses = Some(vec![object(container)]);
        seen.brokers.as_mut().unwrap()[2].state = "silent".to_owned();
        seen
    };
    let now = cluster(3);
    let moves = json!({ "done": false, "replicas": 4, "reasons": [] });
    let (report, plan) = left(&now, without(), (200, moves)).await;
    assert_eq!((plan.renew, plan.replicas), (vec![2], 3));
    let said = says(&report, "Degraded", ("True", "DataLost"));
    assert!(
        said.contains("prod-2 has another volume") && said.contains("4 left"),
        "{said}"
    );
    let said = says(&report, "Ready", ("True", "Serving"));
    assert!(said.contains("node id 2 belongs to"), "{said}");
    let refused = json!({ "type": "urn:takhin:problem:broker_needed", "detail": "orders needs 3 brokers" });
    let (report, _) = left(&now, without(), (409, refused)).await;
    let said = says(&report, "Degraded", ("True", "DataLost"));
    assert!(
        said.contains("raise spec.replicas to 4") && said.ends_with("orders needs 3 brokers"),
        "{said}"
    );
    // The same words of a broker that serves are old.
    let mut seen = without();
    seen.brokers.as_mut().unwrap()[2].state = "alive".to_owned();
    assert!(crate::decide::scale::decide(&seen.scaling(&now)).renew.is_empty());
}
