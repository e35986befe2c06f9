//! Rules between settings; each says which ones disagree and what to change.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use crate::node::NodeConfig;
use crate::section::Reader;
use crate::tree::Origin;

/// Checks the rules; values that could not be read stand there with their defaults.
pub(crate) fn validate(config: &NodeConfig, reader: &mut Reader) {
    addresses(config, reader);
    exposure(config, reader);
    sizes(config, reader);
    alone(config, reader);
}

fn fault(reader: &mut Reader, path: &str, message: String) {
    let origin = reader.origins.get(path).cloned().unwrap_or(Origin::Default);
    reader.fault(path, &origin, message);
}

fn addresses(config: &NodeConfig, reader: &mut Reader) {
    if config.kafka.listeners.is_empty() {
        let message = "is empty: no client could connect; leave it out for 127.0.0.1:9092".to_owned();
        fault(reader, "kafka.listeners", message);
    }
    let mut names = BTreeSet::new();
    for (index, listener) in config.kafka.listeners.iter().enumerate() {
        let path = format!("kafka.listeners.{index}");
        if !names.insert(&listener.name) {
            let message = format!("is {:?} twice; give each listener its own name", listener.name);
            fault(reader, &format!("{path}.name"), message);
        }
        if listener.bind.ip().is_unspecified() && listener.advertise.is_none() {
            let message = format!(
                "has no value: clients cannot connect to {}; set it to an address that they reach",
                listener.bind.ip()
            );
            fault(reader, &format!("{path}.advertise"), message);
        }
    }
    if config.rpc.bind.ip().is_unspecified() && config.rpc.advertise.is_none() {
        let message = format!(
            "has no value: other brokers cannot connect to {}",
            config.rpc.bind.ip()
        );
        fault(reader, "rpc.advertise", message);
    }
    let mut taken = BTreeSet::new();
    for (path, bind) in binds(config) {
        if bind.port() != 0 && !taken.insert(bind) {
            fault(
                reader,
                &path,
                format!("is {bind}, which another listener has; choose another port"),
            );
        }
    }
}

fn binds(config: &NodeConfig) -> Vec<(String, SocketAddr)> {
    let kafka = config.kafka.listeners.iter().enumerate();
    let mut binds: Vec<_> = kafka
        .map(|(i, listener)| (format!("kafka.listeners.{i}.bind"), listener.bind))
        .collect();
    binds.push(("rpc.bind".to_owned(), config.rpc.bind));
    binds.push(("admin.bind".to_owned(), config.admin.bind));
    binds
}

/// Without TLS and authentication only this machine may connect, unless somebody has said otherwise.
fn exposure(config: &NodeConfig, reader: &mut Reader) {
    for (path, bind) in binds(config) {
        let (section, allowed) = match path.split('.').next() {
            Some("rpc") => ("rpc", config.rpc.allow_insecure),
            Some("admin") => ("admin", config.admin.allow_insecure),
            _ => ("kafka", config.kafka.allow_insecure),
        };
        if !bind.ip().is_loopback() && !allowed {
            let message = format!(
                "is {bind}, which other machines reach without encryption or authentication; bind 127.0.0.1, or \
                 set {section}.allow_insecure to true if the network is closed to others"
            );
            fault(reader, &path, message);
        }
    }
}

fn sizes(config: &NodeConfig, reader: &mut Reader) {
    let limits = &config.kafka.limits;
    let rules = [
        (
            "kafka.message_max_bytes",
            config.kafka.message_max_bytes,
            "storage.segment_size",
            config.storage.segment_size,
        ),
        (
            "kafka.message_max_bytes",
            config.kafka.message_max_bytes,
            "kafka.limits.max_request_size",
            limits.max_request_size,
        ),
        (
            "kafka.limits.max_request_size",
            limits.max_request_size,
            "kafka.limits.max_request_memory",
            limits.max_request_memory,
        ),
    ];
    for (small, small_value, large, large_value) in rules {
        if small_value > large_value {
            fault(
                reader,
                small,
                format!("is {small_value}, more than {large} ({large_value}); change one of them"),
            );
        }
    }
    if limits.max_connections_per_ip > limits.max_connections
        && reader.is_set("kafka.limits.max_connections_per_ip")
    {
        let message = format!(
            "is more than kafka.limits.max_connections ({})",
            limits.max_connections
        );
        fault(reader, "kafka.limits.max_connections_per_ip", message);
    }
}

/// A broker that is alone by its seeds can keep one replica only.
fn alone(config: &NodeConfig, reader: &mut Reader) {
    let own = config.rpc.configured();
    if config.cluster.seeds.iter().all(|seed| *seed == own) && config.kafka.default_replication_factor > 1 {
        let message = "is more than the number of brokers, 1, in cluster.seeds".to_owned();
        fault(reader, "kafka.default_replication_factor", message);
    }
}
