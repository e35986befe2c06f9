//! What `/proc` says about a process.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Totals of a process since its start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time of all threads.
    pub(crate) cpu: Duration,
    /// Bytes whose pages were dirtied or written directly: what reaches the disk sooner or later.
    pub(crate) disk_bytes: u64,
    /// Bytes that were fetched from the disk because they were not in memory.
    pub(crate) read_bytes: u64,
}

impl Usage {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            disk_bytes: self.disk_bytes + other.disk_bytes,
            read_bytes: self.read_bytes + other.read_bytes,
        }
    }
}

/// Reads the totals of `pid`.
pub(crate) fn usage(pid: u32) -> Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The command's name stands in parentheses and may hold anything.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let mut ticks = || -> Result<u64> { Ok(fields.next().context("stat is short")?.parse()?) };
    let ticks = ticks()? + ticks()?;
    Ok(Usage {
        cpu: Duration::from_secs_f64(ticks as f64 / rustix::param::clock_ticks_per_second() as f64),
        disk_bytes: field(&format!("/proc/{pid}/io"), "write_bytes:")?,
        read_bytes: field(&format!("/proc/{pid}/io"), "read_bytes:")?,
    })
}

/// Resident memory of `pid` in bytes.
pub(crate) fn rss(pid: u32) -> Result<u64> {
    Ok(field(&format!("/proc/{pid}/status"), "VmRSS:")? * 1024)
}

fn field(path: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.split_ascii_whitespace().next());
    Ok(value.with_context(|| format!("{path} has no {name}"))?.parse()?)
}

/// Bytes of all files below `dir`; files that vanish meanwhile count nothing.
pub(crate) fn tree_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => tree_bytes(&entry.path()),
        Ok(meta) => std::os::unix::fs::MetadataExt::blocks(&meta) * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

/// Average number of runnable tasks over the last minute.
pub(crate) fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|first| first.parse().ok())
        .unwrap_or(0.0)
}

/// Part of one core, in percent.
pub(crate) fn percent(used: Duration, elapsed: Duration) -> f64 {
    100.0 * used.as_secs_f64() / elapsed.as_secs_f64().max(1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_disk_totals() {
        let pid = std::process::id();
        assert!(rss(pid).unwrap() > 100_000);
        usage(pid).unwrap();
    }

    #[test]
    fn shares_are_per_core() {
        let (used, elapsed) = (Duration::from_millis(300), Duration::from_secs(30));
        assert_eq!(percent(used, elapsed), 1.0);
    }
}
