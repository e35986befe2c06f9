//! The `takhin` program: see `takhin --help`.

#[cfg(feature = "count-allocations")]
mod allocations;

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "count-allocations")]
    allocations::register();
    takhin_broker::cli::main()
}
