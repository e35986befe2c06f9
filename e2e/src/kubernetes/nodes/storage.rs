//! Volumes for claims of the class `e2e`: folders on the node that the scheduler has chosen. Plays what a driver would: makes
//! the volume, and lets it grow.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::kubernetes::api::{Kube, text};

/// The class.
pub const CLASS: &str = "e2e";

/// A claim that has this annotation does not grow.
const HELD: &str = "/metadata/annotations/takhin.io~1e2e-held";

/// Between two looks at the claims.
const PAUSE: Duration = Duration::from_millis(200);

/// Serves claims on a thread of its own until it is dropped.
#[derive(Debug)]
pub(super) struct Storage {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Storage {
    /// Makes the class, and serves its claims. `folders` are where each node's volumes go.
    pub(super) fn start(kubeconfig: &Path, folders: BTreeMap<String, PathBuf>) -> Result<Self> {
        let kube = Kube::connect(kubeconfig)?;
        kube.apply(&json!({
            "apiVersion": "storage.k8s.io/v1",
            "kind": "StorageClass",
            "metadata": { "name": CLASS },
            "provisioner": "takhin.io/e2e",
            "volumeBindingMode": "WaitForFirstConsumer",
            "reclaimPolicy": "Retain",
            "allowVolumeExpansion": true,
        }))?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopping.load(Ordering::Relaxed) {
                // The API server may be away for a while; that is some test's business.
                if let Err(error) = serve(&kube, &folders) {
                    eprintln!("        volumes: {error:#}");
                }
                std::thread::sleep(PAUSE);
            }
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It ends by itself; a panic there has been printed.
            let _ = thread.join();
        }
    }
}

fn serve(kube: &Kube, folders: &BTreeMap<String, PathBuf>) -> Result<()> {
    for claim in kube.list("PersistentVolumeClaim", "")? {
        if text(&claim, "/spec/storageClassName") != CLASS {
            continue;
        }
        let wanted = text(&claim, "/spec/resources/requests/storage");
        if text(&claim, "/spec/volumeName").is_empty() {
            let place = "/metadata/annotations/volume.kubernetes.io~1selected-node";
            if let Some(folder) = folders.get(text(&claim, place)) {
                make(kube, &claim, text(&claim, place), folder)?;
            }
        } else if text(&claim, "/status/phase") == "Bound"
            && text(&claim, HELD).is_empty()
            && text(&claim, "/status/capacity/storage") != wanted
        {
            grow(kube, &claim, wanted)?;
        }
    }
    Ok(())
}

fn make(kube: &Kube, claim: &Value, node: &str, folder: &Path) -> Result<()> {
    let name = format!("v-{}", text(claim, "/metadata/uid"));
    if kube.get("PersistentVolume", "", &name)?.is_some() {
        return Ok(());
    }
    let path = folder.join(&name);
    fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
    let here = json!({ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] });
    kube.apply(&json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": { "name": name },
        "spec": {
            "capacity": { "storage": text(claim, "/spec/resources/requests/storage") },
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": CLASS,
            "local": { "path": path },
            "nodeAffinity": { "required": { "nodeSelectorTerms": [{ "matchExpressions": [here] }] } },
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": text(claim, "/metadata/namespace"),
                "name": text(claim, "/metadata/name"),
                "uid": text(claim, "/metadata/uid"),
            },
        },
    }))
    .map(drop)
}

fn grow(kube: &Kube, claim: &Value, wanted: &str) -> Result<()> {
    let capacity = json!({ "capacity": { "storage": wanted } });
    let volume = text(claim, "/spec/volumeName");
    kube.merge("PersistentVolume", "", volume, &json!({ "spec": capacity }))?;
    let (namespace, name) = (text(claim, "/metadata/namespace"), text(claim, "/metadata/name"));
    kube.merge_status(
        "PersistentVolumeClaim",
        namespace,
        name,
        &json!({ "status": capacity }),
    )
    .map(drop)
}
