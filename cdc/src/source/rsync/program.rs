//! The program `rsync`, as a daemon that speaks over its pipes, and the file that says what it may do.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use takhin_config::CdcConfig;
use takhin_runtime::telemetry::process;
use takhin_runtime::{Env, OpenMode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};

use crate::source::error::SourceError;

/// Its configuration, beside the directory that it may write to.
const CONF: &str = "rsyncd.conf";

/// Beside it, what masters say to show who they are; this user's alone, as all files are.
const SECRETS: &str = "rsyncd.secrets";

/// The user that masters are there.
const USER: &str = "rsync_user";

/// Names that a master may have for one module.
const MAX_NAMES: usize = 64;

/// Longest name of a module.
const MAX_NAME: usize = 255;

/// Bytes that are read of it at a time.
const CHUNK: usize = 16 << 10;

/// Bytes that are kept of what it says is wrong.
const LAST_WORDS: usize = 4096;

/// The program, and the modules that it has.
pub(in crate::source) struct Modules {
    program: PathBuf,
    conf: PathBuf,
    root: PathBuf,
    /// What the names of modules begin with that are learnt as they come.
    prefix: Option<&'static str>,
    /// Of masters that say who they are, the file with what they say.
    secret: Option<(PathBuf, String)>,
    names: Mutex<BTreeSet<String>>,
}

impl std::fmt::Debug for Modules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Modules({})", self.conf.display())
    }
}

impl Modules {
    /// The module `document_HOST:PORT` of masters before 3.1. Which host that is depends on version and network: some name
    /// their first interface, others the address from which they connect. Others than `hosts` are learnt as they come.
    pub(in crate::source) fn of_legacy(config: &CdcConfig, root: &Path, hosts: &[&str], port: u16) -> Self {
        let prefix = "document_";
        let names = hosts.iter().map(|host| format!("{prefix}{host}:{port}"));
        Self {
            program: config.snapshot.rsync.clone(),
            // Beside what it may write to.
            conf: root.with_file_name(CONF),
            root: root.to_owned(),
            prefix: Some(prefix),
            secret: None,
            names: Mutex::new(names.filter(|name| is_name(prefix, name)).collect()),
        }
    }

    /// The module `document` of masters from 3.1 on, which give their own password, or `default` if they have none.
    pub(in crate::source) fn of_pb(config: &CdcConfig, root: &Path, password: Option<&str>) -> Self {
        let line = format!("{USER}:{}\n", password.unwrap_or("default"));
        Self {
            program: config.snapshot.rsync.clone(),
            conf: root.with_file_name(CONF),
            root: root.to_owned(),
            prefix: None,
            secret: Some((root.with_file_name(SECRETS), line)),
            names: Mutex::new(BTreeSet::from(["document".to_owned()])),
        }
    }

    /// Whether there is a module of this name; `Some(true)` if there is one from now on.
    pub(super) async fn admit(&self, env: &Env, name: &str) -> Result<Option<bool>, SourceError> {
        {
            let mut names = self.names.lock();
            if names.contains(name) {
                return Ok(Some(false));
            }
            let is_known = self.prefix.is_some_and(|prefix| is_name(prefix, name));
            if !is_known || names.len() >= MAX_NAMES {
                return Ok(None);
            }
            names.insert(name.to_owned());
        }
        self.write(env).await?;
        Ok(Some(true))
    }

    /// Writes the configuration.
    pub(super) async fn write(&self, env: &Env) -> Result<(), SourceError> {
        let files = [Some((self.conf.clone(), self.text())), self.secret.clone()];
        let disk = Arc::clone(&env.disk);
        let written = env.tasks.blocking(move || {
            files.into_iter().flatten().try_for_each(|(path, text)| {
                let file = disk.open(&path, OpenMode::CreateOrWrite)?;
                file.set_len(0)?;
                file.write_at(&mut [IoSlice::new(text.as_bytes())], 0)
            })
        });
        written.await.map_err(|source| SourceError::SnapshotDisk {
            dir: self.conf.display().to_string(),
            source,
        })
    }

