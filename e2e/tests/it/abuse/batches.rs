//! Lies in what is produced, fetched and named (I-6, I-9, I-10). A refused batch leaves nothing in the log.

use anyhow::{Result, ensure};
use takhin_e2e::Kind;
use takhin_e2e::records::{at, batch, forge, values};

use super::{fresh_topic, produce_good, survive};
use crate::suite::Context;

/// A timestamp for the batches here: 2026-11-01, in milliseconds.
pub(super) const NOW: i64 = 1_793_491_200_000;

const OFFSET_OUT_OF_RANGE: i16 = 1;
const CORRUPT_MESSAGE: i16 = 2;
const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
const INVALID_TOPIC: i16 = 17;
const INVALID_RECORD: i16 = 87;

/// A lie: its name, the batch, and the error codes that Kafka's clients expect for it.
type Lie = (&'static str, Vec<u8>, &'static [i16]);

/// The good batch with other attribute bits.
fn attributes(bits: u16) -> Result<Vec<u8>> {
    Ok(forge(good()?, at::ATTRIBUTES, &bits.to_be_bytes()))
}

/// The good batch with another number in its header.
fn number(position: usize, value: i32) -> Result<Vec<u8>> {
    Ok(forge(good()?, position, &value.to_be_bytes()))
}

fn good() -> Result<Vec<u8>> {
    batch(&[b"one", b"two"], NOW)
}

fn lies(kind: Kind) -> Result<Vec<Lie>> {
    let mut flipped = good()?;
    *flipped
        .last_mut()
        .ok_or_else(|| anyhow::anyhow!("an empty batch"))? ^= 1;
    let mut short = good()?;
    short.truncate(short.len() - 3);
    let mut two = good()?;
    two.extend(good()?);
    let mut all: Vec<Lie> = vec![
        ("a flipped bit", flipped, &[CORRUPT_MESSAGE]),
        ("a batch cut short", short, &[CORRUPT_MESSAGE, INVALID_RECORD]),
        (
            "a batch length of 0",
            number(at::BATCH_LENGTH, 0)?,
            &[CORRUPT_MESSAGE],
        ),
        (
            "a negative batch length",
            number(at::BATCH_LENGTH, -1)?,
            &[CORRUPT_MESSAGE],
        ),
        ("two batches", two, &[INVALID_RECORD]),
        (
            "magic 3",
            forge(good()?, at::MAGIC, &[3]),
            &[CORRUPT_MESSAGE, INVALID_RECORD],
        ),
        (
            "a count above the records",
            number(at::RECORDS_COUNT, 3)?,
            &[INVALID_RECORD, CORRUPT_MESSAGE],
        ),
        (
            "a count of 2^31-1",
            number(at::RECORDS_COUNT, i32::MAX)?,
            &[INVALID_RECORD, CORRUPT_MESSAGE],
        ),
        (
            "a negative count",
            number(at::RECORDS_COUNT, -1)?,
            &[INVALID_RECORD, CORRUPT_MESSAGE],
        ),
        (
            "a last delta above the count",
            number(at::LAST_OFFSET_DELTA, 9)?,
            &[INVALID_RECORD],
        ),
        (
            "a last delta of -1",
            number(at::LAST_OFFSET_DELTA, -1)?,
            &[INVALID_RECORD, CORRUPT_MESSAGE],
        ),
        ("a control batch", attributes(0x20)?, &[INVALID_RECORD]),
        // The producer id says that sequences are kept, the sequence says that they are not.
        (
            "a sequence of -1",
            forge(good()?, at::PRODUCER_ID, &5_i64.to_be_bytes()),
            &[INVALID_RECORD, 45],
        ),
    ];
    if kind == Kind::Takhin {
        all.extend(lies_to_takhin()?);
    }
    Ok(all)
}

/// Lies that Apache Kafka believes, or answers with an internal error.
fn lies_to_takhin() -> Result<Vec<Lie>> {
    let mut all: Vec<Lie> = Vec::new();
    // An internal error in Apache Kafka: the length overflows there.
    all.push((
        "a batch length of 2^31-1",
        number(at::BATCH_LENGTH, i32::MAX)?,
        &[CORRUPT_MESSAGE, 10],
    ));
    // Apache Kafka stores bits that it does not know. Here bit 15 hides entries of the replication layer, so that a
    // client must not be able to set it, nor any other that a later version may give a meaning.
    for bits in [0x8000, 0x8020, 0x0040, 0x0080, 0x4000] {
        all.push(("a reserved attribute", attributes(bits)?, &[INVALID_RECORD]));
    }
    all.push((
        "compression 5",
        attributes(5)?,
        &[INVALID_RECORD, CORRUPT_MESSAGE, 76],
    ));
    all.push((
        "compression 7",
        attributes(7)?,
        &[INVALID_RECORD, CORRUPT_MESSAGE, 76],
    ));
    Ok(all)
}

