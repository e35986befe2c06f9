//! PG-35: the codec's own example times itself; it needs no broker.

use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::broker::Kind;
use crate::sample::Sample;

/// Runs the example `codec` of takhin-protocol for Takhin; a broker in another language has none.
///
/// It prints a row per batch size, nanoseconds per batch: guard, decode, header check, record check, scan, encode, and
/// the target. The figures are the worst rows' quotients by the target: decoding a Produce request and checking headers
/// alone, the same with the records as the broker checks them, and encoding a Fetch response.
pub(crate) fn sample(kind: Kind) -> Result<Sample> {
    if kind != Kind::Takhin {
        return Ok(Sample::new());
    }
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "run",
            "--release",
            "--quiet",
            "-p",
            "takhin-protocol",
            "--example",
            "codec",
        ])
        .output()
        .context("running cargo")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the codec's example failed: {said}");
    worst(&String::from_utf8_lossy(&output.stdout))
}

fn worst(table: &str) -> Result<Sample> {
    let mut sample = Sample::new();
    for line in table.lines() {
        // `10 records of 100`, bytes, and seven columns; the head has other words.
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        if fields.get(1..3) != Some(&["records", "of"]) {
            continue;
        }
        let numbers = fields[4..]
            .iter()
            .map(|field| field.parse())
            .collect::<Result<Vec<f64>, _>>()?;
        let [_, _, decode, header, records, _, encode, target] = numbers[..] else {
            bail!("the codec's example prints other columns: {line}");
        };
        for (name, nanos) in [
            ("produce_header_ratio", decode + header),
            ("produce_records_ratio", decode + records),
            ("fetch_ratio", encode),
        ] {
            let worst = sample.entry(name).or_insert(0.0);
            *worst = worst.max(nanos / target);
        }
    }
    ensure!(!sample.is_empty(), "the codec's example prints no rows");
    Ok(sample)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_row_counts() {
        let table = "ns per batch bytes guard decode header records scan encode target\n\
                     1 records of 100 180 5.0 40.0 60.0 80.0 9.0 20.0 200.0\n\
                     10 records of 100 1180 5.0 40.0 10.0 110.0 9.0 50.0 100.0\n";
        let expected = Sample::from([
            ("produce_header_ratio", 0.5),
            ("produce_records_ratio", 1.5),
            ("fetch_ratio", 0.5),
        ]);
        assert_eq!(worst(table).unwrap(), expected);
        assert!(worst("nothing").is_err());
    }
}
