//! The `takhin-operator` program: see `takhin-operator --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    takhin_operator::cli::main()
}
