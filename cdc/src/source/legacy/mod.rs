//! A master before 3.1: it is asked for its changes over the Redis port, hears every second that somebody is there, and makes
//! the connection over which they come. It takes no acknowledgements, and does not send again what a connection has lost.

mod dump;
mod stream;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use takhin_config::CdcConfig;
use takhin_config::units::HostPort;
use takhin_pika::Position;
use takhin_pika::binlog::Item;
use takhin_pika::legacy::Chain;
use takhin_runtime::Env;
use takhin_runtime::clock::Instant;

use super::error::SourceError;
use super::followed::Followed;
use super::redis::{Redis, address};
use super::start::LISTED_PORT;

/// What the port that the master connects to is above the one that this slave is listed with.
const LISTEN_ABOVE: u16 = 1000;

/// What the port of signs of life is above the master's Redis port.
const LIFE_ABOVE: u16 = 2000;

/// Pause between two signs of life, as real slaves make it. After 20 s without any the master forgets a slave.
const SIGN: Duration = Duration::from_secs(1);

/// How long a master may need to connect, at least: it makes pauses of seconds.
const SENDER: Duration = Duration::from_secs(30);

/// A command of the binlog that was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The item.
    pub item: Item,
    /// Its number in its record.
    pub index: u32,
    /// Where its record ends, if nothing of it follows.
    pub end: Position,
}

/// What `trysync` is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// The changes will come, to the slave of this number.
    Number(i64),
    /// All that the master has will come.
    Wait,
}

/// Whoever takes what is received.
pub trait Taker {
    /// Takes commands, in order. Nothing more is read from the master before it returns.
    fn take(&self, commands: Vec<Received>) -> impl Future<Output = Result<(), SourceError>>;
}

/// How the connections are.
#[derive(Debug)]
struct State {
    /// Where what was received ends.
    end: Position,
    /// When anything arrived last.
    heard: Instant,
    /// Whether something that was received waits to be taken.
    is_waiting: bool,
}

/// A master, and its one database.
#[derive(Debug)]
pub struct Legacy {
    env: Env,
    host: String,
    port: u16,
    timeout: Duration,
    /// Where the master is: nobody else is listened to.
    peer: IpAddr,
    /// Own address.
    local: IpAddr,
    listed_as: HostPort,
    state: Mutex<State>,
}

impl Legacy {
    /// The name of its only database.
    pub const DB: &'static str = "db0";

    /// Whom events of such a master come from, whether there is a connection to it or not.
    pub fn followed(config: &CdcConfig, version: &str) -> Arc<Followed> {
        // It has nothing that tells its binlog from that of another one.
        Arc::new(Followed::of(config, version, String::new()))
    }

    /// Whether the databases that are wanted are those that such a master has.
    ///
    /// # Errors
    ///
    /// [`SourceError::Database`].
    pub fn check(config: &CdcConfig) -> Result<(), SourceError> {
        match config.filters.databases.iter().find(|db| *db != Self::DB) {
            None => Ok(()),
            Some(wanted) => Err(SourceError::Database {
                wanted: wanted.clone(),
                found: vec![Self::DB.to_owned()],
            }),
        }
    }

    /// The master to which there is a connection from `local` to `peer`.
    ///
    /// # Errors
    ///
    /// [`SourceError::Database`].
    pub fn new(
        env: &Env,
        config: &CdcConfig,
        (local, peer): (SocketAddr, SocketAddr),
    ) -> Result<Self, SourceError> {
        let source = &config.source;
        Self::check(config)?;
        Ok(Self {
            env: env.clone(),
            host: source.host.clone(),
            port: source.port,
            timeout: source.timeout,
            peer: peer.ip(),
            local: local.ip(),
            listed_as: source.listed_as.clone().unwrap_or_else(|| HostPort {
                host: local.ip().to_string(),
                port: LISTED_PORT,
            }),
            state: Mutex::new(State {
                end: Position::default(),
                heard: env.clock.instant(),
                is_waiting: false,
            }),
        })
    }

    /// Whether the master has changes, as it says with the `head` of its binlog, and sends none.
    pub fn is_stuck(&self, head: Position) -> bool {
        let state = self.state.lock();
        let silent = self.env.clock.instant().saturating_duration_since(state.heard);
        !state.is_waiting && head > state.end && silent >= self.timeout.max(SENDER)
    }

