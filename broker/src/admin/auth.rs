//! Who may ask: whoever has the token, and without one programs of this machine.
//!
//! Probes and metrics are not behind this door. Another way in (the identity of an rpc certificate) belongs into
//! [`Door::admit`].

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use subtle::ConstantTimeEq as _;
use takhin_config::node::Admin;
use takhin_runtime::telemetry::http::Call;
use takhin_runtime::{Disk, Env, OpenMode};
use tracing::warn;

use super::problem::{self, Problem};

/// Shortest and longest token in characters.
const LENGTH: std::ops::RangeInclusive<usize> = 16..=4096;

/// Why the token cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("admin.token_file: {} {reason}", .path.display())]
pub struct TokenError {
    path: PathBuf,
    reason: String,
}

/// Decides who may ask.
#[derive(Debug)]
pub(super) struct Door {
    token_file: Option<PathBuf>,
    /// Whether only this machine reaches the address.
    is_loopback: bool,
}

impl Door {
    pub(super) fn new(config: &Admin) -> Self {
        Self {
            token_file: config.token_file.clone(),
            is_loopback: config.bind.ip().is_loopback(),
        }
    }

    /// Whether the token can be read, if there is to be one.
    pub(super) async fn check(&self, env: &Env) -> Result<(), TokenError> {
        match &self.token_file {
            Some(path) => read(env, path).await.map(drop),
            None => Ok(()),
        }
    }

    /// Lets a request in, or says why not.
    pub(super) async fn admit(&self, env: &Env, call: &Call) -> Result<(), Problem> {
        match &self.token_file {
            Some(path) => {
                let token = read(env, path).await.map_err(|error| {
                    warn!(%error, "admin request refused");
                    problem::token_unreadable()
                })?;
                check_token(&token, call)
            }
            None if self.is_loopback => check_origin(call),
            None => Err(problem::no_token()),
        }
    }
}

fn check_token(token: &[u8], call: &Call) -> Result<(), Problem> {
    let given = call
        .header("authorization")
        .ok_or_else(|| problem::unauthorized("the request has no token"))?;
    let given = match given.split_at_checked(7) {
        Some((scheme, given)) if scheme.eq_ignore_ascii_case(b"bearer ") => given.trim_ascii(),
        _ => {
            return Err(problem::unauthorized(
                "the Authorization header has no bearer token",
            ));
        }
    };
    // In constant time, so that a wrong token does not tell how much of it is right.
    match bool::from(token.ct_eq(given)) {
        true => Ok(()),
        false => Err(problem::unauthorized("the token is not this broker's")),
    }
}

/// A browser on this machine runs pages of anybody, and lets them send requests here. Those name their origin, or call this
/// machine by a name of their own (DNS rebinding).
fn check_origin(call: &Call) -> Result<(), Problem> {
    if call.header("origin").is_some() {
        return Err(problem::from_a_page("Origin"));
    }
    let is_own = |site: &[u8]| site == b"none" || site == b"same-origin";
    if !call.header("sec-fetch-site").is_none_or(is_own) {
        return Err(problem::from_a_page("Sec-Fetch-Site"));
    }
    if !call.header("host").is_none_or(is_local) {
        return Err(problem::from_a_page("Host"));
    }
    Ok(())
}

