//! The data set as it was before the changes: a dump of the master, received, read and written key by key.

mod events;

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use takhin_config::CdcConfig;
use takhin_pika_dump::{Bounds, Database, DumpError, Layout, Tally, databases};
use takhin_runtime::Env;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

use crate::event::{Event, SnapshotRef, Source};
use crate::metrics;
use crate::queue::{Piece, Progress, Queue};
use crate::source::{Dump, Followed, Session, SourceError, Transfers};
use events::{boundary, of_piece};

/// Lots that databases may be ahead of what is in the queue.
const AHEAD: usize = 4;

/// Events that are put into the queue together, and their bytes.
const TOGETHER: (usize, usize) = (256, 256 << 10);

/// Takes the data set of a database: a dump is received and written, and the position noted at which the changes go on. That
/// is returned once everything has been acknowledged.
///
/// # Errors
///
/// [`SourceError`].
pub async fn take(
    env: &Env,
    config: &CdcConfig,
    (session, begun): (&Session, &Transfers),
    queue: &Queue,
    (db, is_fresh, epoch, reason): (&str, bool, u32, &'static str),
) -> Result<takhin_pika::Position, SourceError> {
    let dump = session.receive_dump((config, begun), db, is_fresh).await?;
    let of = (db, epoch, reason);
    write((env, config), session.followed(), queue, of, &dump).await?;
    session.remove_dump(begun, db, &dump).await;
    Ok(dump.info.position)
}

/// Writes a data set that was received; `epoch` counts those that have replaced a position, this one among them. All of it has
/// been acknowledged, and the position noted at which the changes go on, when it returns.
///
/// # Errors
///
/// [`SourceError`].
pub async fn write(
    (env, config): (&Env, &CdcConfig),
    followed: &Followed,
    queue: &Queue,
    (db, epoch, reason): (&str, u32, &'static str),
    dump: &Dump,
) -> Result<(), SourceError> {
    let begin = env.clock.instant();
    let Some(source) = followed.source() else {
        return Err(failed(db, "the master has not introduced itself"));
    };
    let now_ms = env.clock.now_ms();
    let reference = SnapshotRef {
        // Another one for each time, also where the master gives the same dump again.
        id: format!("{}-{now_ms:x}", dump.uuid.get(..8).unwrap_or("0")).into(),
        position: dump.info.position,
        is_exact: is_exact(&source.version),
        reason,
    };
    info!(db, position = %reference.position, files = dump.files.len(), "writing the data set");
    let writing = Writing {
        env,
        config,
        source,
        queue,
        db: db.into(),
        epoch,
        reference,
        now_ms,
    };
    let tally = writing.run(dump).await?;
    let seconds = begin.elapsed().as_secs();
    info!(
        db,
        keys = tally.keys,
        expired = tally.dead,
        seconds,
        "the data set is written"
    );
    if tally.damaged > 0 {
        metrics::SNAPSHOT_DAMAGED.with([db]).add(tally.damaged);
        warn!(
            db,
            keys = tally.damaged,
            "keys that Pika itself has cut are not in the data set"
        );
    }
    Ok(())
}

/// Events that come out of a database together.
#[derive(Default)]
struct Lot {
    events: Vec<Event>,
    /// Bytes of what they are made of.
    len: usize,
    /// Keys that end with them.
    keys: u64,
}

/// A data set on its way.
struct Writing<'a> {
    env: &'a Env,
    config: &'a CdcConfig,
    source: &'a Source,
    queue: &'a Queue,
    db: Arc<str>,
    epoch: u32,
    reference: SnapshotRef,
    now_ms: i64,
}

impl Writing<'_> {
    async fn run(&self, dump: &Dump) -> Result<Tally, SourceError> {
        self.tell("snapshot_begin", None).await?;
        let layout = layout(&self.source.version);
        let directories = databases(layout, dump.files.iter().map(String::as_str));
        if self.source.version.starts_with("3.5.")
            && !directories.iter().any(|directory| directory == "streams")
        {
            // 3.5.3 to 3.5.5 have streams and do not list their files.
            warn!(
                db = &*self.db,
                "the dump has no streams: 3.5 does not send them, and there are no events of those before"
            );
        }
        let (lots, received) = mpsc::channel(AHEAD);
        let reading = async {
            let lots = lots;
            let tallies: Vec<Result<Tally, SourceError>> = stream::iter(directories)
                .map(|directory| self.read(dump, layout, directory, lots.clone()))
                .buffer_unordered(usize::from(self.config.snapshot.parallelism))
                .collect()
                .await;
            drop(lots);
            let mut sum = Tally::default();
            for tally in tallies {
                let tally = tally?;
                sum.keys += tally.keys;
                sum.dead += tally.dead;
                sum.damaged += tally.damaged;
            }
            Ok::<_, SourceError>(sum)
        };
        let (tally, forwarded) = tokio::join!(reading, self.forward(received));
        let (tally, ()) = (tally?, forwarded?);
        let (done, written) = oneshot::channel();
        self.tell("snapshot_end", Some(done)).await?;
        written
            .await
            .map_err(|_| failed(&self.db, "it could not be written"))?;
        Ok(tally)
    }

    /// Reads one database, on a thread.
    async fn read(
        &self,
        dump: &Dump,
        layout: Layout,
        directory: String,
        lots: mpsc::Sender<Lot>,
    ) -> Result<Tally, SourceError> {
        let (dir, now_ms, db) = (dump.dir.clone(), self.now_ms, Arc::clone(&self.db));
        let (source, reference) = (self.source.clone(), self.reference.clone());
        let read = move || {
            let database = Database::open(&dir, &directory, layout)?;
            let estimate = i64::try_from(database.estimated_keys()).unwrap_or(i64::MAX);
            metrics::SNAPSHOT_ESTIMATE.with([&db]).add(estimate);
            let mut lot = Lot::default();
            let tally = database.read(now_ms, Bounds::default(), |piece| {
                lot.len += piece.len() + piece.key.len();
                lot.keys += u64::from(piece.is_last);
                lot.events.push(of_piece(&source, &db, &reference, now_ms, piece));
                let is_whole = lot.events.len() >= TOGETHER.0 || lot.len >= TOGETHER.1;
                // Nobody takes them any more when this attempt has ended.
                !is_whole || lots.blocking_send(std::mem::take(&mut lot)).is_ok()
            })?;
            if !lot.events.is_empty() {
                let _ = lots.blocking_send(lot);
            }
            Ok::<_, DumpError>(tally)
        };
        let tally = self.env.tasks.blocking(read).await;
        tally.map_err(|error| failed(&self.db, &error.to_string()))
    }

    /// Puts events into the queue.
    async fn forward(&self, mut lots: mpsc::Receiver<Lot>) -> Result<(), SourceError> {
        let keys = metrics::SNAPSHOT_KEYS.with([&self.db]);
        while let Some(lot) = lots.recv().await {
            keys.add(lot.keys);
            let piece = Piece {
                events: lot.events,
                ..Piece::default()
            };
            if !self.queue.put(piece, lot.len).await {
                return Err(failed(&self.db, "it could not be written"));
            }
        }
        Ok(())
    }

    /// Writes that the data set begins or ends; with the end goes the position.
    async fn tell(&self, op: &'static str, done: Option<oneshot::Sender<()>>) -> Result<(), SourceError> {
        let progress = done.is_some().then(|| Progress {
            db: Arc::clone(&self.db),
            position: self.reference.position,
            epoch: self.epoch,
            logic_id: 0,
            origin: 0,
            ts_ms: 0,
            last: None,
        });
        let piece = Piece {
            events: vec![boundary(self.source, &self.db, &self.reference, self.now_ms, op)],
            progress,
            done,
            ..Piece::default()
        };
        match self.queue.put(piece, 1).await {
            true => Ok(()),
            false => Err(failed(&self.db, "it could not be written")),
        }
    }
}

