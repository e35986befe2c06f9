//! The four codecs, each within a budget of output bytes.
//!
//! Output grows with what was really decompressed, never with what the input claims, and ends at the budget.
//! Every call fills a buffer of its own, so malformed input cannot show what a buffer held before.

use std::io::{self, Read, Write};

use flate2::read::MultiGzDecoder;
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

/// How a batch's records are compressed; the numbers are bits 0 to 2 of the attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i16)]
pub enum Compression {
    /// Not at all.
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Raw snappy blocks in the framing of xerial's snappy-java; a bare raw block is read as well.
    Snappy = 2,
    /// The LZ4 frame format.
    Lz4 = 3,
    /// RFC 8878; from Produce 7 and Fetch 10 (KIP-110).
    Zstd = 4,
}

impl Compression {
    /// Returns the codec with this number.
    pub fn from_id(id: i16) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// Returns the codec's number.
    pub fn id(self) -> i16 {
        self as i16
    }

    /// Returns Kafka's name for the codec, as in `compression.type`.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

/// Why records could not be compressed or decompressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    /// The output would exceed the budget.
    #[error("records take more than {budget} bytes when decompressed")]
    Budget {
        /// The budget, in bytes, inclusive.
        budget: usize,
    },
    /// The input is not what the codec writes.
    #[error("records are not valid {}", codec.name())]
    Corrupt {
        /// The codec.
        codec: Compression,
        /// What the codec said.
        #[source]
        source: io::Error,
    },
}

/// Largest zstd window accepted, as a power of two: 128 MiB, what Kafka's own decoder takes. A window's memory is
/// touched only as far as output was made, and that is within the budget.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Level that Kafka compresses with unless told otherwise.
const ZSTD_LEVEL: i32 = 3;

/// Levels of gzip are 0 to 9.
const GZIP_BEST: u32 = 9;

/// Decompresses the records of a batch into at most `budget` bytes.
///
/// # Errors
///
/// [`CompressionError::Budget`] as soon as there is more than that, whatever follows.
pub fn decompress(codec: Compression, input: &[u8], budget: usize) -> Result<Vec<u8>, CompressionError> {
    let corrupt = |source| CompressionError::Corrupt { codec, source };
    let output = match codec {
        Compression::None => bounded(input, budget),
        Compression::Gzip => bounded(MultiGzDecoder::new(input), budget),
        Compression::Snappy => snappy(input, budget),
        Compression::Lz4 => bounded(FrameDecoder::new(input), budget),
        Compression::Zstd => zstd_reader(input).and_then(|reader| bounded(reader, budget)),
    };
    output
        .map_err(corrupt)?
        .ok_or(CompressionError::Budget { budget })
}

/// Reads all of `reader`, or `None` if that is more than `budget` bytes.
fn bounded(reader: impl Read, budget: usize) -> io::Result<Option<Vec<u8>>> {
    let mut output = Vec::new();
    let limit = u64::try_from(budget).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(limit).read_to_end(&mut output)?;
    Ok((output.len() <= budget).then_some(output))
}

fn zstd_reader(input: &[u8]) -> io::Result<zstd::stream::read::Decoder<'static, &[u8]>> {
    let mut reader = zstd::stream::read::Decoder::with_buffer(input)?;
    reader.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
    Ok(reader)
}

/// xerial's stream header: magic, version, oldest compatible version.
const XERIAL_MAGIC: &[u8; 8] = b"\x82SNAPPY\0";
const XERIAL_HEADER: &[u8; 16] = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";

/// Uncompressed bytes per block that we write, as snappy-java does.
const XERIAL_BLOCK: usize = 32 * 1024;

fn snappy(mut input: &[u8], budget: usize) -> io::Result<Option<Vec<u8>>> {
    let mut output = Vec::new();
    if !input.starts_with(XERIAL_MAGIC) {
        return Ok(snappy_block(input, &mut output, budget)?.then_some(output));
    }
    while !input.is_empty() {
        // Streams may be concatenated.
        if input.starts_with(XERIAL_MAGIC) {
            input = input
                .get(XERIAL_HEADER.len()..)
                .ok_or(io::ErrorKind::UnexpectedEof)?;
            continue;
        }
        let (length, rest) = input
            .split_first_chunk::<4>()
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let len = usize::try_from(i32::from_be_bytes(*length)).map_err(io::Error::other)?;
        let (block, rest) = rest.split_at_checked(len).ok_or(io::ErrorKind::UnexpectedEof)?;
        if !snappy_block(block, &mut output, budget)? {
            return Ok(None);
        }
        input = rest;
    }
    Ok(Some(output))
}

/// Appends a raw block's contents to `output`; false if the output would exceed the budget.
fn snappy_block(block: &[u8], output: &mut Vec<u8>, budget: usize) -> io::Result<bool> {
    let claimed = snap::raw::decompress_len(block)?;
    if claimed > budget - output.len() {
        return Ok(false);
    }
    // Three bytes copy 64 at most, so a larger claim is a lie and needs no room.
    if claimed / 22 > block.len() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "claimed length is beyond what snappy can reach",
        ));
    }
    let start = output.len();
    output.resize(start + claimed, 0);
    let len = snap::raw::Decoder::new().decompress(block, &mut output[start..])?;
    output.truncate(start + len);
    Ok(true)
}

/// Compresses the records of a batch as Kafka's Java client does. For clients, tests and our own topics.
///
/// # Errors
///
/// The codec's own; none is known for input below 2 GiB.
pub fn compress(codec: Compression, input: &[u8]) -> Result<Vec<u8>, CompressionError> {
    compress_at(codec, None, input)
}

/// [`compress`] at a level of gzip or zstd; `None`, and a negative level of gzip, is the codec's own default. The other
/// codecs have one level only.
///
/// # Errors
///
/// As [`compress`].
pub fn compress_at(
    codec: Compression,
    level: Option<i32>,
    input: &[u8],
) -> Result<Vec<u8>, CompressionError> {
    let output = match codec {
        Compression::None => Ok(input.to_vec()),
        Compression::Gzip => gzip(level, input),
        Compression::Snappy => xerial(input),
        Compression::Lz4 => lz4(input),
        Compression::Zstd => zstd::bulk::compress(input, level.unwrap_or(ZSTD_LEVEL)),
    };
    output.map_err(|source| CompressionError::Corrupt { codec, source })
}

fn gzip(level: Option<i32>, input: &[u8]) -> io::Result<Vec<u8>> {
    let level = level.and_then(|level| u32::try_from(level).ok());
    let level = level.map_or_else(flate2::Compression::default, |level| {
        flate2::Compression::new(level.min(GZIP_BEST))
    });
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(input)?;
    encoder.finish()
}

fn lz4(input: &[u8]) -> io::Result<Vec<u8>> {
    // Kafka's Java client reads independent blocks only (KafkaLZ4BlockInputStream).
    let info = FrameInfo::new()
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::new());
    encoder.write_all(input)?;
    Ok(encoder.finish()?)
}

fn xerial(input: &[u8]) -> io::Result<Vec<u8>> {
    let mut output = XERIAL_HEADER.to_vec();
    let mut encoder = snap::raw::Encoder::new();
    for block in input.chunks(XERIAL_BLOCK) {
        let compressed = encoder.compress_vec(block)?;
        let length = i32::try_from(compressed.len()).map_err(io::Error::other)?;
        output.extend_from_slice(&length.to_be_bytes());
        output.extend_from_slice(&compressed);
    }
    Ok(output)
}
