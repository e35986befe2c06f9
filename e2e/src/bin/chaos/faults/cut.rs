//! Cuts between brokers by the packet filter: nothing is refused, it only never arrives.

use std::net::Ipv4Addr;

use anyhow::Result;
use takhin_e2e::rng::Rng;

use crate::network::Rule;
use crate::stage::{Stage, pick};

/// Clients still reach it: what it says to them must not be what a leader says.
pub(super) fn off(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let victims = [stage.some_leader(rng)?, stage.controller()?];
    let victim = pick(rng, &victims);
    stage.say(&format!("broker {} is alone", stage.brokers[victim].node_id()));
    deafen(stage, victim)?;
    mute(stage, victim)?;
    survive(stage, rng)
}

pub(super) fn one_way(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let victims = [stage.some_leader(rng)?, stage.controller()?];
    let victim = pick(rng, &victims);
    let id = stage.brokers[victim].node_id();
    if rng.within(0..2) == 0 {
        stage.say(&format!("broker {id} hears no other"));
        deafen(stage, victim)?;
    } else {
        stage.say(&format!("broker {id} is heard by no other"));
        mute(stage, victim)?;
    }
    survive(stage, rng)
}

pub(super) fn bridge(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let pair = stage.some_brokers(rng, 2);
    let ids: Vec<u32> = pair.iter().map(|b| stage.brokers[*b].node_id()).collect();
    stage.say(&format!("between brokers {ids:?}"));
    for (here, there) in [(pair[0], pair[1]), (pair[1], pair[0])] {
        let there = stage.network.hosts[there].ip;
        stage.network.hosts[here].filter(&[Rule::Deaf(there)])?;
    }
    survive(stage, rng)
}

pub(super) fn all(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    stage.say("every broker is alone");
    for broker in 0..stage.brokers.len() {
        deafen(stage, broker)?;
    }
    stage.hold(rng, 1_000..8_000);
    stage.network.heal_from_faults()
}

/// The broker hears no other one.
fn deafen(stage: &Stage, broker: usize) -> Result<()> {
    stage.network.hosts[broker].filter(&others(stage, broker))
}

/// No other broker hears this one.
fn mute(stage: &Stage, broker: usize) -> Result<()> {
    let ip = stage.network.hosts[broker].ip;
    let mut others = stage.network.hosts.iter().filter(|host| host.ip != ip);
    others.try_for_each(|host| host.filter(&[Rule::Deaf(ip)]))
}

fn others(stage: &Stage, broker: usize) -> Vec<Rule> {
    let own: Ipv4Addr = stage.network.hosts[broker].ip;
    let others = stage.network.hosts.iter().map(|host| host.ip);
    others.filter(|ip| *ip != own).map(Rule::Deaf).collect()
}

fn survive(stage: &mut Stage, rng: &mut Rng) -> Result<()> {
    let others = stage.goes_on();
    stage.hold(rng, 0..5_000);
    let healed = stage.network.heal_from_faults();
    others.and(healed)
}
