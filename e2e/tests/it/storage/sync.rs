//! A sync that fails (D-6, D-7): no acknowledgement rests on it, not even when the next one succeeds.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use takhin_e2e::process::Running;
use takhin_e2e::wire::Connection;
use takhin_e2e::{Broker, records, wait};

use super::{Acked, TOPIC, broker, read_all, value, write};
use crate::suite::Context;

pub(super) fn failed_sync(_: &Context) -> Result<()> {
    let mut broker = broker()?;
    let mut acked = Acked::new();
    write(&broker, &mut acked, 20)?;

    let unknown = value(1_000);
    let batch = records::batch(&[&unknown], super::NOW)?;
    {
        let _fault = Fault::on(&broker)?;
        let mut connection = Connection::open(broker.address())?;
        for _ in 0..3 {
            // Refused, or the connection ends: anything but success.
            let answer = connection.produce(TOPIC, 0, &batch);
            ensure!(
                !matches!(answer, Ok((0, _))),
                "acknowledged although its sync failed"
            );
            if answer.is_err() {
                connection = Connection::open(broker.address())?;
            }
        }
    }
    // Syncs work again. What was read before the fault is still there, and the broker has not died of it.
    ensure!(broker.is_running()?, "the broker ended\n{}", broker.log_tail());

    broker.kill();
    broker.start()?;
    let read = read_all(&broker)?;
    ensure!(
        read.get(..acked.len()) == Some(&acked),
        "an acknowledged record is lost"
    );
    // The refused ones are unknown to their producer: there or not, but nothing else is.
    for (offset, found) in &read[acked.len()..] {
        ensure!(found == &unknown, "offset {offset}: a record that nobody sent");
    }
    ensure!(
        read.len() <= acked.len() + 3,
        "a record is there more often than it was sent"
    );
    acked = read;
    let mut connection = Connection::open(broker.address())?;
    let (error, offset) = super::produce_one(&mut connection, &value(2_000))?;
    ensure!(error == 0, "after the restart: error {error}");
    ensure!(
        usize::try_from(offset)? == acked.len(),
        "offsets are no longer dense"
    );
    Ok(())
}

/// Every sync of a running broker fails with EIO until this is dropped.
#[derive(Debug)]
struct Fault {
    strace: Running,
    pid: u32,
}

impl Fault {
    fn on(broker: &Broker) -> Result<Self> {
        let pid = broker.pid()?;
        let mut command = Command::new("strace");
        command.args(["--follow-forks", "--output=/dev/null", "--signal=none"]);
        command.arg("--inject=fdatasync,fsync,syncfs,sync_file_range:error=EIO");
        command.args(["--attach", &pid.to_string()]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut strace = Running::start(&mut command)?;
        wait::until("strace to hold every thread", Duration::from_secs(20), || {
            if let Some(status) = strace.ended()? {
                bail!("strace {}", takhin_e2e::process::ending(status));
            }
            threads_are_traced(pid)
        })?;
        Ok(Self { strace, pid })
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        // SIGTERM lets it detach; without a tracer the broker runs on.
        let _ = self.strace.terminate();
        let _ = self.strace.wait(Duration::from_secs(10));
        let _ = wait::until("strace to let go", Duration::from_secs(10), || {
            Ok(!threads_are_traced(self.pid)?)
        });
    }
}

fn threads_are_traced(pid: u32) -> Result<bool> {
    let mut all = true;
    for thread in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while we look.
        let Ok(status) = std::fs::read_to_string(thread?.path().join("status")) else {
            continue;
        };
        all &= status
            .lines()
            .any(|l| l.starts_with("TracerPid:") && !l.ends_with("\t0"));
    }
    Ok(all)
}
