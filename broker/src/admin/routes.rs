//! The table of endpoints: dispatch, metrics and the OpenAPI document come from it.

use std::collections::BTreeSet;

use serde_json::Value;

use super::model;
use super::shape::{Shape as _, Shapes};

/// What an endpoint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Endpoint {
    Node,
    Health,
    Reassignments,
    Brokers,
    Drain,
    Undrain,
    DrainProgress,
    Decommission,
    Recommission,
    DecommissionProgress,
    RestartSafety,
}

/// One endpoint.
pub(super) struct Route {
    /// `GET` or `POST`. What is got can also be asked for its head.
    pub(super) method: &'static str,
    /// Path with parameters in braces.
    pub(super) path: &'static str,
    pub(super) endpoint: Endpoint,
    /// Name for generated clients.
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) text: &'static str,
    pub(super) answer: fn(&mut Shapes) -> Value,
    /// What 409 means, if it may be answered.
    pub(super) conflict: Option<&'static str>,
}

/// All endpoints.
pub(super) const TABLE: &[Route] = &[
    Route {
        method: "GET",
        path: "/v1/node",
        endpoint: Endpoint::Node,
        name: "getNode",
        summary: "This broker",
        text: "Who this broker is, what it carries, and why it is not ready if it is not.",
        answer: model::Node::schema,
        conflict: None,
    },
    Route {
        method: "GET",
        path: "/v1/cluster/health",
        endpoint: Endpoint::Health,
        name: "getClusterHealth",
        summary: "Whether the cluster is healthy",
        text: "All that is wrong with the cluster as this broker sees it: any broker can be asked. Of each kind of \
               reason up to 20 are listed and all are counted.",
        answer: model::ClusterHealth::schema,
        conflict: None,
    },
    Route {
        method: "GET",
        path: "/v1/cluster/reassignments",
        endpoint: Endpoint::Reassignments,
        name: "listReassignments",
        summary: "Replicas that are being moved",
        text: "The partitions whose replicas are being changed, up to 1000 of them, and how many there are. What a new \
               replica still lacks only the partition's leader knows: ask that broker.",
        answer: model::Reassignments::schema,
        conflict: None,
    },
    Route {
        method: "GET",
        path: "/v1/brokers",
        endpoint: Endpoint::Brokers,
        name: "listBrokers",
        summary: "All registered brokers",
        text: "Every broker of the cluster with its state and what it carries, as this broker sees it.",
        answer: model::Brokers::schema,
        conflict: None,
    },
    Route {
        method: "POST",
        path: "/v1/brokers/{id}/drain",
        endpoint: Endpoint::Drain,
        name: "drainBroker",
        summary: "Have a broker lead nothing",
        text: "From now on leadership leaves the broker and none comes back, also after it restarts, until it is \
               undrained. New partitions go to other brokers as long as there are enough. It keeps its replicas, and \
               leads what no other broker can. May be repeated.",
        answer: model::Drain::schema,
        conflict: None,
    },
    Route {
        method: "POST",
        path: "/v1/brokers/{id}/undrain",
        endpoint: Endpoint::Undrain,
        name: "undrainBroker",
        summary: "Have a broker lead again",
        text: "Leadership comes back to the broker where it is the preferred replica, within half a minute. May be \
               repeated.",
        answer: model::Drain::schema,
        conflict: None,
    },
    Route {
        method: "GET",
        path: "/v1/brokers/{id}/drain",
        endpoint: Endpoint::DrainProgress,
        name: "getDrain",
        summary: "How far a broker is drained",
        text: "What the broker still leads, and which partitions no other broker can lead at the moment.",
        answer: model::Drain::schema,
        conflict: None,
    },
    Route {
        method: "POST",
        path: "/v1/brokers/{id}/decommission",
        endpoint: Endpoint::Decommission,
        name: "decommissionBroker",
        summary: "Take a broker out of the cluster",
        text: "From now on the broker's replicas move to the other brokers, its vote on the metadata and all that it leads \
               go to them too, and it gets none of it back until it is recommissioned; also if it is dead. At most \
               `cluster.rebalance.max_moves` partitions are moved at a time. When `done` is true, stop it for good and \
               unregister it with Kafka's `kafka-cluster.sh unregister`. May be repeated.",
        answer: model::Decommission::schema,
        conflict: Some(
            "The broker is needed: the brokers that would be left are too few for the replicas of some topics, which are \
             named (`urn:takhin:problem:broker_needed`), or to vote on the metadata (`urn:takhin:problem:voter_needed`).",
        ),
    },
    Route {
        method: "POST",
        path: "/v1/brokers/{id}/recommission",
        endpoint: Endpoint::Recommission,
        name: "recommissionBroker",
        summary: "Keep a broker after all",
        text: "Moves that are under way go on. Then replicas become even again over all brokers, this one among them, unless \
               `cluster.rebalance.enabled` is false. May be repeated.",
        answer: model::Decommission::schema,
        conflict: None,
    },
    Route {
        method: "GET",
        path: "/v1/brokers/{id}/decommission",
        endpoint: Endpoint::DecommissionProgress,
        name: "getDecommission",
        summary: "How far a broker is decommissioned",
        text: "What the broker still has, and which of its replicas cannot leave at the moment.",
        answer: model::Decommission::schema,
        conflict: None,
    },
    Route {
        method: "GET",
        path: "/v1/brokers/{id}/restart-safety",
        endpoint: Endpoint::RestartSafety,
        name: "getRestartSafety",
        summary: "Whether a broker may be stopped now",
        text: "Safe means that nobody would notice: every partition with a replica on the broker keeps as many replicas \
               in sync as its writes need, all other brokers are there and have caught up, and the controller's group \
               keeps a majority. What is unknown counts as unsafe. Drain the broker first, so that no client waits for \
               an election. Where `waiting_helps` is false the reasons belong to the placement (too few replicas): the \
               broker can only be stopped at their cost.",
        answer: model::RestartSafety::schema,
        conflict: None,
    },
];

