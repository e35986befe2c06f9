//! How several nodes become one cluster, and how a node comes to one that exists.
//!
//! Every node has the same list of seeds. A node whose metadata group holds nothing asks all seeds how they stand:
//! - one of them belongs to a cluster: the node asks that cluster's controller to take it in;
//! - all have answered, none belongs to a cluster, and their lists agree: the one with the lowest id founds it, with the
//!   seeds as voters; the others wait until they hear of it.
//!
//! Invariants
//! - At most one cluster is founded. Only one node may found, it must have heard every seed say that it belongs to none,
//!   and its word of founding is durable before anybody else hears of it. If it stops in between, nobody else founds, as
//!   it does not answer; when it is back it belongs to the cluster.
//! - A node that is refused leaves a new directory empty, unless it has promised anything (`DataDir::discard`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use takhin_runtime::Env;
use uuid::Uuid;

use super::exchange::{self, Exchange};
use super::forward::{Command, Obeyed};
use super::{ClusterOptions, node_number};
use crate::controller::{Controller, TopicError};
use crate::links::{Class, Kind, LinkError, Links};
use crate::raft::{Group, Voter};
use crate::survey::{is_skewed, skew};

/// Pause between two rounds of questions.
const ROUND: Duration = Duration::from_millis(200);

/// Pause between two looks whether the metadata log is open.
const OPENING: Duration = Duration::from_millis(10);

/// How long one seed may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// How often a node that waits says what for.
const REPORT: Duration = Duration::from_secs(10);

/// Most voters that a cluster is founded with.
const MAX_FOUNDERS: usize = 5;

/// How a node stands to its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Standing {
    pub(crate) node: i32,
    pub(crate) directory: Uuid,
    pub(crate) cluster_name: String,
    /// The id of its cluster; empty if it knows none. Brokers of earlier builds do not say.
    #[serde(default)]
    pub(crate) cluster_id: String,
    /// The seeds of its configuration.
    pub(crate) seeds: BTreeSet<String>,
    /// Its wall clock as it says this, milliseconds since 1970. Brokers of earlier builds do not say.
    #[serde(default)]
    pub(crate) clock_ms: Option<i64>,
    /// Whether its metadata group holds anything.
    pub(crate) is_member: bool,
    /// Whom it takes for the controller; -1 if nobody.
    pub(crate) controller: i32,
    /// Where brokers are reached.
    pub(crate) addresses: BTreeMap<i32, String>,
}

/// Why a node can be no part of the cluster that its seeds are of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormingError {
    /// The seeds have other names for the cluster.
    #[error(
        "{address} belongs to cluster {theirs}, this broker to {ours}: correct cluster.name or cluster.seeds"
    )]
    OtherName {
        /// The seed.
        address: String,
        /// Its cluster.
        theirs: String,
        /// This node's.
        ours: String,
    },
    /// The lists of seeds differ.
    #[error(
        "{address} has the seeds {theirs}, this broker has {ours}: cluster.seeds must be the same list on every broker"
    )]
    OtherSeeds {
        /// The seed.
        address: String,
        /// Its list.
        theirs: String,
        /// This node's.
        ours: String,
    },
    /// Two nodes have one id.
    #[error("{address} has node id {id} too: give every broker a node.id of its own")]
    SameId {
        /// The other node.
        address: String,
        /// The id.
        id: i32,
    },
    /// The seeds are of several clusters that have one name.
    #[error(
        "{address} belongs to cluster {theirs}, {other} to {others}, and both are called {name}: cluster.seeds must name brokers \
         of one cluster only"
    )]
    TwoClusters {
        /// A seed.
        address: String,
        /// The id of its cluster.
        theirs: String,
        /// Another one.
        other: String,
        /// The id of that one's cluster.
        others: String,
        /// The name of both.
        name: String,
    },
    /// The wall clocks differ by more than a minute.
    #[error(
        "the clock of {address} is {difference} this broker's: synchronize the clocks of both machines, and start it again"
    )]
    OtherTime {
        /// The seed.
        address: String,
        /// How far, and in which direction.
        difference: String,
    },
    /// This node is not in the list that it would found a cluster with.
    #[error(
        "none of the seeds {seeds} belongs to a cluster, and this broker's rpc.advertise {own} is not one of them"
    )]
    NotASeed {
        /// The seeds.
        seeds: String,
        /// This node's address.
        own: String,
    },
    /// A broker of the cluster wants no link with this one.
    #[error("{address} does not take this broker in: {reason}")]
    NotWanted {
        /// The broker.
        address: String,
        /// Why, and what can be done.
        reason: String,
    },
    /// The cluster does not take it in.
    #[error("the cluster does not take this broker in: {0}")]
    Refused(TopicError),
}

