use serde_json::json;

use super::*;
use crate::control::testing::Server;

const CLUSTER: &str = "/apis/takhin.io/v1alpha1/namespaces/ns/takhinclusters/prod";
const SET: &str = "/apis/apps/v1/namespaces/ns/statefulsets/prod";
const BOOTSTRAP: &str = "/api/v1/namespaces/ns/services/prod-bootstrap";

fn server(config: serde_json::Value) -> Server {
    let server = Server::default();
    let cluster = json!({
        "apiVersion": "takhin.io/v1alpha1",
        "kind": "TakhinCluster",
        "metadata": { "name": "prod", "namespace": "ns", "generation": 1 },
        "spec": {
            "replicas": 3,
            "storage": { "type": "PersistentVolumeClaim", "size": "1024Mi" },
            "config": config,
        },
    });
    server.put(CLUSTER, cluster);
    server
}

async fn once(server: &Server, context: &Context) -> Result<Action, Error> {
    let cluster = serde_json::from_value(server.get(CLUSTER).unwrap()).unwrap();
    pass(&cluster, context).await
}

/// Status and reason of a condition.
fn condition(server: &Server, kind: &str) -> (String, String) {
    let cluster = server.get(CLUSTER).unwrap();
    let conditions = cluster["status"]["conditions"].as_array().unwrap().clone();
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == kind)
        .unwrap();
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    (text("status"), text("reason"))
}

#[tokio::test]
async fn what_is_there_as_it_should_be_is_not_written_again() {
    let server = server(json!({}));
    let context = server.context();
    once(&server, &context).await.unwrap();
    let first = server.writes();
    for child in [
        SET,
        BOOTSTRAP,
        "/secrets",
        "/serviceaccounts/prod-broker",
        "/poddisruptionbudgets/prod",
    ] {
        assert!(
            first.iter().any(|write| write.ends_with(child)),
            "{child} in {first:#?}"
        );
    }
    once(&server, &context).await.unwrap();
    server.writes();
    for _ in 0..3 {
        once(&server, &context).await.unwrap();
        assert_eq!(server.writes(), Vec::<String>::new());
    }
    // Nor by an operator that has just begun.
    let context = server.context();
    once(&server, &context).await.unwrap();
    assert_eq!(server.writes(), Vec::<String>::new());
    assert_eq!(
        condition(&server, "Ready"),
        ("False".to_owned(), "BrokersNotReady".to_owned())
    );
}

#[tokio::test]
async fn what_somebody_changes_or_takes_away_comes_back() {
    let server = server(json!({}));
    let context = server.context();
    for _ in 0..2 {
        once(&server, &context).await.unwrap();
    }
    server.writes();
    server.edit(BOOTSTRAP, |service| {
        service["spec"]["ports"][0]["port"] = 1.into()
    });
    once(&server, &context).await.unwrap();
    assert_eq!(server.writes(), [format!("PATCH {BOOTSTRAP}")]);
    let token = "/api/v1/namespaces/ns/secrets/prod-admin-token";
    let before = server.get(token).unwrap()["data"]["token"].clone();
    server.take(token);
    server.take(SET);
    once(&server, &context).await.unwrap();
    let after = server.get(token).unwrap()["data"]["token"].clone();
    assert!(after.is_string() && after != before);
    assert_eq!(server.get(SET).unwrap()["spec"]["replicas"], 3);
}

#[tokio::test]
async fn what_belongs_to_somebody_else_is_not_taken() {
    let server = server(json!({}));
    let other = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet",
        "metadata": { "name": "prod", "namespace": "ns" },
        "spec": { "replicas": 7, "serviceName": "x", "selector": {}, "template": {} },
    });
    server.put(SET, other);
    let failed = once(&server, &server.context()).await.unwrap_err();
    assert!(matches!(failed, Error::NameConflict { .. }), "{failed}");
    assert_eq!(server.get(SET).unwrap()["spec"]["replicas"], 7);
    assert_eq!(
        condition(&server, "Ready"),
        ("False".to_owned(), "NameConflict".to_owned())
    );
}

#[tokio::test]
async fn what_takes_the_place_of_a_child_is_not_removed_unseen() {
    let server = server(json!({}));
    let context = server.context();
    once(&server, &context).await.unwrap();
    let policy = "/apis/networking.k8s.io/v1/namespaces/ns/networkpolicies/prod";
    let uid = |path: &str| server.get(path).map(|object| object["metadata"]["uid"].clone());
    server.edit(CLUSTER, |cluster| {
        cluster["spec"]["storage"]["size"] = "2Gi".into();
        cluster["spec"]["networkPolicy"] = json!({ "enabled": false });
    });
    let before = (uid(SET).unwrap(), uid(policy).unwrap());
    server.renew_before_removal(SET);
    server.renew_before_removal(policy);
    server.writes();
    once(&server, &context).await.unwrap();
    let writes = server.writes();
    for path in [SET, policy] {
        assert!(writes.contains(&format!("DELETE {path}")), "{writes:#?}");
    }
    // They are there, and are others.
    let renewed = (uid(SET).unwrap(), uid(policy).unwrap());
    assert!(renewed.0 != before.0 && renewed.1 != before.1);
    let size = |set: serde_json::Value| {
        set["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"].clone()
    };
    assert_eq!(size(server.get(SET).unwrap()), "1024Mi");
    // The next pass has looked at those.
    once(&server, &context).await.unwrap();
    assert_eq!(size(server.get(SET).unwrap()), "2Gi");
    assert!(uid(SET).unwrap() != renewed.0 && uid(policy).is_none());
}