/// Whether a `Host` header names this machine from within.
fn is_local(host: &[u8]) -> bool {
    let Ok(host) = std::str::from_utf8(host) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

async fn read(env: &Env, path: &Path) -> Result<Vec<u8>, TokenError> {
    let (disk, path) = (Arc::clone(&env.disk), path.to_owned());
    env.tasks
        .blocking(move || read_token(&*disk, &path).map_err(|reason| TokenError { path, reason }))
        .await
}

fn read_token(disk: &dyn Disk, path: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("cannot be read: {error}");
    let file = disk.open(path, OpenMode::Read).map_err(cannot)?;
    // With room for a line end, and a byte more to see that there is more.
    let mut bytes = vec![0; LENGTH.end() + 3];
    let mut length = 0;
    while length < bytes.len() {
        let position = u64::try_from(length).unwrap_or(u64::MAX);
        match file.read_at(&mut bytes[length..], position).map_err(cannot)? {
            0 => break,
            n => length += n,
        }
    }
    let token = bytes[..length].trim_ascii();
    if !LENGTH.contains(&token.len()) {
        let (least, most) = (LENGTH.start(), LENGTH.end());
        return Err(format!(
            "must hold a token of {least} to {most} characters, as `openssl rand -hex 32` makes them"
        ));
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err("must hold one token of visible ASCII characters, without blanks".to_owned());
    }
    Ok(token.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get() -> Call {
        Call::new("GET", "/v1/node")
    }

    fn door(bind: &str, token_file: Option<PathBuf>) -> Door {
        Door::new(&Admin {
            bind: bind.parse().unwrap(),
            token_file,
            ..Admin::default()
        })
    }

    fn write(env: &Env, path: &Path, text: &str) {
        let file = env.disk.open(path, OpenMode::CreateOrWrite).unwrap();
        file.set_len(0).unwrap();
        let mut parts = [std::io::IoSlice::new(text.as_bytes())];
        file.write_at(&mut parts, 0).unwrap();
    }

    #[tokio::test]
    async fn the_token_opens_and_nothing_else() {
        let env = Env::real();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let door = door("127.0.0.1:1", Some(path.clone()));
        assert!(
            door.check(&env)
                .await
                .unwrap_err()
                .to_string()
                .contains("cannot be read")
        );
        for wrong in ["", "short", "a token with blanks in it", &"x".repeat(5000)] {
            write(&env, &path, wrong);
            assert!(door.check(&env).await.is_err(), "{wrong:?}");
        }
        assert_eq!(door.admit(&env, &get()).await.unwrap_err().status(), 503);
        write(&env, &path, "0123456789abcdef\n");
        door.check(&env).await.unwrap();
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Basic 0123456789abcdef",
            "Bearer 0123456789abcdeX",
            "Bearer 0123456789abcde",
        ] {
            let refused = door.admit(&env, &get().with_header("authorization", wrong)).await;
            assert_eq!(refused.unwrap_err().status(), 401, "{wrong:?}");
        }
        assert_eq!(door.admit(&env, &get()).await.unwrap_err().status(), 401);
        let right = get().with_header("authorization", "bearer 0123456789abcdef");
        assert_eq!(door.admit(&env, &right).await, Ok(()));
        // Replaced while the broker runs.
        write(&env, &path, "fedcba9876543210");
        assert_eq!(door.admit(&env, &right).await.unwrap_err().status(), 401);
    }

    #[tokio::test]
    async fn without_a_token_only_programs_of_this_machine_come_in() {
        let env = Env::real();
        let refused = door("10.0.0.1:1", None).admit(&env, &get()).await;
        assert_eq!(refused.unwrap_err().status(), 403);
        let open = door("[::1]:1", None);
        for host in [
            "localhost",
            "LOCALHOST:9644",
            "127.0.0.1:9644",
            "[::1]:9644",
            "127.9.9.9",
        ] {
            assert_eq!(
                open.admit(&env, &get().with_header("host", host)).await,
                Ok(()),
                "{host}"
            );
        }
        for (name, value) in [
            ("host", "evil.example:9644"),
            ("host", "10.0.0.1"),
            ("host", "[::2]"),
            ("host", "127.0.0.1.evil.example"),
            ("origin", "http://127.0.0.1:9644"),
            ("sec-fetch-site", "cross-site"),
        ] {
            let refused = open.admit(&env, &get().with_header(name, value)).await;
            assert_eq!(refused.unwrap_err().status(), 403, "{name}: {value}");
        }
    }
}
