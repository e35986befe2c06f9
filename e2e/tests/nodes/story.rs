//! From nothing to a cluster with a topic, as a new user would.

use std::io::{Seek as _, Write as _};
use std::time::Duration;

use anyhow::{Result, ensure};
use takhin_e2e::kubernetes::Ground;
use takhin_e2e::{kcat, process, tools, wait};

use crate::house::House;
use crate::stage::{Suites, installed_in};

/// For what Kubernetes does by itself, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// From nothing but nodes that have the images to three brokers that are ready.
const READY: Duration = Duration::from_secs(90);

pub(crate) fn add(suites: &mut Suites) {
    suites.add("story::a_cluster_and_a_topic_from_nothing", from_nothing);
}

/// Pods under the restricted profile, found by the names of Services inside, and by node ports outside.
fn from_nothing(cluster: &Ground) -> Result<()> {
    let house = House::build(cluster, "story")?;
    let (installed, ready) = (installed_in(), house.became_ready_in()?);
    eprintln!(
        "        installed in {:.1} s, a cluster ready {ready} s after it was wished for",
        installed.as_secs_f64()
    );
    let all = installed + Duration::from_secs(u64::try_from(ready)?);
    ensure!(all < READY, "chart and cluster took {all:?}");
    house.topic("orders")?;
    let printed = cluster.kubectl(&["get", "takhin", "-n", "story"])?;
    eprintln!("{printed}");
    for words in ["takhincluster.takhin.io/prod", "topic.takhin.io/orders", "3/3"] {
        ensure!(printed.contains(words), "no {words} in:\n{printed}");
    }
    let (inside, outside) = (house.inside(), house.outside()?);
    let placed = kcat::placements(&inside, "orders")?;
    let whole = placed.iter().all(|placed| placed.in_sync == 3);
    ensure!(placed.len() == 6 && whole, "{placed:?}");
    // Nodes learn of a new port a moment later than the pods behind it are ready.
    wait::until("the node port to lead to brokers", LIMIT, || {
        Ok(kcat::placements(&outside, "orders").is_ok())
    })?;
    for bootstrap in [&inside, &outside] {
        produce(bootstrap, "orders", 100)?;
    }
    for bootstrap in [&inside, &outside] {
        let records = kcat::consume(bootstrap, "orders", None, "beginning")?.len();
        ensure!(records == 200, "{records} records of 200 at {bootstrap}");
    }
    house.leave()
}

pub(crate) fn produce(bootstrap: &str, topic: &str, records: usize) -> Result<()> {
    let lines: String = (0..records).map(|n| format!("key-{n}:value-{n}\n")).collect();
    let mut file = tempfile::tempfile()?;
    file.write_all(lines.as_bytes())?;
    file.rewind()?;
    let mut command = tools::kcat();
    command.args(["-P", "-b", bootstrap, "-t", topic, "-K", ":", "-X", "acks=all"]);
    let output = process::run_with_input(&mut command, file.into(), Duration::from_secs(60))?;
    ensure!(output.status.success(), "kcat: {}", output.stderr);
    Ok(())
}
