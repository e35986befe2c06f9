//! Links that are slow: connections between brokers lead through a proxy that delivers late.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::process::Running;
use takhin_e2e::rng::Rng;

use crate::network::{RPC_PORT, Rule};
use crate::stage::Stage;

/// Below those that the system gives to outgoing connections.
const PROXY_PORT: u16 = 23_146;

pub(super) fn strike(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let delay = rng.within(10..200);
    let jitter = rng.within(0..delay);
    let count = if rng.within(0..2) == 0 {
        1
    } else {
        stage.brokers.len()
    };
    let victims = stage.some_brokers(rng, count);
    let ids: Vec<u32> = victims.iter().map(|v| stage.brokers[*v].node_id()).collect();
    stage.say(&format!("{delay} to {} ms at brokers {ids:?}", delay + jitter));
    let mut proxies = Vec::new();
    for victim in &victims {
        proxies.push(proxy(stage, *victim, delay, jitter)?);
        // What is connected keeps its way: it has to come again.
        stage.network.hosts[*victim].filter(&[Rule::Reset(RPC_PORT)])?;
    }
    stage.hold(rng, 300..600);
    for victim in &victims {
        stage.network.hosts[*victim].filter(&[Rule::Redirect(RPC_PORT, PROXY_PORT)])?;
    }
    let progress = stage.goes_on();
    stage.hold(rng, 1_000..5_000);
    let healed = stage.network.heal_from_faults();
    drop(proxies);
    progress.and(healed)
}

fn proxy(stage: &Stage, broker: usize, delay: u64, jitter: u64) -> Result<Running> {
    let host = &stage.network.hosts[broker];
    let own = std::env::current_exe()?;
    let mut command = host.command("setpriv");
    let address = |port| SocketAddr::new(IpAddr::V4(host.ip), port).to_string();
    command.args(["--pdeathsig", "KILL"]).arg(own).arg("proxy");
    command.args(["--listen", &address(PROXY_PORT), "--to", &address(RPC_PORT)]);
    command.args([
        "--delay-ms",
        &delay.to_string(),
        "--jitter-ms",
        &jitter.to_string(),
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut proxy = Running::start(&mut command)?;
    let mut line = String::new();
    BufReader::new(proxy.stdout().context("the proxy's pipe")?).read_line(&mut line)?;
    ensure!(line == "listening\n", "the proxy does not listen");
    Ok(proxy)
}