/// How dumps of this version are laid out.
fn layout(version: &str) -> Layout {
    match version.split('.').next() {
        Some("2") => Layout::PerTypeFlat,
        Some("3") => Layout::PerType,
        _ => Layout::Merged,
    }
}

/// Whether dumps of this version are the state at exactly their position: up to 3.2.5 a command is executed and noted under one
/// lock, and 3.5.5 holds commands back while it makes a dump. 4.0.1 does too, and cannot be told from 4.0.0. Of 2.3 it is not
/// known.
fn is_exact(version: &str) -> bool {
    let mut numbers = version
        .split('.')
        .map(|number| number.parse::<u32>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    matches!(
        (next(), next(), next()),
        (3, 0 | 1, _) | (3, 2, ..=5) | (3, 5, 5..)
    )
}

fn failed(db: &str, why: &str) -> SourceError {
    SourceError::Snapshot {
        db: db.to_owned(),
        why: why.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use takhin_pika::Position;
    use takhin_pika_testing::fixture::Fixture;

    use super::*;
    use crate::queue::queue;

    /// Whoever is killed amid a data set begins it anew: its position is that of the end, and nobody goes on before that is
    /// written.
    #[tokio::test]
    #[allow(clippy::disallowed_methods, reason = "it looks into the dump")]
    async fn a_position_is_noted_behind_all_keys_and_waited_for() {
        let (work, env) = (tempfile::tempdir().unwrap(), Env::real());
        let dir = Fixture::of("3.5.5").dump(work.path()).unwrap().join("db0");
        let files = std::fs::read_dir(dir.join("strings")).unwrap();
        let name = |entry: std::fs::DirEntry| format!("strings/{}", entry.file_name().display());
        let dump = Dump {
            files: files.map(|entry| name(entry.unwrap())).collect(),
            info: takhin_pika::info::DumpInfo::parse("0s\nhost\n9221\n3\n4\n").unwrap(),
            uuid: "uuid".to_owned(),
            dir,
        };
        let (queue, mut works) = queue(1 << 20);
        let source = Source {
            id: "s".into(),
            host: "host".into(),
            port: 9221,
            version: "3.5.5".into(),
            replication_id: String::new(),
        };
        let reference = SnapshotRef {
            id: "id".into(),
            position: dump.info.position,
            is_exact: true,
            reason: "position_lost",
        };
        let writing = Writing {
            env: &env,
            config: &CdcConfig::default(),
            source: &source,
            queue: &queue,
            db: "db0".into(),
            epoch: 3,
            reference,
            now_ms: 0,
        };
        let mut run = Box::pin(writing.run(&dump));
        let mut events = Vec::new();
        let (progress, done) = loop {
            let mut work = tokio::select! {
                biased;
                ended = &mut run => panic!("nobody has written it: {ended:?}"),
                work = works.recv() => work.unwrap(),
            };
            events.append(&mut work.events);
            if let Some(progress) = work.progress.take() {
                break (progress, work.done.take().unwrap());
            }
        };
        assert_eq!((progress.position, progress.epoch), (Position::new(3, 4), 3));
        assert!(events.len() > 3, "{}", events.len());
        assert_eq!(events.first().unwrap().op, "snapshot_begin");
        assert_eq!(events.last().unwrap().op, "snapshot_end");
        assert!((&mut run).now_or_never().is_none());
        done.send(()).unwrap();
        assert!(run.await.unwrap().keys > 1);
    }

    #[test]
    fn versions_tell_the_layout_and_what_may_come_twice() {
        assert_eq!(layout("2.3.6"), Layout::PerTypeFlat);
        assert_eq!(layout("3.0.16"), Layout::PerType);
        assert_eq!(layout("4.0.0"), Layout::Merged);
        let exact = ["3.0.16", "3.1.0", "3.2.5", "3.5.5"];
        let others = ["2.3.6", "3.2.6", "3.4.1", "3.5.4", "4.0.0"];
        assert!(exact.into_iter().all(is_exact) && !others.into_iter().any(is_exact));
    }
}
