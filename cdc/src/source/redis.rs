//! The master's Redis port: password, version, settings, and where its binlogs end.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use takhin_pika::info::{Family, ServerInfo};
use takhin_pika::resp::{self, Answer};
use takhin_runtime::{Clock, Env, ReadHalf, WriteHalf};

use super::error::SourceError;

/// Longest answer in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Most words that are read of an answer.
const MAX_WORDS: usize = 64;

/// A connection to the Redis port.
#[derive(Debug)]
pub struct Redis {
    address: String,
    local: SocketAddr,
    peer: SocketAddr,
    clock: Clock,
    timeout: Duration,
    reading: ReadHalf,
    writing: WriteHalf,
    buffer: BytesMut,
}

impl Redis {
    /// Connects and gives the password, if there is one.
    ///
    /// # Errors
    ///
    /// [`SourceError`], with those about the password apart.
    pub async fn open(
        env: &Env,
        host: &str,
        port: u16,
        timeout: Duration,
        password: Option<&str>,
    ) -> Result<Self, SourceError> {
        let address = address(host, port);
        let stream = connect(env, &address, timeout).await?;
        let (local, peer) = (stream.local_addr(), stream.peer_addr());
        let (reading, writing) = stream.into_split();
        let mut redis = Self {
            address,
            local,
            peer,
            clock: env.clock.clone(),
            timeout,
            reading,
            writing,
            buffer: BytesMut::new(),
        };
        if let Some(password) = password {
            redis.auth(password).await?;
        }
        Ok(redis)
    }

    /// `HOST:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Own address of the connection.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The server's address.
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    async fn auth(&mut self, password: &str) -> Result<(), SourceError> {
        match self.ask("AUTH", &["auth", password]).await {
            Ok(_) => Ok(()),
            Err(SourceError::Refused { reply, address, .. }) if reply.contains("no password is set") => {
                Err(SourceError::NoPassword { address })
            }
            Err(SourceError::Refused { reply, address, .. })
                if reply.to_ascii_lowercase().contains("password") || reply.contains("WRONGPASS") =>
            {
                Err(SourceError::WrongPassword { address })
            }
            failed => failed.map(drop),
        }
    }

    /// What the server is.
    ///
    /// # Errors
    ///
    /// [`SourceError::NotPika`], [`SourceError::Version`] for one that is not supported.
    pub async fn server(&mut self) -> Result<ServerInfo, SourceError> {
        let text = self.info("server").await?;
        let address = self.address.clone();
        let Some(server) = ServerInfo::parse(&text) else {
            return Err(SourceError::NotPika { address });
        };
        match server.family {
            Family::Pb | Family::PbRsync | Family::Legacy => Ok(server),
            Family::Oldest => Err(SourceError::Version {
                address,
                version: server.version,
            }),
        }
    }

    /// A part of INFO.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    pub async fn info(&mut self, section: &str) -> Result<String, SourceError> {
        match self.ask("INFO", &["info", section]).await? {
            Some(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
            None => Ok(String::new()),
        }
    }

    /// A setting of the server; `None` if it has none of this name.
    ///
    /// # Errors
    ///
    /// [`SourceError`].
    pub async fn setting(&mut self, name: &str) -> Result<Option<String>, SourceError> {
        self.send(&["config", "get", name]).await?;
        let mut words = Vec::new();
        let mut left = 1;
        while left > 0 && words.len() < MAX_WORDS {
            if self.buffer.is_empty() {
                self.fill().await?;
            }
            if self.buffer.first() != Some(&b'*') {
                words.extend(self.answer("CONFIG GET").await?);
                left -= 1;
                continue;
            }
            let next = resp::next_array(&mut self.buffer);
            match next.map_err(|source| wrong(&self.address, source))? {
                Some(count) => left = count,
                None => self.fill().await?,
            }
        }
        let text = words
            .get(1)
            .map(|word| String::from_utf8_lossy(word).into_owned());
        Ok(text)
    }

    /// Sends a command. Returns the text or number that it is answered with.
    pub(super) async fn ask(
        &mut self,
        what: &'static str,
        words: &[&str],
    ) -> Result<Option<Bytes>, SourceError> {
        self.send(words).await?;
        self.answer(what).await
    }

    async fn send(&mut self, words: &[&str]) -> Result<(), SourceError> {
        let mut command = Vec::new();
        resp::put_command(&mut command, words);
        let mut bytes = VecDeque::from([Bytes::from(command)]);
        let sent = self
            .clock
            .timeout(self.timeout, self.writing.write_all(&mut bytes))
            .await;
        match sent {
            Ok(Ok(())) => self.fill().await,
            Ok(Err(source)) => Err(closed(&self.address, source.to_string())),
            Err(_) => Err(self.silent()),
        }
    }

    /// Waits for bytes.
    async fn fill(&mut self) -> Result<(), SourceError> {
        let read = self
            .clock
            .timeout(self.timeout, self.reading.read_buf(&mut self.buffer))
            .await;
        match read {
            Ok(Ok(1..)) => Ok(()),
            Ok(Ok(0)) => Err(closed(&self.address, String::new())),
            Ok(Err(source)) => Err(closed(&self.address, source.to_string())),
            Err(_) => Err(self.silent()),
        }
    }

    async fn answer(&mut self, what: &'static str) -> Result<Option<Bytes>, SourceError> {
        loop {
            let next = resp::next_answer(&mut self.buffer, MAX_ANSWER);
            match next.map_err(|source| wrong(&self.address, source))? {
                Some(Answer::Bulk(text)) => return Ok(text),
                Some(Answer::Line(text)) => return Ok(Some(text)),
                Some(Answer::Integer(number)) => return Ok(Some(number.to_string().into())),
                Some(Answer::Error(text)) => return Err(self.refused(what, &text)),
                None => self.fill().await?,
            }
        }
    }

    fn refused(&self, what: &'static str, text: &[u8]) -> SourceError {
        let address = self.address.clone();
        let reply = String::from_utf8_lossy(text).into_owned();
        if reply.contains("NOAUTH") {
            return SourceError::PasswordMissing { address };
        }
        SourceError::Refused { address, what, reply }
    }

    fn silent(&self) -> SourceError {
        SourceError::Silent {
            address: self.address.clone(),
            what: "answered",
            after: self.timeout,
        }
    }
}

/// `HOST:PORT`, with an IPv6 address in brackets.
pub(super) fn address(host: &str, port: u16) -> String {
    match host.contains(':') && !host.starts_with('[') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Connects, within the time.
pub(super) async fn connect(
    env: &Env,
    address: &str,
    timeout: Duration,
) -> Result<takhin_runtime::Stream, SourceError> {
    match env.clock.timeout(timeout, env.net.connect(address)).await {
        Ok(connected) => connected.map_err(|source| SourceError::Connect {
            address: address.to_owned(),
            source,
        }),
        Err(_) => Err(SourceError::Silent {
            address: address.to_owned(),
            what: "taken the connection",
            after: timeout,
        }),
    }
}

fn wrong(address: &str, source: resp::RespError) -> SourceError {
    SourceError::Resp {
        address: address.to_owned(),
        source,
    }
}

pub(super) fn closed(address: &str, why: String) -> SourceError {
    SourceError::Closed {
        address: address.to_owned(),
        hint: match why.is_empty() {
            true => why,
            false => format!(": {why}"),
        },
    }
}
