//! Takhin: nodes with their defaults, but for addresses, directory, and what both sides have alike: as many connections
//! as come, and rebalances without an initial delay.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{Launcher, Member, free_addr};

/// What a restart keeps: the address for other brokers, then lines of the configuration.
const MEMBERSHIP: &str = "membership";

/// What starts it, its Kafka listener, its admin listener. The addresses are chosen anew each time.
pub(super) fn command(launcher: &Launcher, dir: &Path) -> Result<(Command, SocketAddr, Option<SocketAddr>)> {
    ensure!(
        launcher.takhin.exists(),
        "{} does not exist; build it with `cargo build --release`, or name it with --takhin",
        launcher.takhin.display()
    );
    let (kafka, admin) = (free_addr()?, free_addr()?);
    let config = dir.join("takhin.yaml");
    let membership = fs::read_to_string(dir.join(MEMBERSHIP))?;
    let (rpc, membership) = membership.split_once('\n').context("the node is not prepared")?;
    let text = format!(
        "{membership}\
         kafka:\n\
         \x20 listeners: [ {{ name: internal, bind: \"{kafka}\", advertise: \"{kafka}\" }} ]\n\
         \x20 limits: {{ max_connections: 1000000, max_connections_per_ip: 1000000 }}\n\
         \x20 groups: {{ initial_rebalance_delay: 0ms }}\n\
         rpc: {{ bind: \"{rpc}\", advertise: \"{rpc}\" }}\n\
         admin: {{ bind: \"{admin}\" }}\n"
    );
    fs::write(&config, text)?;
    let mut command = Command::new(&launcher.takhin);
    command.arg("start").arg("--config").arg(&config);
    Ok((command, kafka, Some(admin)))
}

/// Notes in `dir` which member of a cluster it is for, and where the members know each other: a restart keeps that.
pub(super) fn prepare(dir: &Path, member: &Member<'_>) -> Result<()> {
    let seeds: Vec<_> = member.peers.iter().map(|addr| format!("\"{addr}\"")).collect();
    let text = format!(
        "{}\nnode: {{ id: {}, data_dir: {} }}\ncluster: {{ name: bench, seeds: [{}] }}\n",
        member.own(),
        member.id,
        dir.join("data").display(),
        seeds.join(", ")
    );
    Ok(fs::write(dir.join(MEMBERSHIP), text)?)
}
