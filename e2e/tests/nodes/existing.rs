//! A cluster that somebody else has made.

use std::time::Duration;

use anyhow::{Result, ensure};
use takhin_e2e::kubernetes::Ground;

use crate::stage::{Suites, local};

pub(crate) fn add(suites: &mut Suites) {
    suites.add_if(
        local(),
        "existing::the_suite_runs_on_a_cluster_that_is_there",
        again,
    );
}

/// Time for another process to run one test.
const LIMIT: Duration = Duration::from_secs(300);

/// Another process, which knows of these nodes only what `E2E_CLUSTER=existing` is told, runs the story on them.
fn again(cluster: &Ground) -> Result<()> {
    let printed = cluster.again("story::", LIMIT)?;
    ensure!(printed.contains("1 passed"), "{printed}");
    // What harms nodes is not offered there.
    let all = cluster.again("api_server_is_away", LIMIT)?;
    ensure!(all.contains("0 passed; 0 failed; 1 ignored"), "{all}");
    Ok(())
}
