//! The committed lists: what passes on Apache Kafka, what is left out and why, what is quick.
//!
//! One test per line; what follows the first space of a line is for readers, lines that begin with `#` too.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{Outcome, Verdict};

#[derive(Debug)]
pub(crate) struct Lists {
    baseline_path: PathBuf,
    baseline: BTreeSet<String>,
    excluded: BTreeSet<String>,
    quick: BTreeSet<String>,
}

impl Lists {
    /// Reads the lists of `suite` from `e2e/compat`.
    pub(crate) fn read(dir: &Path, suite: &str) -> Result<Self> {
        let baseline_path = dir.join(format!("baseline/{suite}.txt"));
        // These two hold both suites, each line with the name of its suite in front.
        let of_suite = |file: &str| -> Result<BTreeSet<String>> {
            let text = read(&dir.join(file))?;
            let lines = text.lines().filter_map(|line| line.strip_prefix(suite));
            Ok(names(lines.filter_map(|line| line.strip_prefix('/'))))
        };
        Ok(Self {
            baseline: names(read(&baseline_path)?.lines()),
            excluded: of_suite("exclusions.txt")?,
            quick: of_suite("quick.txt")?,
            baseline_path,
        })
    }

    /// Whether `name` counts: it passes on Apache Kafka and is not excluded.
    pub(crate) fn scored(&self, name: &str) -> bool {
        self.baseline.contains(name) && !self.excluded.contains(name)
    }

    pub(crate) fn is_excluded(&self, name: &str) -> bool {
        self.excluded.contains(name)
    }

    pub(crate) fn is_quick(&self, name: &str) -> bool {
        self.quick.contains(name)
    }

    /// Writes the baseline anew: those of `outcomes` that passed, and what did not run as it was.
    pub(crate) fn record(&self, outcomes: &[Outcome]) -> Result<()> {
        // Another run may have recorded other tests in the meantime.
        let mut baseline = names(read(&self.baseline_path)?.lines());
        for outcome in outcomes {
            if outcome.verdict == Verdict::Pass {
                baseline.insert(outcome.name.clone());
            } else {
                baseline.remove(&outcome.name);
            }
        }
        let mut text =
            "# What passes on Apache Kafka, written by E2E_BROKER=kafka make compat ARGS=--record\n"
                .to_owned();
        for name in baseline {
            text.push_str(&name);
            text.push('\n');
        }
        fs::write(&self.baseline_path, text)?;
        Ok(())
    }
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

fn names<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    lines
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}
