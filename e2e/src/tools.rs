//! Where the setup scripts put the clients, and how to call each.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// `${TAKHIN_CACHE:-$HOME/.cache/takhin}/e2e`.
fn installed() -> Result<PathBuf> {
    let cache = match std::env::var_os("TAKHIN_CACHE") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache/takhin"),
    };
    Ok(cache.join("e2e"))
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    ensure!(
        path.exists(),
        "{} is missing: run e2e/setup/install.sh",
        path.display()
    );
    Ok(path)
}

/// The directory of this crate in the checkout.
pub fn crate_dir() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A program of `e2e/clients/python` under the interpreter that has the clients.
pub fn python(program: &str) -> Result<Command> {
    let mut command = Command::new(existing(installed()?.join("python/bin/python"))?);
    command
        .arg("-u")
        .arg(existing(crate_dir().join("clients/python").join(program))?);
    Ok(command)
}

/// A program of `e2e/clients/node`.
pub fn node(program: &str) -> Result<Command> {
    let mut command = Command::new("node");
    command
        .env("NODE_PATH", existing(installed()?.join("node/node_modules"))?)
        .env("KAFKAJS_NO_PARTITIONER_WARNING", "1")
        .arg(existing(crate_dir().join("clients/node").join(program))?);
    Ok(command)
}

/// A main class of the Apache Kafka jars, or a `.java` file to be compiled as it runs.
///
/// `heap` is an option like `-Xmx256m`.
pub fn java(heap: &str, program: &str) -> Result<Command> {
    let kafka = existing(installed()?.join("java"))?;
    let mut command = Command::new("java");
    // C1 only and the serial collector: these programs live for seconds on two cores.
    command
        .args([
            heap,
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            "-Xlog:disable",
        ])
        .arg(format!(
            "-Dlog4j2.configurationFile={}",
            kafka.join("logging.xml").display()
        ))
        .arg("-cp")
        .arg(format!("{}/*", kafka.join("jars").display()))
        .arg(program);
    Ok(command)
}

/// A single-file program of `e2e/clients/java`.
pub fn java_source(program: &str) -> Result<Command> {
    let source = existing(crate_dir().join("clients/java").join(program))?;
    java("-Xmx256m", &source.to_string_lossy())
}

/// Debian's kcat.
pub fn kcat() -> Command {
    Command::new("kcat")
}
