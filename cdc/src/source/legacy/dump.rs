//! All that a master before 3.1 has: it is asked for changes from where none can be, and pushes a dump instead.

use std::net::SocketAddr;

use takhin_config::CdcConfig;
use takhin_pika::Position;
use takhin_runtime::Env;

use super::{Asked, Legacy};
use crate::source::error::SourceError;
use crate::source::redis::address;
use crate::source::rsync::{Folder, Modules, Pushing, Receiver};
use crate::source::transfer::Dump;

/// What the port that the master pushes to is above the one that this slave is listed with.
const PUSH_ABOVE: u16 = 3000;

/// A position that no binlog has: with it slaves that are told so by force ask.
const NOWHERE: Position = Position {
    filenum: u32::MAX,
    offset: 0,
};

impl Legacy {
    /// Where a dump of such a master arrives, and stays until it is written.
    fn folder(env: &Env, config: &CdcConfig, version: &str) -> Result<Folder, SourceError> {
        let dir = config.snapshot_dir();
        let found = env.disk.absolute(&dir.join("rsync").join(Self::DB));
        let found = found.map_err(|source| SourceError::SnapshotDisk {
            dir: dir.display().to_string(),
            source,
        })?;
        Ok(Folder::new(Self::DB, found, version))
    }

    /// The dump that was received and not deleted yet.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    pub async fn kept_dump(
        env: &Env,
        config: &CdcConfig,
        version: &str,
    ) -> Result<Option<Dump>, SourceError> {
        Self::folder(env, config, version)?.look(env).await
    }

    /// Deletes it.
    ///
    /// # Errors
    ///
    /// [`SourceError::SnapshotDisk`].
    pub async fn remove_dump(env: &Env, config: &CdcConfig, version: &str) -> Result<(), SourceError> {
        Self::folder(env, config, version)?.remove(env).await
    }

    /// Has the master push a dump, and receives it. Calls `accepted` when the master has said that it will.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    pub async fn receive_dump(
        &self,
        config: &CdcConfig,
        (version, password): (&str, Option<&str>),
        accepted: impl FnOnce(),
    ) -> Result<Dump, SourceError> {
        let folder = Self::folder(&self.env, config, version)?;
        let root = folder.dir().to_owned();
        let hosts = [self.host.clone(), self.peer.to_string()];
        let modules = Modules::of_legacy(config, &root, &hosts.each_ref().map(String::as_str), self.port);
        let pushing = Pushing {
            peer: self.peer,
            listening: SocketAddr::new(self.local, self.listed_as.port.saturating_add(PUSH_ABOVE)),
            db: Self::DB,
            root,
            folder: folder.clone(),
        };
        // The real slave takes the address before it asks, too.
        let receiver = Receiver::open(&self.env, config, pushing, modules).await?;
        self.ask_all(password).await?;
        accepted();
        let dump = receiver.receive(async || self.ask_all(password).await).await?;
        // The next process goes on with it.
        folder.sync(&self.env, &dump).await?;
        Ok(dump)
    }

    /// Asks for all that the master has.
    async fn ask_all(&self, password: Option<&str>) -> Result<(), SourceError> {
        match self.try_sync(NOWHERE, password).await? {
            Asked::Wait => Ok(()),
            Asked::Number(number) => Err(SourceError::Refused {
                address: address(&self.host, self.port),
                what: "to push all that it has",
                reply: number.to_string(),
            }),
        }
    }
}
