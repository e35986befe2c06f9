//! Which topics of which clusters are to be looked at, and when.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use kube::ResourceExt as _;
use takhin_runtime::Clock;
use takhin_runtime::clock::Instant;

use super::{ClusterKey, Fingerprints};
use crate::api::{MANAGED, PAUSE, TakhinCluster, Topic};

/// How long the first change waits for others to join it.
pub(super) const DEBOUNCE: Duration = Duration::from_millis(100);

/// Pause before what is under way is looked at again.
const SOON: Duration = Duration::from_secs(2);

/// The longest such pause: it is twice as long each time that nothing has come further.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Passes at a time, each over the topics of one cluster.
const MAX_PASSES: usize = 8;

/// Topics with something under way, by name, and whether that has come further since the last look.
pub(super) type Pending = BTreeMap<String, bool>;

/// Topics to be looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Work {
    /// All of them.
    pub(super) all: bool,
    /// These, by their names in the cluster.
    pub(super) names: BTreeSet<String>,
}

impl Work {
    pub(super) fn all() -> Self {
        Self {
            all: true,
            names: BTreeSet::new(),
        }
    }

    pub(super) fn of(names: impl IntoIterator<Item = String>) -> Self {
        Self {
            all: false,
            names: names.into_iter().collect(),
        }
    }
}

/// When what is to be looked at. What is waited for long, such as all topics once in a while, stays due then when single ones are
/// looked at before: otherwise each of thousands that are made would have all of them looked at.
#[derive(Default)]
struct Due {
    all: Option<Instant>,
    names: Option<(Instant, BTreeSet<String>)>,
}

impl Due {
    fn at(&self) -> Option<Instant> {
        let names = self.names.as_ref().map(|(at, _)| *at);
        self.all.into_iter().chain(names).min()
    }

    /// What is due by now.
    fn take(&mut self, now: Instant) -> Work {
        let all = self.all.take_if(|at| *at <= now).is_some();
        let names = self.names.take_if(|(at, _)| all || *at <= now);
        Work {
            all,
            names: names.map(|(_, names)| names).unwrap_or_default(),
        }
    }
}

pub(super) struct Dirty {
    clock: Clock,
    due: BTreeMap<ClusterKey, Due>,
    running: HashSet<ClusterKey>,
    /// Looks in a row that have found a topic as far as before.
    pending: BTreeMap<ClusterKey, BTreeMap<String, u32>>,
    fingerprints: Fingerprints,
}

impl Dirty {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            due: BTreeMap::new(),
            running: HashSet::new(),
            pending: BTreeMap::new(),
            fingerprints: Fingerprints::new(),
        }
    }

    /// Something is to be looked at after a while; with what of its like is waiting already, at the earlier of both times.
    pub(super) fn mark(&mut self, key: ClusterKey, work: Work, after: Duration) {
        let at = self.clock.instant() + after;
        let due = self.due.entry(key).or_default();
        if work.all {
            due.all = Some(due.all.map_or(at, |before| before.min(at)));
        }
        if !work.names.is_empty() {
            let (when, names) = due.names.get_or_insert_with(|| (at, BTreeSet::new()));
            *when = at.min(*when);
            names.extend(work.names);
        }
    }

    /// What is due now and not being looked at.
    pub(super) fn take_due(&mut self) -> Option<(ClusterKey, Work)> {
        if self.running.len() >= MAX_PASSES {
            return None;
        }
        let now = self.clock.instant();
        let is_due = |(key, due): &(&ClusterKey, &mut Due)| {
            due.at().is_some_and(|at| at <= now) && !self.running.contains(*key)
        };
        let (key, due) = self.due.iter_mut().find(is_due)?;
        let (key, work) = (key.clone(), due.take(now));
        if due.at().is_none() {
            self.due.remove(&key);
        }
        self.running.insert(key.clone());
        Some((key, work))
    }

    /// The pass over a cluster's topics has ended.
    pub(super) fn finished(&mut self, key: &ClusterKey) {
        self.running.remove(key);
    }

    /// A pass over these topics has found some of them with something under way, which is to be looked at again.
    pub(super) fn under_way(&mut self, key: &ClusterKey, over: &Work, pending: Pending) {
        let mut looks = self.pending.remove(key).unwrap_or_default();
        looks.retain(|name, _| pending.contains_key(name) || !(over.all || over.names.contains(name)));
        let mut after = MAX_PAUSE;
        for (name, has_moved) in &pending {
            let same = looks.entry(name.clone()).or_default();
            *same = if *has_moved { 0 } else { same.saturating_add(1) };
            after = after.min(SOON * (1 << same.saturating_sub(1).min(4)));
        }
        if !looks.is_empty() {
            self.pending.insert(key.clone(), looks);
        }
        self.mark(key.clone(), Work::of(pending.into_keys()), after);
    }

    /// Returns when something becomes due; never if nothing is waited for.
    pub(super) async fn wait(&self, may_start: bool) {
        let full = self.running.len() >= MAX_PASSES;
        let idle = self.due.iter().filter(|(key, _)| !self.running.contains(*key));
        match idle.filter_map(|(_, due)| due.at()).min() {
            Some(at) if may_start && !full => self.clock.sleep_until(at).await,
            _ => std::future::pending().await,
        }
    }

    /// The work that a topic's change makes, if what has changed matters.
    pub(super) fn topic_changed(&mut self, topic: &Topic) -> Option<Work> {
        let print = fingerprint(|hasher| {
            topic.metadata.generation.hash(hasher);
            topic.metadata.deletion_timestamp.is_some().hash(hasher);
            topic.finalizers().hash(hasher);
            for name in [MANAGED, PAUSE] {
                topic.annotations().get(name).hash(hasher);
            }
        });
        self.is_news(topic.uid(), print)
            .then(|| Work::of([topic.topic_name().to_owned()]))
    }

    /// Whether a change of a cluster matters to its topics.
    pub(super) fn cluster_changed(&mut self, cluster: &TakhinCluster) -> bool {
        let print = fingerprint(|hasher| {
            cluster.metadata.generation.hash(hasher);
            cluster.metadata.deletion_timestamp.is_some().hash(hasher);
            let status = cluster.status.as_ref();
            status.and_then(|status| status.ready_replicas).hash(hasher);
            for broker in status.iter().flat_map(|status| &status.brokers) {
                (broker.id, broker.ready, &broker.rack, &broker.state).hash(hasher);
            }
        });
        self.is_news(cluster.uid(), print)
    }

    /// A topic is gone.
    pub(super) fn topic_gone(&mut self, topic: &Topic) {
        self.fingerprints.remove(&topic.uid().unwrap_or_default());
    }

    /// Everything is news again.
    pub(super) fn forget(&mut self) {
        self.fingerprints.clear();
    }

    fn is_news(&mut self, uid: Option<String>, print: u64) -> bool {
        self.fingerprints.insert(uid.unwrap_or_default(), print) != Some(print)
    }
}

