//! Repository chores that need nothing but Rust: `cargo run -p xtask -- COMMAND`.
//!
//! - `tidy`: the house rules that lints cannot check; edits nothing.
//! - `generate`: writes the pages of `docs/reference/` from the tables in the code, and the Rust of `.proto` files;
//!   with `--check` only compares.
//! - `values`: prints the page about the chart's values.
#![allow(clippy::print_stdout, reason = "a command-line program")]

mod generate;
mod tidy;
mod tree;
mod values;

use std::process::ExitCode;

const USAGE: &str = "usage: cargo run -p xtask -- tidy | generate [--check] | values";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => tidy::run(),
        ["generate"] => generate::run(false),
        ["generate", "--check"] => generate::run(true),
        ["values"] => values::run(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(summary) => {
            println!("{summary}");
            ExitCode::SUCCESS
        }
        Err(faults) => {
            for fault in &faults {
                eprintln!("error: {fault}");
            }
            eprintln!("{} to mend", faults.len());
            ExitCode::FAILURE
        }
    }
}
