//! The `takhin-cdc` program: see `takhin-cdc --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    takhin_cdc::cli::main()
}
