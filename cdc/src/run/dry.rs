//! What would be sent, shown: nothing is sent to brokers or acknowledged to the master, and no position is kept.

use std::io::Write;
use std::sync::Arc;

use takhin_config::CdcConfig;
use takhin_config::units::HostPort;
use takhin_pika::info::Family;
use takhin_runtime::telemetry::health::Health;
use takhin_runtime::{Env, Shutdown};
use tokio::sync::mpsc;

use super::{Connected, Flags, Runner};
use crate::checkpoint::peek;
use crate::control::Pause;
use crate::event::Json;
use crate::queue::{Work, queue};
use crate::sink::Preview;
use crate::source::{Ends, Followed, Session, SourceError};
use crate::trouble::Trouble;

/// Most pieces of work that are taken: a master sends at most 9000 items without an acknowledgement.
const MAX_WORKS: usize = 8000;

/// Port that the master lists: not that of the process that is at work.
const LISTED_PORT: u16 = 21_433;

/// What was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Events that would be sent.
    pub events: usize,
    /// Events that filters leave out.
    pub filtered: usize,
}

/// Writes what would be sent to `out`, a line of JSON for each event, until there were `limit` of them or `stop`.
///
/// It begins at the positions in the file, which it does not change, and where there are none as a first start does; it may run
/// beside the process that is at work.
///
/// # Errors
///
/// [`Trouble`] of the first attempt.
pub async fn dry_run(
    config: &CdcConfig,
    env: &Env,
    (limit, out): (usize, &mut (impl Write + Send)),
    stop: &Shutdown,
) -> Result<Shown, Trouble> {
    let known = peek(env, &config.checkpoint.dir, &config.source_id())?;
    let mut config = config.clone();
    let scratch = config.checkpoint.dir.join("dry-run");
    config.checkpoint.dir = scratch.clone();
    config.snapshot.dir = None;
    config.wal.dir = None;
    // Nothing is kept.
    config.wal.enabled = false;
    let flags = Flags::new(&Health::start(env, stop));
    let pause = Pause::default();
    let shown = async {
        let runner = Runner::new(&config, env, (&flags, &pause)).await?;
        let mut connected = runner.connect().await?;
        if connected.server.family == Family::Legacy {
            let (address, version) = (connected.redis.address().to_owned(), connected.server.version);
            return Err(SourceError::NoDryRun { address, version }.into());
        }
        let local = connected.redis.local().ip().to_string();
        // What is at work has the same address, and a master lists it once.
        let mut listed = config.clone();
        listed.source.listed_as = Some(HostPort {
            host: local.clone(),
            port: LISTED_PORT,
        });
        let ends = Ends {
            local: connected.redis.local(),
            peer: connected.redis.peer(),
            password: connected.password.take(),
        };
        let (session, driver) = Session::open(env, &listed, ends).await?;
        let (queue, mut works) = queue(config.sink.queue_size.as_u32());
        let Connected { redis, server, .. } = &mut connected;
        let following = Runner {
            config: &listed,
            ..runner
        };
        let showing = async {
            // Nobody is to find the queue closed before it is over.
            let shown = show(&listed, &mut works, session.followed(), (limit, out)).await;
            let _ = env.clock.timeout(Session::LEAVE, session.leave()).await;
            shown
        };
        tokio::select! {
            biased;
            shown = showing => shown,
            () = stop.wait() => Ok(Shown { events: 0, filtered: 0 }),
            ended = following.follow((&session, &queue), redis, &server.version, &known) => {
                ended.map(|_| Shown { events: 0, filtered: 0 })
            }
            error = driver.run(&session, &queue) => Err(error.into()),
        }
    };
    let shown = Box::pin(shown).await;
    let disk = Arc::clone(&env.disk);
    // Nobody needs what is in it; what cannot be deleted is deleted by the next one.
    let _ = env.tasks.blocking(move || disk.remove_dir_all(&scratch)).await;
    shown
}

/// Takes work as it comes, and shows it.
async fn show(
    config: &CdcConfig,
    works: &mut mpsc::Receiver<Work>,
    followed: &Followed,
    (limit, out): (usize, &mut (impl Write + Send)),
) -> Result<Shown, Trouble> {
    let preview = Preview::new(
        config,
        Arc::new(Json {
            has_raw: config.sink.raw_resp,
        }),
    );
    let mut shown = Shown {
        events: 0,
        filtered: 0,
    };
    for _ in 0..MAX_WORKS {
        let Some(mut work) = works.recv().await else {
            break;
        };
        let Some(source) = followed.source() else { continue };
        for event in &work.events {
            match preview.line(source, event)? {
                None => shown.filtered += 1,
                Some(line) => {
                    shown.events += 1;
                    writeln!(out, "{line}").map_err(Trouble::Output)?;
                }
            }
            if shown.events >= limit {
                return Ok(shown);
            }
        }
        if let Some(done) = work.done.take() {
            let _ = done.send(());
        }
    }
    Ok(shown)
}