fn fingerprint(of: impl FnOnce(&mut DefaultHasher)) -> u64 {
    let mut hasher = DefaultHasher::new();
    of(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use takhin_runtime::sim::Sim;

    use super::*;

    fn key(name: &str) -> ClusterKey {
        ("ns".to_owned(), name.to_owned())
    }

    #[test]
    fn changes_join_and_a_cluster_is_looked_at_by_one_pass_at_a_time() {
        let clock = Clock::simulated(0);
        let mut dirty = Dirty::new(clock);
        dirty.mark(key("a"), Work::of(["x".to_owned()]), Duration::ZERO);
        dirty.mark(key("a"), Work::of(["y".to_owned()]), Duration::from_secs(60));
        dirty.mark(key("b"), Work::all(), Duration::from_secs(60));
        let (taken, work) = dirty.take_due().unwrap();
        assert_eq!((taken, work.names.len()), (key("a"), 2));
        dirty.mark(key("a"), Work::of(["z".to_owned()]), Duration::ZERO);
        assert!(dirty.take_due().is_none());
        dirty.finished(&key("a"));
        assert_eq!(dirty.take_due().unwrap().1, Work::of(["z".to_owned()]));
    }

    #[test]
    fn a_topic_that_has_changed_is_looked_at_alone_although_all_are_due_later() {
        Sim::new(1).run(|env| async move {
            let mut dirty = Dirty::new(env.clock.clone());
            dirty.mark(key("a"), Work::all(), Duration::from_secs(120));
            dirty.mark(key("a"), Work::of(["x".to_owned()]), Duration::ZERO);
            assert_eq!(dirty.take_due().unwrap().1, Work::of(["x".to_owned()]));
            dirty.finished(&key("a"));
            assert!(dirty.take_due().is_none());
            // A look that comes later does not put off the one that is due.
            dirty.mark(key("a"), Work::all(), Duration::from_secs(180));
            dirty.mark(key("a"), Work::of(["y".to_owned()]), Duration::from_secs(300));
            dirty.wait(true).await;
            let (_, work) = dirty.take_due().unwrap();
            assert!(work.all && work.names.contains("y"), "{work:?}");
            dirty.finished(&key("a"));
            assert!(dirty.due.is_empty(), "what was looked at is still due");
        });
    }

    #[test]
    fn a_status_that_was_written_is_no_news() {
        let mut dirty = Dirty::new(Clock::simulated(0));
        let mut topic = Topic::new(
            "orders",
            serde_json::from_value(serde_json::json!({ "clusterRef": { "name": "a" } })).unwrap(),
        );
        topic.metadata.uid = Some("1".to_owned());
        topic.metadata.generation = Some(1);
        assert!(dirty.topic_changed(&topic).is_some());
        topic.status = Some(crate::api::TopicStatus::default());
        topic.metadata.resource_version = Some("2".to_owned());
        assert!(dirty.topic_changed(&topic).is_none());
        topic.metadata.generation = Some(2);
        assert!(dirty.topic_changed(&topic).is_some());
    }
}
