//! What there is of a cluster: objects of Kubernetes, and what the brokers say.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod, Secret, Service};
use kube::api::ListParams;
use kube::{Api, ResourceExt as _};
use tracing::debug;

use super::assign::Assignment;
use crate::api::{SKIP_SCALE_DOWN_CHECK, TakhinCluster, annotated};
use crate::broker_api::{Broker, BrokerApi, ClusterHealth, Node};
use crate::build::{ADMIN_PORT, Names};
use crate::control::claims::unprovided;
use crate::control::context::Context;
use crate::control::error::Error;
use crate::control::pods::{last_words, stuck};
use crate::control::topics::{address, is_ready};
use crate::decide::{roll, scale};

/// Characters of what Kubernetes says of a pod.
const MAX_WHY: usize = 400;

/// Events that are looked at.
const MAX_EVENTS: u32 = 50;

/// What was seen in one pass.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) set: Option<StatefulSet>,
    /// By broker id.
    pub(super) pods: BTreeMap<i32, Pod>,
    /// By broker id.
    pub(super) claims: BTreeMap<i32, PersistentVolumeClaim>,
    /// Services of external listeners, by name.
    pub(super) services: BTreeMap<String, Service>,
    /// What pods are to be told, by broker id, where it is known.
    pub(super) assignments: BTreeMap<i32, Assignment>,
    pub(super) brokers: Option<Vec<Broker>>,
    pub(super) health: Option<ClusterHealth>,
    pub(super) node: Option<Node>,
    pub(super) admin: Option<BrokerApi>,
    /// Why no broker said anything.
    pub(super) silence: Option<String>,
    /// Why claims get no volume, where waiting does not help.
    pub(super) unprovided: Option<String>,
    /// Why Kubernetes makes no pod or claim for a broker.
    pub(super) refused: Option<String>,
    /// Brokers to go that have nothing any more.
    pub(super) empty: Vec<i32>,
}

pub(super) async fn observe(
    context: &Context,
    cluster: &TakhinCluster,
    names: &Names,
) -> Result<Seen, Error> {
    let client = &context.client;
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), &names.namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), &names.namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &names.namespace);
    let selected = ListParams::default().labels(&names.selector_text());
    let mut seen = Seen {
        set: sets.get_opt(&names.cluster).await?,
        ..Seen::default()
    };
    for pod in pods.list(&selected).await?.items {
        if let Some(broker) = names.broker_of(&pod.name_any()) {
            seen.pods.insert(broker, pod);
        }
    }
    let prefix = "data-";
    for claim in claims.list(&selected).await?.items {
        let name = claim.name_any();
        if let Some(broker) = name.strip_prefix(prefix).and_then(|pod| names.broker_of(pod)) {
            seen.claims.insert(broker, claim);
        }
    }
    seen.unprovided = unprovided(context, seen.claims.values()).await?;
    seen.refused = refused(context, names, &seen).await?;
    ask(context, cluster, names, &mut seen).await?;
    Ok(seen)
}

/// Why a pod that is missing is not made: a quota, a rule of the namespace, a priority class that is not there. A StatefulSet
/// says that in events only.
async fn refused(context: &Context, names: &Names, seen: &Seen) -> Result<Option<String>, Error> {
    let wished = seen.replicas().unwrap_or(0);
    let missing: Vec<String> = (0..wished)
        .filter(|broker| !seen.pods.contains_key(broker))
        .map(|broker| names.pod(broker))
        .collect();
    let Some(set) = seen.set.as_ref().filter(|_| !missing.is_empty()) else {
        return Ok(None);
    };
    let of_set = format!(
        "involvedObject.uid={},reason=FailedCreate",
        set.uid().unwrap_or_default()
    );
    let api: Api<Event> = Api::namespaced(context.client.clone(), &names.namespace);
    let few = ListParams::default().fields(&of_set).limit(MAX_EVENTS);
    let told = api.list(&few).await?.items;
    // Of the first pod, so that what is told does not change with every attempt at another one.
    let of = |pod: &String| {
        let about = told.iter().filter(|event| {
            let note = event.message.as_deref().unwrap_or_default();
            note.split(' ').any(|word| word == pod.as_str())
        });
        about.max_by_key(|event| event.last_timestamp.as_ref().map(|at| at.0))
    };
    Ok(missing
        .iter()
        .find_map(of)
        .and_then(|event| event.message.clone()))
}

