//! Whose heartbeat it is: the member it comes from, a new one, or one that takes a static member's place.

use takhin_protocol::ErrorCode;
use takhin_protocol::messages::ConsumerGroupHeartbeatRequest;

use super::{Consumer, JOIN_EPOCH, LEAVE_STATIC_EPOCH, Member, Refusal, slots};
use crate::group::Effects;
use crate::records::{ConsumerRecord, CurrentAssignment, Partitions};

/// Who a request comes from, and what has to be done before it is handled.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// A member.
    Known,
    /// It is to become a member.
    New,
    /// It takes the place of this member, which has the same instance id.
    Replaces(String),
}

impl Consumer {
    /// Finds out whose heartbeat it is. `member_id` is the request's, or one that was made for it.
    pub(super) fn admit(
        &self,
        member_id: &str,
        request: &ConsumerGroupHeartbeatRequest,
        claimed: Option<&Partitions>,
    ) -> Result<Admission, Refusal> {
        let joins = request.member_epoch == JOIN_EPOCH;
        let Some(instance) = request.instance_id.as_deref() else {
            return match self.members.get(member_id) {
                Some(member) => self.check_epoch(member, request, claimed),
                None if joins => Ok(Admission::New),
                None => Err(unknown(member_id, &self.id)),
            };
        };
        match self.instances.get(instance) {
            None if joins => Ok(Admission::New),
            None => Err(unknown_instance(instance)),
            Some(owner) if owner != member_id && joins => self.admit_replacement(member_id, instance, owner),
            Some(owner) => {
                fenced_unless_same(member_id, instance, owner)?;
                let Some(member) = self.members.get(owner) else {
                    return Err(unknown_instance(instance));
                };
                match member.current.epoch {
                    // It is back under the id it had.
                    LEAVE_STATIC_EPOCH if joins => Ok(Admission::Replaces(owner.clone())),
                    _ => self.check_epoch(member, request, claimed),
                }
            }
        }
    }

    fn admit_replacement(&self, member_id: &str, instance: &str, owner: &str) -> Result<Admission, Refusal> {
        let away = self.members.get(owner).is_none_or(|member| {
            member.current.epoch == LEAVE_STATIC_EPOCH || member.metadata.classic.is_some()
        });
        if !away {
            return Err(Refusal::new(
                ErrorCode::UnreleasedInstanceId,
                format!(
                    "Static member {member_id} with instance id {instance} cannot join the group because the instance \
                     id is owned by {owner} member."
                ),
            ));
        }
        Ok(Admission::Replaces(owner.to_owned()))
    }

    /// A member may be one epoch behind if a reply was lost, as long as it has nothing that it should not have. Epoch 0
    /// begins anew and is always taken (KIP-848: the client has given up everything).
    fn check_epoch(
        &self,
        member: &Member,
        request: &ConsumerGroupHeartbeatRequest,
        claimed: Option<&Partitions>,
    ) -> Result<Admission, Refusal> {
        let (theirs, ours) = (request.member_epoch, &member.current);
        let lost_reply = || {
            theirs == ours.previous_epoch
                && claimed.is_some_and(|claimed| {
                    slots(claimed).all(|slot| super::reconcile::contains(&ours.assigned, &slot))
                })
        };
        if theirs == JOIN_EPOCH || theirs == ours.epoch || (theirs < ours.epoch && lost_reply()) {
            return Ok(Admission::Known);
        }
        let relation = if theirs > ours.epoch { "greater" } else { "smaller" };
        Err(Refusal::new(
            ErrorCode::FencedMemberEpoch,
            format!(
                "The consumer group member has a {relation} member epoch ({theirs}) than the one known by the group \
                 coordinator ({}). The member must abandon all its partitions and rejoin.",
                ours.epoch
            ),
        ))
    }

    /// Gives the place of a static member to another: same target, same partitions, epoch 0.
    pub(super) fn replace(&mut self, effects: &mut Effects<'_>, old_id: &str, new_id: &str) {
        let Some(old) = self.members.get(old_id).cloned() else {
            return;
        };
        let target = self.target.get(old_id).cloned().unwrap_or_default();
        self.write_member_tombstones(effects, old_id);
        let (group_id, member_id) = (self.key(), new_id.to_owned());
        let member = ConsumerRecord::Member {
            group_id: group_id.clone(),
            member_id: member_id.clone(),
            value: Some(old.metadata),
        };
        self.write(effects, member);
        let target = ConsumerRecord::Target {
            group_id: group_id.clone(),
            member_id: member_id.clone(),
            value: Some(target),
        };
        self.write(effects, target);
        let current = ConsumerRecord::Current {
            group_id,
            member_id,
            value: Some(CurrentAssignment {
                epoch: 0,
                previous_epoch: 0,
                ..old.current
            }),
        };
        self.write(effects, current);
    }
}

pub(super) fn unknown(member_id: &str, group_id: &str) -> Refusal {
    let message = format!("Member {member_id} is not a member of group {group_id}.");
    Refusal::new(ErrorCode::UnknownMemberId, message)
}

pub(super) fn unknown_instance(instance: &str) -> Refusal {
    Refusal::new(
        ErrorCode::UnknownMemberId,
        format!("Instance id {instance} is unknown."),
    )
}

/// Refuses who calls itself by the instance id of another.
pub(super) fn fenced_unless_same(member_id: &str, instance: &str, owner: &str) -> Result<(), Refusal> {
    if member_id == owner {
        return Ok(());
    }
    Err(Refusal::new(
        ErrorCode::FencedInstanceId,
        format!("Static member {member_id} with instance id {instance} was fenced by member {owner}."),
    ))
}
