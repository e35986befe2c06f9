//! Names, magics and the common frame of every file that is not a segment.
//!
//! Small files are written whole, in one frame (all integers big endian):
//!
//! ```text
//!  0  magic    4 bytes   kind of file
//!  4  version  u16       of the body's layout
//!  6  zero     u16
//!  8  length   u32       of the body
//! 12  crc      u32       CRC-32C of bytes 0 to 11 and of the body
//! 16  body
//! ```
//!
//! A file is exactly one frame: trailing bytes are damage. Bodies are described where they are encoded.
//!
//! Segments have no version of their own: what is in them are Kafka's batches. A release that writes anything else there
//! raises the version of `state`, which every log has, so that an older one refuses the directory.

use std::path::{Path, PathBuf};

use bytes::{Buf, BufMut};

/// Bytes before the body.
pub(crate) const FRAME_LEN: usize = 16;

/// Largest body that is believed: nothing of ours comes near, and a damaged length must not allocate more.
pub(crate) const MAX_BODY_LEN: usize = 256 << 20;

/// What a framed file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `.index`
    OffsetIndex,
    /// `.timeindex`
    TimeIndex,
    /// `.producers`
    Snapshot,
    /// `segments`
    Manifest,
    /// `state`
    State,
    /// `node.meta`
    NodeMeta,
    /// `running` and `clean-shutdown`
    Run,
    /// `sync-failed`
    SyncFailed,
    /// `installed`
    Installed,
}

impl Kind {
    const fn magic(self) -> [u8; 4] {
        match self {
            Self::OffsetIndex => *b"TKOI",
            Self::TimeIndex => *b"TKTI",
            Self::Snapshot => *b"TKPS",
            Self::Manifest => *b"TKSM",
            Self::State => *b"TKLS",
            Self::NodeMeta => *b"TKNM",
            Self::Run => *b"TKRN",
            Self::SyncFailed => *b"TKSF",
            Self::Installed => *b"TKIN",
        }
    }

    /// The version that this program writes; older ones are read, newer ones refused.
    pub(crate) const fn version(self) -> u16 {
        match self {
            Self::OffsetIndex | Self::TimeIndex | Self::State => 2,
            Self::Snapshot
            | Self::Manifest
            | Self::NodeMeta
            | Self::Run
            | Self::SyncFailed
            | Self::Installed => 1,
        }
    }
}

/// Why a frame was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameError {
    /// Wrong length, magic or checksum.
    Damaged,
    /// Written by a newer release.
    Newer(NewerFormat),
}

/// A format that only a newer release knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "format version {found} is newer than {known}, the newest that this release knows: \
     start the release that wrote it, or a later one"
)]
pub struct NewerFormat {
    /// Version found.
    pub found: u16,
    /// Newest version known.
    pub known: u16,
}

/// CRC-32C, the checksum of all our files.
pub(crate) fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    for part in parts {
        digest.update(part);
    }
    low_u32(digest.finalize())
}

/// Frames a body.
pub(crate) fn seal(kind: Kind, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(FRAME_LEN + body.len());
    out.extend_from_slice(&kind.magic());
    out.extend_from_slice(&kind.version().to_be_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&len_u32(body.len()).to_be_bytes());
    let crc = crc32c(&[&out, body]);
    out.extend_from_slice(&crc.to_be_bytes());
    out.extend_from_slice(body);
    out
}

/// The body of a frame.
pub(crate) fn unseal(kind: Kind, bytes: &[u8]) -> Result<&[u8], FrameError> {
    let (head, body) = bytes.split_at_checked(FRAME_LEN).ok_or(FrameError::Damaged)?;
    let crc = u32::from_be_bytes([head[12], head[13], head[14], head[15]]);
    let len = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
    if head[..4] != kind.magic() || len_u32(body.len()) != len || crc32c(&[&head[..12], body]) != crc {
        return Err(FrameError::Damaged);
    }
    let version = u16::from_be_bytes([head[4], head[5]]);
    let known = kind.version();
    if version > known {
        let found = version;
        Err(FrameError::Newer(NewerFormat { found, known }))
    } else {
        Ok(body)
    }
}

/// Identifies a segment: the offset and the raft index of the first entry that it holds or will hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// Raft index of the first entry.
    pub first_index: u64,
    /// Offset that the first entry's first record has; for a hidden entry the one the next record gets.
    pub base_offset: i64,
}

