//! Every stock client reads, byte for byte, what every stock client wrote, with every codec.

mod cases;

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::{Broker, kcat, process, records, tools, wire};

use crate::suite::{Context, Suites, create_topic};
use cases::{Case, Line};

const LIMIT: Duration = Duration::from_secs(120);
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

pub(crate) fn add(suites: &mut Suites) {
    suites.add("clients::each_reads_what_each_wrote_with_every_codec", codecs);
    suites.add("clients::offsets_by_time_agree", offsets_by_time);
    suites.add("clients::each_admin_creates_topics", admins);
    suites.add("clients::kcat_lists_and_reads_by_time", kcat_modes);
}

/// A stock client behind the common commands of `clients/README.md`.
struct Client {
    name: &'static str,
    command: fn() -> Result<Command>,
}

const CONFLUENT: Client = Client {
    name: "confluent-kafka",
    command: || tools::python("confluent.py"),
};
const KAFKA_PYTHON: Client = Client {
    name: "kafka-python",
    command: || tools::python("kafka_python.py"),
};
const KAFKAJS: Client = Client {
    name: "kafkajs",
    command: || tools::node("kafkajs.js"),
};
const JAVA: Client = Client {
    name: "java",
    command: || tools::java_source("Clients.java"),
};

impl Client {
    fn run(&self, words: &[&str]) -> Result<process::Output> {
        process::run((self.command)()?.args(words), LIMIT).with_context(|| self.name)
    }
}

fn codecs(context: &Context) -> Result<()> {
    context.with_shared(|broker| {
        let bootstrap = broker.bootstrap();
        let topics = CODECS.map(|codec| format!("codec-{codec}"));
        for topic in &topics {
            create_topic(broker, topic, 1, &[])?;
        }
        let written = write_with_every_client(&bootstrap)?;
        for (codec, topic) in CODECS.iter().zip(&topics) {
            check_stored_codec(broker, codec, topic)?;
        }
        for client in [CONFLUENT, KAFKA_PYTHON, JAVA] {
            read_with(&client, &bootstrap, &topics, &written)?;
        }
        for topic in &topics {
            let read = kcat::consume(&bootstrap, topic, Some(0), "beginning")?;
            let read: Vec<_> = read.into_iter().map(Case::from).collect();
            cases::compare("kcat", topic, 0, &written, &read, cases::Depth::WithoutHeaders)?;
        }
        Ok(())
    })
}

/// The records of each topic, in the order written.
fn write_with_every_client(bootstrap: &str) -> Result<Vec<Case>> {
    let dir = tempfile::tempdir()?;
    let any = cases::any_bytes()?;
    let (path, lines) = (dir.path().join("cases"), dir.path().join("lines"));
    cases::write(&path, &any)?;
    let path = path.to_str().context("a path that is no text")?;
    let targets = CODECS.map(|codec| format!("{codec}=codec-{codec}"));

    let mut written = Vec::new();
    let writers = [
        (&CONFLUENT, "produce"),
        (&CONFLUENT, "produce-idempotent"),
        (&KAFKA_PYTHON, "produce"),
        (&KAFKAJS, "produce"),
        (&JAVA, "produce"),
    ];
    for (client, verb) in writers {
        let mut words = vec![verb, bootstrap, path];
        words.extend(targets.iter().map(String::as_str));
        client.run(&words)?;
        written.extend(any.iter().cloned());
    }

    let text = cases::text_lines();
    std::fs::write(&lines, cases::to_kcat_input(&text)?)?;
    for codec in CODECS {
        let mut command = tools::kcat();
        command.args([
            "-P",
            "-b",
            bootstrap,
            "-t",
            &format!("codec-{codec}"),
            "-p",
            "0",
            "-z",
            codec,
        ]);
        command
            .args(["-K", ":", "-Z", "-X", "acks=all", "-l"])
            .arg(&lines);
        let output = process::run(&mut command, LIMIT)?;
        ensure!(
            !output.stderr.contains("ERROR"),
            "kcat -z {codec}: {}",
            output.stderr
        );
    }
    written.extend(text);
    Ok(written)
}

/// Reads each topic from its start, and once more from the middle of a batch.
fn read_with(client: &Client, bootstrap: &str, topics: &[String], written: &[Case]) -> Result<()> {
    let middle = written.len() / 2;
    let end = written.len();
    let ranges: Vec<_> = topics
        .iter()
        .flat_map(|t| [format!("{t}:0:{end}"), format!("{t}:{middle}:{end}")])
        .collect();
    let mut words = vec!["consume", bootstrap];
    words.extend(ranges.iter().map(String::as_str));
    let output = client.run(&words)?.text();
    let mut lines = output.lines().map(Line::parse);
    for topic in topics {
        for start in [0, middle] {
            let read: Vec<Line> = lines.by_ref().take(end - start).collect::<Result<_>>()?;
            ensure!(
                read.iter().all(|line| &line.topic == topic),
                "{}: not all of {topic}",
                client.name
            );
            for (line, offset) in read.iter().zip(start..) {
                ensure!(
                    line.offset == offset,
                    "{}: {topic} {offset} came as {}",
                    client.name,
                    line.offset
                );
            }
            let read: Vec<_> = read.into_iter().map(|line| line.case).collect();
            cases::compare(
                client.name,
                topic,
                start,
                &written[start..],
                &read,
                cases::Depth::Everything,
            )?;
        }
    }
    ensure!(
        lines.next().is_none(),
        "{}: more records than written",
        client.name
    );
    Ok(())
}

