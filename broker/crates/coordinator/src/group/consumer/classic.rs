//! Members of a consumer group that speak the classic protocol, while a group migrates (KIP-848).
//!
//! For them the coordinator is the leader that assigns: no JoinGroup waits for others, a member epoch passes as the
//! generation, and REBALANCE_IN_PROGRESS sends a member to take its next step by joining again.

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::leave_group_request::MemberIdentity;
use takhin_protocol::messages::leave_group_response::MemberResponse;
use takhin_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, StrBytes, SyncGroupRequest, SyncGroupResponse,
};

use super::admit::Admission;
use super::embedded::{self, PROTOCOL_TYPE, Subscription};
use super::heartbeat::Update;
use super::{Consumer, Member, slots};
use crate::group::classic::{left_response, replies};
use crate::group::{Effects, millis, own};
use crate::outcome::{Context, Reply};
use crate::records::{ClassicMetadata, ConsumerMember, MemberState};
use crate::timers::Timer;
use crate::topics::Topics;

/// First version whose clients join a second time with the member id that the first join gave them (KIP-394).
const REQUIRES_KNOWN_MEMBER_ID: i16 = 4;

/// Why a join is refused, and the member id that the client is to know.
type JoinRefusal = (ErrorCode, StrBytes);

impl Consumer {
    /// Handles a JoinGroup whose session timeout and lengths were checked, and answers it at once.
    pub(crate) fn join_classic(
        &mut self,
        effects: &mut Effects<'_>,
        cx: &Context<'_>,
        request: &JoinGroupRequest,
    ) {
        let reply = match self.try_join_classic(effects, cx, request) {
            Ok(response) => Reply::JoinGroup(response),
            Err((code, told)) => replies::join_error(cx.version, &told, code),
        };
        effects.reply(cx.ticket, reply);
    }

    fn try_join_classic(
        &mut self,
        effects: &mut Effects<'_>,
        cx: &Context<'_>,
        request: &JoinGroupRequest,
    ) -> Result<JoinGroupResponse, JoinRefusal> {
        let refuse = |code| (code, request.member_id.clone());
        let classic = ClassicMetadata {
            session_timeout_ms: request.session_timeout_ms,
            protocols: request
                .protocols
                .iter()
                .map(|protocol| (protocol.name.to_string(), protocol.metadata.to_vec()))
                .collect(),
        };
        // All protocols of a consumer carry the same subscription.
        let subscription = match classic.protocols.first() {
            Some((_, metadata)) if self.supports(&request.protocol_type, &classic) => {
                Subscription::decode(metadata)
            }
            _ => return Err(refuse(ErrorCode::InconsistentGroupProtocol)),
        };
        let subscription = subscription.map_err(|_| refuse(ErrorCode::InconsistentGroupProtocol))?;
        let member_id = match request.member_id.as_str() {
            "" => format!("{}-{}", cx.client_id, cx.uuid),
            member_id => member_id.to_owned(),
        };
        let is_static = request.group_instance_id.is_some();
        if request.member_id.is_empty() && !is_static && cx.version >= REQUIRES_KNOWN_MEMBER_ID {
            return Err((ErrorCode::MemberIdRequired, own(&member_id)));
        }
        let admission = self.admit_classic(&member_id, request).map_err(refuse)?;
        let known = match &admission {
            Admission::New => Member::new(),
            Admission::Known => self.members.get(&member_id).cloned().unwrap_or_else(Member::new),
            Admission::Replaces(old) => self.members.get(old).cloned().unwrap_or_else(Member::new),
        };
        let claimed = embedded::by_id(&subscription.owned, cx.topics);
        let metadata = declared(cx, request, subscription, classic);
        self.check_room(effects, &admission, &known.metadata, &metadata)
            .map_err(|_| (ErrorCode::GroupMaxSizeReached, StrBytes::new()))?;
        let update = Update {
            member_id: &member_id,
            admission,
            metadata,
            claimed: Some(&claimed),
        };
        self.update(effects, cx.topics, update)
            .map_err(|refusal| refuse(refusal.code))?;
        effects
            .timers
            .cancel(&self.id, Timer::MemberJoin(own(&member_id)));
        effects
            .timers
            .cancel(&self.id, Timer::Revocation(own(&member_id)));
        self.keep_alive(effects, &member_id);
        let timeout = millis(rebalance_timeout(cx, request));
        effects.arm(&self.id, Timer::MemberSync(own(&member_id)), timeout);
        Ok(self.joined_classic(&member_id, request))
    }