/// What this node makes of the seeds' answers.
enum Verdict {
    /// Ask the controller of this member's cluster.
    Join(Standing),
    /// Found a cluster with these voters.
    Found(BTreeMap<u64, Voter>),
    /// Ask again.
    Wait(String),
}

/// How seeds stand, by address; an error of a seed is why it did not say.
type Answers = BTreeMap<String, Result<Standing, LinkError>>;

/// What asking the seeds has shown.
struct Seeds {
    answers: Answers,
    /// Under which of the addresses each broker has answered just now.
    found: BTreeMap<i32, String>,
}

pub(super) struct Forming<'a> {
    pub(super) env: &'a Env,
    pub(super) links: &'a Arc<dyn Links>,
    pub(super) exchange: &'a Exchange,
    pub(super) metadata: &'a Arc<Group>,
    pub(super) controller: &'a Controller,
    pub(super) options: &'a ClusterOptions,
    /// Where other brokers were when this one ran last, by id: its seeds may be where nobody is any more.
    pub(super) remembered: BTreeMap<u32, String>,
}

impl Forming<'_> {
    /// Returns once this node belongs to a cluster that knows it as it is now, and has the metadata up to there.
    ///
    /// # Errors
    /// [`FormingError`]: a person has to act.
    pub(super) async fn run(&self) -> Result<(), FormingError> {
        let mut report_at = self.env.clock.instant() + REPORT;
        self.links.add_peers(self.remembered.clone());
        loop {
            let waiting_for = match self.metadata.is_initialized().await {
                // A member would be judged as a broker that comes anew.
                None => {
                    self.env.clock.sleep(OPENING).await;
                    continue;
                }
                Some(true) => {
                    self.exchange.standing.lock().is_member = true;
                    if self.is_entered() {
                        return Ok(());
                    }
                    match self.enter().await? {
                        Some(waiting_for) => waiting_for,
                        None => continue,
                    }
                }
                Some(false) => {
                    let seeds = self.ask_seeds().await;
                    let judged = seeds.and_then(|seeds| Ok((self.judge(seeds.answers)?, seeds.found)));
                    let (verdict, found) = match judged {
                        Ok(judged) => judged,
                        Err(error) => {
                            // Whoever is meant finds the same as long as this node answers, and does not wait for it in vain.
                            self.env.clock.sleep(ANSWER).await;
                            return Err(error);
                        }
                    };
                    match verdict {
                        Verdict::Found(founders) => {
                            tracing::info!(voters = ?founders.keys().collect::<Vec<_>>(), "founding the cluster");
                            self.metadata.found(founders).await;
                            continue;
                        }
                        Verdict::Join(mut member) => {
                            member.addresses.extend(found);
                            self.join(&member).await?
                        }
                        Verdict::Wait(reason) => reason,
                    }
                }
            };
            if self.env.clock.instant() >= report_at {
                report_at = self.env.clock.instant() + REPORT;
                tracing::warn!(waiting_for, "not part of a cluster yet");
            }
            self.env.clock.sleep(ROUND).await;
        }
    }

    fn is_entered(&self) -> bool {
        let image = self.controller.image();
        !image.cluster_id.is_empty()
            && image.brokers.get(&self.options.broker.id) == Some(&self.options.broker)
    }

    /// Has the controller enter this broker as it is now; returns what is waited for then, if anything is.
    async fn enter(&self) -> Result<Option<String>, FormingError> {
        if self.metadata.spec.partition.leadership().is_some() {
            let entered = self.controller.enter(&self.options.broker).await;
            return match entered {
                Err(refused @ TopicError::NodeIdTaken { .. }) => Err(FormingError::Refused(refused)),
                Err(error) => Ok(Some(error.to_string())),
                Ok(()) => Ok(None),
            };
        }
        // Addresses may have changed while this node was away; those of its own log are not to be relied on.
        let seeds = self.ask_seeds().await?;
        let mut standing = self.exchange.standing.lock().clone();
        let answers = seeds.answers.into_values();
        let mut members: Vec<Standing> = answers.flatten().collect();
        members.extend(self.ask_remembered(&seeds.found).await);
        // Links refuse brokers of clusters with other ids, but one may know its id as little as this broker does.
        members.retain(|member| member.is_member && member.cluster_name == standing.cluster_name);
        // The controller cannot tell a broker of itself that it does not know the address of yet.
        let told = controller_of(&members, self.options.broker.id);
        // It knows best where everybody is, apart from those who have answered just now.
        members.sort_by_key(|member| member.controller == member.node);
        let answered: Vec<i32> = members.iter().map(|member| member.node).collect();
        for member in members {
            standing.addresses.extend(member.addresses);
        }
        for (node, address) in &self.remembered {
            if let Ok(id) = i32::try_from(*node)
                && answered.contains(&id)
            {
                standing.addresses.insert(id, address.clone());
            }
        }
        // Nor those of the others' logs, where all were away.
        standing.addresses.extend(seeds.found);
        let heard = self
            .metadata
            .leader()
            .and_then(|leader| i32::try_from(leader).ok());
        match told.or(heard) {
            Some(leader) if leader != self.options.broker.id => {
                standing.controller = leader;
                self.join(&standing).await.map(Some)
            }
            Some(_) | None => Ok(Some("the cluster to elect a controller".to_owned())),
        }
    }

    /// How the other seeds stand, and who answers where.
    async fn ask_seeds(&self) -> Result<Seeds, FormingError> {
        let own = &self.options.broker;
        let mut answers = BTreeMap::new();
        let mut peers = BTreeMap::new();
        for address in self.options.seeds.iter().filter(|seed| **seed != own.rpc) {
            match self.links.hello(address, ANSWER).await {
                Ok((node, directory)) if directory == self.exchange.standing.lock().directory => {
                    tracing::debug!(address, node, "this seed is this broker under another address");
                }
                // There is no link to oneself on which it could say more.
                Ok((node, _)) if i32::try_from(node) == Ok(own.id) => {
                    return Err(FormingError::SameId {
                        address: address.clone(),
                        id: own.id,
                    });
                }
                Ok((node, _)) => {
                    peers.insert(node, address.clone());
                }
                Err(error) => {
                    answers.insert(address.clone(), Err(error));
                }
            }
        }
        self.links.add_peers(peers.clone());
        let found = peers
            .iter()
            .filter_map(|(node, address)| Some((i32::try_from(*node).ok()?, address.clone())))
            .collect();
        for (node, address) in peers {
            let answer = self.standing_of(node).await;
            if let Err(LinkError::NotWanted { reason, .. }) = answer {
                return Err(FormingError::NotWanted { address, reason });
            }
            answers.insert(address, answer);
        }
        Ok(Seeds { answers, found })
    }

    /// How those stand who are not found by the seeds, as far as they are still where they were.
    async fn ask_remembered(&self, found: &BTreeMap<i32, String>) -> Vec<Standing> {
        let is_found = |node: &u32| i32::try_from(*node).is_ok_and(|id| found.contains_key(&id));
        let others = self.remembered.keys().filter(|node| !is_found(node));
        let asked = join_all(others.map(|node| self.standing_of(*node))).await;
        asked.into_iter().flatten().collect()
    }

    async fn standing_of(&self, node: u32) -> Result<Standing, LinkError> {
        let asked = self
            .links
            .call(node, Class::Control, 0, Kind::Standing, Vec::new(), ANSWER);
        let reason = |e: serde_json::Error| LinkError::Refused {
            node,
            reason: e.to_string(),
        };
        serde_json::from_slice(&asked.await?).map_err(reason)
    }

    fn judge(&self, answers: Answers) -> Result<Verdict, FormingError> {
        let own = self.exchange.standing.lock().clone();
        let mut missing = Vec::new();
        let mut standings = vec![own.clone()];
        let mut clusters = BTreeMap::new();
        for (address, answer) in answers {
            match answer {
                Ok(theirs) => {
                    check(&own, &theirs, &address)?;
                    check_clock(self.env.clock.now_ms(), &theirs, &address)?;
                    if !theirs.cluster_id.is_empty() {
                        clusters.insert(theirs.cluster_id.clone(), address);
                    }
                    standings.push(theirs);
                }
                // Nobody knows yet who is there.
                Err(LinkError::Unreachable { reason, .. }) => missing.push(format!("{address} ({reason})")),
                Err(error) => missing.push(format!("{address} ({error})")),
            }
        }
        one_cluster(clusters, &own.cluster_name)?;
        if let Some(member) = standings.iter().find(|standing| standing.is_member) {
            return Ok(Verdict::Join(member.clone()));
        }
        if !missing.is_empty() {
            return Ok(Verdict::Wait(format!("an answer of {}", missing.join(", "))));
        }
        if !own.seeds.contains(&self.options.broker.rpc) {
            return Err(FormingError::NotASeed {
                seeds: list(&own.seeds),
                own: self.options.broker.rpc.clone(),
            });
        }
        standings.sort_by_key(|standing| standing.node);
        if standings[0].node != own.node {
            return Ok(Verdict::Wait(format!(
                "node {} to found the cluster",
                standings[0].node
            )));
        }
        // An even number of voters survives no more failures than one less.
        let count = standings.len().min(MAX_FOUNDERS);
        let count = count - usize::from(count % 2 == 0);
        let voter = |standing: &Standing| {
            let directory = standing.directory;
            (node_number(standing.node), Voter { directory })
        };
        Ok(Verdict::Found(standings[..count].iter().map(voter).collect()))
    }

    /// Asks to be taken in; returns what is waited for then.
    async fn join(&self, member: &Standing) -> Result<String, FormingError> {
        let others = member
            .addresses
            .iter()
            .filter(|(id, _)| **id != self.options.broker.id);
        let peers = others.map(|(id, address)| (id.unsigned_abs(), address.clone()));
        let mut peers: BTreeMap<u32, String> = peers.collect();
        peers.retain(|_, address| !address.is_empty());
        let Some(controller) = u32::try_from(member.controller).ok() else {
            return Ok("the cluster to elect a controller".to_owned());
        };
        self.links.add_peers(peers);
        let command = Command::Register(self.options.broker.clone());
        let body = exchange::encode(&command).unwrap_or_default();
        let call = self
            .links
            .call(controller, Class::Control, 0, Kind::Command, vec![body], ANSWER);
        let answer: Obeyed = match call.await {
            Ok(body) => serde_json::from_slice(&body).unwrap_or(Err(TopicError::NotController)),
            Err(error) => return Ok(format!("controller {controller} ({error})")),
        };
        match answer {
            Ok(_) => Ok("the cluster's metadata".to_owned()),
            Err(refused @ TopicError::NodeIdTaken { .. }) => Err(FormingError::Refused(refused)),
            Err(error) => Ok(format!("controller {controller} ({error})")),
        }
    }
}

