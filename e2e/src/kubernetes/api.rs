//! Objects of an API server as plain values, for tests that wait and compare.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use futures_util::{StreamExt as _, TryStreamExt as _};
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PropagationPolicy,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::wait;

/// Field manager of the tests.
const MANAGER: &str = "e2e";

/// Requests at a time where there are many.
const AT_A_TIME: usize = 16;

/// Kinds: name, group, version, plural, and whether its objects have a namespace.
const KINDS: &[(&str, &str, &str, &str, bool)] = &[
    ("TakhinCluster", "takhin.io", "v1alpha1", "takhinclusters", true),
    ("Topic", "takhin.io", "v1alpha1", "topics", true),
    ("PikaSource", "takhin.io", "v1alpha1", "pikasources", true),
    (
        "CustomResourceDefinition",
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        false,
    ),
    ("Namespace", "", "v1", "namespaces", false),
    ("Node", "", "v1", "nodes", false),
    ("Pod", "", "v1", "pods", true),
    ("Service", "", "v1", "services", true),
    ("ConfigMap", "", "v1", "configmaps", true),
    ("Secret", "", "v1", "secrets", true),
    ("ServiceAccount", "", "v1", "serviceaccounts", true),
    ("PersistentVolumeClaim", "", "v1", "persistentvolumeclaims", true),
    ("PersistentVolume", "", "v1", "persistentvolumes", false),
    ("Event", "events.k8s.io", "v1", "events", true),
    ("StatefulSet", "apps", "v1", "statefulsets", true),
    ("Deployment", "apps", "v1", "deployments", true),
    (
        "PodDisruptionBudget",
        "policy",
        "v1",
        "poddisruptionbudgets",
        true,
    ),
    (
        "NetworkPolicy",
        "networking.k8s.io",
        "v1",
        "networkpolicies",
        true,
    ),
    ("Role", "rbac.authorization.k8s.io", "v1", "roles", true),
    (
        "RoleBinding",
        "rbac.authorization.k8s.io",
        "v1",
        "rolebindings",
        true,
    ),
    (
        "ClusterRole",
        "rbac.authorization.k8s.io",
        "v1",
        "clusterroles",
        false,
    ),
    (
        "ClusterRoleBinding",
        "rbac.authorization.k8s.io",
        "v1",
        "clusterrolebindings",
        false,
    ),
    ("Lease", "coordination.k8s.io", "v1", "leases", true),
    ("StorageClass", "storage.k8s.io", "v1", "storageclasses", false),
];

/// A connection to an API server.
pub struct Kube {
    client: Client,
    runtime: Runtime,
}

impl std::fmt::Debug for Kube {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kube").finish_non_exhaustive()
    }
}

/// What an API server says when it says no.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub code: u16,
    /// For people.
    pub message: String,
}

/// The refusal that an answer is.
///
/// # Errors
/// It is none: the API server said yes, or nothing.
pub fn refusal<T>(answer: Result<T>) -> Result<Refusal> {
    let error = match answer {
        Ok(_) => bail!("the API server accepts it"),
        Err(error) => error,
    };
    match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) => Ok(Refusal {
            code: status.code,
            message: status.message.clone(),
        }),
        _ => Err(error),
    }
}

/// A word of an object, by its place, such as `/metadata/name`; empty where there is none.
pub fn text<'a>(object: &'a Value, place: &str) -> &'a str {
    object.pointer(place).and_then(Value::as_str).unwrap_or_default()
}

impl Kube {
    pub(super) fn connect(kubeconfig: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let config = Kubeconfig::read_from(kubeconfig)?;
        let client = runtime.block_on(async {
            let mut config = Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await?;
            // An eviction that a budget forbids is answered with 429, for good.
            config.default_retry = false;
            Ok::<_, anyhow::Error>(Client::try_from(config)?)
        })?;
        Ok(Self { client, runtime })
    }

