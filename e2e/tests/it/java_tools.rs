//! The command line tools that come with Apache Kafka.

mod admin;
mod groups;

use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::session::Session;
use takhin_e2e::{Broker, kcat, process, tools};

use crate::suite::{Context, Suites, create_topic};

const LIMIT: Duration = Duration::from_secs(120);

pub(crate) fn add(suites: &mut Suites) {
    suites.add("java_tools::topics_come_and_go", topics);
    suites.add("java_tools::console_tools_pass_lines_on", console);
    suites.add(
        "java_tools::producer_performance_writes_what_it_says",
        performance,
    );
    suites.add("java_tools::consumer_groups_does_every_verb", groups::every_verb);
    suites.add(
        "java_tools::settings_offsets_and_directories",
        admin::administration,
    );
}

/// What a tool printed that ran in a session.
pub(crate) struct Tool {
    words: String,
    status: i64,
    /// Standard output, then standard error.
    text: String,
}

impl Tool {
    /// Runs the main class of a tool against `broker`.
    pub(crate) fn run(session: &mut Session, broker: &Broker, class: &str, words: &str) -> Result<Self> {
        let words = format!("{class} --bootstrap-server {} {words}", broker.bootstrap());
        let answer = session.answer(&format!("tool {words}"))?;
        let part = |key| answer[key].as_str().unwrap_or_default();
        Ok(Self {
            status: answer["status"].as_i64().context("no exit status")?,
            text: part("out").to_owned() + part("err"),
            words,
        })
    }

    fn says(&self, what: &str) -> Result<&Self> {
        let Self { words, status, text } = self;
        ensure!(
            text.contains(what),
            "{words}: {what:?} is not in ({status}) {text}"
        );
        Ok(self)
    }

    /// A line that begins with these words.
    pub(crate) fn has_row(&self, row: &[&str]) -> Result<()> {
        let Self { words, text, .. } = self;
        let found = text
            .lines()
            .any(|line| line.split_whitespace().take(row.len()).eq(row.iter().copied()));
        ensure!(found, "{words}: no row {row:?} in {text}");
        Ok(())
    }

    /// The words of each line that begins with `first`.
    pub(crate) fn rows(&self, first: &str) -> Vec<Vec<&str>> {
        let rows = self.text.lines().map(|line| line.split_whitespace().collect());
        rows.filter(|row: &Vec<&str>| row.first() == Some(&first))
            .collect()
    }

    fn has_no_row(&self, first: &str) -> Result<()> {
        let Self { words, text, .. } = self;
        let found = text
            .lines()
            .any(|line| line.split_whitespace().next() == Some(first));
        ensure!(!found, "{words}: a row {first:?} in {text}");
        Ok(())
    }
}

fn tool(class: &str, words: &[&str]) -> Result<process::Output> {
    process::run(tools::java("-Xmx256m", class)?.args(words), LIMIT)
}

/// `kafka-topics.sh`.
fn topic_command(bootstrap: &str, words: &[&str]) -> Result<String> {
    let words = [&["--bootstrap-server", bootstrap], words].concat();
    Ok(tool("org.apache.kafka.tools.TopicCommand", &words)?.text())
}

fn topics(context: &Context) -> Result<()> {
    context.with_shared(|broker| {
        let bootstrap = broker.bootstrap();
        let (name, setting) = ("tool-made", "max.message.bytes=200000");
        topic_command(
            &bootstrap,
            &[
                "--create",
                "--topic",
                name,
                "--partitions",
                "3",
                "--config",
                setting,
            ],
        )?;
        let described = topic_command(&bootstrap, &["--describe", "--topic", name])?;
        ensure!(described.contains("PartitionCount: 3"), "--describe: {described}");
        ensure!(described.contains(setting), "--describe: {described}");
        ensure!(
            described.matches("Leader: 1").count() == 3,
            "--describe: {described}"
        );
        topic_command(&bootstrap, &["--delete", "--topic", name])?;
        let listed = topic_command(&bootstrap, &["--list"])?;
        ensure!(
            listed.lines().all(|line| line != name),
            "--list after --delete: {listed}"
        );
        Ok(())
    })
}

fn console(context: &Context) -> Result<()> {
    context.with_shared(|broker| {
        let bootstrap = broker.bootstrap();
        create_topic(broker, "console", 1, &[])?;
        let lines: Vec<String> = (0..200).map(|i| format!("k{i}:line {i} äöü 世界")).collect();
        let dir = tempfile::tempdir()?;
        let input = dir.path().join("lines");
        std::fs::write(&input, lines.join("\n") + "\n")?;

        let mut producer = tools::java("-Xmx256m", "org.apache.kafka.tools.ConsoleProducer")?;
        producer.args(["--bootstrap-server", &bootstrap, "--topic", "console"]);
        producer.args([
            "--reader-property",
            "parse.key=true",
            "--reader-property",
            "key.separator=:",
        ]);
        let output = process::run_with_input(&mut producer, Stdio::from(File::open(&input)?), LIMIT)?;
        ensure!(output.status.success(), "{}", output.stderr);

        let words = [
            "--bootstrap-server",
            &bootstrap,
            "--topic-partitions",
            "console:0",
        ];
        let end = tool("org.apache.kafka.tools.GetOffsetShell", &words)?.text();
        ensure!(end.trim() == "console:0:200", "GetOffsetShell: {end}");

        for (from, first) in [("earliest", 0), ("150", 150)] {
            let wanted = &lines[first..];
            let count = wanted.len().to_string();
            let words = [
                &[
                    "--bootstrap-server",
                    &bootstrap,
                    "--topic",
                    "console",
                    "--partition",
                    "0",
                ][..],
                &[
                    "--offset",
                    from,
                    "--max-messages",
                    &count,
                    "--timeout-ms",
                    "60000",
                ],
                &[
                    "--formatter-property",
                    "print.key=true",
                    "--formatter-property",
                    "key.separator=:",
                ],
            ]
            .concat();
            let read = tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &words)?.text();
            ensure!(
                read.lines().eq(wanted),
                "console consumer from {from}: {} lines",
                read.lines().count()
            );
        }
        Ok(())
    })
}

fn performance(context: &Context) -> Result<()> {
    context.with_shared(|broker| {
        let bootstrap = broker.bootstrap();
        create_topic(broker, "performance", 4, &[])?;
        let (count, size) = (100_000, 100);
        let (count_word, size_word) = (count.to_string(), size.to_string());
        let server = format!("bootstrap.servers={bootstrap}");
        let words = [
            &[
                "--topic",
                "performance",
                "--num-records",
                &count_word,
                "--record-size",
                &size_word,
            ][..],
            &[
                "--throughput",
                "-1",
                "--producer-props",
                &server,
                "acks=all",
                "compression.type=lz4",
            ],
        ]
        .concat();
        let output = tool("org.apache.kafka.tools.ProducerPerformance", &words)?.text();
        let last = output
            .lines()
            .rfind(|l| !l.trim().is_empty())
            .context("no summary")?;
        ensure!(last.starts_with(&format!("{count} records sent")), "{last}");
        let read = kcat::consume(&bootstrap, "performance", None, "beginning")?;
        ensure!(read.len() == count, "{} of {count} records", read.len());
        let sizes_hold = read
            .iter()
            .all(|r| r.value.as_ref().is_some_and(|v| v.len() == size));
        ensure!(sizes_hold, "a record of another size");
        Ok(())
    })
}
