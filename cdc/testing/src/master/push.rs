//! What masters before 3.5 do instead of offering files: they run the real program `rsync` against their slave.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::Inner;

/// Pause before the first call, in which real masters make the dump.
const PUSH_AFTER: Duration = Duration::from_millis(30);

/// What is pushed, and how it has gone.
#[derive(Debug, Default)]
pub struct State {
    /// The directories of the dumps, by database; masters before 3.1 have `db0`.
    pub dumps: std::collections::BTreeMap<String, PathBuf>,
    /// Slaves that are pushed to now.
    busy: BTreeSet<String>,
    /// Codes with which calls of `rsync` have ended, with what was pushed.
    pub calls: Vec<(String, i32)>,
    /// Dumps that were pushed to their end, `info` included.
    pub pushed: u32,
}

/// Whom a dump is pushed to.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) db: String,
    pub(super) host: String,
    pub(super) port: u16,
    /// `rsync` writes `MODULE/PREFIX...`; with a user before the host where there is a password.
    pub(super) module: String,
    pub(super) prefix: String,
    pub(super) password: Option<String>,
}

/// Pushes the dump of a database to a slave, unless it is being pushed.
pub(super) fn push(inner: &Arc<Inner>, target: Target) {
    let name = format!("{}:{}/{}", target.host, target.port, target.db);
    if !inner.state().push.busy.insert(name.clone()) {
        return;
    }
    let inner = Arc::clone(inner);
    thread::spawn(move || {
        thread::sleep(PUSH_AFTER);
        if whole(&inner, &target) {
            inner.state().push.pushed += 1;
        }
        inner.state().push.busy.remove(&name);
    });
}

/// As the source of Pika has it: each folder, each folder again so that nothing else is in it, `info`. What follows a failure
/// is left out, but for the second pass.
fn whole(inner: &Inner, target: &Target) -> bool {
    let Some(dir) = inner.state().push.dumps.get(&target.db).cloned() else {
        return false;
    };
    let Ok(folders) = folders(&dir) else {
        return false;
    };
    // It looks first whether anybody listens.
    if let Ok(probe) = TcpStream::connect((target.host.as_str(), target.port)) {
        drop(probe);
    }
    let prefix = &target.prefix;
    let limit = ["--bwlimit=131072".to_owned()];
    let is_sent = folders.iter().all(|name| {
        let from = dir.join(name);
        call(
            inner,
            target,
            &limit,
            &format!("{}/", from.display()),
            &format!("{prefix}{name}/"),
        )
    });
    for name in &folders {
        let from = dir.join(name);
        call(
            inner,
            target,
            &["--delete".to_owned()],
            &format!("{}/", from.display()),
            &format!("{prefix}{name}/"),
        );
    }
    let too = inner.state().faults.push_too.clone();
    let info = dir.join("info").display().to_string();
    let is_sent =
        is_sent && too.is_none_or(|name| call(inner, target, &limit, &info, &format!("{prefix}{name}")));
    is_sent && call(inner, target, &limit, &info, &format!("{prefix}info"))
}

fn folders(dir: &std::path::Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        if entry.path().is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// One call of `rsync`; whether it went well.
fn call(inner: &Inner, target: &Target, options: &[String], from: &str, to: &str) -> bool {
    let (fault, protocol) = {
        let mut state = inner.state();
        let faults = &mut state.faults;
        if faults.push_stops {
            return false;
        }
        (faults.push_cut_after.pop(), faults.push_protocol)
    };
    let port = match fault {
        None => target.port,
        Some(None) => {
            // As where the dump was deleted meanwhile.
            inner.state().push.calls.push((to.to_owned(), 23));
            return false;
        }
        Some(Some(bytes)) => match relay((target.host.clone(), target.port), bytes) {
            Ok(port) => port,
            Err(_) => return false,
        },
    };
    let user = target.password.as_ref().map_or("", |_| "rsync_user@");
    let (host, module) = (&target.host, &target.module);
    let mut command = Command::new("rsync");
    command.arg("-avP").args(options).arg(format!("--port={port}"));
    command.args(protocol.map(|protocol| format!("--protocol={protocol}")));
    command.arg(from).arg(format!("{user}{host}::{module}/{to}"));
    if let Some(password) = &target.password {
        command.env("RSYNC_PASSWORD", password);
    }
    let ended = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let code = ended.ok().and_then(|status| status.code()).unwrap_or(-1);
    inner.state().push.calls.push((to.to_owned(), code));
    code == 0
}

/// A port that leads to an address until so many bytes have gone there, and then breaks.
fn relay(to: (String, u16), left: usize) -> io::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    thread::spawn(move || -> io::Result<()> {
        let (client, _) = listener.accept()?;
        let server = TcpStream::connect(to)?;
        let (answers, back) = (server.try_clone()?, client.try_clone()?);
        thread::spawn(move || carry(&answers, &back, usize::MAX));
        carry(&client, &server, left);
        Ok(())
    });
    Ok(port)
}

/// Carries so many bytes from one to the other, and then breaks both, whichever way it ends: who is left waits for words that
/// nobody will say, as after a connection that was reset before the slave took it.
fn carry(from: &TcpStream, mut to: &TcpStream, limit: usize) {
    let _ = io::copy(&mut from.take(limit as u64), &mut to);
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    /// As a slave that ends while a connection waits for it.
    #[test]
    fn a_connection_that_nobody_takes_breaks() {
        let slave = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let at = slave.local_addr().unwrap();
        let port = relay((at.ip().to_string(), at.port()), usize::MAX).unwrap();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.write_all(b"@RSYNCD: 31.0\n").unwrap();
        let mut byte = [0];
        // What it has not read makes the end a reset.
        let (taken, _) = slave.accept().unwrap();
        taken.peek(&mut byte).unwrap();
        drop(taken);
        let ended = client.read(&mut byte);
        assert!(
            !matches!(&ended, Err(error) if error.kind() == io::ErrorKind::WouldBlock),
            "{ended:?}"
        );
    }
}
