//! Members of a classic group, and what is counted over them.

use std::collections::BTreeMap;

use bytes::Bytes;
use takhin_protocol::messages::{JoinGroupRequest, StrBytes};

use crate::group::own;
use crate::outcome::{Context, Ticket};
use crate::records::MemberMetadata;

/// What a member takes in memory besides the bytes it sent, roughly.
pub(super) const MEMBER_OVERHEAD: usize = 256;

/// A request that waits, and the version in which to answer it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wait {
    pub(super) ticket: Ticket,
    pub(super) version: i16,
}

impl From<&Context<'_>> for Wait {
    fn from(cx: &Context<'_>) -> Self {
        Self {
            ticket: cx.ticket,
            version: cx.version,
        }
    }
}

/// What a member declares when it joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    /// In milliseconds.
    pub(super) rebalance_timeout: i32,
    /// In milliseconds.
    pub(super) session_timeout: i32,
    /// Names with metadata, in order of preference; each name once.
    pub(super) protocols: Vec<(StrBytes, Bytes)>,
}

impl Declared {
    pub(super) fn from_request(version: i16, request: &JoinGroupRequest) -> Self {
        let mut protocols: Vec<(StrBytes, Bytes)> = Vec::new();
        for protocol in &request.protocols {
            if !protocols.iter().any(|(name, _)| *name == protocol.name) {
                protocols.push((own(&protocol.name), Bytes::copy_from_slice(&protocol.metadata)));
            }
        }
        let rebalance_timeout = match version {
            0 => request.session_timeout_ms,
            _ => request.rebalance_timeout_ms,
        };
        Self {
            rebalance_timeout,
            session_timeout: request.session_timeout_ms,
            protocols,
        }
    }

    fn bytes(&self) -> usize {
        self.protocols
            .iter()
            .map(|(name, metadata)| 64 + name.len() + metadata.len())
            .sum()
    }
}

/// A member of a classic group.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) group_instance_id: Option<StrBytes>,
    pub(super) client_id: StrBytes,
    pub(super) client_host: StrBytes,
    pub(super) declared: Declared,
    pub(super) assignment: Bytes,
    /// It has not got an answer to its first JoinGroup, so it cannot send heartbeats.
    pub(super) is_new: bool,
    join: Option<Wait>,
    pub(super) sync: Option<Wait>,
}

impl Member {
    pub(super) fn new(cx: &Context<'_>, group_instance_id: Option<&StrBytes>, declared: Declared) -> Self {
        Self {
            group_instance_id: group_instance_id.map(|id| own(id)),
            client_id: own(cx.client_id),
            client_host: own(cx.client_host),
            declared,
            assignment: Bytes::new(),
            is_new: true,
            join: Some(Wait::from(cx)),
            sync: None,
        }
    }

    /// A member as the log knows it: of its protocols, only the chosen one.
    pub(super) fn restore(record: &MemberMetadata, protocol: &StrBytes) -> Self {
        Self {
            group_instance_id: record.group_instance_id.clone(),
            client_id: record.client_id.clone(),
            client_host: record.client_host.clone(),
            declared: Declared {
                rebalance_timeout: record.rebalance_timeout,
                session_timeout: record.session_timeout,
                protocols: vec![(protocol.clone(), record.subscription.clone())],
            },
            assignment: record.assignment.clone(),
            is_new: false,
            join: None,
            sync: None,
        }
    }

    /// A member that comes from a consumer group.
    pub(super) fn converted(
        (client_id, client_host): (StrBytes, StrBytes),
        group_instance_id: Option<StrBytes>,
        declared: Declared,
        assignment: Bytes,
    ) -> Self {
        Self {
            group_instance_id,
            client_id,
            client_host,
            declared,
            assignment,
            is_new: false,
            join: None,
            sync: None,
        }
    }

    pub(super) fn waits_for_join(&self) -> bool {
        self.join.is_some()
    }

    /// Its metadata for a protocol, empty if it does not have it.
    pub(super) fn metadata(&self, protocol: Option<&StrBytes>) -> Bytes {
        let mut protocols = self.declared.protocols.iter();
        let found = protocols.find(|(name, _)| Some(name) == protocol);
        found.map_or_else(Bytes::new, |(_, metadata)| metadata.clone())
    }

    fn bytes(&self) -> usize {
        MEMBER_OVERHEAD + self.client_id.len() + self.client_host.len() + self.declared.bytes()
    }
}

/// The members by id. What is counted over them changes with them.
#[derive(Debug, Default)]
pub(super) struct Members {
    by_id: BTreeMap<StrBytes, Member>,
    by_instance: BTreeMap<StrBytes, StrBytes>,
    /// How many members have each protocol.
    supporters: BTreeMap<StrBytes, usize>,
    waiting_joins: usize,
    bytes: usize,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    pub(super) fn get(&self, id: &StrBytes) -> Option<&Member> {
        self.by_id.get(id)
    }