    /// The error for that.
    pub fn stuck(&self) -> SourceError {
        SourceError::Silent {
            address: address(&self.host, self.port),
            what: "sent the changes that it says to have",
            after: self.timeout.max(SENDER),
        }
    }

    /// Has the changes come that `chain` asks for, until something is wrong. Calls `accepted` when the master has said that
    /// they will.
    pub async fn follow<T: Taker>(
        &self,
        chain: Chain,
        password: Option<&str>,
        taker: &T,
        accepted: impl FnOnce(),
    ) -> SourceError {
        {
            let mut state = self.state.lock();
            (state.end, state.heard) = (chain.end(), self.env.clock.instant());
        }
        // The real slave takes the address before it asks, too: the master may come at once.
        let port = self.listed_as.port.saturating_add(LISTEN_ABOVE);
        let listening = SocketAddr::new(self.local, port).to_string();
        let listener = match self.env.net.listen(&listening, "source.listed_as").await {
            Ok(listener) => listener,
            Err(error) => return error.into(),
        };
        let number = match self.ask(chain.asks_for(), password).await {
            Ok(number) => number,
            Err(error) => return error,
        };
        accepted();
        tokio::select! {
            error = self.show_life(number) => error,
            error = self.listen((&listener, &listening), number, chain, taker) => error,
        }
    }

    /// Asks for the changes from a position on. Returns the number that the master gives this slave.
    async fn ask(&self, position: Position, password: Option<&str>) -> Result<i64, SourceError> {
        match self.try_sync(position, password).await? {
            Asked::Number(number) => Ok(number),
            Asked::Wait => Err(SourceError::PositionLost {
                db: Self::DB.to_owned(),
                position,
                why: "the master has deleted the binlog there".to_owned(),
            }),
        }
    }

    async fn try_sync(&self, position: Position, password: Option<&str>) -> Result<Asked, SourceError> {
        let mut redis = Redis::open(&self.env, &self.host, self.port, self.timeout, password).await?;
        let (port, filenum) = (self.listed_as.port.to_string(), position.filenum.to_string());
        let offset = position.offset.to_string();
        let words = ["trysync", &self.listed_as.host, &port, &filenum, &offset];
        let answer = match redis.ask("trysync", &words).await {
            Err(SourceError::Refused { reply, .. }) if reply.contains("InvalidOffset") => {
                return Err(SourceError::PositionLost {
                    db: Self::DB.to_owned(),
                    position,
                    why: "the master's binlog ends before it, or cannot be read there".to_owned(),
                });
            }
            Err(SourceError::Refused { reply, .. }) if reply.contains("AlreadyExist") => {
                return Err(SourceError::AlreadyListed {
                    node: self.listed_as.to_string(),
                });
            }
            answer => answer?.unwrap_or_default(),
        };
        if &answer[..] == b"wait" {
            return Ok(Asked::Wait);
        }
        let number = std::str::from_utf8(&answer)
            .ok()
            .and_then(|text| text.parse().ok());
        number.map(Asked::Number).ok_or_else(|| SourceError::Refused {
            address: address(&self.host, self.port),
            what: "trysync",
            reply: String::from_utf8_lossy(&answer).into_owned(),
        })
    }

    /// Shows the master that this slave is there, until it is not heard.
    async fn show_life(&self, number: i64) -> SourceError {
        let port = self.port.saturating_add(LIFE_ABOVE);
        let opened = Redis::open(&self.env, &self.host, port, self.timeout, None).await;
        let mut redis = match opened {
            Ok(redis) => redis,
            Err(error) => return error,
        };
        match redis.ask("spci", &["spci", &number.to_string()]).await {
            Ok(_) => {}
            Err(SourceError::Closed { address, .. }) => {
                let hint = format!(
                    ": the master takes signs of life only from the address that a slave is listed with, which is {}; see \
                     source.listed_as",
                    self.listed_as.host
                );
                return SourceError::Closed { address, hint };
            }
            Err(error) => return error,
        }
        loop {
            self.env.clock.sleep(SIGN).await;
            if let Err(error) = redis.ask("ping", &["ping"]).await {
                return error;
            }
        }
    }
}
