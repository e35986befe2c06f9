//! What the fuzzer calls: one function per target, each taking any bytes and panicking when a promise is broken.
//!
//! - [`frame_decode`]: a connection's bytes, in pieces, into frames.
//! - [`request_decode`]: a frame into a request, for every API that the broker serves.
//! - [`record_batch`]: what a producer sends for one partition.
//! - [`segment_recovery`]: a log directory with damaged bytes in it.
//! - [`pika_binlog_item`], [`pika_resp`], [`pika_frame`], [`pika_legacy`]: what a Pika master sends.
//! - [`pika_dump`]: keys and values of its dumps.
//!
//! `fuzz/fuzz_targets/` calls them under libFuzzer; `tests/replay.rs` runs the committed corpus through them with
//! stable Rust, in every `cargo test`.

mod frame;
mod pika;
mod record;
mod request;
mod segment;

pub use frame::frame_decode;
pub use pika::{pika_binlog_item, pika_dump, pika_frame, pika_legacy, pika_resp};
pub use record::record_batch;
pub use request::request_decode;
pub use segment::{Step, segment_recovery, steps};

/// A target by name.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("frame_decode", frame_decode),
    ("request_decode", request_decode),
    ("record_batch", record_batch),
    ("segment_recovery", segment_recovery),
    ("pika_binlog_item", pika_binlog_item),
    ("pika_resp", pika_resp),
    ("pika_frame", pika_frame),
    ("pika_legacy", pika_legacy),
    ("pika_dump", pika_dump),
];
