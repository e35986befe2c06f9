//! Metrics about the process itself, under the names that Prometheus client libraries agreed on.

use std::fs;
use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use super::metrics;

/// When the process first asked, which is at its start.
static STARTED: LazyLock<(Instant, f64)> = LazyLock::new(|| {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (Instant::now(), since_epoch.as_secs_f64())
});

/// The user that this process runs as; 0 is root.
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Registers `process_*`, `takhin_build_info` and `takhin_uptime_seconds`; call it early in `main`.
pub fn register(version: &str, commit: &str) {
    LazyLock::force(&STARTED);
    metrics::sampled(
        "process_resident_memory_bytes",
        "Physical memory in use",
        resident_bytes,
    );
    metrics::sampled("process_open_fds", "Open file descriptors", open_fds);
    metrics::sampled(
        "process_cpu_seconds_total",
        "User and system CPU time spent",
        || Some(cpu_seconds()),
    );
    metrics::sampled(
        "process_start_time_seconds",
        "Start of the process since 1970",
        || Some(STARTED.1),
    );
    metrics::sampled(
        "takhin_uptime_seconds",
        "Time since the start of the process",
        || Some(STARTED.0.elapsed().as_secs_f64()),
    );
    metrics::gauges(
        "takhin_build_info",
        "Always 1; version and commit of this build",
        ["version", "commit"],
    )
    .with([version, commit])
    .set(1);
}

/// `VmRSS` of proc_pid_status(5), which is in kibibytes.
fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
}

fn open_fds() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    // Less the one of the listing itself.
    u32::try_from(count).ok().map(|count| f64::from(count) - 1.0)
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_memory_descriptors_and_used_time() {
        assert!(resident_bytes().unwrap() > 100_000.0);
        let before = open_fds().unwrap();
        let _files: Vec<_> = (0..50)
            .map(|_| fs::File::open("/proc/self/status").unwrap())
            .collect();
        assert!(
            open_fds().unwrap() >= before + 25.0,
            "50 more, other tests may close some"
        );
        assert!(cpu_seconds() > 0.0);
        register("1.2.3", "abc");
        let text = metrics::encode();
        assert!(
            text.contains(r#"takhin_build_info{version="1.2.3",commit="abc"} 1"#),
            "{text}"
        );
        for name in [
            "process_cpu_seconds_total ",
            "process_open_fds ",
            "takhin_uptime_seconds ",
        ] {
            assert!(text.contains(name), "{name} is missing in {text}");
        }
    }
}
