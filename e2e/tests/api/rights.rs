//! The rules of the operator's roles: each is used by some test, and none was missing.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use takhin_e2e::kubernetes::{ControlPlane, Entry};

use crate::room::{Room, USERS};
use crate::stage::Suites;

/// Adds the last test: it judges what all others have asked for, and so is left out when only some of them run.
pub(crate) fn add(suites: &mut Suites) {
    suites.add(
        "rights: nothing is forbidden, and nothing granted that is not used",
        judge,
    );
}

/// A right: group, resource, verb.
type Right = (String, String, String);

/// What operators in all control planes of this run have asked for.
static USED: Mutex<BTreeSet<Right>> = Mutex::new(BTreeSet::new());

/// Remembers what operators have asked for.
pub(crate) fn remember(plane: &ControlPlane) -> Result<()> {
    let mut used = USED.lock().unwrap_or_else(PoisonError::into_inner);
    for entry in plane.audit().entries()? {
        if entry.user.starts_with(USERS) && entry.code < 400 {
            used.extend(rights(&entry));
        }
    }
    Ok(())
}

/// The rights that a request needs.
fn rights(entry: &Entry) -> Vec<Right> {
    let right = |verb: &str| (entry.group.clone(), entry.resource.clone(), verb.to_owned());
    let mut all = vec![right(&entry.verb)];
    // Server-side apply of something that was not there yet needs both.
    if entry.verb == "patch" && entry.code == 201 {
        all.push(right("create"));
    }
    all
}

fn judge(plane: &ControlPlane) -> Result<()> {
    remember(plane)?;
    let room = Room::new(plane, "rights")?;
    let mut granted: BTreeSet<Right> = BTreeSet::new();
    for (kind, name) in [
        ("Role", room.name.clone()),
        ("Role", format!("{}-leases", room.name)),
        ("ClusterRole", room.name.clone()),
    ] {
        let role = room
            .kube()
            .get(kind, &room.name, &name)?
            .with_context(|| format!("no {kind} {name}"))?;
        for rule in role["rules"].as_array().into_iter().flatten() {
            ensure!(
                rule["resourceNames"].is_null() && rule["nonResourceURLs"].is_null(),
                "{rule}"
            );
            let words = |field: &str| -> Vec<String> {
                let all = rule[field].as_array().into_iter().flatten();
                all.filter_map(Value::as_str).map(str::to_owned).collect()
            };
            for group in words("apiGroups") {
                for resource in words("resources") {
                    granted.extend(
                        words("verbs")
                            .into_iter()
                            .map(|verb| (group.clone(), resource.clone(), verb)),
                    );
                }
            }
        }
    }
    let used = USED.lock().unwrap_or_else(PoisonError::into_inner);
    let idle: Vec<&Right> = granted.difference(&used).collect();
    ensure!(idle.is_empty(), "granted, and used by no test: {idle:#?}");
    let missing: Vec<&Right> = used.difference(&granted).collect();
    ensure!(
        missing.is_empty(),
        "used, and not granted by the chart: {missing:#?}"
    );
    drop(used);
    room.leave()
}
