//! What the metrics of `takhin-cdc` say.

use std::collections::BTreeMap;

use crate::api::PikaPosition;

/// Series that are read of one page of metrics; more are passed over.
const MAX_SERIES: usize = 10_000;

/// Values of metrics by name and labels.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Readings(Vec<(String, BTreeMap<String, String>, f64)>);

impl Readings {
    /// Reads OpenMetrics; lines that are none are passed over.
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Self(lines.filter_map(series).take(MAX_SERIES).collect())
    }

    fn of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a BTreeMap<String, String>, i64)> {
        let named = self.0.iter().filter(move |(found, ..)| found == name);
        // Whole numbers by their meaning; what is larger than i64 is cut.
        #[allow(clippy::cast_possible_truncation, reason = "`as` cuts at the bounds of i64")]
        named.map(|(_, labels, value)| (labels, *value as i64))
    }

    pub(super) fn max(&self, name: &str) -> Option<i64> {
        self.of(name).map(|(_, value)| value).max()
    }

    /// What the databases are doing: the least far of them.
    pub(super) fn phase(&self) -> Option<&str> {
        let phases = || self.of("takhin_cdc_phase").filter(|(_, value)| *value == 1);
        let of = |wanted: &str| {
            phases().find_map(|(labels, _)| labels.get("phase").filter(|phase| *phase == wanted))
        };
        of("snapshot").or_else(|| of("streaming")).map(String::as_str)
    }

    /// Whether it knows what databases there are.
    pub(super) fn has_databases(&self) -> bool {
        self.of("takhin_cdc_phase").next().is_some()
    }

    /// The position of the first database.
    pub(super) fn position(&self) -> Option<PikaPosition> {
        let (labels, file) = self
            .of("takhin_cdc_source_position_filenum")
            .min_by_key(|(labels, _)| labels.get("db").cloned())?;
        let offsets = self.of("takhin_cdc_source_position_offset");
        let offset = offsets
            .into_iter()
            .find(|(found, _)| found.get("db") == labels.get("db"))?
            .1;
        Some(PikaPosition { file, offset })
    }
}

/// One line: `name{label="value",...} number`.
fn series(line: &str) -> Option<(String, BTreeMap<String, String>, f64)> {
    let (series, value) = line.rsplit_once(' ')?;
    let value = value.parse().ok()?;
    let Some((name, labels)) = series.split_once('{') else {
        return Some((series.to_owned(), BTreeMap::new(), value));
    };
    let labels = labels.strip_suffix('}')?;
    let pairs = labels.split("\",").filter_map(|pair| {
        let (label, value) = pair.split_once("=\"")?;
        Some((label.to_owned(), value.trim_end_matches('"').to_owned()))
    });
    Some((name.to_owned(), pairs.collect(), value))
}
