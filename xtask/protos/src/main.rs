//! Prints the Rust that is made from one .proto file: `takhin-protos FILE.proto`.
//!
//! A program of its own, so that neither the broker nor the other chores are built with a compiler of .proto files.
#![allow(clippy::print_stdout, reason = "a command-line program")]

use std::path::Path;

use anyhow::Context;

fn main() -> anyhow::Result<()> {
    let proto = std::env::args()
        .nth(1)
        .context("usage: takhin-protos FILE.proto")?;
    let folder = Path::new(&proto).parent().context("a file in a folder")?;
    let descriptors = protox::compile([&proto], [folder])?;
    let out = tempfile::tempdir()?;
    tonic_prost_build::configure()
        .out_dir(out.path())
        .bytes(".")
        // Bodies are gathered and never copied, which the generated type cannot do.
        .extern_path(".takhin.rpc.v1.Envelope", "crate::envelope::Envelope")
        .codec_path("crate::envelope::EnvelopeCodec")
        .build_transport(false)
        .compile_fds(descriptors)?;
    let mut text = String::new();
    for entry in std::fs::read_dir(out.path())? {
        text.push_str(&std::fs::read_to_string(entry?.path())?);
    }
    println!("// Made from {proto} by `make generate`.");
    print!("{text}");
    Ok(())
}
