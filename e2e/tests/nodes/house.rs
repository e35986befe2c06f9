//! A TakhinCluster in a namespace of its own, and what tests ask of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use takhin_e2e::kubernetes::{Ground, condition, text};
use takhin_e2e::{kcat, wait};

/// Time for pods to come and go, on a machine that is busy with other things.
pub(crate) const LIMIT: Duration = Duration::from_secs(240);

/// Partitions of the topic that is written to.
pub(crate) const PARTITIONS: i32 = 6;

/// A cluster called `prod`.
pub(crate) struct House<'a> {
    /// Where it is.
    pub(crate) cluster: &'a Ground,
    /// Its namespace.
    pub(crate) namespace: &'static str,
}

/// The namespace of the cluster that most tests share.
const SHARED: &str = "shop";

impl<'a> House<'a> {
    /// The one that tests share as long as nothing fails: each leaves it as it was.
    pub(crate) fn shared(cluster: &'a Ground) -> Result<Self> {
        match cluster.kube().get("Namespace", "", SHARED)? {
            Some(_) => Ok(Self {
                cluster,
                namespace: SHARED,
            }),
            None => Self::build(cluster, SHARED),
        }
    }

    /// Makes one of three brokers, and waits until it is ready.
    pub(crate) fn build(cluster: &'a Ground, namespace: &'static str) -> Result<Self> {
        let spec = json!({
            "replicas": 3,
            "storage": { "type": "PersistentVolumeClaim", "size": "1Gi", "className": cluster.class() },
            "rack": { "topologyKey": "topology.kubernetes.io/zone" },
            // The groups of the tests' consumers need no more, and every one of 50 would move with each broker.
            "config": { "kafka.groups.offsets_topic_partitions": "6" },
            "listeners": [
                { "name": "internal", "port": 9092, "type": "Internal" },
                { "name": "external", "port": 9094, "type": "NodePort" },
            ],
        });
        Self::build_as(cluster, namespace, &spec)
    }

    /// Makes one as it is wished for.
    pub(crate) fn build_as(cluster: &'a Ground, namespace: &'static str, spec: &Value) -> Result<Self> {
        let house = Self::found(cluster, namespace)?;
        house.apply(&json!({
            "apiVersion": "takhin.io/v1alpha1",
            "kind": "TakhinCluster",
            "metadata": { "name": "prod", "namespace": namespace },
            "spec": spec,
        }))?;
        house.quiet()?;
        Ok(house)
    }

