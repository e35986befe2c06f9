//! Writing a golden cluster, when a format has got a new version.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use takhin_e2e::kcat::placements;
use takhin_e2e::wire::Connection;
use takhin_e2e::{Cluster, process, tools, wait};

use super::{COMPACTED, OBSERVED, Observed, golden, home, prepare};
use crate::crash::LIMIT;
use crate::suite::Context;

/// The variable that names the archive to make, without its extension.
pub(super) const NAME: &str = "E2E_MAKE_GOLDEN";
const MOVED: &str = "golden-moved";
/// Keys that `golden.py` writes to its compacted topic, again and again.
const KEYS: usize = 7;

pub(super) fn archive(_: &Context) -> Result<()> {
    let name = std::env::var(NAME)?;
    let path = home()?.join(format!("{name}.tar.gz"));
    ensure!(
        !path.exists(),
        "{} is there: archives never change",
        path.display()
    );
    let dir = tempfile::Builder::new().prefix("takhin-golden-").tempdir()?;
    let mut cluster = Cluster::start_with(3, usize::MAX, |id, broker| {
        prepare(dir.path(), id, broker);
        broker.set("storage.cleaner_interval", "100ms");
    })?;
    let bootstrap = cluster.bootstrap();
    golden(&["fill", &bootstrap])?;
    configure_all(&bootstrap)?;
    move_a_replica(&cluster)?;
    wait::until("compaction", LIMIT, || {
        let clients: serde_json::Value = serde_json::from_str(&golden(&["observe", &bootstrap])?)?;
        let left = clients["records"][format!("{COMPACTED}-0")].as_array();
        Ok(left.context("no compacted topic")?.len() == KEYS)
    })?;
    golden(&["freeze", &bootstrap])?;
    let observed = Observed::of(&cluster)?;
    for broker in &mut cluster.brokers {
        broker.stop()?;
    }
    fs::write(dir.path().join(OBSERVED), serde_json::to_vec_pretty(&observed)?)?;
    let mut tar = Command::new("tar");
    tar.args([
        "--sort=name",
        "--owner=0",
        "--group=0",
        "--numeric-owner",
        "--exclude=lock",
    ]);
    tar.arg("-czf").arg(&path).arg("-C").arg(dir.path()).arg(".");
    process::run(&mut tar, LIMIT)?;
    eprintln!("        {}: {} bytes", path.display(), fs::metadata(&path)?.len());
    Ok(())
}

/// A setting of all brokers, by Kafka's tool: the Python clients have none for that.
fn configure_all(bootstrap: &str) -> Result<()> {
    let mut tool = tools::java("-Xmx128m", "kafka.admin.ConfigCommand")?;
    tool.args(["--bootstrap-server", bootstrap, "--alter"]);
    tool.args(["--entity-type", "brokers", "--entity-default"]);
    tool.args(["--add-config", "log.cleaner.backoff.ms=14000"]);
    process::run(&mut tool, LIMIT)?;
    Ok(())
}

/// The first partition of the topic with two replicas leaves one broker for the third, which leads from then on.
fn move_a_replica(cluster: &Cluster) -> Result<()> {
    let bootstrap = cluster.bootstrap();
    let now = placements(&bootstrap, MOVED)?.swap_remove(0).replicas;
    let Some(missing) = (1..=3).find(|id| !now.contains(id)) else {
        bail!("{MOVED} has replicas everywhere: {now:?}");
    };
    let wanted = vec![missing, now[0]];
    let mut connection = Connection::open(cluster.brokers[0].address())?;
    let error = connection.reassign(MOVED, 0, &wanted)?;
    ensure!(error == 0, "AlterPartitionReassignments: error {error}");
    wait::until("the replica to be moved", LIMIT, || {
        let placement = placements(&bootstrap, MOVED)?.swap_remove(0);
        Ok(placement.replicas == wanted && placement.in_sync == wanted.len())
    })
}
