//! librdkafka's `test-runner`: one process per test number, since a hang there ends all that would follow.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use takhin_e2e::Broker;

use crate::{Run, Verdict, built};

/// The suite's own default: that many in a topic created without a number.
const PARTITIONS: u32 = 4;
/// Tests ask for it where they expect what only newer brokers do. The version of Apache Kafka that makes the baseline.
const KAFKA_VERSION: &str = "4.3.1";

/// Seconds; nothing that talks to a broker is over sooner.
const EMPTY: f64 = 0.01;

/// One entry of the table in `test.c`.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    name: String,
    auto_create: bool,
}

pub(crate) fn run(run: &mut Run<'_>) -> Result<()> {
    let tests = built("librdkafka/librdkafka/tests")?;
    let entries: Vec<_> = entries(&fs::read_to_string(tests.join("test.c"))?)
        .into_iter()
        .filter(|entry| (run.wanted)(&entry.name))
        .collect();
    for auto_create in [true, false] {
        // A number may hold several tests; they run in one process.
        let mut numbers = BTreeMap::<_, Vec<_>>::new();
        for entry in entries.iter().filter(|e| e.auto_create == auto_create) {
            numbers
                .entry(&entry.name[..4])
                .or_default()
                .push(entry.name.as_str());
        }
        if numbers.is_empty() {
            continue;
        }
        let mut broker = run.broker(PARTITIONS, auto_create)?;
        for (number, names) in numbers {
            one(run, &tests, &broker, auto_create, number, &names)?;
            if !broker.is_running()? {
                crate::say(&format!("the broker has ended\n{}", broker.log_tail()))?;
                broker = run.broker(PARTITIONS, auto_create)?;
            }
        }
    }
    Ok(())
}

/// Runs the tests of one number, in quick mode first: it has fewer messages, and leaves out whole parts of some tests.
/// One that then has nothing left to do runs again with all its parts, since it has shown nothing.
fn one(
    run: &mut Run<'_>,
    tests: &Path,
    broker: &Broker,
    auto_create: bool,
    number: &str,
    names: &[&str],
) -> Result<()> {
    let mut command = Command::new("./test-runner");
    command
        .args(["-p1", "-E", "-L"])
        .current_dir(tests)
        .env("LD_LIBRARY_PATH", "../src:../src-cpp")
        .env("RDKAFKA_TEST_CONF", config(run, broker)?)
        .env("BROKERS", broker.bootstrap())
        .env("KAFKA_PATH", built("kafka")?)
        .env("TEST_KAFKA_VERSION", KAFKA_VERSION)
        .env("TESTS", number);
    if !auto_create {
        command.args(["-s", "noautocreate"]);
    }
    let log = format!("{number}{}", if auto_create { "" } else { "-noautocreate" });
    let quick = attempt(run, &format!("{log}-quick"), command.arg("-Q"), names)?;
    if quick
        .iter()
        .all(|&(verdict, seconds)| verdict != Verdict::Pass || seconds >= EMPTY)
    {
        return add(run, names, &quick);
    }
    // The mode cannot be taken back from a command line.
    let arguments: Vec<_> = command
        .get_args()
        .filter(|a| *a != "-Q")
        .map(ToOwned::to_owned)
        .collect();
    let mut full = Command::new("./test-runner");
    full.args(arguments).current_dir(tests);
    full.envs(command.get_envs().filter_map(|(key, value)| Some((key, value?))));
    let outcomes = attempt(run, &log, &mut full, names)?;
    add(run, names, &outcomes)
}

/// The file that tells the tests where the broker is.
fn config(run: &Run<'_>, broker: &Broker) -> Result<PathBuf> {
    let path = run.logs.join("test.conf");
    fs::write(&path, format!("bootstrap.servers={}\n", broker.bootstrap()))?;
    Ok(path)
}

fn add(run: &mut Run<'_>, names: &[&str], outcomes: &[(Verdict, f64)]) -> Result<()> {
    for (name, (verdict, seconds)) in names.iter().zip(outcomes) {
        run.add(name, *verdict, *seconds)?;
    }
    Ok(())
}

/// One run of the program: verdict and seconds of each of `names`.
fn attempt(run: &Run<'_>, log: &str, command: &mut Command, names: &[&str]) -> Result<Vec<(Verdict, f64)>> {
    let report = run.logs.join(format!("{log}.json"));
    // An earlier run's report must not stand in for one that is never written.
    if report.exists() {
        fs::remove_file(&report)?;
    }
    let (_, seconds) = run.program(log, command.env("TEST_REPORT", &report))?;
    let report = fs::read_to_string(&report).unwrap_or_default();
    // Without a report the program has crashed or hung in one of its tests, nobody knows which.
    let of = |name: &&str| verdict(&report, name).unwrap_or((Verdict::Fail, seconds));
    Ok(names.iter().map(of).collect())
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