    fn text(&self) -> String {
        let root = self.root.display();
        let mut text = format!(
            "use chroot = no\nmunge symlinks = yes\nlist = no\nread only = no\nwrite only = yes\nnumeric ids = yes\n\
             reverse lookup = no\nlog file = /dev/null\nincoming chmod = D0700,F0600\npath = {root}\n"
        );
        // A daemon of root would become nobody, who may not write here.
        if process::user() == 0 {
            text.push_str("uid = 0\ngid = 0\n");
        }
        if let Some((path, _)) = &self.secret {
            let _ = writeln!(
                text,
                "auth users = {USER}\nsecrets file = {}\nstrict modes = no",
                path.display()
            );
        }
        for name in &*self.names.lock() {
            let _ = writeln!(text, "[{name}]");
        }
        text
    }

    /// Starts the program.
    pub(super) fn start(&self) -> Result<Program, SourceError> {
        let mut command = Command::new(&self.program);
        command.args(["--server", "--daemon", "--config"]);
        command.arg(&self.conf).arg(".");
        command.env("LC_ALL", "C").kill_on_drop(true);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| self.no_program(source))?;
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(input), Some(output), Some(errors)) = pipes else {
            return Err(self.no_program(io::ErrorKind::BrokenPipe.into()));
        };
        Ok(Program {
            child,
            input: Input(input),
            output: Output(output),
            errors: Errors(errors),
        })
    }

    pub(super) fn no_program(&self, source: io::Error) -> SourceError {
        SourceError::Rsync {
            program: self.program.display().to_string(),
            source,
        }
    }
}

/// Whether it is a name that a master gives its module, and nothing that means more in the file.
fn is_name(prefix: &str, name: &str) -> bool {
    let is_character = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | ':');
    name.len() <= MAX_NAME
        && name
            .strip_prefix(prefix)
            .is_some_and(|rest| rest.chars().all(is_character))
}

/// One that runs. It is killed when it is dropped, and ends by itself when its pipes do.
pub(super) struct Program {
    pub(super) child: Child,
    pub(super) input: Input,
    pub(super) output: Output,
    pub(super) errors: Errors,
}

/// What it reads.
pub(super) struct Input(ChildStdin);

impl Input {
    pub(super) async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes).await
    }
}

/// What it answers.
pub(super) struct Output(ChildStdout);

impl Output {
    /// The next bytes; `None` at the end.
    pub(super) async fn read(&mut self) -> Option<Bytes> {
        let mut bytes = BytesMut::with_capacity(CHUNK);
        match self.0.read_buf(&mut bytes).await {
            Ok(1..) => Some(bytes.freeze()),
            Ok(0) | Err(_) => None,
        }
    }
}

/// What it says is wrong.
pub(super) struct Errors(ChildStderr);

impl Errors {
    /// Reads to the end; returns the first line: what went wrong first is what was wrong.
    pub(super) async fn last_words(mut self) -> String {
        let mut kept = BytesMut::new();
        let mut chunk = BytesMut::with_capacity(LAST_WORDS);
        while let Ok(1..) = self.0.read_buf(&mut chunk).await {
            let room = LAST_WORDS.saturating_sub(kept.len()).min(chunk.len());
            kept.extend_from_slice(&chunk[..room]);
            chunk.clear();
        }
        let text = String::from_utf8_lossy(&kept);
        let first = text.lines().map(str::trim).find(|line| !line.is_empty());
        first.unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_nothing_else() {
        for good in ["document_10.0.0.1:9221", "document_pika-0.pika:9221", "document_"] {
            assert!(is_name("document_", good), "{good}");
        }
        let long = format!("document_{}", "a".repeat(MAX_NAME));
        for bad in [
            "",
            "#list",
            "other",
            "document_a]",
            "document_a\npath = /",
            "document_a/..",
            &long,
        ] {
            assert!(!is_name("document_", bad), "{bad}");
        }
    }
}