    /// A consumer whose protocols every other classic member has one of.
    fn supports(&self, protocol_type: &str, classic: &ClassicMetadata) -> bool {
        let others = || {
            self.members
                .values()
                .filter_map(|member| member.metadata.classic.as_ref())
        };
        protocol_type == PROTOCOL_TYPE
            && classic.protocols.iter().any(|(name, _)| {
                others().all(|other| other.protocols.iter().any(|(theirs, _)| theirs == name))
            })
    }

    fn admit_classic(&self, member_id: &str, request: &JoinGroupRequest) -> Result<Admission, ErrorCode> {
        let Some(instance) = request.group_instance_id.as_deref() else {
            return Ok(if self.members.contains_key(member_id) {
                Admission::Known
            } else {
                Admission::New
            });
        };
        match self.instances.get(instance) {
            // A classic static member never says that it goes; the next process takes its place.
            Some(owner) if request.member_id.is_empty() => Ok(Admission::Replaces(owner.clone())),
            None if request.member_id.is_empty() => Ok(Admission::New),
            Some(owner) if owner == member_id => Ok(Admission::Known),
            Some(_) => Err(ErrorCode::FencedInstanceId),
            None => Err(ErrorCode::UnknownMemberId),
        }
    }

    fn joined_classic(&self, member_id: &str, request: &JoinGroupRequest) -> JoinGroupResponse {
        let epoch = self
            .members
            .get(member_id)
            .map_or(-1, |member| member.current.epoch);
        let protocol = request.protocols.first().map(|protocol| own(&protocol.name));
        JoinGroupResponse::default()
            .with_member_id(own(member_id))
            .with_generation_id(epoch)
            .with_protocol_type(Some(StrBytes::from_static_str(PROTOCOL_TYPE)))
            .with_protocol_name(protocol)
    }

    /// Handles a SyncGroup: the answer is what the member owns.
    pub(crate) fn sync_classic(
        &mut self,
        effects: &mut Effects<'_>,
        topics: &dyn Topics,
        request: &SyncGroupRequest,
    ) -> Reply {
        match self.try_sync_classic(effects, topics, request) {
            Ok(response) => Reply::SyncGroup(response),
            Err(code) => replies::sync_error(code),
        }
    }

    fn try_sync_classic(
        &mut self,
        effects: &mut Effects<'_>,
        topics: &dyn Topics,
        request: &SyncGroupRequest,
    ) -> Result<SyncGroupResponse, ErrorCode> {
        let id = request.member_id.as_str();
        let (member, classic) = self.classic_member(id, request.group_instance_id.as_deref())?;
        if request.generation_id != member.current.epoch {
            return Err(ErrorCode::IllegalGeneration);
        }
        let protocol = classic.protocols.first();
        let differs = |named: &Option<StrBytes>, ours: Option<&str>| {
            named.as_deref().is_some_and(|named| Some(named) != ours)
        };
        if differs(&request.protocol_type, Some(PROTOCOL_TYPE))
            || differs(&request.protocol_name, protocol.map(|(name, _)| name.as_str()))
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        // Who is giving up partitions has joined already, and goes on from there.
        if self.epoch > member.current.epoch && member.current.state != MemberState::UnrevokedPartitions {
            self.call_to_join(effects, id);
            return Err(ErrorCode::RebalanceInProgress);
        }
        let version = protocol.and_then(|(_, metadata)| Subscription::decode(metadata).ok());
        let version = version.map_or(0, |subscription| subscription.version);
        let assignment = embedded::encode_assignment(version, &member.current.assigned, topics)
            .map_err(|_| ErrorCode::UnknownServerError)?;
        effects.timers.cancel(&self.id, Timer::MemberSync(own(id)));
        self.keep_alive(effects, id);
        let response = SyncGroupResponse::default()
            .with_protocol_type(request.protocol_type.clone())
            .with_protocol_name(request.protocol_name.clone())
            .with_assignment(assignment);
        Ok(response)
    }

