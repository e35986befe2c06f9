//! `takhin dump-log`: what is in segment files, one line per batch.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use takhin_protocol::record::{Attributes, BatchHeader, NO_PRODUCER};
use takhin_runtime::Env;
use takhin_storage::{DumpItem, DumpedBatch, dump as dump_path};

use super::Failure;

#[derive(Debug, Args)]
#[command(after_help = "\
Every batch has two numbers: its Raft index, which counts batches and the hidden entries of replication, and its
Kafka offsets, which count records only.

Examples:
  takhin dump-log takhin-data/partitions/<topic id>-0
  takhin dump-log --verify takhin-data/partitions/*/*.log
  takhin dump-log --json takhin-data/partitions/<topic id>-0 | jq 'select(.hidden)'

Reads only; the broker may be running.")]
pub(super) struct DumpLogArgs {
    /// Partition directories or segment files
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Print only what is wrong; exit code 1 if anything is
    #[arg(long)]
    verify: bool,
    /// One JSON object per line
    #[arg(long)]
    json: bool,
}

/// Counts of a whole dump.
#[derive(Debug, Default)]
struct Totals {
    batches: u64,
    faults: u64,
}

pub(super) fn dump(args: &DumpLogArgs) -> Result<(), Failure> {
    let disk = Env::real().disk;
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut totals = Totals::default();
    for path in &args.paths {
        let mut line = String::new();
        let mut written = Ok(());
        let each = |item: DumpItem| {
            line.clear();
            totals.show(&item, args, &mut line);
            written = out.write_all(line.as_bytes());
            written.is_ok()
        };
        dump_path(&disk, path, each).with_context(|| format!("cannot dump {}", path.display()))?;
        match written {
            // Nobody reads on, as with `| head`.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            done => done.context("cannot write to standard output")?,
        }
    }
    if !args.json {
        // A closed pipe at the last line is no error either.
        let _ = writeln!(out, "{} batches, {} faults", totals.batches, totals.faults);
    }
    if args.verify && totals.faults > 0 {
        drop(out);
        return Err(Failure::Failed(anyhow::anyhow!("{} faults found", totals.faults)));
    }
    Ok(())
}

impl Totals {
    /// Counts an item, and writes its line if it is wanted.
    fn show(&mut self, item: &DumpItem, args: &DumpLogArgs, line: &mut String) {
        let faulty = match item {
            DumpItem::Segment { .. } => false,
            DumpItem::Batch(batch) => !batch.crc_ok,
            DumpItem::Unreadable { .. } => true,
        };
        self.faults += u64::from(faulty);
        self.batches += u64::from(matches!(item, DumpItem::Batch(_)));
        let is_heading = matches!(item, DumpItem::Segment { .. });
        if args.verify && !faulty && !is_heading {
            return;
        }
        // Writing to a String cannot fail.
        let _ = if args.json {
            json(item, line)
        } else {
            text(item, line)
        };
    }
}

fn text(item: &DumpItem, line: &mut String) -> std::fmt::Result {
    match item {
        DumpItem::Segment {
            path,
            bytes,
            cleaned_to,
            ..
        } => {
            write!(line, "{} ({bytes} bytes)", path.display())?;
            if let Some(end) = cleaned_to {
                write!(
                    line,
                    " cleaned to offset {} index {}",
                    end.base_offset, end.first_index
                )?;
            }
            writeln!(line)
        }
        DumpItem::Unreadable {
            path,
            position,
            damage,
        } => {
            writeln!(
                line,
                "{}: unreadable from byte {position}: {damage}",
                path.display()
            )
        }
        DumpItem::Batch(batch) => {
            let header = &batch.header;
            write!(
                line,
                "@{} index {} term {}",
                batch.position,
                batch
                    .raft_index
                    .map_or_else(|| "-".to_owned(), |index| index.to_string()),
                header.partition_leader_epoch
            )?;
            if batch.hidden {
                write!(line, " hidden")?;
            } else {
                write!(
                    line,
                    " offsets {}..={} records {}",
                    header.base_offset, batch.last_offset, header.records_count
                )?;
            }
            write!(line, " bytes {} codec {}", batch.len, codec(batch))?;
            write!(line, " time {}..={}", header.base_timestamp, header.max_timestamp)?;
            if header.producer_id != NO_PRODUCER {
                let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
                write!(line, " producer {id} epoch {epoch} sequence {sequence}")?;
            }
            line.push_str(flags(header));
            writeln!(line, "{}", if batch.crc_ok { "" } else { " CHECKSUM WRONG" })
        }
    }
}

fn json(item: &DumpItem, line: &mut String) -> std::fmt::Result {
    let value = match item {
        DumpItem::Segment {
            path,
            id,
            bytes,
            cleaned_to,
        } => serde_json::json!({
            "type": "segment", "path": path.display().to_string(), "bytes": bytes,
            "base_offset": id.base_offset, "first_index": id.first_index,
            "cleaned_to_offset": cleaned_to.map(|end| end.base_offset),
            "cleaned_to_index": cleaned_to.map(|end| end.first_index),
        }),
        DumpItem::Unreadable {
            path,
            position,
            damage,
        } => serde_json::json!({
            "type": "unreadable", "path": path.display().to_string(), "position": position,
            "damage": damage.to_string(),
        }),
        DumpItem::Batch(batch) => {
            let header = &batch.header;
            serde_json::json!({
                "type": "batch", "position": batch.position, "bytes": batch.len,
                "raft_index": batch.raft_index, "term": header.partition_leader_epoch,
                "base_offset": header.base_offset, "last_offset": batch.last_offset, "hidden": batch.hidden,
                "records": header.records_count, "codec": codec(batch),
                "log_append_time": header.attributes.has(Attributes::LOG_APPEND_TIME),
                "base_timestamp": header.base_timestamp, "max_timestamp": header.max_timestamp,
                "producer_id": header.producer_id, "producer_epoch": header.producer_epoch,
                "base_sequence": header.base_sequence, "crc": header.crc, "crc_ok": batch.crc_ok,
            })
        }
    };
    writeln!(line, "{value}")
}

fn codec(batch: &DumpedBatch) -> String {
    batch.codec.map_or_else(
        || "unknown".to_owned(),
        |codec| format!("{codec:?}").to_ascii_lowercase(),
    )
}

fn flags(header: &BatchHeader) -> &'static str {
    if header.attributes.has(Attributes::LOG_APPEND_TIME) {
        " LogAppendTime"
    } else {
        ""
    }
}
