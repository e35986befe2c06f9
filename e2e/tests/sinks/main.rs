//! `takhin-cdc` between a scripted Pika master and real clusters: Apache Kafka, and takhin. What it writes is read back with
//! Debian's kcat.
//!
//! `cargo test -p takhin-e2e --test sinks` runs all; a word after `--` picks those whose name contains it. The programs are
//! `TAKHIN_CDC_BIN` and `TAKHIN_BIN`, or the newest builds.
#![allow(clippy::unwrap_used, reason = "what makes no sense fails the test")]

mod amid;
mod contents;
mod full;
mod guards;
mod leaders;
mod once;
mod stage;

use libtest_mimic::Arguments;

fn main() {
    let mut arguments = Arguments::from_args();
    // Two cores.
    arguments.test_threads = Some(1);
    let mut suites = stage::Suites::default();
    contents::add(&mut suites);
    amid::add(&mut suites);
    once::add(&mut suites);
    guards::add(&mut suites);
    full::add(&mut suites);
    leaders::add(&mut suites);
    libtest_mimic::run(&arguments, suites.trials).exit()
}