/// The batches lie in the log as the clients compressed them.
///
/// Without zstd: the fetch version used here is older than zstd, and a broker must refuse it.
fn check_stored_codec(broker: &Broker, codec: &str, topic: &str) -> Result<()> {
    let number = match codec {
        "none" => 0,
        "gzip" => 1,
        "snappy" => 2,
        "lz4" => 3,
        _ => return Ok(()),
    };
    let (error, _, batches) = wire::Connection::open(broker.address())?.fetch(topic, 0, 0, 8 << 20)?;
    ensure!(error == 0, "fetch of {topic}: error {error}");
    let found = records::codecs(&batches)?;
    // A client leaves a batch alone that would not become smaller.
    let as_expected = found.contains(&number) && found.iter().all(|&codec| codec == number || codec == 0);
    ensure!(as_expected, "{topic}: batches with codecs {found:?}");
    Ok(())
}

fn offsets_by_time(context: &Context) -> Result<()> {
    context.with_shared(|broker| {
        let bootstrap = broker.bootstrap();
        create_topic(broker, "by-time", 1, &[])?;
        let base = cases::recently();
        // One compressed batch whose timestamps go back and forth: the search must look at records (ListOffsets L1).
        let delays = [0, 10, 5, 30, 20, 40, 40];
        let cases: Vec<_> = delays.iter().map(|delay| Case::at(base + delay)).collect();
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("cases");
        cases::write(&path, &cases)?;
        let path = path.to_str().context("a path that is no text")?;
        CONFLUENT.run(&["produce", &bootstrap, path, "zstd=by-time"])?;

        let asked = [-1, 0, 1, 10, 11, 30, 31, 40, 41].map(|delay| (base + delay).to_string());
        let expected = [0, 0, 1, 1, 3, 3, 5, 5, -1];
        for client in [CONFLUENT, KAFKA_PYTHON, KAFKAJS, JAVA] {
            let mut words = vec!["times", &bootstrap, "by-time"];
            words.extend(asked.iter().map(String::as_str));
            let answer: Vec<i64> = serde_json::from_slice(&client.run(&words)?.stdout)?;
            ensure!(
                answer == expected,
                "{}: {answer:?} instead of {expected:?}",
                client.name
            );
        }
        Ok(())
    })
}

fn admins(context: &Context) -> Result<()> {
    context.with_shared(|broker| {
        let bootstrap = broker.bootstrap();
        for (client, partitions) in [(CONFLUENT, 3), (KAFKA_PYTHON, 1), (KAFKAJS, 5), (JAVA, 2)] {
            let topic = format!("made-by-{}", client.name);
            let setting = "max.message.bytes=123456";
            client.run(&["create", &bootstrap, &topic, &partitions.to_string(), setting])?;
            let listed = list(&bootstrap, &topic)?;
            ensure!(
                listed == Some(partitions),
                "{}: {listed:?} partitions",
                client.name
            );
        }
        let words = ["offsets", &bootstrap, "made-by-kafkajs"];
        let offsets: Vec<[i64; 3]> = serde_json::from_slice(&KAFKAJS.run(&words)?.stdout)?;
        let empty: Vec<_> = (0..5).map(|partition| [partition, 0, 0]).collect();
        ensure!(offsets == empty, "kafkajs: offsets {offsets:?}");
        Ok(())
    })
}

/// The number of partitions that `kcat -L` shows, each with a leader; `None` for an unknown topic.
fn list(bootstrap: &str, topic: &str) -> Result<Option<usize>> {
    let output = process::run(tools::kcat().args(["-L", "-J", "-b", bootstrap]), LIMIT)?;
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    ensure!(
        answer["brokers"][0]["name"] == bootstrap,
        "the advertised address: {}",
        answer["brokers"]
    );
    let topics = answer["topics"].as_array().context("kcat -L: no topics")?;
    let Some(found) = topics.iter().find(|t| t["topic"] == topic) else {
        return Ok(None);
    };
    let partitions = found["partitions"].as_array().context("kcat -L: no partitions")?;
    let leader = &answer["brokers"][0]["id"];
    ensure!(
        partitions.iter().all(|p| &p["leader"] == leader),
        "{topic}: a partition without leader"
    );
    Ok(Some(partitions.len()))
}

fn kcat_modes(context: &Context) -> Result<()> {
    context.with_shared(|broker| {
        let bootstrap = broker.bootstrap();
        create_topic(broker, "kcat-modes", 2, &[])?;
        ensure!(list(&bootstrap, "kcat-modes")? == Some(2));
        ensure!(list(&bootstrap, "no-such-topic")?.is_none());

        let base = cases::recently();
        let cases: Vec<_> = (0..20).map(|i| Case::at(base + 10 * i)).collect();
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("cases");
        cases::write(&path, &cases)?;
        let path = path.to_str().context("a path that is no text")?;
        CONFLUENT.run(&["produce", &bootstrap, path, "gzip=kcat-modes"])?;

        let asked = format!("kcat-modes:0:{}", base + 95);
        let output = process::run(tools::kcat().args(["-Q", "-b", &bootstrap, "-t", &asked]), LIMIT)?;
        ensure!(
            output.text().trim() == "kcat-modes [0] offset 10",
            "kcat -Q: {}",
            output.text()
        );

        for (from, first) in [
            ("3", 3),
            ("-4", 16),
            (&format!("s@{}", base + 95), 10),
            ("beginning", 0),
        ] {
            let read = kcat::consume(&bootstrap, "kcat-modes", Some(0), from)?;
            let offsets: Vec<_> = read.iter().map(|r| r.offset).collect();
            let expected: Vec<_> = (first..20).collect();
            ensure!(offsets == expected, "kcat -o {from}: {offsets:?}");
        }
        Ok(())
    })
}
