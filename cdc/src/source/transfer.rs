//! Receives a dump: the files that the master lists, over a connection of its own.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use md5::{Digest as _, Md5};
use parking_lot::Mutex;
use takhin_config::units::Limit;
use takhin_config::{ByteSize, CdcConfig};
use takhin_pika::frame;
use takhin_pika::info::DumpInfo;
use takhin_pika::message::{
    FileRequest, FileResponse, TransferKind, TransferRequest, TransferResponse, TransferStatus,
};
use takhin_runtime::clock::Instant;
use takhin_runtime::{Env, OpenMode, ReadHalf, WriteHalf};
use tracing::{debug, info, warn};

use super::error::SourceError;
use super::redis::{address, closed, connect};
use crate::metrics;

/// What the port of files is above the Redis port.
const PORT_ABOVE: u16 = 10_001;

/// Bytes asked for at a time, as real slaves do.
const CHUNK: u64 = 4 << 20;

/// Longest answer: a chunk, or a list of names.
const MAX_ANSWER: usize = 64 << 20;

/// Most files of a dump.
pub(super) const MAX_FILES: usize = 100_000;

/// Where a dump says its position.
pub(super) const INFO: &str = "info";

/// Pause between two questions whether the dump is ready.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Pause between two words about the master's making it.
const SAY: Duration = Duration::from_secs(60);

/// Connections that may fail one after the other without a file getting on.
const ATTEMPTS: u32 = 5;

/// A dump on this machine.
#[derive(Debug)]
pub struct Dump {
    /// The directory.
    pub dir: PathBuf,
    /// Its files, as the master lists them.
    pub files: Vec<String>,
    /// The changes go on there.
    pub info: DumpInfo,
    /// The master's name for it.
    pub uuid: String,
}

/// What is to be received.
#[derive(Debug)]
pub(super) struct Transfer<'a> {
    pub(super) env: &'a Env,
    pub(super) config: &'a CdcConfig,
    pub(super) db: &'a str,
    pub(super) dir: PathBuf,
    /// How far earlier sessions came.
    pub(super) begun: &'a Transfers,
}

/// How far the dumps of databases were received, for whoever goes on with them: the connection for changes may break meanwhile, and
/// what was received is as good over the next one.
#[derive(Debug, Default)]
pub struct Transfers(Mutex<BTreeMap<String, Progress>>);

impl Transfers {
    /// Forgets what was received of a database.
    pub(super) fn forget(&self, db: &str) {
        self.0.lock().remove(db);
    }
}

/// Progress on loan; it goes back when this is dropped, however the session ends.
struct Loan<'a> {
    of: &'a Transfers,
    db: &'a str,
    progress: Option<Progress>,
}

impl<'a> Loan<'a> {
    fn new(of: &'a Transfers, db: &'a str) -> Self {
        let progress = of.0.lock().remove(db);
        Self { of, db, progress }
    }
}

impl Drop for Loan<'_> {
    fn drop(&mut self) {
        if let Some(progress) = self.progress.take() {
            self.of.0.lock().insert(self.db.to_owned(), progress);
        }
    }
}

/// What the master has, and how far it was received.
#[derive(Debug)]
struct Progress {
    uuid: String,
    files: Vec<String>,
    /// Index of the file that is being received, and how far it is.
    at: (usize, u64),
}

/// The wait for the master's list: over several connections, where the master does not answer while it makes the dump.
struct Waiting {
    begin: Instant,
    /// When it was said last, after the beginning.
    said: Duration,
}

/// A connection to the port of files.
struct Files {
    address: String,
    timeout: Duration,
    env: Env,
    reading: ReadHalf,
    writing: WriteHalf,
    buffer: BytesMut,
}

