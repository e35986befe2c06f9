//! `takhin wait-for-file`: for an init container whose broker needs what somebody else has yet to write.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use takhin_config::units::parse_duration;
use takhin_runtime::{Env, OpenMode};

use super::Failure;

/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(250);

#[derive(Debug, Args)]
#[command(after_help = "\
Ends with 0 as soon as the file has a first byte, and with 1 when the time is over.

Example:
  takhin wait-for-file /etc/takhin/pod/assigned --timeout 2m")]
pub(super) struct WaitForFileArgs {
    /// The file
    file: PathBuf,
    /// Longest wait
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = duration)]
    timeout: Duration,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

pub(super) fn wait(args: &WaitForFileArgs) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let found = runtime.block_on(is_written(&Env::real(), &args.file, args.timeout));
    if found {
        return Ok(());
    }
    Err(Failure::Failed(anyhow::anyhow!(
        "{} is still missing or empty after {} s",
        args.file.display(),
        args.timeout.as_secs()
    )))
}

/// Whether the file gets a byte within this time.
async fn is_written(env: &Env, file: &Path, timeout: Duration) -> bool {
    let written = async {
        while !has_bytes(env, file) {
            env.clock.sleep(PAUSE).await;
        }
    };
    env.clock.timeout(timeout, written).await.is_ok()
}

/// A file that cannot be read counts as one that is yet to come.
fn has_bytes(env: &Env, file: &Path) -> bool {
    let len = env.disk.open(file, OpenMode::Read).and_then(|file| file.len());
    len.is_ok_and(|len| len > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_empty_file_is_none_and_the_wait_ends() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("assigned");
        let env = Env::real();
        assert!(!is_written(&env, &file, Duration::from_millis(1)).await);
        env.disk.open(&file, OpenMode::CreateNew).unwrap();
        assert!(!is_written(&env, &file, Duration::from_millis(1)).await);
        let created = env.disk.open(&file, OpenMode::Write).unwrap();
        created
            .write_at(&mut [std::io::IoSlice::new(b"true")], 0)
            .unwrap();
        assert!(is_written(&env, &file, Duration::from_millis(1)).await);
    }
}
