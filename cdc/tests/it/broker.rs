//! A `takhin dev`: one for all tests, or one of a test's own that can be stopped.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest wait for anything, on a machine that does other things too.
pub(crate) const LIMIT: Duration = Duration::from_secs(90);

/// A broker; killed when dropped, and ends with this process.
#[derive(Debug)]
pub(crate) struct Broker {
    dir: PathBuf,
    /// Deletes it, for a broker of one's own.
    _temporary: Option<TempDir>,
    pub(crate) kafka: SocketAddr,
    admin: SocketAddr,
    child: Option<Child>,
}

/// Waits for a condition.
#[track_caller]
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < LIMIT, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// An address that nobody has now.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

/// Status and body of a page.
pub(crate) fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    http("GET", address, path)
}

/// Status and body of the answer to a POST.
pub(crate) fn post(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    http("POST", address, path)
}

fn http(method: &str, address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

impl Broker {
    /// The broker of all tests that hurt none.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Broker> = OnceLock::new();
        SHARED.get_or_init(|| {
            // Nothing drops a static: what earlier runs have left is deleted by the next one. Each has a directory of its own, for the
            // broker of the run before may still be ending in its.
            let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
            for left in std::fs::read_dir(parent).unwrap().flatten() {
                let name = left.file_name().into_string().unwrap_or_default();
                let run = name.strip_prefix("cdc-broker-");
                if run.is_some_and(|run| !Path::new("/proc").join(run).exists()) {
                    let _ = std::fs::remove_dir_all(left.path());
                }
            }
            let dir = parent.join(format!("cdc-broker-{}", std::process::id()));
            // A number is had again.
            let _ = std::fs::remove_dir_all(&dir);
            Self::in_dir(dir, None)
        })
    }

    /// A broker of one's own.
    pub(crate) fn start() -> Self {
        let temporary = tempfile::Builder::new()
            .prefix("takhin-cdc-broker-")
            .tempdir()
            .unwrap();
        Self::in_dir(temporary.path().to_owned(), Some(temporary))
    }

    fn in_dir(dir: PathBuf, temporary: Option<TempDir>) -> Self {
        let mut broker = Self {
            dir,
            _temporary: temporary,
            kafka: free_address(),
            admin: free_address(),
            child: None,
        };
        broker.run();
        broker
    }

    /// Starts it, again if it was killed.
    pub(crate) fn run(&mut self) {
        let mut child = Command::new(binary())
            .args(["dev", "--stop-with-stdin", "--data-dir"])
            .arg(&self.dir)
            .args([
                "--kafka",
                &self.kafka.to_string(),
                "--admin",
                &self.admin.to_string(),
            ])
            .args([
                "--set",
                "storage.durability=cached",
                "--set",
                "telemetry.log_level=warn",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let admin = self.admin;
        until("the broker is ready", || {
            assert!(child.try_wait().unwrap().is_none(), "the broker has ended");
            get(admin, "/readyz").is_some_and(|(status, _)| status == 200)
        });
        self.child = Some(child);
    }

    /// kill -9.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Broker {
    /// Has it stand still, or go on: its connections stay.
    pub(crate) fn stand_still(&self, is_on: bool) {
        let pid = self.child.as_ref().unwrap().id().to_string();
        let signal = if is_on { "-STOP" } else { "-CONT" };
        let told = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(told.success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `TAKHIN_BIN`, else the one beside the program under test, which `cargo test --workspace` builds.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("TAKHIN_BIN") {
        return path.into();
    }
    let path = Path::new(env!("CARGO_BIN_EXE_takhin-cdc")).with_file_name("takhin");
    if !path.exists() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "-q", "--locked", "-p", "takhin-broker"])
            .status()
            .unwrap();
        assert!(built.success(), "cargo build -p takhin-broker");
    }
    path
}
