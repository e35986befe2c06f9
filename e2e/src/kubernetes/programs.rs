//! Where the programs of Kubernetes are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::{process, tools};

/// Time for building them, on a machine that is busy with other things.
const BUILD_LIMIT: Duration = Duration::from_secs(50 * 60);

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
        let folders = match std::env::var_os("KUBE_TEST_BIN") {
            Some(folders) => folders.to_string_lossy().into_owned(),
            None => {
                let mut build = Command::new("bash");
                build.arg(tools::checkout()?.join("e2e/setup/kubernetes.sh"));
                process::run(&mut build, BUILD_LIMIT)?.text()
            }
        };
        let folders = folders.trim().split(':').map(PathBuf::from).collect();
        Ok(Self { folders })
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

    /// A program that is a client of the API server, with the identity in `kubeconfig`.
    ///
    /// # Errors
    /// None of the folders has it.
    pub fn client(&self, name: &str, kubeconfig: &Path) -> Result<Command> {
        let mut command = Command::new(self.path(name)?);
        command.env("KUBECONFIG", kubeconfig);
        // What is in somebody's home is no part of the test.
        let home = kubeconfig.parent().unwrap_or(kubeconfig);
        command
            .env("HOME", home)
            .env_remove("XDG_CACHE_HOME")
            .env_remove("XDG_CONFIG_HOME");
        Ok(command)
    }
}
