//! Record batches, format v2 (KIP-98, `DefaultRecordBatch`).
//!
//! [`Batch`] is what moves: a header as a value, a body as the bytes that arrived. [`validate_produced`] makes one
//! from what a producer sent, [`BatchBuilder`] from records, [`scan`] from a segment file. [`Records`] reads the
//! records of a body that is not, or no longer, compressed.

mod append_time;
mod batch;
mod builder;
mod compression;
mod records;
mod rewrite;
pub mod scan;
mod validate;
mod varint;

pub use batch::{Attributes, Batch, BatchHeader, HEADER_LEN, NO_PRODUCER};
pub use builder::{BatchBuilder, BuildError, NewRecord};
pub use compression::{Compression, CompressionError, compress, compress_at, decompress};
pub use records::{Header, Headers, Record, RecordError, Records};
pub use rewrite::RewriteError;
pub use validate::{BatchError, Limits, RecordCheck, validate_produced};
