//! The files of the repository, as git sees them: tracked ones and new ones that are not ignored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The directory that holds the workspace.
pub(crate) fn root() -> PathBuf {
    // xtask is one level below it. Cargo says where when it runs us; what it said when it built us may be another
    // checkout that shares the target directory.
    #[allow(clippy::disallowed_methods, reason = "cargo tells by the environment")]
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR");
    let xtask = xtask.as_deref().map(Path::new).and_then(Path::parent);
    xtask.unwrap_or_else(|| Path::new(".")).to_owned()
}

/// Paths below the root with forward slashes, and the text of those files that are text.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Text by path.
    pub(crate) texts: BTreeMap<String, String>,
    /// Every path, text or not.
    pub(crate) paths: Vec<String>,
}

impl Tree {
    /// Reads the repository.
    pub(crate) fn read() -> Result<Self, Vec<String>> {
        let root = root();
        let mut git = Command::new("git");
        git.current_dir(&root)
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let listed = match git.output() {
            Ok(output) if output.status.success() => output.stdout,
            Ok(output) => {
                return Err(vec![format!(
                    "git ls-files: {}",
                    String::from_utf8_lossy(&output.stderr).trim()
                )]);
            }
            Err(error) => return Err(vec![format!("git ls-files: {error}; install git")]),
        };
        let mut tree = Self::default();
        for path in String::from_utf8_lossy(&listed)
            .split('\0')
            .filter(|path| !path.is_empty())
        {
            // A file that was deleted but not yet committed is still listed.
            let Ok(bytes) = std::fs::read(root.join(path)) else {
                continue;
            };
            tree.paths.push(path.to_owned());
            if let Ok(text) = String::from_utf8(bytes) {
                tree.texts.insert(path.to_owned(), text);
            }
        }
        tree.paths.sort();
        Ok(tree)
    }

    /// Texts whose path ends like this.
    pub(crate) fn ending<'a>(&'a self, suffix: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.texts
            .iter()
            .filter(move |(path, _)| path.ends_with(suffix))
            .map(|(path, text)| (&**path, &**text))
    }

    /// Whether a file or directory of this path exists.
    pub(crate) fn has(&self, path: &str) -> bool {
        let path = path.trim_end_matches('/');
        self.paths.iter().any(|p| {
            p.strip_prefix(path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}
