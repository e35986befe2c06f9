use serde_json::json;

use super::*;
use crate::control::testing::Server;

const SOURCE: &str = "/apis/takhin.io/v1alpha1/namespaces/ns/pikasources/profiles";
const CLUSTER: &str = "/apis/takhin.io/v1alpha1/namespaces/ns/takhinclusters/prod";
const CLAIM: &str = "/api/v1/namespaces/ns/persistentvolumeclaims/profiles-cdc";
const POD: &str = "/api/v1/namespaces/ns/pods/profiles-cdc-1";
const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/ns/deployments/profiles-cdc";

/// A server with a cluster and a source, which has a volume.
fn server() -> Server {
    let server = Server::default();
    let cluster = json!({
        "apiVersion": "takhin.io/v1alpha1", "kind": "TakhinCluster",
        "metadata": { "name": "prod", "namespace": "ns" },
        "spec": { "replicas": 1, "storage": { "type": "Ephemeral" } },
    });
    server.put(CLUSTER, cluster);
    let source = json!({
        "apiVersion": "takhin.io/v1alpha1", "kind": "PikaSource",
        "metadata": { "name": "profiles", "namespace": "ns", "generation": 1 },
        "spec": {
            "clusterRef": { "name": "prod" },
            "source": { "host": "pika", "port": 9221 },
            "sink": { "topic": "profiles.changes" },
            "storage": { "size": "2Gi" },
        },
    });
    server.put(SOURCE, source);
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": "disks" },
        "provisioner": "test", "allowVolumeExpansion": true,
    });
    server.put("/apis/storage.k8s.io/v1/storageclasses/disks", class);
    let claim = json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": "profiles-cdc", "namespace": "ns", "labels": { "takhin.io/pika-source": "profiles" },
        },
        "spec": { "storageClassName": "disks", "resources": { "requests": { "storage": "2Gi" } } },
        "status": { "phase": "Bound", "capacity": { "storage": "2Gi" } },
    });
    server.put(CLAIM, claim);
    server
}

async fn once(server: &Server, context: &Context) -> Result<Action, Error> {
    let source = serde_json::from_value(server.get(SOURCE).unwrap()).unwrap();
    pass(&source, context).await
}

/// Status, reason and message of a condition, if there is one.
fn condition(server: &Server, kind: &str) -> Option<[String; 3]> {
    let source = server.get(SOURCE).unwrap();
    let conditions = source["status"]["conditions"].as_array().unwrap().clone();
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    Some(["status", "reason", "message"].map(text))
}

/// The size cannot be taken back, so that nothing else may wait for it.
#[tokio::test]
async fn a_volume_that_may_not_grow_holds_up_nothing_else() {
    for (status, goes_on) in [(403, true), (422, true), (409, false), (500, false)] {
        let server = server();
        server.edit(CLAIM, |claim| {
            claim["spec"]["resources"]["requests"]["storage"] = "1Gi".into();
            claim["status"]["capacity"]["storage"] = "1Gi".into();
        });
        let context = server.context();
        server.fail(CLAIM, status);
        let done = once(&server, &context).await;
        let is_made = server.get(DEPLOYMENT).is_some();
        assert_eq!((done.is_ok(), is_made), (goes_on, goes_on), "{status}");
        if goes_on {
            let [holds, reason, why] = condition(&server, "StorageExpanded").unwrap();
            assert_eq!((holds.as_str(), reason.as_str()), ("False", "ResizeRefused"));
            assert!(
                why.contains("2Gi") && why.ends_with("refused by the test"),
                "{why}"
            );
        }
        // It grows when that is allowed.
        once(&server, &context).await.unwrap();
        let asked = server.get(CLAIM).unwrap()["spec"]["resources"]["requests"]["storage"].clone();
        assert_eq!(asked, "2Gi");
        assert_eq!(condition(&server, "StorageExpanded").unwrap()[1], "Resizing");
    }
}

/// What a quota is against is told, and all else goes on: a pod that there is already, or the address of a listener.
#[tokio::test]
async fn a_volume_that_may_not_be_made_holds_up_nothing_else() {
    for (status, goes_on) in [(403, true), (422, true), (409, false), (500, false)] {
        let server = server();
        server.take(CLAIM);
        let context = server.context();
        server.fail("/persistentvolumeclaims", status);
        let done = once(&server, &context).await;
        let is_made = server.get(DEPLOYMENT).is_some();
        assert_eq!((done.is_ok(), is_made), (goes_on, goes_on), "{status}");
        if goes_on {
            for (kind, wanted) in [("StorageExpanded", "ClaimRefused"), ("Ready", "WorkloadNotReady")] {
                let [holds, reason, why] = condition(&server, kind).unwrap();
                assert_eq!((holds.as_str(), reason.as_str()), ("False", wanted), "{why}");
                let says = why.contains("claim profiles-cdc") && why.ends_with("refused by the test");
                assert!(says, "{why}");
            }
        }
        // It is made when that is allowed.
        once(&server, &context).await.unwrap();
        assert!(server.get(CLAIM).is_some(), "{status}");
    }
}

/// A volume that is gone, or goes with the pod, is not one that has grown.
#[tokio::test]
async fn a_volume_that_is_lost_or_leaving_is_not_said_to_be_whole() {
    for (phase, deleted, wanted) in [
        ("Lost", false, "VolumeLost"),
        ("Bound", true, "VolumeTerminating"),
    ] {
        let server = server();
        let context = server.context();
        server.edit(CLAIM, |claim| {
            claim["status"]["phase"] = phase.into();
            if deleted {
                claim["metadata"]["deletionTimestamp"] = "2026-11-23T10:00:00Z".into();
            }
        });
        once(&server, &context).await.unwrap();
        let [holds, reason, said] = condition(&server, "StorageExpanded").unwrap();
        assert_eq!((holds.as_str(), reason.as_str()), ("False", wanted));
        assert!(said.contains("claim profiles-cdc"), "{said}");
        let [_, _, why] = condition(&server, "Ready").unwrap();
        assert!(why.ends_with(&said), "no pod runs: {why}");
    }
}

