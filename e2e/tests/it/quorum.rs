//! The controller's quorum as Kafka's own tool shows it, through each broker.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::writer::{self, Writer};
use takhin_e2e::{Broker, Cluster, Kind, process, tools, wait, wire};

use crate::cluster::TOPIC;
use crate::crash::{LIMIT, PARTITIONS, sound};
use crate::suite::{Context, Suites};

pub(crate) fn add(suites: &mut Suites) {
    suites.add_takhin("quorum::every_broker_describes_it_to_kafkas_tool", described);
    suites.add_takhin(
        "quorum::five_whose_names_resolve_late_form_it_and_outlive_two",
        five_late,
    );
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

/// As in Kubernetes, where the names of pods are known only once they run: all brokers run before any of the names in their
/// list of seeds can be looked up.
fn five_late(_: &Context) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let hosts = dir.path().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n")?;
    let brokers: Result<Vec<Broker>> = (0..5).map(|_| Broker::new(Kind::Takhin)).collect();
    let mut cluster = Cluster { brokers: brokers? };
    let peers: Vec<SocketAddr> = cluster.brokers.iter().map(Broker::peer_address).collect();
    let names: Vec<String> = (1..=5).map(|id| format!("takhin-{id}.late.test")).collect();
    let seed = |at: usize| format!("{}:{}", names[at], peers[at].port());
    let seeds = format!("{:?}", (0..5).map(seed).collect::<Vec<_>>());
    // A mount of its own; the process stays the one that was started.
    let mount = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
    for at in (0..5).rev() {
        let broker = &mut cluster.brokers[at];
        let kafka = broker.address();
        broker.identify(u32::try_from(at)? + 1, kafka);
        broker.set("rpc.bind", &peers[at].to_string());
        broker.set("rpc.advertise", &seed(at));
        broker.set("cluster.seeds", &seeds);
        broker.wrap(&["unshare", "--mount", "sh", "-c", &mount, "sh"]);
        broker.start_process()?;
    }
    wait::until("all brokers to look for the others in vain", LIMIT, || {
        let mut all = cluster.brokers.iter_mut();
        all.try_fold(true, |so, broker| {
            ensure!(broker.is_running()?, "{}", broker.log_tail());
            Ok(so && broker.log_tail().contains("failed to lookup address"))
        })
    })?;
    let known = names.iter().zip(&peers);
    let known = known.map(|(name, peer)| format!("{} {name}\n", peer.ip()));
    fs::write(&hosts, known.collect::<String>())?;
    for broker in &mut cluster.brokers {
        broker.wait_ready()?;
    }
    wait::until("five voters without lag", LIMIT, || {
        let mut found = replicas(&describe(&cluster.bootstrap(), "--replication")?)?;
        found.sort_unstable();
        let voters = found
            .iter()
            .filter(|(_, lag, role)| *lag == 0 && role != "Observer");
        Ok(found.len() == 5 && voters.count() == 5)
    })?;
    let mut connection = wire::Connection::open(cluster.brokers[0].address())?;
    let error = connection.create_replicated_topic(TOPIC, PARTITIONS, 5, &[])?;
    ensure!(error == 0, "CreateTopics {TOPIC}: error {error}");
    let mut writer = Writer::start(&cluster.bootstrap(), TOPIC, PARTITIONS)?;
    for victim in [0, 3] {
        writer.wait_acked(500, LIMIT)?;
        cluster.brokers[victim].kill();
    }
    writer.wait_acked(500, LIMIT)?;
    // What needs the controller too.
    let mut connection = wire::Connection::open(cluster.brokers[1].address())?;
    let error = connection.create_replicated_topic("without-two", 1, 3, &[])?;
    ensure!(error == 0, "CreateTopics without-two: error {error}");
    for victim in [0, 3] {
        cluster.start_again(victim)?;
    }
    let log = writer.finish()?;
    sound(&writer::check(&cluster.bootstrap(), TOPIC, &log)?)
}
