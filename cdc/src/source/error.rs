//! What can go wrong with a master.

use std::io;
use std::time::Duration;

use takhin_pika::Position;
use takhin_pika::binlog::ItemError;
use takhin_pika::frame::FrameError;
use takhin_pika::legacy::StreamError;
use takhin_pika::resp::RespError;
use takhin_runtime::ListenError;

use crate::wal::WalError;

/// Why a master cannot be followed for now.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Such a master would lose what is only shown.
    #[error(
        "{address} has version {version}: --dry-run is not for masters before 3.1, which connect to the process themselves"
    )]
    NoDryRun {
        /// The master.
        address: String,
        /// What it says it is.
        version: String,
    },
    /// No connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// `HOST:PORT`.
        address: String,
        /// What the network said.
        source: io::Error,
    },
    /// No connection, or no answer, in time.
    #[error("{address} has not {what} within {} s", after.as_secs())]
    Silent {
        /// `HOST:PORT`.
        address: String,
        /// What it should have done.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// Nothing comes of a database.
    #[error(
        "{address} has sent nothing of {db} for {} s, no sign of life either: it has forgotten this slave, which connects again",
        after.as_secs()
    )]
    Forgotten {
        /// `HOST:PORT`.
        address: String,
        /// The database.
        db: String,
        /// How long that is.
        after: Duration,
    },
    /// The connection has ended.
    #[error("the connection to {address} has ended{hint}")]
    Closed {
        /// `HOST:PORT`.
        address: String,
        /// What that may mean; empty if nothing is known.
        hint: String,
    },
    /// What arrives is none of Pika's messages.
    #[error("what {address} sends makes no sense: {source}; is source.port the Redis port of a Pika?")]
    Frame {
        /// `HOST:PORT`.
        address: String,
        /// What is wrong with it.
        source: FrameError,
    },
    /// What arrives is no answer of a Redis server.
    #[error("what {address} answers makes no sense: {source}; is it the Redis port of a Pika?")]
    Resp {
        /// `HOST:PORT`.
        address: String,
        /// What is wrong with it.
        source: RespError,
    },
    /// The password file cannot be read.
    #[error("source.password_file: cannot read {path}: {source}")]
    PasswordFile {
        /// The file.
        path: String,
        /// What the disk said.
        source: io::Error,
    },
    /// The password is not the master's.
    #[error("wrong password: {address} refuses what is in source.password_file")]
    WrongPassword {
        /// `HOST:PORT`.
        address: String,
    },
    /// There is a password where none is asked for.
    #[error("{address} has no password (requirepass), but source.password_file gives one: leave it out")]
    NoPassword {
        /// `HOST:PORT`.
        address: String,
    },
    /// A password is asked for.
    #[error("{address} asks for a password: set source.password_file")]
    PasswordMissing {
        /// `HOST:PORT`.
        address: String,
    },
    /// The server says no.
    #[error("{address} refuses {what}: {reply}")]
    Refused {
        /// `HOST:PORT`.
        address: String,
        /// What was asked.
        what: &'static str,
        /// Its words.
        reply: String,
    },
    /// The server is no Pika.
    #[error("{address} names no pika_version in INFO: it is no Pika master")]
    NotPika {
        /// `HOST:PORT`.
        address: String,
    },
    /// The version is not supported.
    #[error("{address} is Pika {version}, which is not supported: 2.3.3 to 4.0 are")]
    Version {
        /// `HOST:PORT`.
        address: String,
        /// What it says.
        version: String,
    },
    /// The master speaks something else than it is to.
    #[error(
        "source.sync_protocol is {wanted}, and {address} is Pika {version}, which does not speak it: set it to auto"
    )]
    Protocol {
        /// `HOST:PORT`.
        address: String,
        /// What it says.
        version: String,
        /// The setting.
        wanted: &'static str,
    },
    /// The data set of such a master is taken in other ways only.
    #[error(
        "snapshot.mode is {wanted}, and {address} is Pika {version}: of masters before 3.1 there are initial, when_needed and no_data"
    )]
    SnapshotMode {
        /// `HOST:PORT`.
        address: String,
        /// What it says.
        version: String,
        /// The setting.
        wanted: &'static str,
    },
    /// The program that speaks rsync cannot be run.
    #[error(
        "snapshot.rsync: cannot run {program}: {source}; masters before 3.5 push their data set with it: install the package \
         rsync, or name the program"
    )]
    Rsync {
        /// The program.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The master does not push its dump.
    #[error(
        "the master has pushed nothing of its dump to {listening} within {} s: it must reach that address, and have the program \
         rsync; see source.listed_as, and snapshot.push_wait if it takes longer to make one",
        after.as_secs()
    )]
    NotPushed {
        /// Where it is waited for.
        listening: String,
        /// How long was waited.
        after: Duration,
    },
    /// The master does not make its dump.
    #[error(
        "the master has not made a dump of {db} within {} s: see its log, and snapshot.push_wait if it takes longer",
        after.as_secs()
    )]
    NotMade {
        /// The database.
        db: String,
        /// How long was waited.
        after: Duration,
    },
    /// Nothing can be listened on.
    #[error("masters before 3.5 connect to their slaves: {0}")]
    Listen(#[from] ListenError),
    /// The master does not send.
    #[error(
        "the master has not connected to {listening} within {} s: it must reach that address, or the one of \
         source.listed_as with a port 1000 higher",
        after.as_secs()
    )]
    NotReached {
        /// Where it is waited for.
        listening: String,
        /// How long was waited.
        after: Duration,
    },
    /// What a master before 3.1 sends makes no sense.
    #[error("what {address} sends makes no sense: {source}")]
    Stream {
        /// `HOST:PORT`.
        address: String,
        /// What is wrong with it.
        source: StreamError,
    },
    /// What a master before 3.1 has sent was lost on the way.
    #[error("{found} of {db} came where {expected} is to: what is missing is asked for again")]
    Missing {
        /// The database.
        db: String,
        /// Where the last record ended.
        expected: Position,
        /// Where the next one begins.
        found: Position,
    },
    /// What was received cannot be kept.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The master is one of 3.1 or later now, and there are positions of before.
    #[error(
        "{address} is Pika {version} now, and the positions in checkpoint.dir are of a master before 3.1: choose another \
         checkpoint.dir and source.id to begin anew"
    )]
    Upgraded {
        /// `HOST:PORT`.
        address: String,
        /// What it says.
        version: String,
    },
    /// The master is one before 3.1 now, and there is a log of before.
    #[error(
        "{address} is Pika {version} now, and what is in wal.dir is of a master from 3.1 on: choose another checkpoint.dir and \
         source.id to begin anew"
    )]
    Downgraded {
        /// `HOST:PORT`.
        address: String,
        /// What it says.
        version: String,
    },
    /// The server runs with several slots per database.
    #[error("{address} runs in sharding mode, which is not supported: classic mode is")]
    Sharding {
        /// `HOST:PORT`.
        address: String,
    },
    /// A database that is to be followed does not exist.
    #[error("filters.databases has {wanted}, which the master lacks: it has {}", found.join(", "))]
    Database {
        /// The setting.
        wanted: String,
        /// What there is.
        found: Vec<String>,
    },
    /// A database that was followed does not exist.
    #[error(
        "there is a position of {gone}, which the master lacks: it has {}; if it is the right master, name in filters.databases \
         which of them are to be followed", found.join(", ")
    )]
    DatabaseGone {
        /// The database.
        gone: String,
        /// What there is.
        found: Vec<String>,
    },
    /// Another connection has our name.
    #[error(
        "the master already has a slave {node}: if that is no earlier connection of this process, which ends by itself, set \
         source.listed_as to an address of its own"
    )]
    AlreadyListed {
        /// Name of the slave.
        node: String,
    },
    /// The changes from the position on cannot be had.
    #[error(
        "position {position} of {db} is lost: {why}; set source.on_position_lost to resync and snapshot.mode to when_needed \
         to take the data set again, or choose another source.id to begin anew"
    )]
    PositionLost {
        /// The database.
        db: String,
        /// Where it was to go on.
        position: Position,
        /// What the master says.
        why: String,
    },
    /// The changes behind a data set cannot be had.
    #[error(
        "the data set of {db} is there, and not the changes from {position} on: {why}; it is taken again: raise the master's \
         expire-logs-nums until it is"
    )]
    ChangesGone {
        /// The database.
        db: String,
        /// Where they were to go on.
        position: Position,
        /// What the master says.
        why: String,
    },
    /// The item at a position that was noted is another one than follows what was written.
    #[error(
        "the item of {db} at {position} has number {found}, and {expected} is to follow there: the master has another history than \
         the one that was followed, as after a backup was restored or another server took its place"
    )]
    History {
        /// The database.
        db: String,
        /// Where it begins.
        position: Position,
        /// The number that it should have.
        expected: u64,
        /// The one that it has.
        found: u64,
    },
    /// Changes are missing.
    #[error(
        "a gap in the binlog of {db}: {found} follows where {expected} is to be; it is asked for again, and if that does not help, one \
         start with snapshot.mode always takes the data set again"
    )]
    Gap {
        /// The database.
        db: String,
        /// Where the last item ended.
        expected: Position,
        /// Where the next one begins.
        found: Position,
    },
    /// The data set cannot be taken.
    #[error(
        "the data set of {db} cannot be taken: {why}; another dump is asked for, ever later: see the master's log, and the room on its \
         disk"
    )]
    Snapshot {
        /// The database.
        db: String,
        /// Why.
        why: String,
    },
    /// There is no room for the data set, or the disk fails.
    #[error(
        "snapshot.dir: cannot write {dir}: {source}; a dump takes as much room as the data on the master's disk"
    )]
    SnapshotDisk {
        /// The directory.
        dir: String,
        /// What the disk said.
        source: io::Error,
    },
    /// An item makes no sense.
    #[error(
        "the item of {db} that ends at {end} makes no sense: {source}; it is asked for again, and if that does not help, one start \
         with snapshot.mode always takes the data set again"
    )]
    Item {
        /// The database.
        db: String,
        /// Where it ends.
        end: Position,
        /// What is wrong with it.
        source: ItemError,
    },
}

