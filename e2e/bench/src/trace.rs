//! System calls of a broker, counted by strace(1): counts do not depend on the neighbours.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// Calls that bring bytes into user space.
const INCOMING: [&str; 7] = [
    "read", "readv", "recvfrom", "recvmsg", "pread64", "preadv", "preadv2",
];

/// Calls that may carry payload, either way.
const CARRIERS: &str = "trace=read,readv,recvfrom,recvmsg,pread64,preadv,preadv2,write,writev,sendto,sendmsg,\
                        pwrite64,pwritev,pwritev2,sendfile,splice,copy_file_range";

/// Calls by name.
pub(crate) type Counts = BTreeMap<String, u64>;

/// Counts the system calls of `pid` and all its threads while `work` runs.
pub(crate) fn calls<T>(pid: u32, dir: &Path, work: impl FnOnce() -> Result<T>) -> Result<(Counts, T)> {
    let path = dir.join("strace.txt");
    let (done, text) = traced(pid, &path, &["-c", "-U", "calls,name"], work)?;
    Ok((parse_summary(&text), done))
}

/// Sums the bytes that system calls brought into `pid`'s user space while `work` runs.
pub(crate) fn bytes_in<T>(pid: u32, dir: &Path, work: impl FnOnce() -> Result<T>) -> Result<(u64, T)> {
    let path = dir.join("strace.txt");
    let (done, text) = traced(pid, &path, &["-s", "0", "-e", CARRIERS], work)?;
    Ok((sum_incoming(&text), done))
}

fn traced<T>(pid: u32, path: &Path, args: &[&str], work: impl FnOnce() -> Result<T>) -> Result<(T, String)> {
    let mut strace = Command::new("strace");
    strace
        .arg("-f")
        .args(args)
        .arg("-o")
        .arg(path)
        .arg("-p")
        .arg(pid.to_string());
    let mut strace = Guard(strace.stderr(Stdio::piped()).spawn().context("starting strace")?);
    // It says "Process N attached" once it is in place, and goes on to say so for every thread.
    let mut stderr = BufReader::new(strace.0.stderr.take().context("strace's output")?);
    let mut line = String::new();
    stderr.read_line(&mut line)?;
    if !line.contains("attached") {
        bail!("strace: {}", line.trim());
    }
    let drain = std::thread::spawn(move || stderr.read_to_end(&mut Vec::new()));
    let done = work();
    kill_process(
        Pid::from_raw(strace.0.id().try_into()?).context("pid")?,
        Signal::INT,
    )?;
    strace.0.wait()?;
    // Nothing depends on what it said.
    drop(drain.join());
    Ok((done?, fs::read_to_string(path)?))
}

/// Ends strace, which otherwise goes on after a failure.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        // Fails only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Reads the lines `calls name` of strace's summary.
fn parse_summary(text: &str) -> Counts {
    let rows = text.lines().filter_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let calls = fields.next()?.parse().ok()?;
        let name = fields.next()?;
        (name != "total").then(|| (name.to_owned(), calls))
    });
    rows.collect()
}

/// Sums the results of incoming calls, `read(3, ""..., 10) = 10` or `<... read resumed>""..., 10) = 10`.
fn sum_incoming(text: &str) -> u64 {
    let result = |line: &str| -> Option<u64> {
        let (_, call) = line.split_once(' ')?;
        let call = call.trim_start();
        let name = match call.strip_prefix("<... ") {
            Some(resumed) => resumed.split_once(' ')?.0,
            None => call.split_once('(')?.0,
        };
        let (_, result) = line.rsplit_once(" = ")?;
        INCOMING.contains(&name).then(|| result.trim().parse().ok())?
    };
    text.lines().filter_map(result).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_and_traces_are_understood() {
        let summary = "    calls syscall\n--------- ----------------\n       12 futex\n        3 fdatasync\n       15 total\n";
        assert_eq!(
            parse_summary(summary),
            Counts::from([("fdatasync".into(), 3), ("futex".into(), 12)])
        );
        let trace = "7 read(3, \"\"..., 10) = 10\n\
                     7 pread64(3,  <unfinished ...>\n\
                     8 sendfile(1, 2, NULL, 99) = 99\n\
                     7 <... pread64 resumed>\"\"..., 20, 0) = 20\n\
                     8 recvfrom(3, 0x7f, 10, 0, NULL, NULL) = -1 EAGAIN (Resource temporarily unavailable)\n";
        assert_eq!(sum_incoming(trace), 30);
    }
}
