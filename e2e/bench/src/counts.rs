//! Counts that do not depend on the neighbours: system calls, bytes through user space, allocations.

use std::time::Duration;

use anyhow::Result;

use crate::bench::{Bench, Run, closed};
use crate::load::{From, Outcome, Span, Target};
use crate::points::Produce;
use crate::run::{consume, fill};
use crate::sample::Sample;
use crate::scrape::value;
use crate::trace;

/// Data for counting consumption, in bytes.
const CONSUMED: u64 = 64 << 20;

impl Bench {
    /// Counts per Produce request.
    pub(crate) fn count_produce(&mut self, load: Produce, run: Run) -> Result<Sample> {
        self.count(run, load.partitions, |target, span| {
            let outcome = closed(load, span, target)?;
            let records = load
                .records
                .min(crate::batches::Batches::new(load.value_len, load.records, 0)?.max());
            let requests = outcome.total_records / records as u64;
            Ok((requests, outcome.total_records * load.value_len as u64, outcome))
        })
    }

    /// Counts per Fetch request and per byte sent.
    pub(crate) fn count_consume(&mut self, run: Run) -> Result<Sample> {
        let mut end = None;
        self.count(run, 4, |target, span| {
            let end = match end {
                Some(end) => end,
                None => *end.insert(fill(target, CONSUMED, 62)?.0),
            };
            let outcome = consume(target, span, From::Again { end })?;
            Ok((outcome.requests, outcome.bytes, outcome))
        })
    }

    /// Runs `work` three times: for allocations undisturbed, then under strace for calls, then for bytes.
    fn count(
        &mut self,
        run: Run,
        partitions: i32,
        mut work: impl FnMut(&Target, Span) -> Result<(u64, u64, Outcome)>,
    ) -> Result<Sample> {
        let dir = self.launcher.work_dir.clone();
        let admin = self.side(run.side)?.admin;
        // Of a Takhin built with feature `count-allocations`.
        let allocations = || value(admin?, "takhin_allocations_total");
        let span = Span {
            warm_up: Duration::ZERO,
            measured: run.span.measured.min(Duration::from_secs(5)),
        };
        let mut sample = Sample::new();
        self.on_topic(run, partitions, |target| {
            // Whatever is made once, such as files, buffers and compiled code, is made here.
            work(target, span)?;
            let before = allocations();
            let (requests, _, outcome) = work(target, span)?;
            if let (Some(before), Some(after)) = (before, allocations()) {
                sample.insert("allocations_req", (after - before) / requests.max(1) as f64);
                sample.insert(
                    "allocations_batch",
                    (after - before) / (outcome.records as f64 / 62.0).max(1.0),
                );
            }
            let (calls, (requests, _, _)) = trace::calls(target.pids[0], &dir, || work(target, span))?;
            let per_request = |calls: u64| calls as f64 / requests.max(1) as f64;
            sample.insert("syscalls_req", per_request(calls.values().sum()));
            let of = |name: &str| calls.get(name).copied().unwrap_or(0);
            sample.insert(
                "flushes_req",
                per_request(of("fsync") + of("fdatasync") + of("syncfs")),
            );
            let (bytes_in, (_, payload, outcome)) =
                trace::bytes_in(target.pids[0], &dir, || work(target, span))?;
            sample.insert("bytes_in_ratio", bytes_in as f64 / payload.max(1) as f64);
            Ok(Outcome {
                total_records: 0,
                ..outcome
            })
        })?;
        Ok(sample)
    }
}
