//! Where the setup scripts put the clients, and how to call each.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// `${TAKHIN_CACHE:-$HOME/.cache/takhin}`.
pub fn cache() -> Result<PathBuf> {
    Ok(match std::env::var_os("TAKHIN_CACHE") {
        Some(dir) => PathBuf::from(dir),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cache/takhin"),
    })
}

fn installed() -> Result<PathBuf> {
    Ok(cache()?.join("e2e"))
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    ensure!(
        path.exists(),
        "{} is missing: run e2e/setup/install.sh",
        path.display()
    );
    Ok(path)
}

/// The checkout under test, as cargo tells whom it runs.
///
/// Not `env!`: that is the checkout the program was built in, which may be another one that shares the target directory.
pub fn checkout() -> Result<PathBuf> {
    let crate_dir =
        std::env::var_os("CARGO_MANIFEST_DIR").context("run it with `cargo test` or `cargo run`")?;
    let crate_dir = PathBuf::from(crate_dir);
    Ok(crate_dir.parent().context("the crate has no parent")?.to_owned())
}

/// A file of `e2e/clients`.
fn client(path: &str) -> Result<PathBuf> {
    existing(checkout()?.join("e2e/clients").join(path))
}

/// A program of `e2e/clients/python` under the interpreter that has the clients.
pub fn python(program: &str) -> Result<Command> {
    let mut command = Command::new(existing(installed()?.join("python/bin/python"))?);
    command.arg("-u").arg(client(&format!("python/{program}"))?);
    Ok(command)
}

/// A program of `e2e/clients/node`.
pub fn node(program: &str) -> Result<Command> {
    let mut command = Command::new("node");
    command
        .env("NODE_PATH", existing(installed()?.join("node/node_modules"))?)
        .env("KAFKAJS_NO_PARTITIONER_WARNING", "1")
        .arg(client(&format!("node/{program}"))?);
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
    let source = client(&format!("java/{program}"))?;
    java("-Xmx256m", &source.to_string_lossy())
}

/// Debian's kcat.
pub fn kcat() -> Command {
    Command::new("kcat")
}

/// A program of this workspace: what the variable names, else the newer one of the release and the debug build.
///
/// # Errors
/// There is none; `make` says what builds it.
pub fn built(variable: &str, program: &str, make: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        let path = PathBuf::from(path);
        ensure!(path.exists(), "{variable}={} does not exist", path.display());
        return Ok(path);
    }
    let target = match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => checkout()?.join("target"),
    };
    let built = |profile| {
        let path = target.join(profile).join(program);
        let time = path.metadata().and_then(|m| m.modified()).ok()?;
        Some((time, path))
    };
    let newest = [built("release"), built("debug")].into_iter().flatten().max();
    let (_, path) =
        newest.with_context(|| format!("no {program} in {}/{{release,debug}}: {make}", target.display()))?;
    Ok(path)
}
