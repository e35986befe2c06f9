//! The end-to-end suites: one binary, one suite per file, one broker at a time.
//!
//! `cargo test -p takhin-e2e --test it` runs all against takhin; a word after `--` picks those whose name contains it;
//! `E2E_BROKER=kafka` runs those that make sense there against Apache Kafka.

mod abuse;
mod admin;
mod clients;
mod cluster;
mod crash;
mod elastic;
mod golden;
mod group_crash;
mod groups;
mod java_tools;
mod lag;
mod packages;
mod power;
mod quorum;
mod racks;
mod readme;
mod reassign;
mod storage;
mod suite;
mod survival;
mod throttle;

use libtest_mimic::Arguments;
use suite::Suites;
use takhin_e2e::Kind;

fn main() -> anyhow::Result<()> {
    let mut arguments = Arguments::from_args();
    // Two cores: clients and brokers of two suites at once would only time each other out.
    arguments.test_threads = Some(1);

    let mut suites = Suites::new(Kind::from_env()?);
    clients::add(&mut suites);
    groups::add(&mut suites);
    java_tools::add(&mut suites);
    packages::add(&mut suites);
    abuse::add(&mut suites);
    crash::add(&mut suites);
    cluster::add(&mut suites);
    reassign::add(&mut suites);
    throttle::add(&mut suites);
    lag::add(&mut suites);
    survival::add(&mut suites);
    racks::add(&mut suites);
    quorum::add(&mut suites);
    admin::add(&mut suites);
    elastic::add(&mut suites);
    group_crash::add(&mut suites);
    power::add(&mut suites);
    storage::add(&mut suites);
    golden::add(&mut suites);
    readme::add(&mut suites);
    suites.run(&arguments).exit()
}
