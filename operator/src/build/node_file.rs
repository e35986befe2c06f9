//! The brokers' node file, and which of the wished settings are not in it because they can be set while brokers run.
//!
//! What is known of settings comes from `takhin-config` alone: names, bounds, and whether a restart is needed.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use takhin_config::live::{BrokerConfigFault, check};
use takhin_config::{Sources, load};

use super::names::{ADMIN_PORT, Names, RPC_PORT};
use crate::api::{RebalanceMode, TakhinClusterSpec};

/// Most brokers that found a cluster; more than that would not vote.
const MAX_SEEDS: i32 = 5;

/// Where the token of the admin API is in a broker's pod.
pub(crate) const TOKEN_FILE: &str = "/etc/takhin/admin/token";

/// Where the volume is in a broker's pod. The data is in a directory below: a file system has one of its own at its root.
pub(crate) const VOLUME: &str = "/var/lib/takhin";

/// Whether replicas move by themselves.
const REBALANCE: &str = "takhin.rebalance.enable";

/// What the wished settings come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFile {
    /// The file, in YAML.
    pub text: String,
    /// Changes exactly when brokers have to restart for the file.
    pub hash: String,
    /// Settings under Kafka's names for AlterConfigs.
    pub dynamic: BTreeMap<String, String>,
}

/// The node file of a cluster of which `brokers` brokers are there or wished for.
///
/// # Errors
/// All that is wrong with spec.config, each with the key that it is about.
pub fn node_file(spec: &TakhinClusterSpec, names: &Names, brokers: i32) -> Result<NodeFile, Vec<String>> {
    let mut faults = Vec::new();
    let mut dynamic = BTreeMap::new();
    let mut own = Map::new();
    for (key, value) in &spec.config {
        match sort(key, value) {
            Ok(Place::WhileRunning) => {
                dynamic.insert(key.clone(), value.clone());
            }
            Ok(Place::File) => put(&mut own, key, value),
            Err(fault) => faults.push(fault),
        }
    }
    let rebalance = spec
        .rebalance
        .as_ref()
        .map(|rebalance| rebalance.mode)
        .unwrap_or_default();
    dynamic.insert(
        REBALANCE.to_owned(),
        (rebalance == RebalanceMode::Auto).to_string(),
    );
    let mut file = base(names);
    merge(&mut file, Value::Object(own));
    // Seeds are read when a broker has nothing yet: another list is no reason for a restart.
    let hash = super::hash(&file);
    merge(
        &mut file,
        json!({ "cluster": { "seeds": seeds(names, brokers) } }),
    );
    let text = takhin_config::yaml::to_string(&file).map_err(|error| vec![error.to_string()])?;
    faults.extend(check_file(&text, names));
    if faults.is_empty() {
        Ok(NodeFile { text, hash, dynamic })
    } else {
        Err(faults)
    }
}

impl NodeFile {
    /// Has replicas move off brokers that are to go, and for nothing else.
    pub fn keep_replicas(&mut self) {
        self.dynamic.insert(REBALANCE.to_owned(), false.to_string());
    }
}

/// Where a setting goes.
enum Place {
    WhileRunning,
    File,
}

fn sort(key: &str, value: &str) -> Result<Place, String> {
    match check(key, value) {
        Ok(()) => Ok(Place::WhileRunning),
        Err(BrokerConfigFault::ReadOnly { key }) => Err(format!(
            "spec.config: {key} cannot be set while brokers run; give its place in the node file instead (see the \
             reference of settings), and brokers restart one after the other"
        )),
        Err(BrokerConfigFault::Value(message)) => Err(format!("spec.config: {message}")),
        // The loader knows all places of the file and says which one is meant where there is no such.
        Err(BrokerConfigFault::Unknown { nearest: None, .. }) if key.contains('.') => Ok(Place::File),
        Err(unknown) if is_place(key) => {
            drop(unknown);
            Ok(Place::File)
        }
        Err(unknown) => Err(format!("spec.config: {unknown}")),
    }
}

/// Whether a key begins with a section of the node file.
fn is_place(key: &str) -> bool {
    let sections = [
        "node.",
        "cluster.",
        "kafka.",
        "rpc.",
        "admin.",
        "storage.",
        "telemetry.",
    ];
    sections.iter().any(|section| key.starts_with(section))
}

fn base(names: &Names) -> Value {
    let everywhere = |port: i32| format!("0.0.0.0:{port}");
    // Listeners, id and rack differ from broker to broker: they come from the environment of the pod.
    json!({
        "node": { "data_dir": format!("{VOLUME}/data") },
        "cluster": { "name": format!("{}.{}", names.namespace, names.cluster) },
        "kafka": { "allow_insecure": true },
        "rpc": { "bind": everywhere(RPC_PORT), "allow_insecure": true },
        "admin": { "bind": everywhere(ADMIN_PORT), "allow_insecure": true, "token_file": TOKEN_FILE },
        "telemetry": { "log_format": "json" },
    })
}

fn seeds(names: &Names, brokers: i32) -> Vec<String> {
    (0..brokers.clamp(1, MAX_SEEDS))
        .map(|broker| format!("{}:{RPC_PORT}", names.pod_host(&names.pod(broker))))
        .collect()
}

fn put(tree: &mut Map<String, Value>, path: &str, value: &str) {
    match path.split_once('.') {
        Some((section, rest)) => {
            let below = tree.entry(section).or_insert_with(|| Value::Object(Map::new()));
            if let Value::Object(below) = below {
                put(below, rest, value);
            }
        }
        None => {
            tree.insert(path.to_owned(), Value::String(value.to_owned()));
        }
    }
}

fn merge(below: &mut Value, over: Value) {
    match (below, over) {
        (Value::Object(below), Value::Object(over)) => {
            for (key, value) in over {
                merge(below.entry(key).or_insert(Value::Null), value);
            }
        }
        (below, over) => *below = over,
    }
}

/// What the broker would say of the file.
fn check_file(text: &str, names: &Names) -> Vec<String> {
    let own = [
        format!("node.id={}", 0),
        format!("rpc.advertise={}:{RPC_PORT}", names.pod_host(&names.pod(0))),
        format!(
            "kafka.listeners=[{{name: internal, bind: \"0.0.0.0:9092\", advertise: \"{}:9092\"}}]",
            names.pod_host(&names.pod(0))
        ),
    ];
    let sources = Sources {
        file: Some(("spec.config".to_owned(), text.to_owned())),
        set: own.to_vec(),
        ..Sources::default()
    };
    match load(&sources) {
        Ok(_) => Vec::new(),
        Err(error) => error.faults.iter().map(ToString::to_string).collect(),
    }
}
