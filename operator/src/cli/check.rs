//! `takhin-operator check`: whether an installation works, as the chart's test asks.

use anyhow::{Context as _, bail, ensure};
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Resource};
use serde_json::{Value, json};

use crate::api::{PikaSource, TakhinCluster, Topic};

/// Who asks.
const MANAGER: &str = "takhin-operator-check";

/// Asks the API server whether it would take one object of each kind in this namespace, and whether it would refuse a wrong one.
/// Nothing is made.
pub(super) fn kinds(namespace: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        let client = Client::try_default()
            .await
            .context("cannot find an API server: neither a service account nor a kubeconfig")?;
        ask(&client, namespace).await
    })
}

async fn ask(client: &Client, namespace: &str) -> anyhow::Result<()> {
    let cluster = json!({ "name": "check" });
    taken::<TakhinCluster>(
        client,
        namespace,
        &json!({ "replicas": 1, "storage": { "type": "Ephemeral" } }),
    )
    .await?;
    taken::<Topic>(
        client,
        namespace,
        &json!({ "clusterRef": cluster, "partitions": 3 }),
    )
    .await?;
    let source = json!({
        "clusterRef": cluster,
        "source": { "host": "pika", "port": 9221 },
        "sink": { "topic": "changes" },
    });
    taken::<PikaSource>(client, namespace, &source).await?;
    let wrong = json!({ "clusterRef": cluster, "partitions": 0 });
    match apply::<Topic>(client, namespace, &wrong).await {
        Err(kube::Error::Api(said)) if said.code == 422 && said.message.contains("partitions") => Ok(()),
        Err(error) => Err(error).context("a Topic of no partitions is refused for another reason than that"),
        Ok(_) => bail!(
            "a Topic of no partitions is accepted: the kinds are older than this program, or not its own"
        ),
    }
}

/// Whether an object of this kind would be taken as it is.
async fn taken<K: Resource<DynamicType = ()>>(
    client: &Client,
    namespace: &str,
    spec: &Value,
) -> anyhow::Result<()> {
    let kind = K::kind(&());
    let answer = apply::<K>(client, namespace, spec).await;
    let object =
        answer.with_context(|| format!("the API server takes no {kind} in namespace {namespace}"))?;
    let has = &object.data["spec"];
    let lacks = spec
        .as_object()
        .into_iter()
        .flatten()
        .find(|(field, _)| has[field.as_str()].is_null());
    ensure!(
        lacks.is_none(),
        "of a {kind} the API server drops {lacks:?}: the kinds are older than this program"
    );
    Ok(())
}

async fn apply<K: Resource<DynamicType = ()>>(
    client: &Client,
    namespace: &str,
    spec: &Value,
) -> Result<DynamicObject, kube::Error> {
    let kind = GroupVersionKind::gvk(&K::group(&()), &K::version(&()), &K::kind(&()));
    let resource = ApiResource::from_gvk_with_plural(&kind, &K::plural(&()));
    let object = json!({
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": { "name": "takhin-operator-check", "namespace": namespace },
        "spec": spec,
    });
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let parameters = PatchParams::apply(MANAGER).dry_run().validation_strict();
    api.patch("takhin-operator-check", &parameters, &Patch::Apply(&object))
        .await
}