#[tokio::test]
async fn a_wrong_setting_changes_nothing_and_is_told_until_it_is_mended() {
    let server = server(json!({ "log.retention.msx": "1" }));
    let context = server.context();
    once(&server, &context).await.unwrap();
    assert!(server.get(SET).is_none());
    assert_eq!(
        condition(&server, "Ready"),
        ("False".to_owned(), "InvalidSpec".to_owned())
    );
    let message = server.get(CLUSTER).unwrap()["status"]["conditions"].to_string();
    assert!(message.contains("did you mean log.retention.ms"), "{message}");
    server.writes();
    once(&server, &context).await.unwrap();
    assert_eq!(server.writes(), Vec::<String>::new());
    server.edit(CLUSTER, |cluster| {
        cluster["spec"]["config"] = json!({});
        cluster["metadata"]["generation"] = 2.into();
    });
    once(&server, &context).await.unwrap();
    assert!(server.get(SET).is_some());
}

/// Trying again and again does not mend a wish, and another wish is looked at when it comes.
#[tokio::test]
async fn a_child_that_is_invalid_is_the_wish_that_is_wrong() {
    let server = server(json!({}));
    let context = server.context();
    for first in [true, false] {
        server.writes();
        server.fail(SET, 422);
        once(&server, &context).await.unwrap();
        let told = ("False".to_owned(), "InvalidSpec".to_owned());
        assert_eq!(condition(&server, "Ready"), told);
        let is_event = |write: &String| write.starts_with("POST /apis/events.k8s.io/");
        assert_eq!(server.writes().iter().any(is_event), first, "told once");
    }
    once(&server, &context).await.unwrap();
    assert_eq!(condition(&server, "Ready").1, "BrokersNotReady");
}

#[tokio::test]
async fn a_conflict_is_met_with_another_pass() {
    let server = server(json!({}));
    let context = server.context();
    server.fail(SET, 403);
    assert!(once(&server, &context).await.is_err());
    assert_eq!(
        condition(&server, "Ready"),
        ("False".to_owned(), "ReconcileError".to_owned())
    );
    server.fail("prod/status", 409);
    let failed = once(&server, &context).await.unwrap_err();
    assert!(failed.is_conflict());
    once(&server, &context).await.unwrap();
    assert!(server.get(SET).is_some());
}

/// The size cannot be taken back, so that nothing else may wait for it.
#[tokio::test]
async fn a_volume_that_may_not_grow_holds_up_nothing_else() {
    for (status, goes_on) in [(403, true), (422, true), (409, false), (500, false)] {
        let server = server(json!({}));
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": "data-prod-0", "namespace": "ns",
                "labels": { "takhin.io/cluster": "prod", "app.kubernetes.io/component": "broker" },
            },
            "spec": { "storageClassName": "disks", "resources": { "requests": { "storage": "512Mi" } } },
            "status": { "phase": "Bound", "capacity": { "storage": "512Mi" } },
        });
        server.put("/api/v1/namespaces/ns/persistentvolumeclaims/data-prod-0", claim);
        let class = json!({
            "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": "disks" },
            "provisioner": "test", "allowVolumeExpansion": true,
        });
        server.put("/apis/storage.k8s.io/v1/storageclasses/disks", class);
        let context = server.context();
        server.fail("/persistentvolumeclaims/data-prod-0", status);
        let done = once(&server, &context).await;
        assert_eq!(
            (done.is_ok(), server.get(SET).is_some()),
            (goes_on, goes_on),
            "{status}"
        );
        if goes_on {
            let told = condition(&server, "StorageExpanded");
            assert_eq!(told, ("False".to_owned(), "ResizeRefused".to_owned()));
            let status = server.get(CLUSTER).unwrap()["status"]["conditions"].to_string();
            assert!(status.contains("refused by the test"), "{status}");
        }
        // It grows when that is allowed.
        server.writes();
        once(&server, &context).await.unwrap();
        assert_eq!(condition(&server, "StorageExpanded").1, "Resizing");
    }
}

#[tokio::test]
async fn nothing_is_written_but_the_status_while_it_is_paused() {
    let server = server(json!({}));
    server.edit(CLUSTER, |cluster| {
        cluster["metadata"]["annotations"][PAUSE] = "true".into()
    });
    let context = server.context();
    once(&server, &context).await.unwrap();
    let writes = server.writes();
    let [event, status] = &writes[..] else {
        panic!("{writes:?}");
    };
    assert!(event.starts_with("POST /apis/events.k8s.io/"), "{event}");
    assert_eq!(status, &format!("PATCH {CLUSTER}/status"));
    // It is told once.
    once(&server, &context).await.unwrap();
    assert_eq!(server.writes(), Vec::<String>::new());
    assert_eq!(condition(&server, "ReconciliationPaused").0, "True");
}

/// `kubectl wait --for=condition=Ready` goes by the generation.
#[tokio::test]
async fn what_is_said_while_it_is_paused_is_not_said_of_a_newer_wish() {
    let server = server(json!({}));
    let context = server.context();
    once(&server, &context).await.unwrap();
    let set = server.get(SET).unwrap();
    for (generation, paused, expected) in [(2, "true", 1), (3, "true", 1), (4, "false", 4)] {
        server.edit(CLUSTER, |cluster| {
            cluster["metadata"]["annotations"][PAUSE] = paused.into();
            cluster["metadata"]["generation"] = generation.into();
            cluster["spec"]["image"] = "example.org/takhin:2".into();
        });
        once(&server, &context).await.unwrap();
        let status = server.get(CLUSTER).unwrap()["status"].clone();
        assert_eq!(status["observedGeneration"], expected, "{status}");
        for condition in status["conditions"].as_array().unwrap() {
            assert_eq!(condition["observedGeneration"], expected, "{condition}");
        }
        let is_untouched = server.get(SET).unwrap()["spec"] == set["spec"];
        assert_eq!(is_untouched, paused == "true");
    }
}