/// I-6.
pub(super) fn forged(context: &Context) -> Result<()> {
    survive(context, |broker| {
        let mut connection = fresh_topic(broker, "forged")?;
        produce_good(&mut connection, "forged", b"first")?;
        let mut wrong = Vec::new();
        for (name, lie, codes) in lies(broker.kind())? {
            let (error, offset) = connection.produce("forged", 0, &lie)?;
            if !codes.contains(&error) || offset != -1 {
                wrong.push(format!(
                    "{name}: error {error} at {offset}, not one of {codes:?} at -1"
                ));
            }
        }
        ensure!(wrong.is_empty(), "{wrong:#?}");
        let end = connection.list_offset("forged", 0, -1)?;
        ensure!(end == 1, "{} refused records are in the log", end - 1);
        ensure!(
            produce_good(&mut connection, "forged", b"last")? == 1,
            "the next good record has offset 1"
        );
        let (error, high_watermark, batches) = connection.fetch("forged", 0, 0, 1 << 20)?;
        ensure!(
            (error, high_watermark) == (0, 2),
            "error {error}, high watermark {high_watermark}"
        );
        let expected = vec![(0, b"first".to_vec()), (1, b"last".to_vec())];
        ensure!(
            values(&batches)? == expected,
            "something else than the good records came back"
        );
        Ok(())
    })
}

/// I-9: offsets and sizes at the edge of what their types hold.
pub(super) fn odd_fetches(context: &Context) -> Result<()> {
    survive(context, |broker| {
        let mut connection = fresh_topic(broker, "odd-fetches")?;
        for value in [&b"one"[..], b"two", b"three"] {
            produce_good(&mut connection, "odd-fetches", value)?;
        }
        for offset in [i64::MIN, -3, -1, 4, i64::MAX] {
            let (error, _, batches) = connection.fetch("odd-fetches", 0, offset, 1 << 20)?;
            ensure!(error == OFFSET_OUT_OF_RANGE, "offset {offset}: error {error}");
            ensure!(batches.is_empty(), "offset {offset}: records beside the error");
        }
        let (error, high_watermark, batches) = connection.fetch("odd-fetches", 0, 3, 1 << 20)?;
        ensure!(
            (error, high_watermark) == (0, 3) && batches.is_empty(),
            "the end: error {error}"
        );
        // F2: the first batch comes whole, however little was asked for.
        let (error, _, batches) = connection.fetch("odd-fetches", 0, 1, 1)?;
        ensure!(error == 0, "max_bytes 1: error {error}");
        let first = values(&batches)?.into_iter().next();
        ensure!(first == Some((1, b"two".to_vec())), "max_bytes 1: {first:?}");
        // Nonsense: whatever the answer is (Apache Kafka has an internal error here), the connection lives on.
        connection.fetch("odd-fetches", 0, 1, -1)?;
        let (error, _, batches) = connection.fetch("odd-fetches", 0, 0, i32::MAX)?;
        ensure!(
            error == 0 && values(&batches)?.len() == 3,
            "max_bytes i32::MAX: error {error}"
        );
        for (topic, partition) in [
            ("odd-fetches", 1),
            ("odd-fetches", -1),
            ("odd-fetches", i32::MAX),
            ("none", 0),
        ] {
            let (error, _, _) = connection.fetch(topic, partition, 0, 1 << 20)?;
            ensure!(
                error == UNKNOWN_TOPIC_OR_PARTITION,
                "{topic}-{partition}: error {error}"
            );
        }
        Ok(())
    })
}

/// I-10: topic names with meaning to a file system, or too long for one.
pub(super) fn names(context: &Context) -> Result<()> {
    survive(context, |broker| {
        let mut connection = takhin_e2e::wire::Connection::open(broker.address())?;
        let long = "x".repeat(250);
        for name in [
            "",
            ".",
            "..",
            "../escape",
            "a/b",
            "/etc/passwd",
            "nul\0",
            "täst",
            "new\nline",
            &long,
        ] {
            let error = connection.create_topic(name, 1, &[])?;
            ensure!(error == INVALID_TOPIC, "topic {name:?}: error {error}");
        }
        ensure!(
            connection.create_topic(&long[..249], 1, &[])? == 0,
            "a name of 249 characters is allowed"
        );
        produce_good(&mut connection, &long[..249], b"value")?;
        let escaped = broker.data_dir().with_file_name("escape");
        ensure!(!escaped.exists(), "{} was created", escaped.display());
        Ok(())
    })
}
