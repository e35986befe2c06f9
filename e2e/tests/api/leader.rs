//! Two operators, of which one works.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::kubernetes::{ControlPlane, Operator, text};
use takhin_e2e::wait;

use crate::room::{Room, SOON};
use crate::stage::Suites;

pub(crate) fn add(suites: &mut Suites) {
    suites.add(
        "leader: the second takes over from a killed one within 20 s, from one that stops at once",
        failover,
    );
}

/// What users are promised.
const FAILOVER: Duration = Duration::from_secs(20);

fn failover(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "leader")?;
    let mut first = room.operator("first", &[])?;
    first.ready()?;
    wait::until("the first to lead", SOON, || Ok(first.leads()))?;
    let second = room.operator("second", &[])?;
    let third = room.operator("third", &[])?;
    room.small_cluster("one")?;
    room.soon("StatefulSet", "one").with_context(|| first.tail())?;
    ensure!(!second.leads() && !third.leads(), "two lead");
    let lease = room.soon("Lease", "takhin-operator")?;
    ensure!(
        text(&lease, "/spec/holderIdentity").starts_with("room-leader-first"),
        "{lease:#}"
    );

    let killed = Instant::now();
    first.kill();
    room.small_cluster("two")?;
    let others = [&second, &third];
    let leads = wait::value("another one to lead", SOON, || {
        let leading: Vec<&Operator> = others.into_iter().filter(|operator| operator.leads()).collect();
        ensure!(leading.len() < 2, "two lead");
        Ok(leading.first().copied())
    })?;
    room.soon("StatefulSet", "two").with_context(|| leads.tail())?;
    let took = killed.elapsed();
    eprintln!("        {:.1} s after kill -9", took.as_secs_f64());
    ensure!(took < FAILOVER, "it took {took:?}");

    let is_second = std::ptr::eq(leads, &raw const second);
    let (leads, waits) = if is_second {
        (second, third)
    } else {
        (third, second)
    };
    let stopped = Instant::now();
    leads.stop()?;
    wait::until("the last one to lead", SOON, || Ok(waits.leads()))?;
    let took = stopped.elapsed();
    eprintln!("        {:.1} s after SIGTERM", took.as_secs_f64());
    ensure!(took < Duration::from_secs(10), "it took {took:?}");
    room.leave()
}
