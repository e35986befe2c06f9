//! From an earlier chart to this one.

use anyhow::{Result, ensure};
use takhin_e2e::kubernetes::Ground;
use takhin_e2e::tools;

use crate::house::House;
use crate::stage::{SYSTEM, Suites, release, timeout};

pub(crate) fn add(suites: &mut Suites) {
    suites.add("upgrade::from_an_earlier_chart", upgrade);
}

/// The chart as commit f89ce7b had it, made there with `helm package`. Its kinds lack what `null` of a map needs, and its
/// role has other rules.
const EARLIER: &str = "e2e/kubernetes/charts/takhin-operator-f89ce7b.tgz";

/// Kinds and rights come with the chart, `helm test` says that they have come, and no broker is restarted.
fn upgrade(cluster: &Ground) -> Result<()> {
    // Made under today's kinds, since it is today's operator that makes it: the earlier ones lack what it writes into a status.
    release(cluster, "charts/takhin-operator")?;
    let house = House::shared(cluster)?;
    let writer = house.write("upgraded")?;
    let before = house.pods()?;
    release(cluster, EARLIER)?;
    ensure!(
        !kinds_are_current(cluster)?,
        "the earlier chart has today's kinds: it proves nothing"
    );
    release(cluster, "charts/takhin-operator")?;
    ensure!(
        kinds_are_current(cluster)?,
        "the kinds are still those of the earlier chart"
    );
    let said = cluster.helm(&["test", "takhin", "--namespace", SYSTEM, &timeout(100)?])?;
    ensure!(said.contains("Succeeded"), "{said}");
    // The operator that has begun looks at everything once.
    house.topic("after")?;
    house.quiet()?;
    house.unchanged(&before)?;
    house.check_smooth(writer)
}

/// Whether nothing of `crds/` differs from what the API server has.
fn kinds_are_current(cluster: &Ground) -> Result<bool> {
    let kinds = tools::checkout()?.join("crds");
    let kinds = kinds.to_string_lossy();
    let found = cluster.kubectl(&["get", "crd", "-o", "name"])?;
    ensure!(found.lines().count() == 3, "kinds: {found}");
    let diff = ["diff", "--server-side", "--force-conflicts", "-f", &kinds];
    match cluster.kubectl(&diff) {
        Ok(_) => Ok(true),
        Err(error) if error.to_string().contains("exit status: 1") => Ok(false),
        Err(error) => Err(error),
    }
}
