//! From nothing to a cluster with a topic, as a new user would.

use std::collections::BTreeSet;
use std::io::{Seek as _, Write as _};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use takhin_e2e::kubernetes::Ground;
use takhin_e2e::{kcat, process, tools, wait};
use takhin_pika::info::DumpInfo;
use takhin_pika_testing::fixture::Fixture;
use takhin_pika_testing::master::{Master, Settings};
use tempfile::TempDir;

use crate::house::House;
use crate::stage::{Suites, installed_in};

/// For what Kubernetes does by itself, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// From nothing but nodes that have the images to three brokers that are ready.
const READY: Duration = Duration::from_secs(90);

pub(crate) fn add(suites: &mut Suites) {
    suites.add("story::a_cluster_and_a_topic_from_nothing", from_nothing);
}

/// What the README shows is applied as it stands there, and comes about as it says; so does the PikaSource of
/// `docs/kubernetes.md`. Pods are under the restricted profile, found by the names of Services inside, and by node ports outside.
fn from_nothing(cluster: &Ground) -> Result<()> {
    let shown = Shown::read()?;
    let house = House::found(cluster, "story")?;
    let class = cluster.class();
    // Of volumes for brokers there is another class here, and less room.
    let small = format!("size: 1Gi, className: {class}");
    house.apply_text(&replaced(&shown.cluster, &[("size: 100Gi", &small)])?)?;
    house.quiet()?;
    let (installed, ready) = (installed_in(), house.became_ready_in()?);
    eprintln!(
        "        installed in {:.1} s, a cluster ready {ready} s after it was wished for",
        installed.as_secs_f64()
    );
    let all = installed + Duration::from_secs(u64::try_from(ready)?);
    ensure!(all < wait::scaled(READY)?, "chart and cluster took {all:?}");
    let zones: BTreeSet<String> = house.racks()?.into_values().collect();
    ensure!(zones.len() == 3, "the brokers are in {zones:?}");
    house.apply_text(&shown.topic)?;
    prints(&house, &shown.few)?;
    house.spread("shop.Orders", &[0, 1, 2], true)?;

    let (inside, outside) = (house.inside(), house.outside()?);
    // Nodes learn of a new port a moment later than the pods behind it are ready.
    wait::until("the node port to lead to brokers", LIMIT, || {
        Ok(kcat::placements(&outside, "shop.Orders").is_ok())
    })?;
    for bootstrap in [&inside, &outside] {
        produce(bootstrap, "shop.Orders", 100)?;
    }
    for bootstrap in [&inside, &outside] {
        let records = kcat::consume(bootstrap, "shop.Orders", None, "beginning")?.len();
        ensure!(records == 200, "{records} records of 200 at {bootstrap}");
    }
    let _master = pika_source(&house, &shown)?;
    prints(&house, &shown.all)?;
    house.leave()
}

/// The PikaSource of the page, of a scripted master instead of the page's server, which has what a recorded one had.
fn pika_source(house: &House<'_>, shown: &Shown) -> Result<(Master, TempDir)> {
    let IpAddr::V4(address) = house.cluster.own_address()? else {
        bail!("nodes reach this machine by IPv6 only");
    };
    let master = Master::start(Settings {
        address,
        version: RECORDED.into(),
        password: Some("secret".into()),
        ..Settings::default()
    })?;
    let work = tempfile::tempdir()?;
    let dump = Fixture::of(RECORDED).dump(work.path())?.join("db0");
    let info = std::fs::read_to_string(dump.join("info"))?;
    let end = DumpInfo::parse(&info).context("the info of the dump")?.position;
    master.begin_at("db0", end);
    master.dump("db0", &dump)?;
    let namespace = house.namespace;
    house.cluster.kubectl(&[
        "create",
        "secret",
        "generic",
        "pika-auth",
        "-n",
        namespace,
        "--from-literal=password=secret",
    ])?;
    let (host, port) = (format!("host: {address}"), format!("port: {}", master.port()));
    let places = [("host: pika-0.pika.data.svc", &*host), ("port: 9221", &*port)];
    house.apply_text(&replaced(&shown.source, &places)?)?;
    Ok((master, work))
}

/// Of the recorded masters one that sends its data set when it is asked.
const RECORDED: &str = "3.5.5";

/// What the README and the page show.
struct Shown {
    cluster: String,
    topic: String,
    source: String,
    /// What `kubectl get takhin` prints with the first two of them.
    few: Vec<String>,
    /// The same with all three.
    all: Vec<String>,
}

impl Shown {
    fn read() -> Result<Self> {
        let root = tools::checkout()?;
        let readme = std::fs::read_to_string(root.join("README.md"))?;
        let page = std::fs::read_to_string(root.join("docs/kubernetes.md"))?;
        let short = blocks(&readme, "```yaml\n");
        ensure!(short.len() == 2, "the README has {} documents", short.len());
        let long = blocks(&page, "```yaml\n");
        let (cluster, topic) = (short[0].to_owned(), short[1].to_owned());
        // The page says the same, with the listeners by themselves.
        let [whole, listeners, of_topic, source, ..] = long[..] else {
            bail!("the page has {} examples", long.len());
        };
        ensure!(
            cluster == format!("{whole}{listeners}") && topic == of_topic,
            "the README shows something else than docs/kubernetes.md"
        );
        let table = |text: &str| {
            let found = blocks(text, "```\n")
                .into_iter()
                .find(|block| block.starts_with("NAME "));
            Ok::<_, anyhow::Error>(words(found.context("no table of `kubectl get takhin`")?))
        };
        Ok(Self {
            cluster,
            topic,
            source: source.to_owned(),
            few: table(&readme)?,
            all: table(&page)?,
        })
    }
}

/// What stands between such a fence and the next one.
fn blocks<'a>(text: &'a str, fence: &str) -> Vec<&'a str> {
    let begun = text.split(fence).skip(1);
    begun.filter_map(|rest| rest.split("```").next()).collect()
}

/// A document with other words in places, each of which it must have.
fn replaced(document: &str, places: &[(&str, &str)]) -> Result<String> {
    let mut document = document.to_owned();
    for (shown, here) in places {
        ensure!(document.contains(shown), "no `{shown}` in:\n{document}");
        document = document.replace(shown, here);
    }
    Ok(document)
}

/// Waits until `kubectl get takhin` prints these lines.
fn prints(house: &House<'_>, lines: &[String]) -> Result<()> {
    let mut printed = String::new();
    let waited = wait::until("the lines of the documentation", LIMIT, || {
        printed = house.cluster.kubectl(&["get", "takhin", "-n", house.namespace])?;
        Ok(words(&printed) == lines)
    });
    eprintln!("{printed}");
    waited.with_context(|| format!("shown is:\n{}", lines.join("\n")))
}

/// The lines of a table with one space between words, and without the age.
fn words(table: &str) -> Vec<String> {
    let is_age = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_digit()) && word.ends_with(['s', 'm', 'h'])
    };
    let line = |line: &str| {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if let Some(last) = words.last_mut().filter(|last| is_age(last)) {
            *last = "AGE";
        }
        words.join(" ")
    };
    table.trim_end().lines().map(line).collect()
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
