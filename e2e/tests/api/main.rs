//! The operator against a real API server: one binary, one suite per file.
//!
//! `cargo test -p takhin-e2e --test api` runs all; a word after `--` picks those whose name contains it. The operator and
//! the broker are programs of this workspace, `TAKHIN_OPERATOR_BIN` and `TAKHIN_BIN` or the newest builds.

mod crds;
mod stage;

use libtest_mimic::Arguments;
use stage::Suites;

fn main() {
    let mut arguments = Arguments::from_args();
    // Two cores, and one control plane for all.
    arguments.test_threads = Some(1);

    let mut suites = Suites::default();
    crds::add(&mut suites);
    suites.run(&arguments).exit()
}
