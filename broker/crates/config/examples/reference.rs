//! Prints a reference page: `cargo run -p takhin-config --example reference -- node|topic|group|cdc`.
#![allow(clippy::print_stdout)]

use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("node") => print!("{}", takhin_config::docs::node_reference()),
        Some("topic") => print!("{}", takhin_config::docs::topic_reference()),
        Some("cdc") => print!("{}", takhin_config::docs::cdc_reference()),
        Some("group") => print!("{}", takhin_config::docs::group_reference()),
        _ => return ExitCode::from(2),
    }
    ExitCode::SUCCESS
}
