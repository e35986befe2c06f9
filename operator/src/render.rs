//! What the operator would make of a manifest, without an API server: for reviews, and for tests that show when a release
//! changes what brokers run with.

use serde_json::Value;

use crate::api::{PikaSource, TakhinCluster};
use crate::build::{
    Images, Names, Surroundings, broker_set, cdc_children, cdc_claim, cdc_network_policy, cdc_service,
    config_map, disruption_budget, external_services, internal_services, network_policy, node_file,
    service_account,
};

/// The objects that belong to the clusters and sources of a text of YAML documents, as YAML documents. `home` is the namespace
/// of the operator's pods.
///
/// # Errors
/// The text is no manifest, or a resource in it is refused.
pub fn render(text: &str, images: &Images, domain: &str, home: Option<&str>) -> Result<String, String> {
    let mut out = Vec::new();
    for document in text.split("\n---") {
        let value: Value = takhin_config::yaml::from_str(document).map_err(|error| error.to_string())?;
        if value.is_null() {
            continue;
        }
        let kind = value["kind"].as_str().unwrap_or_default().to_owned();
        let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let wrong = |error: serde_json::Error| format!("{kind} {name}: {error}");
        out.extend(match kind.as_str() {
            "TakhinCluster" => of_cluster(
                &serde_json::from_value(value).map_err(wrong)?,
                images,
                domain,
                home,
            )?,
            "PikaSource" => of_source(&serde_json::from_value(value).map_err(wrong)?, images, domain)?,
            // It has no objects of its own.
            "Topic" => Vec::new(),
            other => {
                return Err(format!(
                    "kind {other:?} is none of TakhinCluster, Topic and PikaSource"
                ));
            }
        });
    }
    let texts: Result<Vec<String>, _> = out.iter().map(takhin_config::yaml::to_string).collect();
    Ok(texts.map_err(|error| error.to_string())?.join("---\n"))
}

fn of_cluster(
    cluster: &TakhinCluster,
    images: &Images,
    domain: &str,
    home: Option<&str>,
) -> Result<Vec<Value>, String> {
    let names = Names::of(cluster, domain);
    let spec = &cluster.spec;
    let file = node_file(spec, &names, spec.replicas).map_err(|faults| faults.join("\n"))?;
    let mut all = vec![service_account(&names), config_map(&names, &file)];
    all.extend(internal_services(spec, &names));
    all.extend(external_services(spec, &names, spec.replicas));
    all.push(disruption_budget(&names));
    all.extend(network_policy(spec, &names, home));
    all.push(broker_set(cluster, &names, &file, images, spec.replicas));
    // Changes with every release, and restarts nobody.
    for object in &mut all {
        if let Some(labels) = object["metadata"]["labels"].as_object_mut() {
            labels.remove("app.kubernetes.io/version");
        }
    }
    Ok(all)
}

fn of_source(source: &PikaSource, images: &Images, domain: &str) -> Result<Vec<Value>, String> {
    let namespace = source.metadata.namespace.clone().unwrap_or_default();
    let name = source.metadata.name.clone().unwrap_or_default();
    let reference = &source.spec.cluster_ref;
    let cluster = Names {
        namespace: reference.namespace.clone().unwrap_or_else(|| namespace.clone()),
        cluster: reference.name.clone(),
        domain: domain.to_owned(),
    };
    let bootstrap = format!(
        "{}:{}",
        cluster.service_host(&cluster.bootstrap()),
        crate::build::KAFKA_PORT
    );
    let around = Surroundings {
        bootstrap: &bootstrap,
        image: &images.cdc,
        traces: None,
        balancer: None,
    };
    let children = cdc_children(source, &namespace, &name, around)?;
    let spec = &source.spec;
    let mut all: Vec<Value> = cdc_claim(spec, &namespace, &name).into_iter().collect();
    all.extend(cdc_service(spec, &namespace, &name));
    all.extend(cdc_network_policy(spec, &namespace, &name));
    all.extend(children);
    Ok(all)
}