    pub(super) fn contains(&self, id: &StrBytes) -> bool {
        self.by_id.contains_key(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&StrBytes, &Member)> {
        self.by_id.iter()
    }

    pub(super) fn ids(&self) -> Vec<StrBytes> {
        self.by_id.keys().cloned().collect()
    }

    pub(super) fn first_id(&self) -> Option<&StrBytes> {
        self.by_id.first_key_value().map(|(id, _)| id)
    }

    /// Id of the static member with this instance id.
    pub(super) fn static_id(&self, group_instance_id: &StrBytes) -> Option<&StrBytes> {
        self.by_instance.get(group_instance_id)
    }

    /// Members whose JoinGroup waits.
    pub(super) fn waiting_joins(&self) -> usize {
        self.waiting_joins
    }

    /// What the members take in memory, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether every member has this protocol.
    pub(super) fn all_support(&self, protocol: &StrBytes) -> bool {
        self.supporters.get(protocol).copied().unwrap_or(0) == self.len()
    }

    /// The longest rebalance timeout of a member, in milliseconds.
    pub(super) fn rebalance_timeout(&self) -> i32 {
        self.by_id
            .values()
            .map(|member| member.declared.rebalance_timeout)
            .max()
            .unwrap_or(0)
    }

    pub(super) fn insert(&mut self, id: StrBytes, member: Member) {
        self.remove(&id);
        self.bytes += id.len() + member.bytes();
        self.waiting_joins += usize::from(member.waits_for_join());
        self.count_protocols(&member.declared, true);
        if let Some(instance) = &member.group_instance_id {
            self.by_instance.insert(instance.clone(), id.clone());
        }
        self.by_id.insert(id, member);
    }

    pub(super) fn remove(&mut self, id: &StrBytes) -> Option<Member> {
        let member = self.by_id.remove(id)?;
        self.bytes -= id.len() + member.bytes();
        self.waiting_joins -= usize::from(member.waits_for_join());
        self.count_protocols(&member.declared, false);
        if let Some(instance) = &member.group_instance_id
            && self.by_instance.get(instance) == Some(id)
        {
            self.by_instance.remove(instance);
        }
        Some(member)
    }

    fn count_protocols(&mut self, declared: &Declared, more: bool) {
        for (name, _) in &declared.protocols {
            let count = self.supporters.entry(name.clone()).or_default();
            *count = if more { *count + 1 } else { count.saturating_sub(1) };
            if *count == 0 {
                self.supporters.remove(name);
            }
        }
    }

    /// Replaces what a member declares.
    pub(super) fn declare(&mut self, id: &StrBytes, declared: Declared) {
        // The key that is there, not `id`: that may be part of a request's frame.
        let Some((id, _)) = self.by_id.get_key_value(id) else {
            return;
        };
        let id = id.clone();
        if let Some(mut member) = self.remove(&id) {
            member.declared = declared;
            self.insert(id, member);
        }
    }

    /// The member's JoinGroup waits from here on. Returns the one that waited until now.
    pub(super) fn wait_for_join(&mut self, id: &StrBytes, wait: Wait) -> Option<Wait> {
        let member = self.by_id.get_mut(id)?;
        let old = member.join.replace(wait);
        self.waiting_joins += usize::from(old.is_none());
        old
    }

    /// Takes the waiting JoinGroup of a member, to answer it.
    pub(super) fn take_join(&mut self, id: &StrBytes) -> Option<Wait> {
        let wait = self.by_id.get_mut(id)?.join.take()?;
        self.waiting_joins -= 1;
        Some(wait)
    }

    /// The member's SyncGroup waits from here on. Returns the one that waited until now.
    pub(super) fn wait_for_sync(&mut self, id: &StrBytes, wait: Wait) -> Option<Wait> {
        self.by_id.get_mut(id)?.sync.replace(wait)
    }

    /// Takes the waiting SyncGroup of a member, to answer it.
    pub(super) fn take_sync(&mut self, id: &StrBytes) -> Option<Wait> {
        self.by_id.get_mut(id)?.sync.take()
    }

    pub(super) fn set_assignment(&mut self, id: &StrBytes, assignment: Bytes) {
        if let Some(member) = self.by_id.get_mut(id) {
            member.assignment = assignment;
        }
    }

    /// The member has got its first answer.
    pub(super) fn settle(&mut self, id: &StrBytes) {
        if let Some(member) = self.by_id.get_mut(id) {
            member.is_new = false;
        }
    }

    /// Bytes that `declared` would add for a member, in place of what it has declared before.
    pub(super) fn growth(&self, id: Option<&StrBytes>, declared: &Declared) -> (usize, usize) {
        let before = id
            .and_then(|id| self.get(id))
            .map_or(0, |member| member.declared.bytes());
        (declared.bytes(), before)
    }

    /// The protocol that all members have and most of them want, each giving its vote to the first of its list that all
    /// have. Kafka leaves ties to chance; here the leader's vote breaks them, then the name.
    pub(super) fn select_protocol(&self, leader: Option<&StrBytes>) -> Option<StrBytes> {
        let mut votes: BTreeMap<&StrBytes, usize> = BTreeMap::new();
        let vote_of = |member: &'_ Member| -> Option<usize> {
            member
                .declared
                .protocols
                .iter()
                .position(|(name, _)| self.all_support(name))
        };
        let mut leaders_vote = None;
        for (id, member) in &self.by_id {
            let Some(at) = vote_of(member) else { continue };
            let Some((name, _)) = member.declared.protocols.get(at) else {
                continue;
            };
            *votes.entry(name).or_default() += 1;
            if Some(id) == leader {
                leaders_vote = Some(name);
            }
        }
        let best = votes.iter().max_by(|(a, a_votes), (b, b_votes)| {
            let by_leader = (leaders_vote == Some(**a)).cmp(&(leaders_vote == Some(**b)));
            a_votes.cmp(b_votes).then(by_leader).then(b.cmp(a))
        });
        best.map(|(name, _)| (*name).clone())
    }
}
