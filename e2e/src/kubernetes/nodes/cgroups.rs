//! The control groups of a node's pods: one tree per node, in every hierarchy of the machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

const ROOT: &str = "/sys/fs/cgroup";

/// How long killed processes may take to be gone.
const LIMIT: Duration = Duration::from_secs(20);

/// One node's; what runs in them ends, and they are removed, when this is dropped.
#[derive(Debug)]
pub(super) struct Cgroups {
    name: String,
    folders: Vec<PathBuf>,
}

impl Cgroups {
    /// Makes them. Kubelets of one machine must not share any.
    pub(super) fn make(node: &str) -> Result<Self> {
        let name = format!("takhin-e2e-{}-{node}", std::process::id());
        let hierarchies = if Path::new(ROOT).join("cgroup.controllers").exists() {
            vec![PathBuf::from(ROOT)]
        } else {
            let entries = fs::read_dir(ROOT).context("control groups")?;
            let paths = entries.map(|entry| Ok(entry?.path()));
            paths.collect::<Result<Vec<_>>>()?
        };
        let mut folders = Vec::new();
        for hierarchy in hierarchies
            .into_iter()
            .filter(|path| path.is_dir() && !path.is_symlink())
        {
            let folder = hierarchy.join(&name);
            fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
            // A new cpuset of version 1 may use nothing until it is told.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if hierarchy.ends_with("cpuset") {
                    fs::write(folder.join(file), fs::read(hierarchy.join(file))?)?;
                }
            }
            folders.push(folder);
        }
        Ok(Self { name, folders })
    }

    /// Their place, as the kubelet's `cgroupRoot` has it.
    pub(super) fn root(&self) -> String {
        format!("/{}", self.name)
    }

    fn end(&self) -> Result<()> {
        wait::until("the end of a node's pods", LIMIT, || {
            let mut left = false;
            for folder in &self.folders {
                for pid in members(folder) {
                    left = true;
                    // One that has ended meanwhile is fine.
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            Ok(!left)
        })?;
        self.folders.iter().try_for_each(|folder| remove(folder))
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("control groups of {} are left: {error:#}", self.name);
        }
    }
}

/// All processes in a group and those below it.
fn members(folder: &Path) -> Vec<Pid> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    let mut found: Vec<Pid> = text
        .lines()
        .filter_map(|line| Pid::from_raw(line.parse().ok()?))
        .collect();
    for child in children(folder) {
        found.extend(members(&child));
    }
    found
}

fn remove(folder: &Path) -> Result<()> {
    for child in children(folder) {
        remove(&child)?;
    }
    fs::remove_dir(folder).with_context(|| folder.display().to_string())
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}