    pub(super) fn is_ready(&self) -> bool {
        let ask = async {
            let request = http::Request::get("/readyz").body(Vec::new())?;
            Ok::<_, anyhow::Error>(self.client.request_text(request).await?)
        };
        self.runtime.block_on(ask).is_ok()
    }

    pub(super) fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        self.runtime.spawn(work)
    }

    pub(super) fn api(&self, kind: &str, namespace: &str) -> Result<Api<DynamicObject>> {
        let found = KINDS.iter().find(|(name, ..)| *name == kind);
        let (name, group, version, plural, namespaced) =
            found.ok_or_else(|| anyhow!("unknown kind {kind}"))?;
        let resource = ApiResource {
            group: (*group).to_owned(),
            version: (*version).to_owned(),
            api_version: match group.is_empty() {
                true => (*version).to_owned(),
                false => format!("{group}/{version}"),
            },
            kind: (*name).to_owned(),
            plural: (*plural).to_owned(),
        };
        Ok(match *namespaced && !namespace.is_empty() {
            true => Api::namespaced_with(self.client.clone(), namespace, &resource),
            false => Api::all_with(self.client.clone(), &resource),
        })
    }

    fn api_of(&self, object: &Value) -> Result<(Api<DynamicObject>, String)> {
        let api = self.api(text(object, "/kind"), text(object, "/metadata/namespace"))?;
        Ok((api, text(object, "/metadata/name").to_owned()))
    }

    /// Server-side apply as `kubectl` does it: strictly.
    ///
    /// # Errors
    /// The API server says no.
    pub fn apply(&self, object: &Value) -> Result<Value> {
        self.apply_as(MANAGER, object)
    }

    /// Server-side apply for another field manager, which takes what others own.
    ///
    /// # Errors
    /// The API server says no.
    pub fn apply_as(&self, manager: &str, object: &Value) -> Result<Value> {
        self.put(object, PatchParams::apply(manager).force())
    }

    /// Server-side apply of many objects, some at a time.
    ///
    /// # Errors
    /// The API server says no to one of them.
    pub fn apply_all(&self, objects: &[Value]) -> Result<()> {
        let parameters = PatchParams::apply(MANAGER).force().validation_strict();
        let mut calls = Vec::with_capacity(objects.len());
        for object in objects {
            calls.push((self.api_of(object)?, object));
        }
        let calls = futures_util::stream::iter(calls).map(|((api, name), object)| {
            let parameters = &parameters;
            async move {
                api.patch(&name, parameters, &Patch::Apply(object))
                    .await
                    .map(drop)
            }
        });
        let answers = calls.buffer_unordered(AT_A_TIME).try_collect::<()>();
        Ok(self.runtime.block_on(answers)?)
    }

    /// Whether it would be accepted; nothing changes.
    ///
    /// # Errors
    /// It would not.
    pub fn try_apply(&self, object: &Value) -> Result<Value> {
        self.put(object, PatchParams::apply(MANAGER).force().dry_run())
    }

    fn put(&self, object: &Value, parameters: PatchParams) -> Result<Value> {
        let (api, name) = self.api_of(object)?;
        let patch = Patch::Apply(object);
        let parameters = parameters.validation_strict();
        value(self.runtime.block_on(api.patch(&name, &parameters, &patch)))
    }

    /// A merge patch.
    ///
    /// # Errors
    /// The API server says no.
    pub fn merge(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> Result<Value> {
        let api = self.api(kind, namespace)?;
        let parameters = PatchParams::default();
        value(
            self.runtime
                .block_on(api.patch(name, &parameters, &Patch::Merge(patch))),
        )
    }

    /// A merge patch of the status.
    ///
    /// # Errors
    /// The API server says no.
    pub fn merge_status(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> Result<Value> {
        let api = self.api(kind, namespace)?;
        let parameters = PatchParams::default();
        value(
            self.runtime
                .block_on(api.patch_status(name, &parameters, &Patch::Merge(patch))),
        )
    }

    /// An object, if there is one.
    ///
    /// # Errors
    /// The API server says no, or nothing.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<Value>> {
        let api = self.api(kind, namespace)?;
        let found = self.runtime.block_on(api.get_opt(name))?;
        found.map(|object| Ok(serde_json::to_value(object)?)).transpose()
    }

    /// All objects of a kind in a namespace, or in all for an empty one.
    ///
    /// # Errors
    /// The API server says no, or nothing.
    pub fn list(&self, kind: &str, namespace: &str) -> Result<Vec<Value>> {
        let api = self.api(kind, namespace)?;
        let found = self.runtime.block_on(api.list(&ListParams::default()))?;
        found
            .items
            .into_iter()
            .map(|object| Ok(serde_json::to_value(object)?))
            .collect()
    }

    /// Deletes an object, and what it owns after it. One that is gone is fine.
    ///
    /// # Errors
    /// The API server says no.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let api = self.api(kind, namespace)?;
        let parameters = DeleteParams {
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        match self.runtime.block_on(api.delete(name, &parameters)) {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes an object although somebody would have to let go of it first.
    ///
    /// # Errors
    /// The API server says no.
    pub fn delete_now(&self, kind: &str, namespace: &str, name: &str) -> Result<()> {
        let api = self.api(kind, namespace)?;
        let parameters = DeleteParams::default().grace_period(0);
        self.runtime.block_on(api.delete(name, &parameters))?;
        Ok(())
    }

    /// Asks for a pod to go as whoever drains a node does: by its disruption budget.
    ///
    /// # Errors
    /// The API server says no, with 429 if the budget allows none to go now.
    pub fn evict(&self, namespace: &str, pod: &str) -> Result<()> {
        let eviction = serde_json::json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": { "name": pod, "namespace": namespace },
        });
        self.post_of_pod(namespace, pod, "eviction", &eviction)
    }

    pub(super) fn bind(&self, namespace: &str, pod: &str, node: &str) -> Result<()> {
        let binding = serde_json::json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": { "name": pod, "namespace": namespace },
            "target": { "apiVersion": "v1", "kind": "Node", "name": node },
        });
        self.post_of_pod(namespace, pod, "binding", &binding)
    }

    fn post_of_pod(&self, namespace: &str, pod: &str, part: &str, body: &Value) -> Result<()> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}/{part}");
        let request = http::Request::post(path)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(body)?)?;
        self.runtime.block_on(self.client.request_text(request))?;
        Ok(())
    }

    /// Waits until `probe` finds in an object what it looks for.
    ///
    /// # Errors
    /// It did not within `limit`; the message has the object.
    pub fn wait<T>(
        &self,
        (kind, namespace, name): (&str, &str, &str),
        what: &str,
        limit: Duration,
        mut probe: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T> {
        let mut last = Value::Null;
        let found = wait::value(format_args!("{kind} {name}: {what}"), limit, || {
            last = self.get(kind, namespace, name)?.unwrap_or(Value::Null);
            Ok(probe(&last))
        });
        found.with_context(|| {
            if let Some(metadata) = last.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
            format!("last seen: {last:#}")
        })
    }

    /// Waits until an object is gone.
    ///
    /// # Errors
    /// It is not within `limit`.
    pub fn gone(&self, kind: &str, namespace: &str, name: &str, limit: Duration) -> Result<()> {
        self.wait((kind, namespace, name), "to be gone", limit, |object| {
            object.is_null().then_some(())
        })
    }
}

fn value(answer: Result<DynamicObject, kube::Error>) -> Result<Value> {
    Ok(serde_json::to_value(answer?)?)
}

/// Status, reason and message of a condition; nothing where it is not there.
pub fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let all = object.pointer("/status/conditions")?.as_array()?;
    let found = all.iter().find(|condition| condition["type"] == kind)?;
    Some((
        text(found, "/status"),
        text(found, "/reason"),
        text(found, "/message"),
    ))
}