impl SourceError {
    /// A word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::Silent { .. } | Self::Forgotten { .. } => "silent",
            Self::Closed { .. } => "closed",
            Self::NotReached { .. } | Self::NotPushed { .. } => "not_reached",
            Self::Rsync { .. } => "rsync",
            Self::Frame { .. } | Self::Resp { .. } | Self::Stream { .. } => "protocol",
            Self::PasswordFile { .. }
            | Self::WrongPassword { .. }
            | Self::NoPassword { .. }
            | Self::PasswordMissing { .. } => "password",
            Self::Refused { .. } => "refused",
            Self::NotPika { .. }
            | Self::Version { .. }
            | Self::Sharding { .. }
            | Self::Protocol { .. }
            | Self::NoDryRun { .. }
            | Self::Upgraded { .. }
            | Self::SnapshotMode { .. }
            | Self::Downgraded { .. } => "version",
            Self::Wal(_) => "wal",
            Self::Listen(_) => "listen",
            Self::Missing { .. } => "missing",
            Self::Database { .. } | Self::DatabaseGone { .. } => "database",
            Self::AlreadyListed { .. } => "already_listed",
            Self::PositionLost { .. } => "position_lost",
            Self::ChangesGone { .. } => "changes_gone",
            Self::History { .. } => "history",
            Self::Gap { .. } => "gap",
            Self::Snapshot { .. } | Self::NotMade { .. } => "snapshot",
            Self::SnapshotDisk { .. } => "snapshot_disk",
            Self::Item { .. } => "item",
        }
    }

    /// Whether nothing changes before somebody does something.
    pub fn needs_somebody(&self) -> bool {
        matches!(
            self.reason(),
            "password"
                | "version"
                | "database"
                | "position_lost"
                | "changes_gone"
                | "gap"
                | "item"
                | "snapshot_disk"
                | "listen"
                | "rsync"
                | "wal"
        )
    }
}
