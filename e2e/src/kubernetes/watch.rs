//! What becomes of pods, from the API server's own watch: nothing is between two looks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context as _, Result, ensure};
use futures_util::StreamExt as _;
use kube::api::{Api, DynamicObject, ListParams, WatchEvent, WatchParams};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::api::{Kube, condition, text};

/// The pods of a namespace that were there when it began.
#[derive(Debug)]
pub struct Watch {
    pods: BTreeSet<String>,
    changes: Receiver<Result<Change>>,
    task: JoinHandle<()>,
}

/// One change of a pod.
#[derive(Debug)]
struct Change {
    pod: String,
    serves: bool,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kube {
    /// Watches the pods of a namespace, all of which serve now.
    ///
    /// # Errors
    /// The API server says no, or one of the pods does not serve.
    pub fn watch_pods(&self, namespace: &str) -> Result<Watch> {
        let api = self.api("Pod", namespace)?;
        let list = self.block_on(api.list(&ListParams::default()))?;
        let version = list
            .metadata
            .resource_version
            .context("a list without a version")?;
        let mut pods = BTreeSet::new();
        for pod in list.items {
            let change = change(&pod, false)?;
            ensure!(change.serves, "{} does not serve yet", change.pod);
            pods.insert(change.pod);
        }
        let (sender, changes) = channel();
        let task = self.spawn(follow(api, version, sender));
        Ok(Watch { pods, changes, task })
    }
}

impl Watch {
    /// The most pods of those that were there at first that did not serve at one time, by their names; pods that came later
    /// do not count.
    ///
    /// # Errors
    /// The watch broke in a way that may have hidden something.
    pub fn most_down(self) -> Result<BTreeSet<String>> {
        let mut changes = Vec::new();
        for change in self.changes.try_iter() {
            changes.push(change?);
        }
        Ok(most_down(&self.pods, &changes))
    }
}

fn most_down(pods: &BTreeSet<String>, changes: &[Change]) -> BTreeSet<String> {
    let mut serving: BTreeMap<&str, bool> = pods.iter().map(|pod| (pod.as_str(), true)).collect();
    let mut most = BTreeSet::new();
    for change in changes {
        if let Some(serves) = serving.get_mut(change.pod.as_str()) {
            *serves = change.serves;
        }
        let down = serving.iter().filter(|(_, serves)| !**serves);
        let down: BTreeSet<String> = down.map(|(pod, _)| (*pod).to_owned()).collect();
        if down.len() > most.len() {
            most = down;
        }
    }
    most
}

/// Sends every change from `version` on until nobody listens. Watches end now and then; the next goes on where it ended.
async fn follow(api: Api<DynamicObject>, mut version: String, changes: Sender<Result<Change>>) {
    let parameters = WatchParams::default();
    loop {
        // An API server that does not answer for a while has kept what happened.
        let Ok(stream) = api.watch(&parameters, &version).await else {
            tokio::time::sleep(crate::wait::POLL).await;
            continue;
        };
        let mut stream = std::pin::pin!(stream);
        while let Some(Ok(event)) = stream.next().await {
            let (change, now) = match event {
                WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                    (change(&pod, false), pod.metadata.resource_version)
                }
                WatchEvent::Deleted(pod) => (change(&pod, true), pod.metadata.resource_version),
                WatchEvent::Bookmark(mark) => {
                    version = mark.metadata.resource_version;
                    continue;
                }
                WatchEvent::Error(status) => {
                    let _ = changes.send(Err(anyhow::anyhow!("the watch of pods: {status:?}")));
                    return;
                }
            };
            version = now.unwrap_or(version);
            if changes.send(change).is_err() {
                return;
            }
        }
    }
}

/// A pod serves that is ready and has not been told to go.
fn change(pod: &DynamicObject, is_gone: bool) -> Result<Change> {
    let pod: Value = serde_json::to_value(pod)?;
    let is_ready = condition(&pod, "Ready").is_some_and(|(status, ..)| status == "True");
    let goes = pod.pointer("/metadata/deletionTimestamp").is_some();
    Ok(Change {
        pod: text(&pod, "/metadata/name").to_owned(),
        serves: is_ready && !goes && !is_gone,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(changes: &[(&str, bool)]) -> Vec<String> {
        let pods = ["a", "b", "c"].map(str::to_owned).into();
        let changes: Vec<Change> = changes
            .iter()
            .map(|(pod, serves)| Change {
                pod: (*pod).to_owned(),
                serves: *serves,
            })
            .collect();
        most_down(&pods, &changes).into_iter().collect()
    }

    #[test]
    fn two_at_once_are_seen_however_short_that_was() {
        assert!(seen(&[]).is_empty());
        // One after the other, one of them more than once; a new one is not there yet.
        assert_eq!(
            seen(&[
                ("a", false),
                ("a", true),
                ("b", false),
                ("b", false),
                ("d", false)
            ]),
            ["a"]
        );
        assert_eq!(seen(&[("a", false), ("c", false), ("a", true)]), ["a", "c"]);
    }
}
