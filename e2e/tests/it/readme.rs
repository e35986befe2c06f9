//! The README's two commands, as a new user types them: clone, `make run`.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use takhin_e2e::process::{self, Running};
use takhin_e2e::{tools, wait};

use crate::suite::{Context, Suites};

/// An optimised build is part of it.
const LIMIT: Duration = Duration::from_secs(1200);

pub(crate) fn add(suites: &mut Suites) {
    suites.add_takhin("readme::a_fresh_clone_runs", fresh_clone);
}

fn fresh_clone(_: &Context) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let checkout = tools::checkout()?;
    let clone = dir.path().join("takhin");
    process::run(
        Command::new("git")
            .args(["clone", "--quiet"])
            .arg(&checkout)
            .arg(&clone),
        LIMIT,
    )?;
    let readme = fs::read_to_string(clone.join("README.md"))?;
    for command in ["make run", "make test"] {
        let block = format!("```\n{command}\n```");
        ensure!(readme.contains(&block), "the README does not show `{command}`");
    }

    // Whoever develops here may have a broker on the usual ports.
    let arguments = "ARGS=--kafka 127.0.0.1:0 --admin 127.0.0.1:0";
    let output = dir.path().join("output");
    let mut make = Command::new("make");
    make.args(["run", arguments])
        .current_dir(&clone)
        .stdin(Stdio::null());
    let file = fs::File::create(&output)?;
    make.stdout(file.try_clone()?).stderr(file);
    // Shared, so that only this workspace is compiled and not what it depends on.
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| checkout.join("target").into());
    make.env("CARGO_TARGET_DIR", target);
    let mut run = Running::start_group(&mut make)?;
    let address = wait::value("the address that `make run` prints", LIMIT, || {
        let text = fs::read_to_string(&output)?;
        if let Some(status) = run.ended()? {
            bail!(
                "`make run` {}:\n{}",
                process::ending(status),
                process::tail(&text, 30)
            );
        }
        Ok(address(&text))
    })?;

    // The commands that it prints next.
    let hello = dir.path().join("hello");
    fs::write(&hello, "hello\n")?;
    let mut produce = tools::kcat();
    produce
        .args(["-P", "-b", &address, "-t", "first", "-l"])
        .arg(&hello);
    process::run(&mut produce, Duration::from_secs(60))?;
    let mut consume = tools::kcat();
    consume.args(["-C", "-b", &address, "-t", "first", "-e"]);
    let read = process::run(&mut consume, Duration::from_secs(60))?;
    ensure!(read.text() == "hello\n", "`kcat -C` printed {:?}", read.text());

    // Like Ctrl-C, this reaches make and the broker alike.
    run.terminate()?;
    run.wait(Duration::from_secs(30))?;
    wait::until("the broker to stop", Duration::from_secs(30), || {
        Ok(std::net::TcpStream::connect(&address).is_err())
    })
}

/// The address behind `kcat -P -b` once the broker has printed it.
fn address(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("kcat -P -b ")?;
    Some(rest.split_whitespace().next()?.to_owned())
}
