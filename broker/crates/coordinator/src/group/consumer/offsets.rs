//! What a consumer group asks of those who commit and fetch offsets.

use takhin_protocol::ErrorCode;

use super::Consumer;

/// First version of OffsetCommit whose clients know of member epochs.
const COMMIT_KNOWS_EPOCHS: i16 = 9;

impl Consumer {
    /// Checks that the sender may commit. `version` is that of OffsetCommit, `None` for a commit in a transaction.
    ///
    /// # Errors
    ///
    /// UNKNOWN_MEMBER_ID; UNSUPPORTED_VERSION from a member of the consumer protocol below version 9;
    /// STALE_MEMBER_EPOCH, or ILLEGAL_GENERATION for a member of the classic protocol.
    pub(crate) fn validate_commit(
        &self,
        member_id: &str,
        epoch: i32,
        version: Option<i16>,
    ) -> Result<(), ErrorCode> {
        // An admin client, or a consumer without group management.
        if epoch < 0 && self.is_empty() {
            return Ok(());
        }
        let member = self.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        let is_classic = member.metadata.classic.is_some();
        if !is_classic && version.is_some_and(|version| version < COMMIT_KNOWS_EPOCHS) {
            return Err(ErrorCode::UnsupportedVersion);
        }
        self.validate_epoch(member_id, epoch)
    }

    /// Checks that the sender may fetch; who names no member may.
    ///
    /// # Errors
    ///
    /// UNKNOWN_MEMBER_ID; STALE_MEMBER_EPOCH, or ILLEGAL_GENERATION for a member of the classic protocol.
    pub(crate) fn validate_fetch(&self, member_id: Option<&str>, epoch: i32) -> Result<(), ErrorCode> {
        match member_id {
            None if epoch < 0 => Ok(()),
            member_id => self.validate_epoch(member_id.unwrap_or_default(), epoch),
        }
    }

    fn validate_epoch(&self, member_id: &str, epoch: i32) -> Result<(), ErrorCode> {
        let member = self.members.get(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if epoch == member.current.epoch {
            Ok(())
        } else if member.metadata.classic.is_some() {
            Err(ErrorCode::IllegalGeneration)
        } else {
            Err(ErrorCode::StaleMemberEpoch)
        }
    }
}
