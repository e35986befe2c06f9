//! The operator, by its chart, on a whole Kubernetes: pods that run the images, reached by stock clients.
//!
//! `make e2e` builds what it needs and runs all; a word after `--` picks those tests whose name contains it. Needs root: it
//! works in a network and mounts of its own.

mod balancers;
mod changes;
mod dashboards;
mod events;
mod existing;
mod hardships;
mod house;
mod load;
mod lone;
mod pushed;
mod source;
mod stage;
mod story;
mod topics;
mod upgrade;
mod volume;

use libtest_mimic::Arguments;

fn main() {
    if let Err(error) = takhin_e2e::kubernetes::ground::enter() {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
    let arguments = Arguments::from_args();
    let mut suites = stage::suites();
    story::add(&mut suites);
    existing::add(&mut suites);
    upgrade::add(&mut suites);
    topics::add(&mut suites);
    hardships::add(&mut suites);
    changes::add(&mut suites);
    source::add(&mut suites);
    balancers::add(&mut suites);
    volume::add(&mut suites);
    pushed::add(&mut suites);
    lone::add(&mut suites);
    suites.run(arguments).exit()
}