/// Extension of segment files.
pub(crate) const LOG: &str = "log";
/// Extension of offset indexes.
pub(crate) const INDEX: &str = "index";
/// Extension of time indexes.
pub(crate) const TIME_INDEX: &str = "timeindex";
/// Extension of snapshots of producers and epochs.
pub(crate) const SNAPSHOT: &str = "producers";
/// Extension of files on their way in; found at open, they are removed.
pub(crate) const TMP: &str = "tmp";
/// Extension of files on their way out; found at open, they are removed.
pub(crate) const DELETED: &str = "deleted";
/// Name of the list of sealed segments.
pub(crate) const MANIFEST: &str = "segments";
/// Name of the log's state file.
pub(crate) const STATE: &str = "state";
/// Name of the note that a sync failed.
pub(crate) const SYNC_FAILED: &str = "sync-failed";
/// Name of the note that the log came as a copy of another replica's.
pub(crate) const INSTALLED: &str = "installed";
/// Directory of bytes that recovery cut.
pub(crate) const QUARANTINE: &str = "quarantine";

impl SegmentId {
    /// `{base_offset:020}.{first_raft_index:020}.{extension}`; Kafka's dump tool parses the part before the first dot.
    pub fn file_name(self, extension: &str) -> String {
        format!("{:020}.{:020}.{extension}", self.base_offset, self.first_index)
    }

    /// Appends `base_offset i64 | first_index u64`.
    pub(crate) fn encode(self, out: &mut impl BufMut) {
        out.put_i64(self.base_offset);
        out.put_u64(self.first_index);
    }

    /// Takes off what [`SegmentId::encode`] appends; `None` if there is less.
    pub(crate) fn decode(b: &mut impl Buf) -> Option<Self> {
        Some(Self {
            base_offset: b.try_get_i64().ok()?,
            first_index: b.try_get_u64().ok()?,
        })
    }

    pub(crate) fn path(self, dir: &Path, extension: &str) -> PathBuf {
        dir.join(self.file_name(extension))
    }

    /// Parses a name of the form that [`SegmentId::file_name`] gives; returns the extension too.
    pub fn parse(name: &str) -> Option<(Self, &str)> {
        let (base, rest) = name.split_once('.')?;
        let (index, extension) = rest.split_once('.')?;
        if base.len() != 20 || index.len() != 20 {
            return None;
        }
        Some((
            Self {
                base_offset: base.parse().ok()?,
                first_index: index.parse().ok()?,
            },
            extension,
        ))
    }
}

/// The low half; CRC-32 arithmetic of the crc crate is 64 bits wide.
fn low_u32(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or(u32::MAX)
}

/// A length that the callers keep far below 4 GiB.
pub(crate) fn len_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// A delta or position inside one segment; the roll rules keep it below 4 GiB.
pub(crate) fn narrow(value: u64) -> u32 {
    debug_assert!(value <= u64::from(u32::MAX), "{value} does not fit a segment");
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A length for memory; this program runs on 64 bits only.
pub(crate) fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

/// The distance between two offsets, where `to >= from`.
pub(crate) fn offset_delta(from: i64, to: i64) -> u64 {
    u64::try_from(to.saturating_sub(from)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_with_any_flipped_bit_is_refused() {
        let good = seal(Kind::State, b"body of a file");
        assert_eq!(unseal(Kind::State, &good), Ok(&b"body of a file"[..]));
        assert_eq!(unseal(Kind::Manifest, &good), Err(FrameError::Damaged));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(Kind::State, &bad), Err(FrameError::Damaged), "bit {bit}");
        }
        for len in 0..good.len() {
            assert_eq!(unseal(Kind::State, &good[..len]), Err(FrameError::Damaged));
        }
    }

    #[test]
    fn segment_names_sort_and_parse_back() {
        let id = SegmentId {
            base_offset: 42,
            first_index: 7,
        };
        let name = id.file_name(LOG);
        assert_eq!(name, "00000000000000000042.00000000000000000007.log");
        assert_eq!(SegmentId::parse(&name), Some((id, "log")));
        assert_eq!(SegmentId::parse("42.7.log"), None);
        assert_eq!(SegmentId::parse("state"), None);
    }
}