impl Transfer<'_> {
    /// Receives everything. A connection that breaks is made again, and what was received is kept as long as the master
    /// has the same dump.
    pub(super) async fn run(&self) -> Result<Dump, SourceError> {
        let mut loan = Loan::new(self.begun, self.db);
        let progress = &mut loan.progress;
        let mut failures = 0;
        let mut waiting = Waiting {
            begin: self.env.clock.instant(),
            said: Duration::ZERO,
        };
        loop {
            let before = progress.as_ref().map(|progress| progress.at);
            let error = match self.attempt(progress, &mut waiting).await {
                Ok(dump) => return Ok(dump),
                Err(error) => error,
            };
            let may_pass = matches!(error.reason(), "connect" | "silent" | "closed");
            failures = match progress.as_ref().map(|progress| progress.at) == before {
                true => failures + 1,
                false => 1,
            };
            if !may_pass {
                // What is there may be the fault.
                *progress = None;
            }
            // 3.5.0 to 3.5.2 say nothing until they have made it, however long that takes.
            let may_be_made = before.is_none() && progress.is_none() && error.reason() == "silent";
            if may_be_made {
                failures = 0;
                self.still_waits(&mut waiting)?;
            }
            if !may_pass || failures >= ATTEMPTS {
                return Err(error);
            }
            debug!(db = self.db, %error, "the transfer goes on over another connection");
            self.env.clock.sleep(ASK_AGAIN).await;
        }
    }

    /// Says from time to time that it waits; no longer than it may.
    fn still_waits(&self, waiting: &mut Waiting) -> Result<(), SourceError> {
        let (waited, limit) = (waiting.begin.elapsed(), self.config.snapshot.push_wait);
        if waited >= limit {
            return Err(SourceError::NotMade {
                db: self.db.to_owned(),
                after: limit,
            });
        }
        if waited >= waiting.said + SAY {
            waiting.said = waited;
            warn!(
                db = self.db,
                seconds = waited.as_secs(),
                "waiting for the master to make its dump"
            );
        }
        Ok(())
    }

    async fn attempt(
        &self,
        progress: &mut Option<Progress>,
        waiting: &mut Waiting,
    ) -> Result<Dump, SourceError> {
        let source = &self.config.source;
        let address = address(&source.host, source.port.saturating_add(PORT_ABOVE));
        let (reading, writing) = connect(self.env, &address, source.timeout).await?.into_split();
        let mut files = Files {
            address,
            timeout: source.timeout,
            env: self.env.clone(),
            reading,
            writing,
            buffer: BytesMut::new(),
        };
        let (uuid, listed) = self.list(&mut files, waiting).await?;
        let known = progress
            .as_ref()
            .filter(|known| known.uuid == uuid && known.files == listed);
        if known.is_none() {
            self.empty(&listed).await?;
            info!(db = self.db, files = listed.len(), "receiving a dump");
            *progress = Some(Progress {
                uuid: uuid.clone(),
                files: listed.clone(),
                at: (0, 0),
            });
        } else if let Some((file, offset)) = known.map(|known| known.at).filter(|at| *at != (0, 0)) {
            info!(db = self.db, file, offset, "going on with a dump");
        }
        let info = self.receive(&mut files, progress, &uuid, &listed).await?;
        // A dump that was made meanwhile may have replaced some of the files.
        *waiting = Waiting {
            begin: self.env.clock.instant(),
            said: Duration::ZERO,
        };
        if self.list(&mut files, waiting).await? != (uuid.clone(), listed.clone()) {
            *progress = None;
            return Err(self.failed("the master has made another dump meanwhile"));
        }
        Ok(Dump {
            dir: self.dir.clone(),
            files: listed,
            info,
            uuid,
        })
    }

    /// The master's list, as soon as there is one.
    async fn list(
        &self,
        files: &mut Files,
        waiting: &mut Waiting,
    ) -> Result<(String, Vec<String>), SourceError> {
        loop {
            self.still_waits(waiting)?;
            let request = TransferRequest {
                r#type: TransferKind::TransferMeta.into(),
                reader_index: 0,
                db_name: self.db.to_owned(),
                slot_id: 0,
                file_req: None,
            };
            // 3.5.0 to 3.5.2 do not answer while they make the dump: whoever waited in vain comes with another connection.
            let answer = files.ask(&request).await?;
            let is_ready = answer.code() == TransferStatus::TransferOk && !answer.snapshot_uuid.is_empty();
            let Some(listed) = answer.meta_resp.filter(|_| is_ready) else {
                self.env.clock.sleep(ASK_AGAIN).await;
                continue;
            };
            // The position first, which is small and tells that list and dump are one.
            let (info, mut rest): (Vec<_>, Vec<_>) =
                listed.filenames.into_iter().partition(|name| name == INFO);
            if rest.len() > MAX_FILES || !rest.iter().all(|name| is_safe(name)) {
                return Err(self.failed("the master lists files that are none of a dump"));
            }
            if info.len() != 1 || rest.is_empty() {
                return Err(self.failed("the master could not make a dump: its list has no files"));
            }
            rest.sort_unstable();
            let all = info.into_iter().chain(rest).collect();
            return Ok((answer.snapshot_uuid, all));
        }
    }

    async fn receive(
        &self,
        files: &mut Files,
        progress: &mut Option<Progress>,
        uuid: &str,
        listed: &[String],
    ) -> Result<DumpInfo, SourceError> {
        let Some(Progress { at, .. }) = progress else {
            return Err(self.failed("nothing is to be received"));
        };
        let begin = self.env.clock.instant();
        let mut received = 0;
        while let Some(name) = listed.get(at.0) {
            let request = TransferRequest {
                r#type: TransferKind::TransferFile.into(),
                reader_index: 0,
                db_name: self.db.to_owned(),
                slot_id: 0,
                file_req: Some(FileRequest {
                    filename: name.clone(),
                    count: CHUNK,
                    offset: at.1,
                }),
            };
            let answer = files.ask(&request).await?;
            if answer.snapshot_uuid != uuid {
                *progress = None;
                return Err(self.failed("the master has made another dump meanwhile"));
            }
            let piece = answer.file_resp.filter(|piece| {
                piece.offset == at.1 && piece.filename == *name && piece.data.len() as u64 == piece.count
            });
            let Some(FileResponse { eof, count, data, .. }) = piece else {
                return Err(self.failed(&format!("the master does not send {name} of its dump")));
            };
            received += count;
            metrics::SNAPSHOT_BYTES.with([self.db]).add(count);
            self.write(name, at.1, data).await?;
            match (eof, count) {
                (1, _) => *at = (at.0 + 1, 0),
                (_, 0) => return Err(self.failed(&format!("the master sends nothing of {name}"))),
                _ => at.1 += count,
            }
            self.pace(begin, received).await;
        }
        let info = self.read_info().await?;
        let sum: String = Md5::digest(&info)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let parsed = std::str::from_utf8(&info).ok().and_then(DumpInfo::parse);
        match parsed.filter(|_| sum == uuid) {
            Some(info) => Ok(info),
            None => {
                *progress = None;
                Err(self.failed("what was received does not have the checksum that the master gives"))
            }
        }
    }

    /// Waits where more was received than the rate allows.
    async fn pace(&self, begin: Instant, received: u64) {
        if let Limit::At(rate) = self.config.snapshot.max_rate {
            #[allow(clippy::cast_precision_loss, reason = "a rate need not be exact")]
            let seconds = received as f64 / rate.max(ByteSize::bytes(1)).as_u64() as f64;
            self.env
                .clock
                .sleep_until(begin + Duration::from_secs_f64(seconds))
                .await;
        }
    }

    /// An empty directory with the folders that the files are to be in.
    async fn empty(&self, listed: &[String]) -> Result<(), SourceError> {
        let mut folders: Vec<PathBuf> = listed
            .iter()
            .filter_map(|name| name.split_once('/'))
            .map(|(folder, _)| self.dir.join(folder))
            .collect();
        folders.dedup();
        let (disk, dir) = (Arc::clone(&self.env.disk), self.dir.clone());
        let made = self.env.tasks.blocking(move || {
            match disk.remove_dir_all(&dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            disk.create_dir_all(&dir)?;
            folders.iter().try_for_each(|folder| disk.create_dir_all(folder))
        });
        made.await.map_err(|source| self.disk(source))
    }

    async fn write(&self, name: &str, offset: u64, data: Bytes) -> Result<(), SourceError> {
        let (disk, path) = (Arc::clone(&self.env.disk), self.dir.join(name));
        let written = self.env.tasks.blocking(move || {
            // Not cut off there: who began this piece before may have it written still, and then it is the same.
            let file = disk.open(&path, OpenMode::CreateOrWrite)?;
            file.write_at(&mut [IoSlice::new(&data)], offset)
        });
        written.await.map_err(|source| self.disk(source))
    }

    async fn read_info(&self) -> Result<Vec<u8>, SourceError> {
        let (disk, path) = (Arc::clone(&self.env.disk), self.dir.join(INFO));
        let read = self.env.tasks.blocking(move || {
            let file = disk.open(&path, OpenMode::Read)?;
            let mut bytes = vec![0; usize::try_from(file.len()?.min(1 << 16)).unwrap_or(0)];
            file.read_exact_at(&mut bytes, 0)?;
            Ok(bytes)
        });
        read.await.map_err(|source| self.disk(source))
    }

    fn disk(&self, source: io::Error) -> SourceError {
        SourceError::SnapshotDisk {
            dir: self.dir.display().to_string(),
            source,
        }
    }

    fn failed(&self, why: &str) -> SourceError {
        SourceError::Snapshot {
            db: self.db.to_owned(),
            why: why.to_owned(),
        }
    }
}

