//! librdkafka's `test-runner`: one process per test number, since a hang there ends all that would follow.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use takhin_e2e::Broker;

use crate::{Run, Verdict, built, free_9092};

/// The suite's own default: that many in a topic created without a number.
const PARTITIONS: u32 = 4;
/// Tests ask for it where they expect what only newer brokers do. The version of Apache Kafka that makes the baseline.
const KAFKA_VERSION: &str = "4.3.1";

/// Seconds. Hardly anything that talks to a broker is over sooner, and what is costs little when it runs twice.
const EMPTY: f64 = 0.01;

/// Tests whose parts count one by one, as `0081_admin/CreateTopics`: each part is a function of that name after
/// `do_test_`. The first that fails ends its program, and some are about what does not count.
const IN_PARTS: [(&str, &[&str]); 2] = [
    (
        "0081_admin",
        &[
            "CreateTopics",
            "DeleteTopics",
            "CreatePartitions",
            "CreateAcls",
            "DescribeAcls",
            "DeleteAcls",
            "AlterConfigs",
            "IncrementalAlterConfigs",
            "DescribeConfigs",
            "DeleteRecords",
            "ListConsumerGroups",
            "DescribeConsumerGroups",
            "DescribeTopics",
            "DescribeCluster",
            "DeleteGroups",
            "DeleteConsumerGroupOffsets",
            "ListOffsets",
            "AlterConsumerGroupOffsets",
            "ListConsumerGroupOffsets",
            "UserScramCredentials",
        ],
    ),
    (
        "0137_barrier_batch_consume",
        &[
            "consume_batch_with_seek",
            "consume_batch_store_offset",
            "consume_batch_with_pause_and_resume_different_batch",
            "consume_batch_with_pause_and_resume_same_batch",
            "consume_batch_control_msgs",
        ],
    ),
];

/// One entry of the table in `test.c`.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    auto_create: bool,
}

/// What one process runs.
#[derive(Debug)]
struct Job {
    auto_create: bool,
    /// The tests whose verdicts it brings: those of one number, or a part of one.
    names: Vec<String>,
    part: Option<&'static str>,
}

impl Job {
    fn number(&self) -> &str {
        self.names.first().map_or("", |name| &name[..4])
    }

    /// The name of its log.
    fn log(&self) -> String {
        let scenario = if self.auto_create { "" } else { "-noautocreate" };
        let part = self.part.map_or_else(String::new, |part| format!("-{part}"));
        format!("{}{scenario}{part}", self.number())
    }
}

pub(crate) fn run(run: &mut Run<'_>) -> Result<()> {
    let tests = built("librdkafka/librdkafka/tests")?;
    let jobs = jobs(entries(&fs::read_to_string(tests.join("test.c"))?), run.wanted);
    for auto_create in [true, false] {
        let mut broker = None;
        for job in jobs.iter().filter(|job| job.auto_create == auto_create) {
            let mut running: Broker = match broker.take() {
                Some(running) => running,
                None => run.broker(free_9092()?, PARTITIONS, auto_create)?,
            };
            one(run, &tests, &running, job)?;
            if running.is_running()? {
                broker = Some(running);
            } else {
                crate::say(&format!("the broker has ended\n{}", running.log_tail()))?;
            }
        }
    }
    Ok(())
}

/// The processes that run what is wanted of `entries`.
fn jobs(entries: Vec<Entry>, wanted: &dyn Fn(&str) -> bool) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    for entry in entries {
        let auto_create = entry.auto_create;
        if let Some((_, parts)) = IN_PARTS.iter().find(|(name, _)| *name == entry.name) {
            let named = parts.iter().map(|part| (*part, format!("{}/{part}", entry.name)));
            jobs.extend(named.filter(|(_, name)| wanted(name)).map(|(part, name)| Job {
                auto_create,
                names: vec![name],
                part: Some(part),
            }));
        } else if wanted(&entry.name) {
            let same = |job: &&mut Job| job.number() == &entry.name[..4] && job.auto_create == auto_create;
            match jobs.iter_mut().find(same) {
                Some(job) => job.names.push(entry.name),
                None => jobs.push(Job {
                    auto_create,
                    names: vec![entry.name],
                    part: None,
                }),
            }
        }
    }
    jobs
}

