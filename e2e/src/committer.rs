//! Committers under faults (`clients/python/committer.py`) and their log.

use std::collections::BTreeMap;
use std::fs;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::process::{self, Running};
use crate::{tools, wait};

/// Group and partition.
pub type Place = (String, i32);

/// What the committers have sent and what was acknowledged: the highest offset of each place. Offsets only rise.
#[derive(Debug, Default, Clone)]
pub struct Commits {
    /// Sent, whatever came of it.
    pub sent: BTreeMap<Place, i64>,
    /// Acknowledged.
    pub acked: BTreeMap<Place, i64>,
}

impl Commits {
    /// How many commits of a group were acknowledged; several partitions are as many commits.
    pub fn total(&self, group: &str) -> i64 {
        let of_group = self.acked.iter().filter(|((g, _), _)| g == group);
        of_group.map(|(_, offset)| offset).sum()
    }
}

/// Commits at once and without a pause, until [`Committer::finish`].
#[derive(Debug)]
pub struct Committer {
    process: Running,
    dir: TempDir,
}

impl Committer {
    /// Two members of the group `members` on `topic`, two of KIP-848 in `consumers`, and groups without members.
    pub fn start(bootstrap: &str, topic: &str, partitions: i32) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = tools::python("committer.py")?;
        command
            .args([bootstrap, topic, &partitions.to_string()])
            .arg(dir.path().join("log"));
        let stderr = fs::File::create(dir.path().join("stderr"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr);
        Ok(Self {
            process: Running::start(&mut command)?,
            dir,
        })
    }

    /// The log so far.
    pub fn commits(&self) -> Result<Commits> {
        let path = self.dir.path().join("log");
        let text = if path.exists() {
            fs::read_to_string(path)?
        } else {
            String::new()
        };
        // The last line may still be growing.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut commits = Commits::default();
        for line in whole.lines() {
            let words: Vec<_> = line.split(' ').collect();
            let [kind, group, partition, offset] = words[..] else {
                bail!("committer log: {line}")
            };
            let places = match kind {
                "S" => &mut commits.sent,
                "A" => &mut commits.acked,
                _ => bail!("committer log: {line}"),
            };
            let highest = places.entry((group.to_owned(), partition.parse()?)).or_insert(-1);
            *highest = (*highest).max(offset.parse()?);
        }
        Ok(commits)
    }

    /// Waits until `holds` of the log.
    pub fn wait(&mut self, what: &str, limit: Duration, holds: impl Fn(&Commits) -> bool) -> Result<()> {
        wait::until(what, limit, || {
            if self.process.ended()?.is_some() {
                bail!("the committer ended early:\n{}", self.complaints());
            }
            Ok(holds(&self.commits()?))
        })
        .with_context(|| self.complaints())
    }

    /// Stops it and waits until its members have left; returns the log.
    pub fn finish(mut self) -> Result<Commits> {
        drop(self.process.stdin());
        let status = self.process.wait(Duration::from_secs(60))?;
        ensure!(
            status.success(),
            "the committer {}:\n{}",
            process::ending(status),
            self.complaints()
        );
        self.commits()
    }

    fn complaints(&self) -> String {
        let text = fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default();
        process::tail(&text, 20)
    }
}
