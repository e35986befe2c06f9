//! Waiting for what brokers do in their own time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::broker::Broker;
use crate::scrape::value;

/// How long brokers may take to agree on something.
const PATIENCE: Duration = Duration::from_secs(300);

/// Asks again and again until it is `so`.
pub(crate) fn wait(what: &str, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let give_up = Instant::now() + PATIENCE;
    while !so()? {
        ensure!(Instant::now() < give_up, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Waits until a broker that parks idle partitions has parked as many. Others do as ever.
pub(crate) fn wait_until_parked(broker: &Broker, partitions: i32) -> Result<()> {
    let Some(admin) = broker.admin else {
        return Ok(());
    };
    wait("parked partitions", || {
        // To tell all its metrics is work for the broker, too.
        thread::sleep(Duration::from_millis(500));
        let parked = value(admin, "takhin_partitions_parked");
        Ok(parked.is_some_and(|parked| parked >= f64::from(partitions)))
    })
}
