//! `kafka-configs.sh`, `kafka-log-dirs.sh`, `kafka-get-offsets.sh`, `kafka-delete-records.sh`, `kafka-features.sh` and
//! `kafka-topics.sh --alter`, in one JVM.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use takhin_e2e::session::{LIMIT, Session};
use takhin_e2e::{Broker, wait};

use crate::groups::fill;
use crate::java_tools::Tool;
use crate::suite::{Context, create_topic};

const TOPIC: &str = "administered";

/// A session with the tools, and the broker that they work on.
struct Tools<'a> {
    session: Session,
    broker: &'a Broker,
}

impl Tools<'_> {
    fn run(&mut self, class: &str, words: &str) -> Result<Tool> {
        Tool::run(&mut self.session, self.broker, class, words)
    }

    fn topics(&mut self, words: &str) -> Result<Tool> {
        self.run("org.apache.kafka.tools.TopicCommand", words)
    }

    fn configs(&mut self, words: &str) -> Result<Tool> {
        self.run("kafka.admin.ConfigCommand", words)
    }

    fn offsets(&mut self, words: &str) -> Result<String> {
        let found = self.run("org.apache.kafka.tools.GetOffsetShell", words)?;
        Ok(found.text.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Waits until a description says so: Apache Kafka's brokers learn of a change a moment later.
    fn described(&mut self, words: &str, what: &str) -> Result<()> {
        let mut last = None;
        let waited = wait::until(what, LIMIT, || {
            let described = self.configs(words)?;
            let holds = described.text.contains(what);
            last = Some(described.text);
            Ok(holds)
        });
        waited.with_context(|| last.unwrap_or_default())
    }
}

pub(super) fn administration(context: &Context) -> Result<()> {
    context.with_shared(|broker| {
        create_topic(broker, TOPIC, 2, &[])?;
        fill(broker, TOPIC, 2, 0..10)?;
        let session = Session::java(&broker.bootstrap())?;
        let mut tools = Tools { session, broker };
        alter_topic(&mut tools)?;
        topic_configs(&mut tools)?;
        other_configs(&mut tools)?;
        offsets(&mut tools)?;
        log_dirs(&mut tools)?;
        features(&mut tools)
    })
}

fn alter_topic(tools: &mut Tools<'_>) -> Result<()> {
    let grown = tools.topics("--alter --topic administered --partitions 3")?;
    ensure!(grown.status == 0, "--alter: {}", grown.text);
    wait::until("three partitions", LIMIT, || {
        let described = tools.topics("--describe --topic administered")?;
        Ok(described.text.contains("PartitionCount: 3"))
    })?;
    let fewer = tools.topics("--alter --topic administered --partitions 2")?;
    ensure!(fewer.status == 1, "fewer partitions: {}", fewer.text);
    fewer.says("would not be an increase")?;
    let none = tools.topics("--alter --topic no-such-topic --partitions 2")?;
    ensure!(none.status == 1, "no topic: {}", none.text);
    Ok(())
}

fn topic_configs(tools: &mut Tools<'_>) -> Result<()> {
    let topic = "--entity-type topics --entity-name administered";
    let describe = format!("{topic} --describe");
    let alter = format!("{topic} --alter");
    tools
        .configs(&format!("{alter} --add-config retention.ms=12345678"))?
        .says("Completed updating config")?;
    // The chain of where a value may come from: KIP-226.
    tools.described(&describe, "retention.ms=12345678 sensitive=false")?;
    tools
        .configs(&describe)?
        .says("synonyms={DYNAMIC_TOPIC_CONFIG:retention.ms=12345678")?;
    for wrong in ["retention.ms=soon", "no.such.setting=1"] {
        tools
            .configs(&format!("{alter} --add-config {wrong}"))?
            .says("InvalidConfigurationException")?;
    }
    tools
        .configs(&format!("{alter} --delete-config retention.ms"))?
        .says("Completed updating config")?;
    tools.described(&format!("{describe} --all"), "retention.ms=604800000 ")?;
    let overridden = tools.configs(&describe)?;
    ensure!(!overridden.text.contains("retention.ms"), "{}", overridden.text);
    Ok(())
}

fn other_configs(tools: &mut Tools<'_>) -> Result<()> {
    let broker = "--entity-type brokers --entity-name 1";
    let all = tools.configs(&format!("{broker} --describe --all"))?;
    all.says("num.partitions=")?.says("message.max.bytes=1048588")?;
    // Read at start only.
    let fixed = tools.configs(&format!("{broker} --alter --add-config node.id=2"))?;
    fixed.says("InvalidRequestException")?;
    Ok(())
}

fn offsets(tools: &mut Tools<'_>) -> Result<()> {
    let topic = "--topic administered";
    let ends = "administered:0:10 administered:1:10 administered:2:0";
    for (time, expected) in [
        ("latest", ends),
        ("-1", ends),
        ("earliest", "administered:0:0 administered:1:0 administered:2:0"),
        // All records are of this millisecond: what is there at or after it begins with the first one.
        ("1793491200000", "administered:0:0 administered:1:0"),
        ("1793491200001", ""),
    ] {
        let found = tools.offsets(&format!("{topic} --time {time}"))?;
        ensure!(found == expected, "--time {time}: {found}");
    }
    let plan = tempfile::NamedTempFile::new()?;
    let delete = |offset: i64| -> Result<String> {
        let json = serde_json::json!({
            "version": 1,
            "partitions": [{ "topic": TOPIC, "partition": 0, "offset": offset }],
        });
        std::fs::write(plan.path(), json.to_string())?;
        Ok(format!("--offset-json-file {}", plan.path().display()))
    };
    const DELETE: &str = "org.apache.kafka.tools.DeleteRecordsCommand";
    tools
        .run(DELETE, &delete(4)?)?
        .says("partition: administered-0\tlow_watermark: 4")?;
    tools
        .run(DELETE, &delete(11)?)?
        .says("OffsetOutOfRangeException")?;
    let first = tools.offsets(&format!("{topic} --partitions 0 --time earliest"))?;
    ensure!(first == "administered:0:4", "after delete-records: {first}");
    // -1 is all of it.
    tools
        .run(DELETE, &delete(-1)?)?
        .says("partition: administered-0\tlow_watermark: 10")?;
    Ok(())
}

fn log_dirs(tools: &mut Tools<'_>) -> Result<()> {
    let words = "--describe --topic-list administered";
    let told = tools.run("org.apache.kafka.tools.LogDirsCommand", words)?;
    let json = told
        .text
        .lines()
        .find(|line| line.starts_with('{'))
        .with_context(|| told.text.clone())?;
    let answer: Value = serde_json::from_str(json)?;
    let dir = &answer["brokers"][0]["logDirs"][0];
    ensure!(dir["error"].is_null(), "{json}");
    let path = dir["logDir"].as_str().context("no directory")?;
    ensure!(
        std::path::Path::new(path).starts_with(tools.broker.data_dir()),
        "{path} is not the broker's"
    );
    let partitions = dir["partitions"].as_array().context("no partitions")?;
    ensure!(partitions.len() == 3, "{json}");
    let second = partitions
        .iter()
        .find(|partition| partition["partition"] == "administered-1")
        .context("a partition is missing")?;
    ensure!(
        second["size"].as_i64() > Some(0) && second["offsetLag"] == 0 && second["isFuture"] == false,
        "{json}"
    );
    Ok(())
}

fn features(tools: &mut Tools<'_>) -> Result<()> {
    let words = "describe";
    let told = tools.run("org.apache.kafka.tools.FeatureCommand", words)?;
    // Clients look at this one before they speak KIP-848.
    told.has_row(&["Feature:", "group.version"])?;
    told.says("FinalizedVersionLevel: 1")?;
    Ok(())
}