/// What a request's method and path lead to.
pub(super) enum Matched {
    /// An endpoint, and the values of its parameters in the order of the path.
    Route(&'static Route, Vec<String>),
    /// The path is there for these methods.
    OtherMethods(BTreeSet<&'static str>),
    Nothing,
}

/// Looks a request up.
pub(super) fn find(method: &str, path: &str) -> Matched {
    let method = if method == "HEAD" { "GET" } else { method };
    let mut others = BTreeSet::new();
    for route in TABLE {
        match parameters(route.path, path) {
            Some(parameters) if route.method == method => return Matched::Route(route, parameters),
            Some(_) => drop(others.insert(route.method)),
            None => {}
        }
    }
    if others.is_empty() {
        Matched::Nothing
    } else {
        Matched::OtherMethods(others)
    }
}

/// The parts of `path` where `template` has braces; `None` if it is another path.
fn parameters(template: &str, path: &str) -> Option<Vec<String>> {
    let mut found = Vec::new();
    let (mut wanted, mut given) = (template.split('/'), path.split('/'));
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return Some(found),
            (Some(wanted), Some(given)) if wanted.starts_with('{') => found.push(given.to_owned()),
            (Some(wanted), Some(given)) if wanted == given => {}
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> Option<(Endpoint, Vec<String>)> {
        match find(method, path) {
            Matched::Route(route, parameters) => Some((route.endpoint, parameters)),
            Matched::OtherMethods(_) | Matched::Nothing => None,
        }
    }

    #[test]
    fn a_path_leads_to_one_endpoint() {
        for route in TABLE {
            let path = route.path.replace("{id}", "7");
            let parameters = if path == route.path {
                vec![]
            } else {
                vec!["7".to_owned()]
            };
            assert_eq!(found(route.method, &path), Some((route.endpoint, parameters)));
        }
        assert_eq!(found("HEAD", "/v1/node"), Some((Endpoint::Node, vec![])));
        for path in [
            "/v1",
            "/v1/",
            "/v1/node/",
            "/v1/nodes",
            "/v1/brokers/1/drain/x",
            "/v1/brokers/1",
        ] {
            assert!(matches!(find("GET", path), Matched::Nothing), "{path}");
        }
        let others = find("DELETE", "/v1/brokers/1/drain");
        assert!(matches!(others, Matched::OtherMethods(methods) if methods == ["GET", "POST"].into()));
    }
}
