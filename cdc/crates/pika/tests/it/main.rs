//! The decoders against recordings of real servers.

mod content;
mod properties;
mod streams;
