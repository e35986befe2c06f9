//! A member of a classic group: what it asks its coordinator, and what follows from the answers.
//!
//! It does what Kafka's consumer does: it joins without an id and again with the id that it is given, syncs (the leader
//! with an assignment for all), and joins again when an answer says that the group rebalances.

use anyhow::{Result, bail};
use bytes::{BufMut as _, Bytes, BytesMut};
use takhin_protocol::ErrorCode;
use takhin_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use takhin_protocol::messages::join_group_response::JoinGroupResponseMember;
use takhin_protocol::messages::leave_group_request::MemberIdentity;
use takhin_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use takhin_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use takhin_protocol::messages::{
    self, GroupId, HeartbeatRequest, JoinGroupRequest, LeaveGroupRequest, OffsetCommitRequest, Request,
    StrBytes, SyncGroupRequest, TopicName,
};

const JOIN_VERSION: i16 = 9;
const SYNC_VERSION: i16 = 5;
const HEARTBEAT_VERSION: i16 = 4;
/// The newest that names topics instead of numbering them.
const COMMIT_VERSION: i16 = 8;
const LEAVE_VERSION: i16 = 5;

/// Kafka's defaults for consumers.
const SESSION_TIMEOUT_MS: i32 = 45_000;
const REBALANCE_TIMEOUT_MS: i32 = 300_000;

const PROTOCOL_TYPE: &str = "consumer";
const PROTOCOL: &str = "range";

/// What a member asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Call {
    /// JoinGroup.
    Join,
    /// SyncGroup.
    Sync,
    /// Heartbeat.
    Heartbeat,
    /// OffsetCommit of one partition.
    Commit,
    /// LeaveGroup.
    Leave,
}

/// What follows from an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing, until a timer says so.
    Rest,
    /// This, at once.
    Ask(Call),
    /// This, after a pause: the coordinator is not ready.
    Retry(Call),
}

/// One member.
#[derive(Debug)]
pub(super) struct Member {
    group: StrBytes,
    topic: StrBytes,
    /// Its number in the group, which is the partition whose offsets it commits.
    index: i32,
    id: StrBytes,
    generation: i32,
    /// Members of the generation, in the leader; none elsewhere.
    led: Vec<StrBytes>,
    stable: bool,
    /// Changes the subscription whenever a rebalance is wanted.
    round: u32,
    committed: i64,
    /// The last answer, for whoever asks why nothing goes on.
    last: Option<(Call, i16)>,
}

impl Member {
    /// A member that is to join `group`, as its member number `index`, for `topic`.
    pub(super) fn new(group: StrBytes, topic: StrBytes, index: i32) -> Self {
        Self {
            group,
            topic,
            index,
            id: StrBytes::default(),
            generation: -1,
            led: Vec::new(),
            stable: false,
            round: 0,
            committed: 0,
            last: None,
        }
    }

    /// Whether it has its assignment.
    pub(super) fn is_stable(&self) -> bool {
        self.stable
    }

    /// The generation that it is in; -1 before the first.
    pub(super) fn generation(&self) -> i32 {
        self.generation
    }

    /// Members of its generation, if it leads.
    pub(super) fn led(&self) -> usize {
        self.led.len()
    }

    /// What its last answer was, for an error's text.
    pub(super) fn describe_last(&self) -> String {
        let Some((call, code)) = self.last else {
            return "nothing".into();
        };
        let name = ErrorCode::from_code(code).map_or("an unknown code", ErrorCode::name);
        format!("{name} to {call:?}")
    }

    /// Changes its subscription, so that its next JoinGroup makes the group rebalance.
    pub(super) fn resubscribe(&mut self) {
        self.round += 1;
    }

