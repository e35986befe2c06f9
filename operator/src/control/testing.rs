//! An API server in memory: what controllers ask and write, without watches, defaults and validation.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use k8s_openapi::ByteString;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use takhin_runtime::Env;

use super::context::{Context, Options};
use crate::build::Images;
use crate::fence::Fence;

/// The server; clones share what is in it.
#[derive(Clone, Default)]
pub(super) struct Server(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By path, such as `/api/v1/namespaces/ns/pods/name`.
    objects: BTreeMap<String, Value>,
    version: u64,
    writes: Vec<String>,
    /// Status codes for the next writes to paths that end so.
    failures: Vec<(String, u16)>,
    /// Paths of objects that somebody makes anew just before they are deleted.
    renewed: Vec<String>,
}

impl Server {
    /// Everything that controllers share, with this server.
    pub(super) fn context(&self) -> Arc<Context> {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let options = Options {
            namespaces: Vec::new(),
            images: Images {
                broker: "takhin/takhin:test".to_owned(),
                cdc: "takhin/takhin:test".to_owned(),
            },
            domain: "cluster.local".to_owned(),
            home: None,
            concurrency: 1,
            topic_resync: Duration::from_secs(120),
            traces: None,
        };
        Context::new(
            Client::new(service, "default"),
            Fence::open(Env::real().clock),
            Env::real(),
            options,
            "test".to_owned(),
        )
    }

    /// Puts an object there as somebody else would.
    pub(super) fn put(&self, path: &str, object: Value) {
        let mut state = self.0.lock();
        let object = state.stamp(object, None);
        state.objects.insert(path.to_owned(), object);
    }

    /// The object there.
    pub(super) fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().objects.get(path).cloned()
    }

    /// Changes the object there as somebody else would.
    pub(super) fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.get(path).unwrap();
        edit(&mut object);
        self.put(path, object);
    }

    /// Takes the object away as somebody else would.
    pub(super) fn take(&self, path: &str) {
        self.0.lock().objects.remove(path);
    }

    /// The next write to a path that ends so fails with this status.
    pub(super) fn fail(&self, end: &str, status: u16) {
        self.0.lock().failures.push((end.to_owned(), status));
    }

    /// Somebody makes the object there anew just before it is deleted.
    pub(super) fn renew_before_removal(&self, path: &str) {
        self.0.lock().renewed.push(path.to_owned());
    }

    /// What was written since the last time.
    pub(super) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().writes)
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let body = body
            .collect()
            .await
            .map(|body| body.to_bytes())
            .unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let kind = head
            .headers
            .get("content-type")
            .map(|kind| kind.to_str().unwrap_or_default().to_owned());
        let applies = kind.is_some_and(|kind| kind.contains("apply"));
        let query = head.uri.query().unwrap_or_default().to_owned();
        let (status, answer) = self
            .0
            .lock()
            .handle(&head.method, head.uri.path(), &query, applies, body);
        let mut response = Response::new(Body::from(answer.to_string().into_bytes()));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }
}

