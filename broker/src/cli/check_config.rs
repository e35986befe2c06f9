//! `takhin check-config`.

use std::fmt::Write as _;

use takhin_config::Loaded;

use super::Failure;

/// Prints every value and where it comes from. The configuration has been checked when we get here.
pub(super) fn print(loaded: &Loaded) -> Result<(), Failure> {
    let values = loaded.values();
    let width = values
        .iter()
        .map(|(value, _)| value.path.len())
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for (value, origin) in &values {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{:width$}  {}  ({origin})", value.path, value.value);
    }
    out.push_str("ok: the configuration has no faults\n");
    super::print(&out)
}
