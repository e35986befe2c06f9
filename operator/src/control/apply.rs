//! Writing children: server-side apply under one field manager, and only what differs.

use std::collections::HashMap;
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::{Api, Resource, ResourceExt as _};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tracing::info;

use super::context::Context;
use super::error::Error;
use super::metrics;
use crate::build::{APPLIED, MANAGER};

/// Which version of a child came of which wish: an API server may write values in another way than they were sent, and
/// what it then has is no reason to send them again.
#[derive(Debug, Default)]
pub struct Applied(Mutex<HashMap<String, (String, String)>>);

/// Brings a child about. Returns it as it is then.
///
/// # Errors
/// Whatever the API server says, and [`Error::NameConflict`] for a child that something else controls.
pub async fn apply<K>(context: &Context, namespace: &str, wish: &Value) -> Result<K, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Serialize
        + Debug,
{
    let api: Api<K> = Api::namespaced(context.client.clone(), namespace);
    let name = wish["metadata"]["name"].as_str().unwrap_or_default();
    let found = api.get_opt(name).await?;
    if let Some(found) = &found {
        check_owner(found, wish)?;
        if context.applied.is_current(found, wish) {
            return Ok(found.clone());
        }
    }
    let parameters = PatchParams::apply(MANAGER).force();
    let written: K = api.patch(name, &parameters, &Patch::Apply(wish)).await?;
    let changed = found.is_none_or(|found| found.resource_version() != written.resource_version());
    if changed {
        info!(kind = %K::kind(&()), namespace, name, "applied");
    }
    metrics::patched(&K::kind(&()));
    context.applied.remember(&written, wish);
    Ok(written)
}

/// Deletes this very object, not one that has taken its name since it was looked at: the API server answers with 409 then.
pub fn this_one<K: Resource>(found: &K) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: found.meta().uid.clone(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    }
}

/// Deletes a child if it is there and belongs to `owner`. One that takes its place meanwhile is left to the next pass.
///
/// # Errors
/// Whatever the API server says.
pub async fn remove<K>(context: &Context, namespace: &str, name: &str, owner: &Value) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::namespaced(context.client.clone(), namespace);
    let Some(found) = api.get_opt(name).await? else {
        return Ok(());
    };
    if found.meta().deletion_timestamp.is_some() || !is_owned(&found, owner) {
        return Ok(());
    }
    match api.delete(name, &this_one(&found)).await {
        Ok(_) => {
            info!(kind = %K::kind(&()), namespace, name, "deleted");
            Ok(())
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_owned<K: Resource>(found: &K, owner: &Value) -> bool {
    let uid = owner["uid"].as_str().unwrap_or_default();
    found
        .owner_references()
        .iter()
        .any(|reference| reference.uid == uid)
}

fn check_owner<K: Resource<DynamicType = ()>>(found: &K, wish: &Value) -> Result<(), Error> {
    let owner = &wish["metadata"]["ownerReferences"][0];
    if is_owned(found, owner) {
        return Ok(());
    }
    Err(Error::NameConflict {
        kind: K::kind(&()).into_owned(),
        name: found.name_any(),
        owner: format!(
            "{} {}",
            owner["kind"].as_str().unwrap_or_default(),
            owner["name"].as_str().unwrap_or_default()
        ),
    })
}

impl Applied {
    fn is_current<K: Resource<DynamicType = ()> + Serialize>(&self, found: &K, wish: &Value) -> bool {
        let hash = hash_of(wish);
        if found.annotations().get(APPLIED).map(String::as_str) != Some(hash) {
            return false;
        }
        let version = found.resource_version().unwrap_or_default();
        if self
            .0
            .lock()
            .get(&key(found))
            .is_some_and(|(of, at)| of == hash && *at == version)
        {
            return true;
        }
        // Objects of the API are plain data; metadata is looked at too, and what kind it is has not changed.
        let found = serde_json::to_value(found).unwrap_or_default();
        contains(&found, wish)
    }

    fn remember<K: Resource<DynamicType = ()>>(&self, written: &K, wish: &Value) {
        let version = written.resource_version().unwrap_or_default();
        self.0
            .lock()
            .insert(key(written), (hash_of(wish).to_owned(), version));
    }
}

fn key<K: Resource<DynamicType = ()>>(object: &K) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("{}/{namespace}/{}", K::kind(&()), object.name_any())
}

fn hash_of(wish: &Value) -> &str {
    wish["metadata"]["annotations"][APPLIED]
        .as_str()
        .unwrap_or_default()
}

/// Whether everything that is wished for is there; what there is beside it does not matter.
pub fn contains(found: &Value, wish: &Value) -> bool {
    match (found, wish) {
        (Value::Object(found), Value::Object(wish)) => wish.iter().all(|(key, value)| match found.get(key) {
            Some(found) => contains(found, value),
            None => is_empty(value),
        }),
        (Value::Array(found), Value::Array(wish)) => {
            found.len() == wish.len() && found.iter().zip(wish).all(|(found, wish)| contains(found, wish))
        }
        (found, wish) => found == wish,
    }
}

/// What an API server leaves out when it answers.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_others_have_added_does_not_differ_and_what_they_have_changed_does() {
        let wish = json!({ "a": { "b": 1, "c": ["x", { "y": 2 }] }, "empty": {} });
        let with_defaults = json!({ "a": { "b": 1, "c": ["x", { "y": 2, "z": 3 }], "d": 4 }, "e": 5 });
        assert!(contains(&with_defaults, &wish));
        assert!(!contains(&json!({ "a": { "b": 1, "c": ["x"] } }), &wish));
        assert!(!contains(
            &json!({ "a": { "b": 2, "c": ["x", { "y": 2 }] } }),
            &wish
        ));
        assert!(!contains(&json!({}), &wish));
    }
}