    /// Handles a Heartbeat. REBALANCE_IN_PROGRESS if the member can take a step by joining again.
    pub(crate) fn heartbeat_classic(
        &mut self,
        effects: &mut Effects<'_>,
        request: &HeartbeatRequest,
    ) -> ErrorCode {
        let id = request.member_id.as_str();
        let member = match self.classic_member(id, request.group_instance_id.as_deref()) {
            Ok((member, _)) => member,
            Err(code) => return code,
        };
        if request.generation_id != member.current.epoch {
            return ErrorCode::IllegalGeneration;
        }
        let has_step = match member.current.state {
            _ if member.current.epoch < self.epoch => true,
            MemberState::UnrevokedPartitions => true,
            MemberState::UnreleasedPartitions => !self.waits_for_others(id, member),
            MemberState::Stable | MemberState::Unknown => false,
        };
        self.keep_alive(effects, id);
        if !has_step {
            return ErrorCode::NoError;
        }
        self.call_to_join(effects, id);
        ErrorCode::RebalanceInProgress
    }

    /// Whether nothing that the member still misses is free.
    fn waits_for_others(&self, id: &str, member: &Member) -> bool {
        let target = self.target.get(id);
        target.is_none_or(|target| {
            slots(target)
                .filter(|slot| !super::reconcile::contains(&member.current.assigned, slot))
                .all(|slot| self.owners.contains_key(&slot))
        })
    }

    /// The member has its rebalance timeout to join again, from the first call on.
    fn call_to_join(&self, effects: &mut Effects<'_>, id: &str) {
        let timer = Timer::MemberJoin(own(id));
        let timeout = self
            .members
            .get(id)
            .map_or(0, |member| member.metadata.rebalance_timeout_ms);
        if !effects.timers.is_armed(&self.id, timer.clone()) {
            effects.arm(&self.id, timer, millis(timeout));
        }
    }

    /// Handles a LeaveGroup. Members of the consumer protocol cannot be sent away by it.
    pub(crate) fn leave_classic(
        &mut self,
        effects: &mut Effects<'_>,
        members: &[MemberIdentity],
    ) -> Vec<MemberResponse> {
        let mut leaving: Vec<String> = Vec::new();
        let mut responses = Vec::with_capacity(members.len());
        for member in members {
            let instance = member.group_instance_id.as_deref();
            // A tool names the instance alone.
            let owner = instance.and_then(|instance| self.instances.get(instance));
            let id = match owner {
                Some(owner) if member.member_id.is_empty() => owner.clone(),
                _ => member.member_id.to_string(),
            };
            let code = match self.classic_member(&id, instance) {
                Ok(_) if leaving.contains(&id) => ErrorCode::UnknownMemberId,
                Ok(_) => {
                    leaving.push(id);
                    ErrorCode::NoError
                }
                Err(code) => code,
            };
            responses.push(left_response(member, code));
        }
        if !leaving.is_empty() {
            self.remove(effects, &leaving);
        }
        responses
    }

    /// The member, if it speaks the classic protocol.
    fn classic_member(
        &self,
        member_id: &str,
        instance: Option<&str>,
    ) -> Result<(&Member, &ClassicMetadata), ErrorCode> {
        if let Some(instance) = instance {
            let owner = self.instances.get(instance).ok_or(ErrorCode::UnknownMemberId)?;
            if owner != member_id {
                return Err(ErrorCode::FencedInstanceId);
            }
        }
        let member = self.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        let classic = member
            .metadata
            .classic
            .as_ref()
            .ok_or(ErrorCode::UnknownMemberId)?;
        Ok((member, classic))
    }
}

fn declared(
    cx: &Context<'_>,
    request: &JoinGroupRequest,
    subscription: Subscription,
    classic: ClassicMetadata,
) -> ConsumerMember {
    ConsumerMember {
        instance_id: request.group_instance_id.as_ref().map(|id| id.to_string()),
        rack_id: subscription.rack_id,
        client_id: cx.client_id.to_owned(),
        client_host: cx.client_host.to_owned(),
        topics: subscription.topics,
        regex: None,
        rebalance_timeout_ms: rebalance_timeout(cx, request),
        assignor: None,
        classic: Some(classic),
    }
}

/// In milliseconds; version 0 has the session timeout for both.
fn rebalance_timeout(cx: &Context<'_>, request: &JoinGroupRequest) -> i32 {
    match cx.version {
        0 => request.session_timeout_ms,
        _ => request.rebalance_timeout_ms,
    }
}