impl Files {
    /// Asks, and waits for the answer.
    async fn ask(&mut self, request: &TransferRequest) -> Result<TransferResponse, SourceError> {
        let clock = self.env.clock.clone();
        match clock.timeout(self.timeout, self.ask_for_ever(request)).await {
            Ok(answered) => answered,
            Err(_) => Err(SourceError::Silent {
                address: self.address.clone(),
                what: "answered",
                after: self.timeout,
            }),
        }
    }

    async fn ask_for_ever(&mut self, request: &TransferRequest) -> Result<TransferResponse, SourceError> {
        let mut bytes = VecDeque::from([frame::encode(request)]);
        let failed = |source: io::Error| closed(&self.address, source.to_string());
        self.writing.write_all(&mut bytes).await.map_err(failed)?;
        loop {
            let wrong = |source| SourceError::Frame {
                address: self.address.clone(),
                source,
            };
            if let Some(bytes) = frame::next(&mut self.buffer, MAX_ANSWER).map_err(wrong)? {
                return frame::decode(bytes).map_err(wrong);
            }
            self.buffer.reserve(64 << 10);
            let read = self.reading.read_buf(&mut self.buffer).await;
            if read.map_err(|source| closed(&self.address, source.to_string()))? == 0 {
                return Err(closed(&self.address, String::new()));
            }
        }
    }
}

/// Whether a name is a file in a folder, and nothing that leads elsewhere.
fn is_safe(name: &str) -> bool {
    let path = Path::new(name);
    match name.split_once('/') {
        Some((folder, file)) => path.is_relative() && is_plain(folder) && is_plain(file),
        None => false,
    }
}

/// Whether a name is one of a file or folder, as RocksDB names them.
pub(super) fn is_plain(part: &str) -> bool {
    let is_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !part.is_empty() && part.chars().all(is_character) && !part.chars().all(|c| c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_nowhere_else() {
        for safe in [
            "strings/000012.sst",
            "0/CURRENT",
            "hashes/MANIFEST-000011",
            "2/OPTIONS-000013",
        ] {
            assert!(is_safe(safe), "{safe}");
        }
        for unsafe_ in [
            "../x", "/etc/x", "a/../b", "a/b/c", "a/..", "x", "", "a/", "/a", "a/b\0", "./a", "..a/../x",
        ] {
            assert!(!is_safe(unsafe_), "{unsafe_}");
        }
    }
}
