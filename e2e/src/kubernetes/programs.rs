//! Where the programs of Kubernetes are.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{process, tools};

/// Time for building them, on a machine that is busy with other things.
const BUILD_LIMIT: Duration = Duration::from_secs(50 * 60);

/// Time for one call of kubectl or helm.
const CALL_LIMIT: Duration = Duration::from_secs(120);

/// The folders that have the programs.
#[derive(Debug, Clone)]
pub struct Programs {
    folders: Vec<PathBuf>,
}

impl Programs {
    /// `KUBE_TEST_BIN`, or what `e2e/setup/kubernetes.sh` has built or builds now.
    ///
    /// # Errors
    /// They cannot be built.
    pub fn find() -> Result<Self> {
        Self::of(&[])
    }

    /// The same with other parts than those that every control plane needs.
    ///
    /// # Errors
    /// They cannot be built.
    pub fn of(parts: &[&str]) -> Result<Self> {
        let folders = match std::env::var_os("KUBE_TEST_BIN") {
            Some(folders) => folders.to_string_lossy().into_owned(),
            None => {
                let mut build = Command::new("bash");
                build
                    .arg(tools::checkout()?.join("e2e/setup/kubernetes.sh"))
                    .args(parts);
                process::run(&mut build, BUILD_LIMIT)?.text()
            }
        };
        let folders = folders.trim().split(':').map(PathBuf::from).collect();
        Ok(Self { folders })
    }

    /// `KUBE_TEST_BIN`, or what this process would run by name: for a Kubernetes that somebody else has made.
    ///
    /// # Errors
    /// There is neither.
    pub fn installed() -> Result<Self> {
        let folders = std::env::var_os("KUBE_TEST_BIN").or_else(|| std::env::var_os("PATH"));
        let folders = folders.context("neither KUBE_TEST_BIN nor PATH is set")?;
        Ok(Self {
            folders: std::env::split_paths(&folders).collect(),
        })
    }

    /// Where they are, as `KUBE_TEST_BIN` names them.
    ///
    /// # Errors
    /// A folder's name has a colon.
    pub fn folders(&self) -> Result<OsString> {
        Ok(std::env::join_paths(&self.folders)?)
    }

    /// A program by its name.
    ///
    /// # Errors
    /// None of the folders has it.
    pub fn path(&self, name: &str) -> Result<PathBuf> {
        let found = self.folders.iter().map(|folder| folder.join(name));
        found.into_iter().find(|path| path.exists()).with_context(|| {
            let folders: Vec<_> = self
                .folders
                .iter()
                .map(|folder| folder.to_string_lossy())
                .collect();
            format!(
                "no {name} in {}: run e2e/setup/kubernetes.sh, or mend KUBE_TEST_BIN",
                folders.join(":")
            )
        })
    }

    /// What a program that is a client of the API server prints; `folder` is for what it keeps meanwhile.
    ///
    /// # Errors
    /// It fails; the message has what it says.
    pub fn call(&self, name: &str, kubeconfig: &Path, folder: &Path, arguments: &[&str]) -> Result<String> {
        let mut command = self.client(name, kubeconfig, folder)?;
        // What an earlier call has learned of the kinds may be out of date by now.
        let cache = tempfile::tempdir_in(folder)?;
        command.env("KUBECACHEDIR", cache.path());
        Ok(process::run(command.args(arguments), CALL_LIMIT)?.text())
    }

    /// A program that is a client of the API server, with the identity in `kubeconfig`.
    ///
    /// # Errors
    /// None of the folders has it.
    fn client(&self, name: &str, kubeconfig: &Path, home: &Path) -> Result<Command> {
        let mut command = Command::new(self.path(name)?);
        command.env("KUBECONFIG", kubeconfig);
        // What is in somebody's home is no part of the test.
        command
            .env("HOME", home)
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_CONFIG_HOME");
        Ok(command)
    }
}
