//! The controller's quorum as Kafka's own tool shows it, through each broker.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::{Cluster, process, tools, wait};

use crate::crash::LIMIT;
use crate::suite::{Context, Suites};

pub(crate) fn add(suites: &mut Suites) {
    suites.add_takhin("quorum::every_broker_describes_it_to_kafkas_tool", described);
}

/// `kafka-metadata-quorum describe`.
fn describe(bootstrap: &str, what: &str) -> Result<String> {
    let mut tool = tools::java("-Xmx128m", "org.apache.kafka.tools.MetadataQuorumCommand")?;
    tool.args(["--bootstrap-server", bootstrap, "describe", what]);
    Ok(process::run(&mut tool, Duration::from_secs(60))?.text())
}

/// The number behind `name:` in what `--status` prints.
fn number(status: &str, name: &str) -> Result<i64> {
    let value = status
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let value = value.with_context(|| format!("no {name} in {status}"))?;
    Ok(value.trim().parse()?)
}

/// Node id, lag and role from each row that `--replication` prints.
fn replicas(table: &str) -> Result<Vec<(i64, i64, String)>> {
    let rows = table
        .lines()
        .skip_while(|line| !line.starts_with("NodeId"))
        .skip(1);
    let row = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [node, _, _, lag, _, _, role] = words[..] else {
            anyhow::bail!("a row of {} words: {line}", words.len())
        };
        Ok((node.parse()?, lag.parse()?, role.to_owned()))
    };
    rows.filter(|line| !line.trim().is_empty()).map(row).collect()
}

fn described(_: &Context) -> Result<()> {
    // Three found the cluster and vote; the fourth only receives.
    let cluster = Cluster::start_with(4, 3, |_, _| {})?;
    let mut leaders = Vec::new();
    for broker in &cluster.brokers {
        let bootstrap = broker.bootstrap();
        let status = describe(&bootstrap, "--status")?;
        leaders.push(number(&status, "LeaderId")?);
        ensure!(number(&status, "HighWatermark")? > 0, "{status}");
        ensure!(number(&status, "MaxFollowerLag")? == 0, "{status}");
        // The follower heard of least lately; pings come every tenth of a second.
        ensure!(
            (0..5_000).contains(&number(&status, "MaxFollowerLagTimeMs")?),
            "{status}"
        );
    }
    let leader = leaders[0];
    ensure!(
        leaders.iter().all(|other| *other == leader),
        "leaders: {leaders:?}"
    );
    wait::until("four replicas without lag", LIMIT, || {
        let table = describe(&cluster.bootstrap(), "--replication")?;
        let mut found = replicas(&table)?;
        found.sort_unstable();
        let role = |id| match id {
            4 => "Observer",
            _ if id == leader => "Leader",
            _ => "Follower",
        };
        let wanted = (1..=4).map(|id| (id, 0, role(id).to_owned()));
        Ok(found.into_iter().eq(wanted))
    })
}
