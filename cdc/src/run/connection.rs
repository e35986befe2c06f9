//! The connection to a master's Redis port, and what is learnt over it.

use std::path::Path;
use std::sync::Arc;

use takhin_config::cdc::{SnapshotMode, SyncProtocol};
use takhin_pika::info::{Family, ServerInfo};
use takhin_runtime::{Disk, OpenMode};

use super::Runner;
use crate::source::{Redis, SourceError};
use crate::trace::{traced, work_span};

/// Size of the master's binlog files where it does not say.
const FILE_SIZE: u64 = 100 << 20;

/// Longest password, in bytes.
const MAX_PASSWORD: u64 = 4096;

/// A connection to the Redis port, and what was learnt over it.
pub(super) struct Connected {
    pub(super) redis: Redis,
    pub(super) server: ServerInfo,
    pub(super) password: Option<String>,
}

impl Runner<'_> {
    pub(super) async fn connect(&self) -> Result<Connected, SourceError> {
        let source = &self.config.source;
        let span = work_span!("connect", host = source.host, port = source.port);
        let connected = traced(span, self.open_connection()).await;
        if connected.is_err() {
            // Also where something before the master takes connections, and ends them at once.
            self.forget_refusals();
        }
        connected
    }

    async fn open_connection(&self) -> Result<Connected, SourceError> {
        let source = &self.config.source;
        let password = self.password().await?;
        let opened = Redis::open(
            self.env,
            &source.host,
            source.port,
            source.timeout,
            password.as_deref(),
        );
        let mut redis = opened.await?;
        let server = redis.server().await?;
        let wanted = source.sync_protocol;
        let is_wanted = match wanted {
            SyncProtocol::Auto => true,
            SyncProtocol::Legacy => server.family == Family::Legacy,
            SyncProtocol::Pb => matches!(server.family, Family::Pb | Family::PbRsync),
        };
        let mode = self.config.snapshot.mode;
        if server.family == Family::Legacy && matches!(mode, SnapshotMode::Always | SnapshotMode::InitialOnly)
        {
            return Err(SourceError::SnapshotMode {
                address: redis.address().to_owned(),
                version: server.version,
                wanted: mode.as_str(),
            });
        }
        match is_wanted {
            true => Ok(Connected {
                redis,
                server,
                password,
            }),
            false => Err(SourceError::Protocol {
                address: redis.address().to_owned(),
                version: server.version,
                wanted: wanted.as_str(),
            }),
        }
    }

    async fn password(&self) -> Result<Option<String>, SourceError> {
        let Some(path) = &self.config.source.password_file else {
            return Ok(None);
        };
        let (disk, path) = (Arc::clone(&self.env.disk), path.clone());
        let read = self.env.tasks.blocking(move || {
            read_password(&*disk, &path).map_err(|source| SourceError::PasswordFile {
                path: path.display().to_string(),
                source,
            })
        });
        read.await.map(Some)
    }
}

/// After how many bytes the master's binlog files roll.
pub(super) async fn file_size(redis: &mut Redis) -> u64 {
    let setting = redis.setting("binlog-file-size").await;
    setting
        .ok()
        .flatten()
        .and_then(|size| size.parse().ok())
        .unwrap_or(FILE_SIZE)
}

fn read_password(disk: &dyn Disk, path: &Path) -> std::io::Result<String> {
    let file = disk.open(path, OpenMode::Read)?;
    let len = file.len()?;
    if len > MAX_PASSWORD {
        return Err(std::io::Error::other(format!(
            "it has {len} bytes, too many for a password"
        )));
    }
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
    file.read_exact_at(&mut bytes, 0)?;
    let text = String::from_utf8(bytes).map_err(|_| std::io::Error::other("it is not UTF-8 text"))?;
    Ok(text.trim().to_owned())
}
