//! What the log of a client says about pauses.

use takhin_e2e::pulse::Beat;

/// For each of these partitions, the longest time without an answer from `since` to `until`, seconds. One that was never
/// answered was away for all that time.
pub(super) fn longest_pauses(beats: &[Beat], partitions: &[usize], since: f64, until: f64) -> Vec<f64> {
    let longest = |partition: &usize| {
        let of_partition = beats.iter().filter(|beat| beat.partition == *partition);
        let answers = of_partition.filter_map(|beat| beat.acked);
        let mut answers: Vec<f64> = answers.filter(|at| (since..until).contains(at)).collect();
        answers.sort_by(f64::total_cmp);
        answers.push(until);
        let mut last = since;
        let pauses = answers
            .into_iter()
            .map(|at| at - std::mem::replace(&mut last, at));
        pauses.fold(0.0, f64::max)
    };
    partitions.iter().map(longest).collect()
}

/// The smallest value that `permille` of all are not above; of sorted values.
pub(super) fn percentile(sorted: &[f64], permille: usize) -> f64 {
    let rank = (sorted.len() * permille).div_ceil(1000);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(partition: usize, sent: f64, acked: Option<f64>) -> Beat {
        Beat {
            partition,
            sent,
            acked,
        }
    }

    #[test]
    fn a_pause_counts_wherever_it_lies() {
        let beats = [
            beat(0, 0.0, Some(1.0)),
            beat(0, 10.0, Some(10.0)),
            beat(0, 11.0, Some(14.0)),
            beat(0, 15.0, Some(15.0)),
            beat(1, 12.0, Some(12.0)),
            beat(1, 12.5, Some(12.5)),
            beat(2, 14.5, Some(14.5)),
            beat(3, 11.0, None),
        ];
        // In the middle, at the end, at the begin, and all the time. What was answered before is nobody's pause.
        assert_eq!(
            longest_pauses(&beats, &[0, 1, 2, 3], 9.5, 15.5),
            [4.0, 3.0, 5.0, 6.0]
        );
    }

    #[test]
    fn a_percentile_is_a_value_that_was_seen() {
        let values = [1.0, 2.0, 3.0, 4.0];
        assert_eq!(
            [500, 501, 999, 1000].map(|p| percentile(&values, p)),
            [2.0, 3.0, 4.0, 4.0]
        );
    }
}
