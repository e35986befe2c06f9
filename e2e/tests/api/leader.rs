//! Two operators, of which one works.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::json;
use takhin_e2e::kubernetes::{ControlPlane, Operator, audit, text};
use takhin_e2e::wait;

use crate::room::{Room, SOON};
use crate::stage::Suites;

pub(crate) fn add(suites: &mut Suites) {
    suites.add(
        "leader: the second takes over from a killed one within 20 s, from one that stops at once",
        failover,
    );
    suites.add(
        "leader: one that hung for long amid a pass writes nothing when it wakes",
        paused,
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

/// Stops an operator amid a pass: what it has just asked for is there when it wakes, and the pass goes on with a change.
fn freeze_amid_a_pass(room: &Room<'_>, operator: &Operator) -> Result<()> {
    for round in 0..20 {
        let name = format!("amid-{round}");
        let log = room.audit()?;
        let has_written = |resource: &str| -> Result<bool> {
            let mut asked = room.asked(&log)?.into_iter();
            Ok(asked.any(|entry| {
                entry.is_write() && entry.name.starts_with(&name) && entry.resource.contains(resource)
            }))
        };
        room.small_cluster(&name)?;
        wait::until("a first child", SOON, || has_written(""))?;
        room.plane().freeze()?;
        // The StatefulSet is the last of the children.
        let is_amid = !has_written("statefulsets")?;
        if is_amid {
            // What is half sent could not be called back; so all of it is, and it waits.
            let mut seen = (operator.processor_time()?, 0);
            wait::until("the operator to wait", SOON, || {
                let used = operator.processor_time()?;
                seen = (used, if used == seen.0 { seen.1 + 1 } else { 0 });
                Ok(seen.1 == 20)
            })?;
            operator.freeze()?;
        }
        room.plane().thaw()?;
        if is_amid {
            return Ok(());
        }
    }
    bail!("every pass had ended before it could be stopped")
}

fn paused(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "paused")?;
    let begin = room.audit()?;
    let mut first = room.told_apart("first")?;
    first.ready()?;
    wait::until("the first to lead", SOON, || Ok(first.leads()))?;
    room.small_cluster("one")?;
    room.soon("Pod", "one-0").with_context(|| first.tail())?;
    let credential = room
        .asked(&begin)?
        .first()
        .context("nothing asked")?
        .credential
        .clone();
    ensure!(!credential.is_empty(), "tokens cannot be told apart");
    freeze_amid_a_pass(&room, &first)?;
    let second = room.told_apart("second")?;
    wait::until("the second to lead", SOON, || Ok(second.leads()))?;
    let log = room.audit()?;
    // Much that the first will hear of when it wakes.
    for (kind, name) in [
        ("ConfigMap", "one-config"),
        ("Service", "one-bootstrap"),
        ("StatefulSet", "one"),
    ] {
        let before = room.soon(kind, name)?;
        room.kube().delete(kind, &room.name, name)?;
        room.wait(kind, name, "to be made again", |now| {
            (!now.is_null() && now["metadata"]["uid"] != before["metadata"]["uid"]).then_some(())
        })
        .with_context(|| second.tail())?;
    }
    let changed = json!({ "spec": { "terminationGracePeriodSeconds": 60 } });
    room.kube().merge("TakhinCluster", &room.name, "one", &changed)?;
    first.thaw()?;
    let ended = wait::value("the first to give up", SOON, || first.ended())?;
    ensure!(ended.contains("exit status: 1"), "{ended}\n{}", first.tail());
    let all = room.asked(&log)?;
    let late: Vec<_> = all
        .into_iter()
        .filter(|entry| entry.credential == credential && entry.is_write() && entry.code < 400)
        .collect();
    ensure!(
        late.is_empty(),
        "it wrote all the same:\n{}",
        audit::summary(&late)
    );
    room.leave()
}