/// Asks the brokers; that they do not answer is something that is observed.
async fn ask(
    context: &Context,
    cluster: &TakhinCluster,
    names: &Names,
    seen: &mut Seen,
) -> Result<(), Error> {
    let mut addresses: Vec<(bool, String)> = seen
        .pods
        .values()
        .filter(|pod| is_running(pod))
        .filter_map(|pod| {
            let ip = pod.status.as_ref()?.pod_ip.as_deref()?;
            let ready = is_ready(pod);
            Some((!ready, address(ip, ADMIN_PORT)))
        })
        .collect();
    // Ready ones first.
    addresses.sort();
    if addresses.is_empty() {
        seen.silence = Some("no broker's pod runs".to_owned());
        return Ok(());
    }
    let secrets: Api<Secret> = Api::namespaced(context.client.clone(), &names.namespace);
    let Some(token) = secrets
        .get_opt(&names.admin_token())
        .await?
        .as_ref()
        .and_then(token_of)
    else {
        seen.silence = Some(format!("Secret {} has no key token", names.admin_token()));
        return Ok(());
    };
    // A broker that hangs must not hold up the pass for long: three are asked.
    let addresses = addresses
        .into_iter()
        .map(|(_, address)| address)
        .take(3)
        .collect();
    let admin = context.http.brokers(addresses, token);
    let said = async {
        let health = admin.health().await?;
        let brokers = admin.brokers().await?;
        let node = admin.node().await?;
        Ok::<_, crate::broker_api::AdminError>((health, brokers, node))
    };
    match said.await {
        Ok((health, brokers, node)) => {
            seen.health = Some(health);
            seen.brokers = Some(brokers);
            seen.node = Some(node);
            seen.admin = Some(admin);
        }
        Err(error) => {
            debug!(%error, cluster = cluster.name_any(), "brokers do not answer");
            seen.silence = Some(error.to_string());
        }
    }
    Ok(())
}

/// The token in the Secret of the admin API.
pub(super) fn token_of(secret: &Secret) -> Option<String> {
    let token = secret.data.as_ref()?.get("token")?;
    String::from_utf8(token.0.clone()).ok()
}

fn is_running(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running")
        && pod.metadata.deletion_timestamp.is_none()
}

impl Seen {
    /// Brokers that the StatefulSet has.
    pub(super) fn replicas(&self) -> Option<i32> {
        self.set.as_ref()?.spec.as_ref()?.replicas
    }

    /// What keeps the first pod that does not run from running, for people: such as `; prod-2: ErrImagePull: ...`, or from being
    /// made, or nothing.
    pub(super) fn stuck(&self) -> String {
        let mut all = self
            .pods
            .values()
            .filter_map(|pod| Some((pod.name_any(), stuck(pod)?)));
        let cut = |why: &str| why.chars().take(MAX_WHY).collect::<String>();
        let Some((pod, why)) = all.next() else {
            let refused = self.refused.as_deref().map(cut);
            return refused.map(|why| format!("; {why}")).unwrap_or_default();
        };
        let why = cut(&why);
        match all.count() {
            0 => format!("; {pod}: {why}"),
            more => format!("; {pod}, and {more} more: {why}"),
        }
    }

    /// Brokers that ended because the others know another volume by their id: theirs was lost, or mixed up.
    pub(super) fn lost(&self) -> BTreeSet<i32> {
        let all = self.pods.iter().filter(|(_, pod)| {
            // The words of the cluster crate (`LinkError`, `TopicError::NodeIdTaken`), which a test on nodes holds together.
            let words = last_words(pod).unwrap_or_default();
            let says = words.contains(" belongs to a broker with ") && words.contains("data directory");
            says && !is_ready(pod) && pod.metadata.deletion_timestamp.is_none()
        });
        all.map(|(id, _)| *id).collect()
    }

    /// What decides over a smaller or larger cluster.
    pub(super) fn scaling(&self, cluster: &TakhinCluster) -> scale::Observed {
        let member = |broker: &Broker| scale::Member {
            decommissioning: broker.decommissioning,
            silent: broker.state == "silent",
            replicas: broker.replicas,
        };
        let brokers = self.brokers.as_ref();
        scale::Observed {
            wished: cluster.spec.replicas,
            replicas: self.replicas(),
            members: brokers
                .map(|brokers| brokers.iter().map(|broker| (broker.id, member(broker))).collect()),
            empty: self.empty.clone(),
            lost: self.lost(),
            skip_check: annotated(cluster, SKIP_SCALE_DOWN_CHECK, "true"),
        }
    }

    /// What brokers say, for the rolling restart.
    pub(super) fn words(&self) -> Option<BTreeMap<i32, roll::Word>> {
        let word = |broker: &Broker| roll::Word {
            draining: broker.draining,
            leaders: broker.leaders,
            controller: broker.controller,
        };
        let brokers = self.brokers.as_ref()?;
        Some(brokers.iter().map(|broker| (broker.id, word(broker))).collect())
    }
}
