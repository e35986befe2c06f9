//! How long partitions do not answer, as a stock client sees it (`clients/python/pulse.py`).

use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::process::{self, Running};
use crate::{tools, wait};

/// Sends to every partition of a topic until it is dropped.
#[derive(Debug)]
pub struct Pulse {
    process: Running,
    dir: TempDir,
    partitions: usize,
    /// How much of the log has been read.
    position: u64,
}

/// One record's way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beat {
    /// Where it went.
    pub partition: usize,
    /// When it was sent, seconds of the monotonic clock.
    pub sent: f64,
    /// When it was acknowledged; `None` if it was given up.
    pub acked: Option<f64>,
}

impl Pulse {
    /// A record to each partition of `topic` every `pause`. `settings` of librdkafka are `name=value` each.
    pub fn start(
        bootstrap: &str,
        topic: &str,
        partitions: i32,
        pause: Duration,
        settings: &[String],
    ) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let mut command = tools::python("pulse.py")?;
        command.args([
            bootstrap,
            topic,
            &partitions.to_string(),
            &pause.as_millis().to_string(),
        ]);
        command.arg(dir.path().join("log")).args(settings);
        let stderr = fs::File::create(dir.path().join("stderr"))?;
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr);
        Ok(Self {
            process: Running::start(&mut command)?,
            dir,
            partitions: usize::try_from(partitions)?,
            position: 0,
        })
    }

    /// Waits until every partition has acknowledged a record that was sent after `since`; returns all that was
    /// answered since the last call.
    ///
    /// # Errors
    /// When that takes longer than `limit`, or the client has ended.
    pub fn wait_all(&mut self, since: f64, limit: Duration) -> Result<Vec<Beat>> {
        let mut beats = Vec::new();
        wait::until("an answer of every partition", limit, || {
            beats.extend(self.read()?);
            let mut back = vec![false; self.partitions];
            for beat in beats
                .iter()
                .filter(|beat| beat.acked.is_some() && beat.sent >= since)
            {
                *back.get_mut(beat.partition).context("a partition too many")? = true;
            }
            Ok(back.iter().all(|back| *back))
        })?;
        Ok(beats)
    }

    fn read(&mut self) -> Result<Vec<Beat>> {
        if let Some(status) = self.process.ended()? {
            let text = fs::read_to_string(self.dir.path().join("stderr")).unwrap_or_default();
            bail!(
                "pulse.py {}:\n{}",
                process::ending(status),
                process::tail(&text, 20)
            );
        }
        let path = self.dir.path().join("log");
        if !path.exists() {
            return Ok(Vec::new());
        }
        let mut file = fs::File::open(path)?;
        file.seek(SeekFrom::Start(self.position))?;
        let mut new = String::new();
        file.read_to_string(&mut new)?;
        // The last line may still be growing.
        let whole = new.rfind('\n').map_or("", |end| &new[..=end]);
        self.position += u64::try_from(whole.len())?;
        whole.lines().map(parse).collect()
    }
}

fn parse(line: &str) -> Result<Beat> {
    let words: Vec<&str> = line.split(' ').collect();
    let [partition, sent, acked] = words[..] else {
        bail!("pulse log: {line}")
    };
    Ok(Beat {
        partition: partition.parse()?,
        sent: sent.parse()?,
        acked: match acked {
            "-" => None,
            at => Some(at.parse()?),
        },
    })
}

/// The monotonic clock, in seconds, as the client reads it.
pub fn now() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    #[allow(clippy::cast_precision_loss, reason = "seconds since the machine started")]
    let (seconds, nanos) = (now.tv_sec as f64, now.tv_nsec as f64);
    seconds + nanos / 1e9
}
