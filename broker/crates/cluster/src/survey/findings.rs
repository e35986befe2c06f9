//! What is not as it should be: of which kind, where, and in words.

use std::collections::BTreeMap;

/// Concerns of one kind that are told one by one; the others are counted.
const TOLD: usize = 20;

macro_rules! kinds {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// What a concern is about, the gravest first.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum ConcernKind {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl ConcernKind {
            /// All kinds, the gravest first.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Its name for programs.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// What it says.
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc,)+).trim_ascii(),)+
                }
            }
        }
    };
}

kinds! {
    /// No broker is the controller: the metadata cannot be changed.
    NoController = "no_controller",
    /// Too few voters of the metadata group are there to elect a controller.
    ControllerMajorityLost = "controller_majority_lost",
    /// A partition has no leader: it can be neither written nor read.
    PartitionOffline = "partition_offline",
    /// Fewer replicas than a write with acks=all needs are in sync.
    PartitionUnderMinIsr = "partition_under_min_isr",
    /// A broker refuses records because its disk is full.
    DiskFull = "disk_full",
    /// Without the broker too few voters would be left to elect a controller.
    ControllerMajorityAtRisk = "controller_majority_at_risk",
    /// Without the broker a partition would have no majority of its replicas.
    PartitionMajorityAtRisk = "partition_majority_at_risk",
    /// Without the broker fewer replicas of a partition would be in sync than a write needs.
    PartitionMinIsrAtRisk = "partition_min_isr_at_risk",
    /// A registered broker is not heard of.
    BrokerSilent = "broker_silent",
    /// A broker is heard of but does not say how it is.
    BrokerUnknown = "broker_unknown",
    /// A broker is still opening its partitions, or the storage of some is offline.
    BrokerNotOpen = "broker_not_open",
    /// A replica beside the broker's lacks records that its leader has.
    ReplicaBehind = "replica_behind",
    /// Replicas of a partition are being moved: who is needed changes from moment to moment.
    ReplicaMoving = "replica_moving",
    /// A partition has replicas that are not in sync.
    PartitionUnderReplicated = "partition_under_replicated",
    /// The loss of one more voter would leave no controller.
    ControllerMarginLost = "controller_margin_lost",
    /// Little more is free on a broker's disk than the floor below which it refuses records.
    DiskLow = "disk_low",
    /// A broker's wall clock differs: it stamps records with another time, and deletes old ones too early or too late.
    ClockSkew = "clock_skew",
    /// A partition has so few replicas that it cannot be written while the broker is away, whatever is waited for.
    NoSpareReplica = "no_spare_replica",
    /// The metadata group has so few voters that there is no controller while the broker is away, whatever is waited for.
    NoSpareVoter = "no_spare_voter",
    /// A partition stays with a broker that is being drained: no other replica is in sync on a broker that may lead.
    NoSuccessor = "no_successor",
    /// A replica stays on a broker that is being decommissioned: no other broker that could take it is there.
    NoPlace = "no_place",
    /// Somebody else moves the replicas of a partition, and one stays on a broker that is being decommissioned.
    MovedByHand = "moved_by_hand",
}

impl ConcernKind {
    /// Whether waiting, or mending something elsewhere, makes it go away. The others belong to the placement.
    pub fn passes(self) -> bool {
        !matches!(self, Self::NoSpareReplica | Self::NoSpareVoter)
    }
}

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concern {
    /// What it is about.
    pub kind: ConcernKind,
    /// The broker that it is about.
    pub broker: Option<i32>,
    /// Topic and index of the partition that it is about.
    pub partition: Option<(String, i32)>,
    /// The same in words, for people.
    pub message: String,
}

/// Everything that is not as it should be: all of it counted, and up to 20 concerns of each kind one by one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Findings {
    told: BTreeMap<ConcernKind, Vec<Concern>>,
    counts: BTreeMap<ConcernKind, usize>,
}

impl Findings {
    /// How many there are of each kind that there is.
    pub fn counts(&self) -> &BTreeMap<ConcernKind, usize> {
        &self.counts
    }

    /// The concerns that are told one by one, the gravest first.
    pub fn concerns(&self) -> impl Iterator<Item = &Concern> {
        self.told.values().flatten()
    }

    /// Whether there are more concerns than are told one by one.
    pub fn is_truncated(&self) -> bool {
        self.counts.values().any(|count| *count > TOLD)
    }

    /// Whether all is as it should be.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// The text is made only if it is told.
    fn add(
        &mut self,
        kind: ConcernKind,
        broker: Option<i32>,
        partition: Option<(&str, i32)>,
        message: impl FnOnce() -> String,
    ) {
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        if *count <= TOLD {
            self.told.entry(kind).or_default().push(Concern {
                kind,
                broker,
                partition: partition.map(|(topic, index)| (topic.to_owned(), index)),
                message: message(),
            });
        }
    }

    /// About the cluster as a whole.
    pub(super) fn cluster(&mut self, kind: ConcernKind, message: impl FnOnce() -> String) {
        self.add(kind, None, None, message);
    }

    /// About a broker.
    pub(super) fn broker(&mut self, kind: ConcernKind, broker: i32, message: impl FnOnce() -> String) {
        self.add(kind, Some(broker), None, message);
    }

    /// About a partition.
    pub(super) fn partition(
        &mut self,
        kind: ConcernKind,
        seen: &super::Seen<'_>,
        message: impl FnOnce() -> String,
    ) {
        self.add(kind, None, Some((&seen.topic.name, seen.index)), message);
    }
}
