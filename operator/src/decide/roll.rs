//! The rolling restart: which pod is replaced next, if any may be.
//!
//! Nothing is planned ahead: each pass decides from the pods, the brokers' own words and the broker that is being
//! restarted according to the status. So a restart goes on after the operator was stopped at any point, and ends when the
//! wish that caused it is taken back.
//!
//! Order: pods that do not run, pods that are not ready, brokers other than the controller, the controller.

use std::collections::BTreeMap;
use std::time::Duration;

/// How a pod is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodState {
    /// It is being deleted.
    Terminating,
    /// No process of the broker runs, for this reason; it cannot be made worse.
    NotRunning(String),
    /// It runs but is not ready.
    NotReady,
    /// It is ready.
    Ready,
}

/// A broker's pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Broker id.
    pub broker: i32,
    /// Name of the pod.
    pub name: String,
    /// How it is.
    pub state: PodState,
    /// Why it has to be replaced; empty if it need not be.
    pub reasons: Vec<String>,
}

/// What a broker says, or what others say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Word {
    /// Whether it is to lead nothing.
    pub draining: bool,
    /// Partitions that it leads.
    pub leaders: u64,
    /// Whether it is the controller.
    pub controller: bool,
}

/// What was observed.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// The pods that there are, those that are to go by a smaller cluster left out.
    pub pods: Vec<Pod>,
    /// Brokers that there are to be.
    pub wished: usize,
    /// What brokers say, by id; `None` if none answers.
    pub words: Option<BTreeMap<i32, Word>>,
    /// The pod that is being replaced, according to the status.
    pub current: Option<String>,
    /// How long it has been that.
    pub since: Duration,
    /// How long leaders may take to leave.
    pub drain_timeout: Duration,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing: all pods are as they are to be.
    Done,
    /// Note in the status that it is this pod's turn, and come again.
    Begin {
        /// The pod.
        pod: String,
        /// Why.
        reasons: Vec<String>,
    },
    /// Have the broker lead nothing.
    Drain {
        /// Broker id.
        broker: i32,
    },
    /// Delete the pod without asking: it does not run.
    Replace {
        /// The pod.
        pod: String,
        /// Why.
        reasons: Vec<String>,
    },
    /// Delete the pod if the broker says that it may be stopped.
    ReplaceIfSafe {
        /// The pod.
        pod: String,
        /// Broker id.
        broker: i32,
        /// Why.
        reasons: Vec<String>,
    },
    /// Have the broker lead again.
    Undrain {
        /// Broker id.
        broker: i32,
    },
    /// Nothing can be done now.
    Wait {
        /// The pod that is waited for, or that would be next.
        pod: String,
        /// For what.
        until: String,
    },
}

/// Decides. `Begin` changes nothing but the status; every other step does one thing.
pub fn decide(observed: &Observed) -> Step {
    // A pod that does not run holds up everybody, and needs no permission.
    if let Some(pod) = observed
        .pods
        .iter()
        .find(|pod| is_broken(pod) && !pod.reasons.is_empty())
    {
        return Step::Replace {
            pod: pod.name.clone(),
            reasons: pod.reasons.clone(),
        };
    }
    if let Some(step) = go_on(observed) {
        return step;
    }
    let Some(next) = next(observed) else {
        return Step::Done;
    };
    match blocker(observed, next) {
        Some(until) => Step::Wait {
            pod: next.name.clone(),
            until,
        },
        None => Step::Begin {
            pod: next.name.clone(),
            reasons: next.reasons.clone(),
        },
    }
}

/// Pods that are to be replaced, in order.
pub fn queue(observed: &Observed) -> Vec<&Pod> {
    let mut due: Vec<&Pod> = observed
        .pods
        .iter()
        .filter(|pod| !pod.reasons.is_empty())
        .collect();
    due.sort_by_key(|pod| {
        let word = word(observed, pod.broker);
        let health = match pod.state {
            PodState::NotRunning(_) => 0,
            PodState::Terminating | PodState::NotReady => 1,
            PodState::Ready => 2,
        };
        (
            health,
            word.controller,
            word.leaders > 0,
            std::cmp::Reverse(pod.broker),
        )
    });
    due
}

fn next(observed: &Observed) -> Option<&Pod> {
    queue(observed).into_iter().next()
}

fn is_broken(pod: &Pod) -> bool {
    matches!(pod.state, PodState::NotRunning(_))
}

fn word(observed: &Observed, broker: i32) -> Word {
    let words = observed.words.as_ref();
    words
        .and_then(|words| words.get(&broker))
        .copied()
        .unwrap_or_default()
}

/// What the pod whose turn it is still needs; `None` if that is over.
fn go_on(observed: &Observed) -> Option<Step> {
    let name = observed.current.as_ref()?;
    let wait = |until: &str| {
        Some(Step::Wait {
            pod: name.clone(),
            until: until.to_owned(),
        })
    };
    let Some(pod) = observed.pods.iter().find(|pod| pod.name == *name) else {
        return wait("its pod to be made again");
    };
    match &pod.state {
        PodState::Terminating => return wait("its pod to end"),
        PodState::NotRunning(why) => return wait(&format!("its pod to run: {why}")),
        // With reasons of its own it is replaced below, which may be what makes it ready.
        PodState::NotReady if pod.reasons.is_empty() => return wait("it to become ready"),
        PodState::NotReady | PodState::Ready => {}
    }
    let Some(words) = &observed.words else {
        if pod.state == PodState::NotReady {
            // Nobody answers and this one is not ready: nobody is served whom a restart would disturb.
            return Some(replace_if_safe(pod));
        }
        return wait("a broker to answer on its admin port");
    };
    let word = words.get(&pod.broker).copied().unwrap_or_default();
    if pod.reasons.is_empty() {
        return word.draining.then_some(Step::Undrain { broker: pod.broker });
    }
    if let Some(until) = blocker(observed, pod) {
        return wait(&until);
    }
    if observed.pods.len() > 1 && !word.draining {
        return Some(Step::Drain { broker: pod.broker });
    }
    if observed.pods.len() > 1
        && (word.leaders > 0 || word.controller)
        && observed.since < observed.drain_timeout
    {
        return wait(&format!("its {} leaders to move to other brokers", word.leaders));
    }
    Some(replace_if_safe(pod))
}

fn replace_if_safe(pod: &Pod) -> Step {
    Step::ReplaceIfSafe {
        pod: pod.name.clone(),
        broker: pod.broker,
        reasons: pod.reasons.clone(),
    }
}

/// Another broker that is away keeps `pod` where it is.
fn blocker(observed: &Observed, pod: &Pod) -> Option<String> {
    let others = observed.pods.iter().filter(|other| other.broker != pod.broker);
    let not_ready: Vec<&str> = others
        .clone()
        .filter(|other| other.state != PodState::Ready)
        .map(|other| other.name.as_str())
        .collect();
    if !not_ready.is_empty() {
        return Some(format!("{} to become ready", not_ready.join(", ")));
    }
    let missing = observed.wished.saturating_sub(observed.pods.len());
    (missing > 0).then(|| format!("{missing} pods that are missing"))
}

#[cfg(test)]
mod tests;