    /// The frame that asks `call`.
    pub(super) fn request(&mut self, call: Call) -> Result<Bytes> {
        let group_id = GroupId(self.group.clone());
        let id = self.id.clone();
        match call {
            Call::Join => {
                self.stable = false;
                let protocol = JoinGroupRequestProtocol::default()
                    .with_name(StrBytes::from_static_str(PROTOCOL))
                    .with_metadata(self.subscription()?);
                let request = JoinGroupRequest::default()
                    .with_group_id(group_id)
                    .with_session_timeout_ms(SESSION_TIMEOUT_MS)
                    .with_rebalance_timeout_ms(REBALANCE_TIMEOUT_MS)
                    .with_member_id(id)
                    .with_protocol_type(StrBytes::from_static_str(PROTOCOL_TYPE))
                    .with_protocols(vec![protocol]);
                encode(JOIN_VERSION, &request)
            }
            Call::Sync => {
                let request = SyncGroupRequest::default()
                    .with_group_id(group_id)
                    .with_generation_id(self.generation)
                    .with_member_id(id)
                    .with_protocol_type(Some(StrBytes::from_static_str(PROTOCOL_TYPE)))
                    .with_protocol_name(Some(StrBytes::from_static_str(PROTOCOL)))
                    .with_assignments(self.assignments()?);
                encode(SYNC_VERSION, &request)
            }
            Call::Heartbeat => {
                let request = HeartbeatRequest::default()
                    .with_group_id(group_id)
                    .with_generation_id(self.generation)
                    .with_member_id(id);
                encode(HEARTBEAT_VERSION, &request)
            }
            Call::Commit => self.commit(group_id, id),
            Call::Leave => {
                self.stable = false;
                let members = vec![MemberIdentity::default().with_member_id(id)];
                let request = LeaveGroupRequest::default()
                    .with_group_id(group_id)
                    .with_members(members);
                encode(LEAVE_VERSION, &request)
            }
        }
    }

    fn commit(&mut self, group_id: GroupId, id: StrBytes) -> Result<Bytes> {
        self.committed += 1;
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(self.index)
            .with_committed_offset(self.committed)
            .with_committed_leader_epoch(-1);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(TopicName(self.topic.clone()))
            .with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group_id)
            .with_generation_id_or_member_epoch(self.generation)
            .with_member_id(id)
            .with_topics(vec![topic]);
        encode(COMMIT_VERSION, &request)
    }

    /// Takes the answer to `call`, a frame without its length prefix.
    ///
    /// # Errors
    /// A code that no rebalance explains.
    pub(super) fn answer(&mut self, call: Call, mut frame: Bytes) -> Result<Next> {
        let frame = &mut frame;
        let code = match call {
            Call::Join => {
                let joined = messages::decode_response::<JoinGroupRequest>(JOIN_VERSION, frame)?.1;
                let code = joined.error_code;
                if !joined.member_id.is_empty() {
                    self.id = joined.member_id;
                }
                if code == 0 {
                    self.last = Some((call, code));
                    self.generation = joined.generation_id;
                    let id = |member: JoinGroupResponseMember| member.member_id;
                    self.led = joined.members.into_iter().map(id).collect();
                    return Ok(Next::Ask(Call::Sync));
                }
                code
            }
            Call::Sync => {
                let synced = messages::decode_response::<SyncGroupRequest>(SYNC_VERSION, frame)?.1;
                self.stable = synced.error_code == 0;
                synced.error_code
            }
            Call::Heartbeat => {
                messages::decode_response::<HeartbeatRequest>(HEARTBEAT_VERSION, frame)?
                    .1
                    .error_code
            }
            Call::Commit => {
                let committed = messages::decode_response::<OffsetCommitRequest>(COMMIT_VERSION, frame)?.1;
                let mut codes = committed
                    .topics
                    .iter()
                    .flat_map(|topic| &topic.partitions)
                    .map(|partition| partition.error_code);
                let Some(code) = codes.next() else {
                    bail!("an offset commit was answered without its partition");
                };
                code
            }
            // Whoever has left before is gone, too.
            Call::Leave => {
                messages::decode_response::<LeaveGroupRequest>(LEAVE_VERSION, frame)?;
                return Ok(Next::Rest);
            }
        };
        self.after(call, code)
    }

    fn after(&mut self, call: Call, code: i16) -> Result<Next> {
        self.last = Some((call, code));
        match ErrorCode::from_code(code) {
            Some(code) if code.is_ok() => return Ok(Next::Rest),
            Some(ErrorCode::MemberIdRequired) if call == Call::Join => return Ok(Next::Ask(Call::Join)),
            Some(
                ErrorCode::CoordinatorNotAvailable
                | ErrorCode::CoordinatorLoadInProgress
                | ErrorCode::NotCoordinator,
            ) => {
                // After a pause a commit or a heartbeat would be late, and the next one comes anyway.
                return Ok(match call {
                    Call::Join | Call::Sync => Next::Retry(call),
                    _ => Next::Rest,
                });
            }
            Some(ErrorCode::UnknownMemberId) => self.id = StrBytes::default(),
            Some(ErrorCode::RebalanceInProgress | ErrorCode::IllegalGeneration) => {}
            Some(code) => bail!("{call:?} was answered with {}", code.name()),
            None => bail!("{call:?} was answered with error {code}"),
        }
        self.stable = false;
        Ok(Next::Ask(Call::Join))
    }

    /// `ConsumerProtocolSubscription` v0: the topic, and the round as user data.
    fn subscription(&self) -> Result<Bytes> {
        let mut out = BytesMut::new();
        out.put_i16(0);
        out.put_i32(1);
        put_string(&mut out, &self.topic)?;
        out.put_i32(4);
        out.put_u32(self.round);
        Ok(out.freeze())
    }

    /// One partition for each member that it leads; `ConsumerProtocolAssignment` v0.
    fn assignments(&self) -> Result<Vec<SyncGroupRequestAssignment>> {
        let assign = |(partition, id): (i32, &StrBytes)| -> Result<_> {
            let mut out = BytesMut::new();
            out.put_i16(0);
            out.put_i32(1);
            put_string(&mut out, &self.topic)?;
            out.put_i32(1);
            out.put_i32(partition);
            out.put_i32(-1);
            Ok(SyncGroupRequestAssignment::default()
                .with_member_id(id.clone())
                .with_assignment(out.freeze()))
        };
        (0..).zip(&self.led).map(assign).collect()
    }
}