    /// Makes the namespace, with nothing in it.
    pub(crate) fn found(cluster: &'a Ground, namespace: &'static str) -> Result<Self> {
        let house = Self { cluster, namespace };
        house.apply(&json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": namespace,
                "labels": { "pod-security.kubernetes.io/enforce": "restricted" },
            },
        }))?;
        Ok(house)
    }

    /// Makes a topic of three replicas, and waits until it is ready.
    pub(crate) fn topic(&self, name: &str) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "takhin.io/v1alpha1",
            "kind": "Topic",
            "metadata": { "name": name, "namespace": self.namespace },
            "spec": {
                "clusterRef": { "name": "prod" },
                "partitions": PARTITIONS,
                "replicationFactor": 3,
                "config": { "min.insync.replicas": "2" },
            },
        }))?;
        self.wait("Topic", name, "to be ready", |seen| {
            let (status, ..) = condition(seen, "Ready")?;
            (status == "True").then_some(())
        })
    }

    /// Waits until a topic is as it is wished now, with so many replicas.
    pub(crate) fn synced(&self, name: &str, replicas: usize) -> Result<()> {
        self.wait("Topic", name, &format!("to have {replicas} replicas"), |seen| {
            let (status, ..) = condition(seen, "Ready")?;
            let current = seen.pointer("/status/observedGeneration") == seen.pointer("/metadata/generation");
            let has = seen.pointer("/status/replicationFactor")? == &json!(replicas);
            (current && has && status == "True").then_some(())
        })
    }

    /// `kubectl apply`, which finds out about new kinds.
    pub(crate) fn apply(&self, object: &Value) -> Result<()> {
        let file = self.cluster.folder().join("applied.json");
        std::fs::write(&file, object.to_string())?;
        self.cluster
            .kubectl(&["apply", "-f", &file.to_string_lossy()])
            .map(drop)
    }

    /// The same with a document as people write it, in this namespace.
    pub(crate) fn apply_text(&self, document: &str) -> Result<()> {
        let file = self.cluster.folder().join("applied.yaml");
        std::fs::write(&file, document)?;
        self.cluster
            .kubectl(&["apply", "-n", self.namespace, "-f", &file.to_string_lossy()])
            .map(drop)
    }

    /// Changes the TakhinCluster.
    pub(crate) fn change(&self, patch: &Value) -> Result<()> {
        let kube = self.cluster.kube();
        kube.merge("TakhinCluster", self.namespace, "prod", patch)
            .map(drop)
    }

    /// Waits for something of an object in the namespace.
    pub(crate) fn wait<T>(
        &self,
        kind: &str,
        name: &str,
        what: &str,
        probe: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T> {
        eprintln!("        waiting for {kind} {name}: {what}");
        let place = (kind, self.namespace, name);
        self.cluster.kube().wait(place, what, LIMIT, probe)
    }

    /// Waits until the cluster is as it is wished now, all brokers are there, and nothing is under way.
    pub(crate) fn quiet(&self) -> Result<()> {
        self.wait("TakhinCluster", "prod", "to be quiet", |seen| {
            let at = |place: &str| seen.pointer(place).cloned();
            let current = at("/status/observedGeneration") == at("/metadata/generation");
            let whole = at("/status/readyReplicas") == at("/spec/replicas")
                && at("/status/replicas") == at("/spec/replicas");
            let (ready, ..) = condition(seen, "Ready")?;
            let (moving, ..) = condition(seen, "Progressing")?;
            let (degraded, why, _) = condition(seen, "Degraded")?;
            // How full the disks of this machine are does not matter here; anything else would be said before that.
            let well = degraded == "False" || why == "DiskPressure";
            (current && whole && well && [ready, moving] == ["True", "False"]).then_some(())
        })
    }

    /// Waits until a condition that speaks of the cluster as it is wished now has this reason; its message.
    pub(crate) fn reason(&self, kind: &str, reason: &str) -> Result<String> {
        let what = format!("{kind} to be {reason}");
        self.wait("TakhinCluster", "prod", &what, |seen| {
            let all = seen.pointer("/status/conditions")?.as_array()?;
            let said = all.iter().find(|said| said["type"] == kind)?;
            let current = said.get("observedGeneration") == seen.pointer("/metadata/generation");
            (current && said["reason"] == reason).then(|| text(said, "/message").to_owned())
        })
    }

    /// What the status says of each broker.
    pub(crate) fn brokers(&self) -> Result<Vec<Value>> {
        let cluster = self.cluster.kube().get("TakhinCluster", self.namespace, "prod")?;
        let brokers = cluster
            .as_ref()
            .and_then(|cluster| cluster.pointer("/status/brokers")?.as_array());
        Ok(brokers.context("no brokers in the status")?.clone())
    }

    /// The brokers' racks, by id; fails unless each is the zone of the node that its pod is on.
    pub(crate) fn racks(&self) -> Result<BTreeMap<i32, String>> {
        let mut racks = BTreeMap::new();
        for broker in self.brokers()? {
            let (node, rack) = (text(&broker, "/node"), text(&broker, "/rack"));
            let found = self.cluster.kube().get("Node", "", node)?;
            let found = found.with_context(|| format!("no node for {broker}"))?;
            let zone = text(&found, "/metadata/labels/topology.kubernetes.io~1zone");
            ensure!(!rack.is_empty() && rack == zone, "{broker} on a node in {zone}");
            let id = broker["id"].as_i64().context("a broker without an id")?;
            racks.insert(i32::try_from(id)?, rack.to_owned());
        }
        Ok(racks)
    }

    /// Waits until every partition of a topic has its three replicas in three racks, and all of `brokers` have replicas of it, or
    /// none.
    pub(crate) fn spread(&self, topic: &str, brokers: &[i32], have: bool) -> Result<()> {
        let racks = self.racks()?;
        let what = format!(
            "{topic} to be in three racks, and {}on {brokers:?}",
            if have { "" } else { "not " }
        );
        eprintln!("        waiting for {what}");
        wait::until(what, LIMIT, || {
            let placed = kcat::placements(&self.inside(), topic).unwrap_or_default();
            let is_spread = |one: &kcat::Placement| {
                let zones: BTreeSet<_> = one.replicas.iter().filter_map(|id| racks.get(id)).collect();
                one.replicas.len() == 3 && one.in_sync == 3 && zones.len() == 3
            };
            let on = |id: &i32| placed.iter().any(|one| one.replicas.contains(id));
            Ok(placed.len() == usize::try_from(PARTITIONS)?
                && placed.iter().all(is_spread)
                && brokers.iter().all(|id| on(id) == have))
        })
    }

    /// The brokers' pods: uid by name.
    pub(crate) fn pods(&self) -> Result<BTreeMap<String, String>> {
        let pods = self.cluster.kube().list("Pod", self.namespace)?;
        let named = pods.iter().map(|pod| {
            let word = |place| text(pod, place).to_owned();
            (word("/metadata/name"), word("/metadata/uid"))
        });
        Ok(named.collect())
    }

    /// Waits until an object is there that is another one than the one with this uid.
    pub(crate) fn back(&self, kind: &str, name: &str, uid: &str) -> Result<()> {
        self.wait(kind, name, "to be there again", |seen| {
            (!seen.is_null() && text(seen, "/metadata/uid") != uid).then_some(())
        })
    }

    /// Fails unless the brokers' pods are those, none of which has been restarted.
    pub(crate) fn unchanged(&self, before: &BTreeMap<String, String>) -> Result<()> {
        let after = self.pods()?;
        ensure!(after == *before, "pods were replaced: {before:?}, now {after:?}");
        for pod in self.cluster.kube().list("Pod", self.namespace)? {
            let restarts = pod.pointer("/status/containerStatuses/0/restartCount");
            ensure!(restarts == Some(&json!(0)), "a broker was restarted: {pod:#}");
        }
        Ok(())
    }

    /// Where clients outside begin.
    pub(crate) fn outside(&self) -> Result<String> {
        let service = self
            .cluster
            .kube()
            .get("Service", self.namespace, "prod-external-bootstrap")?;
        let service = service.context("no Service for clients outside")?;
        let port = service.pointer("/spec/ports/0/nodePort").and_then(Value::as_u64);
        Ok(format!(
            "{}:{}",
            self.cluster.node_address()?,
            port.context("no node port")?
        ))
    }

    /// Where clients inside begin.
    pub(crate) fn inside(&self) -> String {
        format!("prod-bootstrap.{}.svc:9092", self.namespace)
    }

    /// Seconds from the wish for the cluster until it and every one of its brokers were ready, by the clock of the nodes.
    pub(crate) fn became_ready_in(&self) -> Result<i64> {
        let kube = self.cluster.kube();
        let cluster = kube.get("TakhinCluster", self.namespace, "prod")?;
        let cluster = cluster.context("no cluster")?;
        let wished: Timestamp = text(&cluster, "/metadata/creationTimestamp").parse()?;
        let mut all = kube.list("Pod", self.namespace)?;
        all.push(cluster);
        let mut last = wished;
        for one in &all {
            let conditions = one.pointer("/status/conditions").and_then(Value::as_array);
            let mut conditions = conditions.context("no conditions")?.iter();
            let ready = conditions.find(|said| said["type"] == "Ready" && said["status"] == "True");
            let ready = ready.with_context(|| format!("not ready: {one:#}"))?;
            last = last.max(text(ready, "/lastTransitionTime").parse()?);
        }
        Ok(last.as_second() - wished.as_second())
    }

    /// Takes it away, and waits until the namespace is gone.
    pub(crate) fn leave(self) -> Result<()> {
        let kube = self.cluster.kube();
        kube.delete("Namespace", "", self.namespace)?;
        eprintln!("        waiting for the namespace to be gone");
        kube.gone("Namespace", "", self.namespace, LIMIT)
    }
}
