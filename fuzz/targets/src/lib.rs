//! What the fuzzer calls: one function per target, each taking any bytes and panicking when a promise is broken.
//!
//! - [`frame_decode`]: a connection's bytes, in pieces, into frames.
//! - [`request_decode`]: a frame into a request, for every API that the broker serves.
//! - [`record_batch`]: what a producer sends for one partition.
//! - [`segment_recovery`]: a log directory with damaged bytes in it.
//!
//! `fuzz/fuzz_targets/` calls them under libFuzzer; `tests/replay.rs` runs the committed corpus through them with
//! stable Rust, in every `cargo test`.

mod frame;
mod record;
mod request;
mod segment;

pub use frame::frame_decode;
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
];
