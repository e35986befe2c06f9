//! Changes that are all there when they are asked for.

use std::time::Instant;

use anyhow::{Context as _, Result};
use takhin_e2e::{Broker, wait};

use crate::usage::{Usage, peak_mib};
use crate::{Args, LIMIT};

/// What each change sets.
pub(crate) const VALUE: &[u8] = b"a value of thirty-two bytes ....";

/// Returns how many there were a second.
pub(crate) fn measure(args: &Args, broker: &Broker) -> Result<f64> {
    let master = args.master()?;
    let value: Vec<u8> = VALUE.iter().copied().cycle().take(args.value).collect();
    for number in 0..args.items {
        let key = format!("key:{number:012}");
        args.execute(&master, &[b"SET", key.as_bytes(), &value]);
    }
    let mut cdc = args.cdc("changes", &master, broker)?;
    cdc.go_on_from(&args.replication_id(), &[("db0", (0, 0))])?;
    cdc.start()?;
    wait::until("the first change is asked for", LIMIT, || {
        Ok(args.is_asked(&master))
    })
    .with_context(|| cdc.tail())?;
    let begin = Instant::now();
    let usage = Usage::begin(cdc.pid()?, broker.pid()?)?;
    wait::until("all is acknowledged", LIMIT, || Ok(args.is_done(&master, &cdc)))
        .with_context(|| cdc.tail())?;
    #[allow(clippy::cast_precision_loss, reason = "fewer than 2^52")]
    let items = args.items as f64;
    let rate = items / begin.elapsed().as_secs_f64();
    println!(
        "changes: {rate:.0}/s; {}; at most {} MiB resident",
        usage.end(items)?,
        peak_mib(cdc.pid()?)?
    );
    Ok(rate)
}