/// Whom members take for the controller, broker `own` apart: whoever says so of itself, else the one that most name.
fn controller_of(members: &[Standing], own: i32) -> Option<i32> {
    let mut words: BTreeMap<i32, usize> = BTreeMap::new();
    for member in members
        .iter()
        .filter(|member| member.controller >= 0 && member.controller != own)
    {
        let weight = match member.controller == member.node {
            true => members.len(),
            false => 1,
        };
        *words.entry(member.controller).or_default() += weight;
    }
    words
        .into_iter()
        .max_by_key(|(_, words)| *words)
        .map(|(controller, _)| controller)
}

/// Whether two seeds can be of one cluster.
fn check(own: &Standing, theirs: &Standing, address: &str) -> Result<(), FormingError> {
    let address = address.to_owned();
    if own.cluster_name != theirs.cluster_name {
        return Err(FormingError::OtherName {
            address,
            theirs: theirs.cluster_name.clone(),
            ours: own.cluster_name.clone(),
        });
    }
    if own.node == theirs.node && own.directory != theirs.directory {
        return Err(FormingError::SameId {
            address,
            id: own.node,
        });
    }
    // A cluster that exists may have got other seeds since.
    if own.seeds != theirs.seeds && !theirs.is_member {
        return Err(FormingError::OtherSeeds {
            address,
            theirs: list(&theirs.seeds),
            ours: list(&own.seeds),
        });
    }
    Ok(())
}

/// Whether a seed has about the time that this node has. Its answer was on its way for a few seconds at most.
fn check_clock(now_ms: i64, theirs: &Standing, address: &str) -> Result<(), FormingError> {
    match theirs.clock_ms.map(|clock| clock - now_ms) {
        Some(ahead) if is_skewed(ahead) => Err(FormingError::OtherTime {
            address: address.to_owned(),
            difference: skew(ahead),
        }),
        _ => Ok(()),
    }
}

/// Refuses seeds of several clusters, given by their ids.
fn one_cluster(clusters: BTreeMap<String, String>, name: &str) -> Result<(), FormingError> {
    let mut clusters = clusters.into_iter();
    match (clusters.next(), clusters.next()) {
        (Some((theirs, address)), Some((others, other))) => Err(FormingError::TwoClusters {
            address,
            theirs,
            other,
            others,
            name: name.to_owned(),
        }),
        _ => Ok(()),
    }
}

fn list(seeds: &BTreeSet<String>) -> String {
    seeds.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
