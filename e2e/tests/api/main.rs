//! The operator against a real API server: one binary, one suite per file.
//!
//! `cargo test -p takhin-e2e --test api` runs all; a word after `--` picks those whose name contains it. The operator and
//! the broker are programs of this workspace, `TAKHIN_OPERATOR_BIN` and `TAKHIN_BIN` or the newest builds.

mod admission;
mod brokers;
mod children;
mod crds;
mod crowd;
mod fields;
mod helm;
mod leader;
mod outage;
mod rights;
mod room;
mod settings;
mod silent;
mod sources;
mod stage;
mod topics;
mod traces;

use libtest_mimic::Arguments;

fn main() {
    let arguments = Arguments::from_args();
    let mut suites = stage::suites();
    crds::add(&mut suites);
    admission::add(&mut suites);
    fields::add(&mut suites);
    brokers::add(&mut suites);
    topics::add(&mut suites);
    settings::add(&mut suites);
    sources::add(&mut suites);
    children::add(&mut suites);
    traces::add(&mut suites);
    leader::add(&mut suites);
    outage::add(&mut suites);
    // Two minutes of waiting are one: in the minute in which nothing may happen another one passes.
    silent::add_first(&mut suites);
    crowd::add(&mut suites);
    silent::add_last(&mut suites);
    helm::add(&mut suites);
    if arguments.filter.is_none() {
        rights::add(&mut suites);
    }
    suites.run(arguments).exit()
}
