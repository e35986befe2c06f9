//! The figures of one run, by name, and what follows from many.

use std::collections::BTreeMap;

use crate::load::Outcome;

/// Figures of one run by name. The name ends in the unit.
pub(crate) type Sample = BTreeMap<&'static str, f64>;

/// The figures of a load.
pub(crate) fn of_outcome(outcome: &Outcome) -> Sample {
    let seconds = outcome.elapsed.as_secs_f64().max(1e-9);
    let bytes = outcome.bytes as f64;
    let mut sample = Sample::from([
        ("mb_s", bytes / 1e6 / seconds),
        ("msg_s", outcome.records as f64 / seconds),
        ("req_s", outcome.requests as f64 / seconds),
        (
            "cpu_s_gb",
            outcome.broker.cpu.as_secs_f64() / (bytes / 1e9).max(1e-9),
        ),
        (
            "cpu_us_req",
            outcome.broker.cpu.as_secs_f64() * 1e6 / (outcome.requests as f64).max(1.0),
        ),
        ("disk_ratio", outcome.broker.disk_bytes as f64 / bytes.max(1.0)),
    ]);
    if !outcome.latency.is_empty() {
        for (name, percentile) in [
            ("p50_us", 50.0),
            ("p99_us", 99.0),
            ("p999_us", 99.9),
            ("max_us", 100.0),
        ] {
            sample.insert(name, outcome.latency.value_at_percentile(percentile) as f64 / 1e3);
        }
    }
    sample
}

/// The median of `values`; the mean of the middle two if their number is even, 0 if there are none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_of_odd_and_even() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