/// Runs one job, in quick mode first: it has fewer messages, and leaves out whole parts of some tests. A test that then
/// has nothing left to do runs again with all its parts, since it has shown nothing.
fn one(run: &mut Run<'_>, tests: &Path, broker: &Broker, job: &Job) -> Result<()> {
    // Not beside the logs: two runs at once would send each other's tests to the wrong broker.
    let mut config = tempfile::NamedTempFile::new()?;
    writeln!(config, "bootstrap.servers={}", broker.bootstrap())?;
    let command = || -> Result<Command> {
        let mut command = Command::new("./test-runner");
        command
            .args(["-p1", "-E", "-L"])
            .args([
                "-s",
                if job.auto_create {
                    "default"
                } else {
                    "noautocreate"
                },
            ])
            .current_dir(tests)
            .env("LD_LIBRARY_PATH", "../src:../src-cpp")
            .env("RDKAFKA_TEST_CONF", config.path())
            .env("BROKERS", broker.bootstrap())
            .env("KAFKA_PATH", built("kafka")?)
            .env("TEST_KAFKA_VERSION", KAFKA_VERSION)
            .env("TESTS", job.number());
        if let Some(part) = job.part {
            command.env("SUBTESTS", format!("do_test_{part}"));
        }
        Ok(command)
    };
    let mut outcomes = attempt(run, &format!("{}-quick", job.log()), command()?.arg("-Q"), job)?;
    let empty = |&(verdict, seconds): &(Verdict, f64)| verdict != Verdict::Fail && seconds < EMPTY;
    if outcomes.iter().any(empty) {
        outcomes = attempt(run, &job.log(), &mut command()?, job)?;
    }
    for (name, (verdict, seconds)) in job.names.iter().zip(outcomes) {
        run.add(name, verdict, seconds)?;
    }
    Ok(())
}

/// One run of the program: verdict and seconds of each test of `job`.
fn attempt(run: &Run<'_>, log: &str, command: &mut Command, job: &Job) -> Result<Vec<(Verdict, f64)>> {
    let report = run.logs.join(format!("{log}.json"));
    // An earlier run's report must not stand in for one that is never written.
    if report.exists() {
        fs::remove_file(&report)?;
    }
    let (_, seconds) = run.program(log, command.env("TEST_REPORT", &report))?;
    let report = fs::read_to_string(&report).unwrap_or_default();
    let of = |name: &String| {
        let test = name.split('/').next().unwrap_or(name);
        // Without a report the program has crashed or hung in one of its tests, nobody knows which.
        verdict(&report, test).unwrap_or((Verdict::Fail, seconds))
    };
    Ok(job.names.iter().map(of).collect())
}

/// The broker tests of the table in `test.c`, in its order.
fn entries(source: &str) -> Vec<Entry> {
    let table = source.split("struct test tests[] = {").nth(1).unwrap_or_default();
    let table = table.split("{NULL}").next().unwrap_or_default();
    let mut entries = Vec::new();
    for entry in table.split("_TEST(").skip(1) {
        let name = entry.split([',', ')']).next().unwrap_or_default();
        let left_out = ["TEST_F_LOCAL", "TEST_F_SOCKEM", "TEST_F_MANUAL"];
        if name.len() > 4 && !left_out.iter().any(|flag| entry.contains(flag)) {
            entries.push(Entry {
                name: name.to_owned(),
                auto_create: !entry.contains("\"noautocreate\""),
            });
        }
    }
    entries
}

/// What the JSON report says of one test.
fn verdict(report: &str, name: &str) -> Option<(Verdict, f64)> {
    // The whole is no valid JSON when a test reports measurements of its own with a NaN; one entry's head is enough.
    let entry = report.split_once(&format!("\"name\": \"{name}\""))?.1;
    let field = |key: &str| {
        let rest = entry.split_once(&format!("\"{key}\": "))?.1;
        rest.split(',').next().map(|value| value.trim_matches('"'))
    };
    let verdict = match field("state")? {
        "PASSED" => Verdict::Pass,
        "SKIPPED" => Verdict::Skip,
        _ => Verdict::Fail,
    };
    let seconds = field("duration")?.parse().context("duration").ok()?;
    Some((verdict, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_of_test_c() {
        let source = r#"
            _TEST_DECL(0001_multiobj);
            struct test tests[] = {
                {.name = "<MAIN>", .flags = TEST_F_LOCAL},
                _TEST(0000_unittests,
                      TEST_F_LOCAL,
                      _THRES(.ucpu = 100.0)),
                _TEST(0001_multiobj, 0),
                _TEST(0045_remove, 0, TEST_BRKVER(0, 9, 0, 0), .scenario = "noautocreate"),
            #if WITH_SOCKEM
                _TEST(0049_conn_close, TEST_F_SOCKEM),
            #endif
                {NULL}};
            struct test *test_curr = _TEST(none, 0);"#;
        let entry = |name: &str, auto_create| Entry {
            name: name.to_owned(),
            auto_create,
        };
        assert_eq!(
            entries(source),
            [entry("0001_multiobj", true), entry("0045_remove", false)]
        );
    }

    #[test]
    fn verdicts_of_a_report() {
        let report = r#"{"tests": {"<MAIN>": {"name": "<MAIN>", "state": "PASSED", "duration": 9.000, "report": [ ] },
            "0001_a": {"name": "0001_a", "state": "PASSED", "known_issue": false, "extra": "", "duration": 1.500, "report": [ ] },
            "0002_b": {"name": "0002_b", "state": "RUNNING", "known_issue": false, "extra": "", "duration": 2.000, "report": [ ] }}"#;
        assert_eq!(verdict(report, "0001_a"), Some((Verdict::Pass, 1.5)));
        assert_eq!(verdict(report, "0002_b"), Some((Verdict::Fail, 2.0)));
        assert_eq!(verdict(report, "0003_c"), None);
        assert_eq!(verdict("", "0001_a"), None);
    }
}
