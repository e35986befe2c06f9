//! What processes took, as Linux tells it.

use std::fs;

use anyhow::{Context as _, Result};

/// Ticks of processor time in a second, as Linux tells it to programs.
const TICKS: f64 = 100.0;

/// Processor time of program, broker and master since a moment.
pub(crate) struct Usage {
    pids: [u32; 3],
    before: [f64; 3],
}

impl Usage {
    /// From now on. The master is this process.
    pub(crate) fn begin(cdc: u32, broker: u32) -> Result<Self> {
        let pids = [cdc, broker, std::process::id()];
        Ok(Self {
            pids,
            before: times(pids)?,
        })
    }

    /// For `count` events, in microseconds each.
    pub(crate) fn end(&self, count: f64) -> Result<String> {
        let now = times(self.pids)?;
        let each = |at: usize| (now[at] - self.before[at]) / count * 1e6;
        Ok(format!(
            "processor time of each: takhin-cdc {:.1} µs, broker {:.1} µs, master {:.1} µs",
            each(0),
            each(1),
            each(2)
        ))
    }
}

fn times(pids: [u32; 3]) -> Result<[f64; 3]> {
    let [a, b, c] = pids.map(processor_seconds);
    Ok([a?, b?, c?])
}

/// Processor time of a process, of all its threads.
fn processor_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name may have spaces; it ends with the last bracket.
    let rest = stat.rsplit_once(')').context("no stat")?.1;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let ticks = |at: usize| -> Result<f64> { Ok(fields.get(at).context("no stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}

/// The most memory that a process has had at a time, in MiB.
pub(crate) fn peak_mib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .context("no memory")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024)
}