impl State {
    fn handle(
        &mut self,
        method: &Method,
        path: &str,
        query: &str,
        applies: bool,
        body: Value,
    ) -> (u16, Value) {
        if *method == Method::GET {
            return self.read(path, query);
        }
        self.writes.push(format!("{method} {path}"));
        if let Some(at) = self.failures.iter().position(|(end, _)| path.ends_with(end)) {
            let (_, status) = self.failures.remove(at);
            return (status, refusal(status));
        }
        let (object, part) = match path.strip_suffix("/status") {
            Some(object) => (object.to_owned(), true),
            None => (path.to_owned(), false),
        };
        if *method == Method::DELETE {
            self.renew(&object);
        }
        let found = self.objects.get(&object).cloned();
        let (path, new) = match (method.as_str(), found) {
            ("POST", _) => {
                let path = format!(
                    "{object}/{}",
                    body["metadata"]["name"].as_str().unwrap_or("event")
                );
                if self.objects.contains_key(&path) {
                    return (409, refusal(409));
                }
                (path, self.stamp(body, None))
            }
            ("PATCH", None) if !applies || part => return (404, refusal(404)),
            ("PATCH", found) => {
                let version = &body["metadata"]["resourceVersion"];
                if let Some(found) = &found
                    && version.is_string()
                    && *version != found["metadata"]["resourceVersion"]
                {
                    return (409, refusal(409));
                }
                let mut new = found.clone().unwrap_or_else(|| json!({}));
                match part {
                    true => new["status"] = body["status"].clone(),
                    false => json_merge(&mut new, &body),
                }
                (object, self.stamp(new, found.as_ref()))
            }
            ("DELETE", Some(found)) => {
                let uid = &body["preconditions"]["uid"];
                if uid.is_string() && *uid != found["metadata"]["uid"] {
                    return (409, refusal(409));
                }
                self.objects.remove(&object);
                return (200, found);
            }
            (_, None) => return (404, refusal(404)),
            _ => return (405, refusal(405)),
        };
        self.objects.insert(path, new.clone());
        (200, new)
    }

    fn renew(&mut self, path: &str) {
        let Some(at) = self.renewed.iter().position(|renewed| renewed == path) else {
            return;
        };
        self.renewed.remove(at);
        if let Some(mut object) = self.objects.get(path).cloned() {
            object["metadata"]["uid"] = Value::Null;
            let object = self.stamp(object, None);
            self.objects.insert(path.to_owned(), object);
        }
    }

    fn read(&self, path: &str, query: &str) -> (u16, Value) {
        if let Some(found) = self.objects.get(path) {
            return (200, found.clone());
        }
        // Names of kinds are in the plural, and names of objects come after them.
        let is_list = path.rsplit('/').nth(1).is_some_and(|parent| {
            let segments = path.split('/').count();
            parent != "namespaces" && segments % 2 == if path.starts_with("/api/") { 0 } else { 1 }
        });
        if !is_list {
            return (404, refusal(404));
        }
        let prefix = format!("{path}/");
        let wanted = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("labelSelector="))
            .unwrap_or_default()
            .replace("%2F", "/")
            .replace("%3D", "=")
            .replace("%2C", ",");
        let fits = |object: &Value| {
            wanted.split(',').filter(|term| !term.is_empty()).all(|term| {
                let (label, value) = term.split_once('=').map_or((term, None), |(l, v)| (l, Some(v)));
                let has = object["metadata"]["labels"][label].as_str();
                has.is_some() && value.is_none_or(|value| has == Some(value))
            })
        };
        let items: Vec<&Value> = self
            .objects
            .iter()
            .filter(|(path, object)| path.starts_with(&prefix) && fits(object))
            .map(|(_, object)| object)
            .collect();
        let list = json!({ "kind": "List", "apiVersion": "v1", "metadata": {}, "items": items });
        (200, list)
    }

    /// What a server adds: UID, version, and Secrets in the form in which they are read.
    fn stamp(&mut self, mut object: Value, before: Option<&Value>) -> Value {
        if let Some(texts) = object["stringData"].as_object().cloned() {
            for (key, text) in texts {
                let bytes = ByteString(text.as_str().unwrap_or_default().as_bytes().to_vec());
                object["data"][key] = json!(bytes);
            }
        }
        if let Some(map) = object.as_object_mut() {
            map.remove("stringData");
            if map.get("status").is_some_and(Value::is_null) {
                map.remove("status");
            }
        }
        if Some(&object) == before {
            return object;
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{}", self.version).into();
        }
        object
    }
}

fn json_merge(into: &mut Value, patch: &Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                match value {
                    Value::Null => drop(into.remove(key)),
                    value => json_merge(into.entry(key.clone()).or_insert(Value::Null), value),
                }
            }
        }
        (into, patch) => *into = patch.clone(),
    }
}

fn refusal(status: u16) -> Value {
    let reason = match status {
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "refused by the test", "reason": reason, "code": status,
    })
}
