//! Withdraws the broker while its disk does not answer.
//!
//! What hangs on a disk is not only what needs it: threads that wait for it serve nobody else, and a leader whose links to
//! other brokers still live keeps its partitions. So all connections are broken, as if the process had ended. Other brokers
//! elect leaders, and clients find them without waiting for a request to time out.
//!
//! Invariant: nothing is decided here. A broker that comes back finds itself in the terms that the others have begun, as
//! after a pause of the whole process.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Weak};

use takhin_cluster::Cluster;
use takhin_config::NodeConfig;
use takhin_runtime::net::Net;
use takhin_runtime::telemetry::health::{Health, Probe};
use takhin_runtime::telemetry::metrics::{self, Counter, Gauge};
use takhin_runtime::{DiskWatch, Env, Shutdown};
use tracing::{error, info, warn};

/// In the data directory.
const PROBE_FILE: &str = "disk-probe";

static HANGS: LazyLock<Gauge> = LazyLock::new(|| {
    metrics::gauge(
        "takhin_disk_stalled",
        "Whether the disk of the data directory does not answer, and the broker has withdrawn",
    )
});

static STALLS: LazyLock<Counter> = LazyLock::new(|| {
    metrics::counter(
        "takhin_disk_stalls_total",
        "How often the disk of the data directory has not answered for cluster.disk_stall_timeout",
    )
});

/// Watches the disk until what is returned is dropped; nothing if that is switched off, or cannot be. `failed` is triggered
/// when the broker cannot come back.
pub(crate) fn watch(
    env: &Env,
    config: &NodeConfig,
    cluster: &Arc<Cluster>,
    health: &Health,
    failed: &Shutdown,
) -> Option<DiskWatch> {
    let limit = config.cluster.disk_stall_timeout;
    // A simulated disk has no threads that could wait for it.
    if limit.is_zero() || env.tasks.is_simulated() {
        return None;
    }
    let hangs = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&hangs);
    health.check(Probe::Ready, "disk answers", move || {
        match seen.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err("the disk of node.data_dir does not answer".to_owned()),
        }
    });
    HANGS.set(0);
    let (net, cluster) = (env.net.clone(), Arc::downgrade(cluster));
    let listeners = config.kafka.listeners.iter();
    let clients: Vec<u16> = listeners.map(|listener| listener.bind.port()).collect();
    let failed = failed.clone();
    let changed = move |now| {
        hangs.store(now, Ordering::Relaxed);
        HANGS.set(i64::from(now));
        match now {
            true => withdraw(&net, &cluster, &clients),
            false => come_back(&net, &failed),
        }
    };
    let path = config.node.data_dir.join(PROBE_FILE);
    // A disk that is full, for instance, is no reason not to start.
    DiskWatch::start(&*env.disk, &path, limit, changed)
        .inspect_err(|error| warn!(path = %path.display(), %error, "whether the disk answers is not watched"))
        .ok()
}

/// Breaks all connections, those of clients, who came to these ports, last: the brokers that they ask next who leads know then
/// that this one does not.
fn withdraw(net: &Net, cluster: &Weak<Cluster>, clients: &[u16]) {
    STALLS.inc();
    let others = cluster
        .upgrade()
        .map_or(0, |cluster| cluster.image().brokers.len());
    if others <= 1 {
        error!("the disk of node.data_dir does not answer: nothing can be written until it does");
        return;
    }
    let connections = net.sever(|own| clients.contains(&own.port()));
    error!(
        connections,
        "the disk of node.data_dir does not answer: the broker withdraws until it does; look at the machine's disk"
    );
}

fn come_back(net: &Net, failed: &Shutdown) {
    match net.mend() {
        Ok(()) => info!("the disk of node.data_dir answers again: the broker is back"),
        Err(error) => {
            error!(%error, "the disk of node.data_dir answers again, but not the network; the broker stops");
            failed.trigger();
        }
    }
}