/// A pod at an address where nobody answers, and its Deployment, which has come so far.
fn run(server: &Server, observed: i64, updated: i32) {
    server.edit(DEPLOYMENT, |deployment| {
        deployment["metadata"]["generation"] = 2.into();
        deployment["status"] = json!({ "observedGeneration": observed, "updatedReplicas": updated });
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "profiles-cdc-1", "namespace": "ns", "labels": cdc_selector("profiles"),
            "creationTimestamp": "2026-11-23T10:00:00Z",
        },
        "status": { "phase": "Running", "podIP": "127.93.17.5" },
    });
    server.put(POD, pod);
}

#[tokio::test]
async fn an_old_pod_says_nothing_of_a_new_spec() {
    let server = server();
    let context = server.context();
    once(&server, &context).await.unwrap();
    for (observed, updated, is_asked) in [(1, 1, false), (2, 0, false), (2, 1, true)] {
        run(&server, observed, updated);
        once(&server, &context).await.unwrap();
        let [holds, reason, message] = condition(&server, "Ready").unwrap();
        let said = (holds.as_str(), reason.as_str());
        let wanted = match is_asked {
            true => ("False", "WorkloadNotReady"),
            false => ("Unknown", "Reconciling"),
        };
        assert_eq!(said, wanted, "{message}");
        assert_eq!(message.contains("127.93.17.5"), is_asked, "{message}");
    }
}

/// What did not answer in this pass may take a data set, whatever it did in the last one.
#[tokio::test]
async fn only_a_pod_of_which_it_is_known_what_it_does_is_replaced_for_its_volume() {
    let waiting = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } });
    let stuck = json!([{
        "name": "cdc", "image": "x", "imageID": "", "ready": false, "restartCount": 1, "state": waiting,
    }]);
    for (phase, containers, goes) in [
        ("Running", json!([]), false),
        ("Running", stuck, true),
        ("Pending", json!([]), true),
    ] {
        let server = server();
        let context = server.context();
        once(&server, &context).await.unwrap();
        run(&server, 2, 1);
        server.edit(POD, |pod| {
            pod["status"]["phase"] = phase.into();
            pod["status"]["containerStatuses"] = containers.clone();
        });
        server.edit(SOURCE, |source| source["status"]["phase"] = "Streaming".into());
        server.edit(CLAIM, |claim| {
            claim["status"]["conditions"] = json!([{
                "type": "FileSystemResizePending", "status": "True", "lastTransitionTime": "2026-11-23T10:01:00Z",
            }]);
        });
        once(&server, &context).await.unwrap();
        assert_eq!(
            condition(&server, "StorageExpanded").unwrap()[1],
            "RestartRequired"
        );
        assert_eq!(server.get(POD).is_none(), goes, "{phase} {containers}");
    }
}

/// What was found stays said where a pass does not come to look at it.
#[tokio::test]
async fn what_a_pass_does_not_look_at_stays_as_it_was_said() {
    let kinds = [
        "SinkConnected",
        "SnapshotComplete",
        "SourceConnected",
        "StorageExpanded",
    ];
    for name in ["no pod runs", "paused", "a failure", "no cluster"] {
        let server = server();
        let context = server.context();
        let said = |kind: &str| {
            json!({
                "type": kind, "status": "True", "reason": "Said", "message": "", "observedGeneration": 1,
                "lastTransitionTime": "2026-11-23T10:00:00Z",
            })
        };
        let all: Vec<_> = kinds
            .into_iter()
            .chain(["ReconciliationPaused"])
            .map(said)
            .collect();
        server.edit(SOURCE, |source| source["status"] = json!({ "conditions": all }));
        match name {
            "paused" => server.edit(SOURCE, |source| source["spec"]["paused"] = true.into()),
            "a failure" => server.fail(DEPLOYMENT, 500),
            "no cluster" => server.take(CLUSTER),
            _ => {}
        }
        drop(once(&server, &context).await);
        for kind in kinds {
            let found = condition(&server, kind).unwrap_or_else(|| panic!("{name}: {kind} is not said"));
            assert_eq!(found[0], "True", "{name}: {kind}");
        }
        assert_eq!(condition(&server, "Ready").unwrap()[0], "False", "{name}");
        assert_eq!(condition(&server, "ReconciliationPaused"), None, "{name}");
        // In another order it is the same.
        drop(once(&server, &context).await);
        server.edit(SOURCE, |source| {
            source["status"]["conditions"].as_array_mut().unwrap().reverse()
        });
        server.writes();
        once(&server, &context).await.unwrap();
        let wrote = server.writes();
        assert_eq!(wrote, Vec::<String>::new(), "{name}");
    }
}

/// What was said of a volume that is gone is not said of the next one.
#[tokio::test]
async fn a_volume_that_is_still_to_come_is_not_said_to_have_grown() {
    let server = server();
    let context = server.context();
    once(&server, &context).await.unwrap();
    assert_eq!(condition(&server, "StorageExpanded").unwrap()[1], "Expanded");
    server.edit(CLAIM, |claim| claim["status"] = json!({ "phase": "Pending" }));
    once(&server, &context).await.unwrap();
    assert_eq!(condition(&server, "StorageExpanded"), None);
}
