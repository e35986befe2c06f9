//! The audit log: who asked the API server for what, and what it answered.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// Everybody's requests but those of Kubernetes itself, each once it is answered.
pub(super) const POLICY: &str = "\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
  - level: None
    users: [\"system:apiserver\", \"system:kube-controller-manager\"]
  - level: None
    userGroups: [\"system:serviceaccounts:kube-system\"]
  - level: Metadata
";

/// The log, from a place in it.
#[derive(Debug, Clone)]
pub struct Audit {
    path: PathBuf,
    from: u64,
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who asked.
    pub user: String,
    /// With which token, if it was one of a service account.
    pub credential: String,
    /// get, list, watch, create, update, patch, delete, deletecollection.
    pub verb: String,
    /// API group; empty for the core.
    pub group: String,
    /// Resource, with its subresource after a slash.
    pub resource: String,
    /// Namespace, if there is one.
    pub namespace: String,
    /// Name of the object, if there is one.
    pub name: String,
    /// HTTP status of the answer.
    pub code: u16,
    /// Whether it was not allowed by any role.
    pub is_forbidden: bool,
    /// When it was answered, in the API server's words.
    pub at: String,
}

impl Entry {
    /// Whether it asked for a change.
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// Whether it keeps a Lease: what operators do all the time.
    pub fn is_lease(&self) -> bool {
        self.resource == "leases"
    }
}

impl Audit {
    pub(super) fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            from: 0,
        }
    }

    /// The log from its present end on.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn from_now(&self) -> Result<Self> {
        Ok(Self {
            path: self.path.clone(),
            from: self.path.metadata().context("no audit log")?.len(),
        })
    }

    /// All requests since then that `user` made.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of_user(&self, user: &str) -> Result<Vec<Entry>> {
        Ok(self
            .entries()?
            .into_iter()
            .filter(|entry| entry.user == user)
            .collect())
    }

    /// All requests since then.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let mut file = File::open(&self.path).context("no audit log")?;
        file.seek(SeekFrom::Start(self.from))?;
        let mut all = Vec::new();
        for line in BufReader::new(file).lines() {
            // The last line may be half written.
            if let Ok(line) = serde_json::from_str::<Line>(&line?) {
                all.push(line.into());
            }
        }
        Ok(all)
    }
}

/// How often each kind of request was made, for messages.
pub fn summary(entries: &[Entry]) -> String {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for entry in entries {
        let what = format!(
            "{} {} {}/{} {}",
            entry.verb, entry.resource, entry.namespace, entry.name, entry.code
        );
        *counts.entry(what).or_default() += 1;
    }
    let lines: Vec<String> = counts
        .iter()
        .map(|(what, count)| format!("{count} x {what}"))
        .collect();
    lines.join("\n")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    verb: String,
    user: User,
    #[serde(default)]
    object_ref: Object,
    #[serde(default)]
    response_status: Status,
    #[serde(default)]
    annotations: Annotations,
    stage_timestamp: String,
}

#[derive(Default, Deserialize)]
struct Annotations {
    #[serde(rename = "authorization.k8s.io/decision", default)]
    decision: String,
}

#[derive(Deserialize)]
struct User {
    username: String,
    #[serde(default)]
    extra: Extra,
}

#[derive(Default, Deserialize)]
struct Extra {
    #[serde(rename = "authentication.kubernetes.io/credential-id", default)]
    credentials: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    code: u16,
}

impl From<Line> for Entry {
    fn from(line: Line) -> Self {
        let object = line.object_ref;
        Self {
            credential: line.user.extra.credentials.into_iter().next().unwrap_or_default(),
            user: line.user.username,
            verb: line.verb,
            group: object.api_group,
            resource: match object.subresource.is_empty() {
                true => object.resource,
                false => format!("{}/{}", object.resource, object.subresource),
            },
            namespace: object.namespace,
            name: object.name,
            code: line.response_status.code,
            is_forbidden: line.annotations.decision == "forbid",
            at: line.stage_timestamp,
        }
    }
}