fn put_string(out: &mut BytesMut, text: &StrBytes) -> Result<()> {
    out.put_i16(i16::try_from(text.len())?);
    out.put_slice(text.as_bytes());
    Ok(())
}

fn encode<R: Request>(version: i16, request: &R) -> Result<Bytes> {
    let client_id = StrBytes::from_static_str("takhin-bench");
    Ok(messages::encode_request(version, 1, Some(&client_id), request)?)
}

#[cfg(test)]
mod tests {
    use takhin_protocol::messages::offset_commit_response::{
        OffsetCommitResponsePartition, OffsetCommitResponseTopic,
    };
    use takhin_protocol::messages::{
        HeartbeatResponse, JoinGroupResponse, OffsetCommitResponse, SyncGroupResponse,
    };
    use takhin_protocol::request::RequestHead;

    use super::*;

    fn text(text: &str) -> StrBytes {
        StrBytes::from_string(text.to_owned())
    }

    fn sent<R: Request + 'static>(version: i16, mut frame: Bytes) -> R {
        let mut body = frame.split_off(4);
        RequestHead::parse(&mut body).unwrap();
        messages::decode(version, &mut body).unwrap()
    }

    fn joined(code: i16, id: &str, members: &[&str]) -> Bytes {
        let member = |id: &&str| JoinGroupResponseMember::default().with_member_id(text(id));
        let response = JoinGroupResponse::default()
            .with_error_code(code)
            .with_generation_id(7)
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")))
            .with_member_id(text(id))
            .with_members(members.iter().map(member).collect());
        messages::encode_response(JOIN_VERSION, 1, &response)
            .unwrap()
            .slice(4..)
    }

    fn heartbeat(code: ErrorCode) -> Bytes {
        let response = HeartbeatResponse::default().with_error_code(code.code());
        messages::encode_response(HEARTBEAT_VERSION, 1, &response)
            .unwrap()
            .slice(4..)
    }

    fn synced() -> Bytes {
        messages::encode_response(SYNC_VERSION, 1, &SyncGroupResponse::default())
            .unwrap()
            .slice(4..)
    }

    #[test]
    fn a_leader_joins_with_the_id_it_is_given_and_assigns_a_partition_to_each() {
        let mut member = Member::new(text("g"), text("t"), 3);
        let first: JoinGroupRequest = sent(JOIN_VERSION, member.request(Call::Join).unwrap());
        assert!(first.member_id.is_empty());
        let required = joined(ErrorCode::MemberIdRequired.code(), "me", &[]);
        assert_eq!(
            member.answer(Call::Join, required).unwrap(),
            Next::Ask(Call::Join)
        );
        let second: JoinGroupRequest = sent(JOIN_VERSION, member.request(Call::Join).unwrap());
        assert_eq!(second.member_id, text("me"));
        member.resubscribe();
        let other: JoinGroupRequest = sent(JOIN_VERSION, member.request(Call::Join).unwrap());
        assert_ne!(other.protocols[0].metadata, second.protocols[0].metadata);

        let answer = joined(0, "me", &["me", "you"]);
        assert_eq!(member.answer(Call::Join, answer).unwrap(), Next::Ask(Call::Sync));
        assert_eq!((member.generation(), member.led()), (7, 2));
        assert!(!member.is_stable());
        let sync: SyncGroupRequest = sent(SYNC_VERSION, member.request(Call::Sync).unwrap());
        assert_eq!(sync.assignments[1].member_id, text("you"));
        // Version, one topic, its name, one partition, its number, no user data.
        let assigned = b"\0\0\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x01\xff\xff\xff\xff";
        assert_eq!(&sync.assignments[1].assignment[..], assigned);
        assert_eq!(member.answer(Call::Sync, synced()).unwrap(), Next::Rest);
        assert!(member.is_stable());
    }

    #[test]
    fn a_rebalance_makes_a_member_join_anew_and_a_lost_one_without_its_id() {
        let mut member = Member::new(text("g"), text("t"), 0);
        member.answer(Call::Join, joined(0, "me", &[])).unwrap();
        member.answer(Call::Sync, synced()).unwrap();
        let rebalance = heartbeat(ErrorCode::RebalanceInProgress);
        assert_eq!(
            member.answer(Call::Heartbeat, rebalance).unwrap(),
            Next::Ask(Call::Join)
        );
        assert!(!member.is_stable());
        assert_eq!(member.id, text("me"));
        let lost = heartbeat(ErrorCode::UnknownMemberId);
        assert_eq!(
            member.answer(Call::Heartbeat, lost).unwrap(),
            Next::Ask(Call::Join)
        );
        assert!(member.id.is_empty());
        let loading = joined(ErrorCode::CoordinatorLoadInProgress.code(), "", &[]);
        assert_eq!(
            member.answer(Call::Join, loading).unwrap(),
            Next::Retry(Call::Join)
        );
        let refused = joined(ErrorCode::GroupAuthorizationFailed.code(), "", &[]);
        assert!(member.answer(Call::Join, refused).is_err());
    }

    #[test]
    fn a_commit_says_more_each_time_and_its_partitions_code_counts() {
        let mut member = Member::new(text("g"), text("t"), 3);
        let offset = |member: &mut Member| {
            let frame = member.request(Call::Commit).unwrap();
            let request: OffsetCommitRequest = sent(COMMIT_VERSION, frame);
            let partition = &request.topics[0].partitions[0];
            (partition.partition_index, partition.committed_offset)
        };
        assert_eq!([offset(&mut member), offset(&mut member)], [(3, 1), (3, 2)]);
        let answer = |code: ErrorCode| {
            let partition = OffsetCommitResponsePartition::default().with_error_code(code.code());
            let topic = OffsetCommitResponseTopic::default().with_partitions(vec![partition]);
            let response = OffsetCommitResponse::default().with_topics(vec![topic]);
            messages::encode_response(COMMIT_VERSION, 1, &response)
                .unwrap()
                .slice(4..)
        };
        let next = member.answer(Call::Commit, answer(ErrorCode::NoError));
        assert_eq!(next.unwrap(), Next::Rest);
        assert!(
            member
                .answer(Call::Commit, answer(ErrorCode::UnknownTopicOrPartition))
                .is_err()
        );
    }
}
