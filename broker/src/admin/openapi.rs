//! The OpenAPI 3.1 document of the admin API, from the table of routes and the shapes of answers.

use serde_json::{Map, Value, json};

use super::problem::Details;
use super::routes::{Route, TABLE};
use super::shape::{Shape as _, Shapes};

const INTRODUCTION: &str = "\
What an operator asks of a broker over HTTP, on the address that `admin.bind` names. Any broker can be asked, of itself and \
of the cluster.\n\n\
Where `admin.token_file` is set, every request needs the token in it. Where it is not, requests are answered on a loopback \
address only, to programs of this machine and not to web pages. The connection is not encrypted.\n\n\
Bounds: 64 connections, a head of 16 KiB that arrives in 10 s, no body, 16 requests being answered at a time (503 beyond), \
20 s for an answer (504 beyond). Problems are told as RFC 9457 has it, with what to do about them in `remedy`; with \
`Retry-After` they may pass.\n\n\
A restart without anybody noticing: drain the broker, wait until `done`, wait until `restart-safety` says `safe`, stop it, \
start it again, wait for `/readyz`, undrain it. Then the next one.\n\n\
A broker less: decommission it, wait until `done`, stop it, unregister it over the Kafka protocol.";

/// What any request may be answered with instead, and what it means.
const PROBLEMS: &[(&str, &str)] = &[
    ("400", "The request is malformed: see `field`."),
    ("401", "The token is missing or not this broker's."),
    ("403", "The API is closed here: no token is configured."),
    ("408", "The body did not arrive in time."),
    ("413", "The body is too large; none is needed."),
    (
        "503",
        "Not now: the broker is starting, busy, or there is no controller.",
    ),
    ("504", "There was no answer in time; a change may yet be made."),
];

/// The document as JSON, with a line end.
pub(crate) fn document() -> String {
    let mut schemas = Shapes::new();
    let problem = Details::schema(&mut schemas);
    let mut paths = Map::new();
    for route in TABLE {
        let operation = operation(route, &problem, &mut schemas);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.to_ascii_lowercase(), operation);
        }
    }
    let mut responses: Map<String, Value> = PROBLEMS
        .iter()
        .map(|(status, text)| (format!("Problem{status}"), response(text, &problem)))
        .collect();
    responses.insert(
        "Problem404".to_owned(),
        response("No such broker is registered.", &problem),
    );
    let document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Takhin admin API",
            "version": "1",
            "description": INTRODUCTION,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "http://127.0.0.1:9644", "description": "The default of admin.bind" }],
        "security": [{ "token": [] }, {}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer", "description": "The token in the file that `admin.token_file` names." },
            },
            "responses": responses,
            "schemas": schemas,
        },
    });
    // A value that was just built always serializes.
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

fn response(text: &str, problem: &Value) -> Value {
    json!({ "description": text, "content": { "application/problem+json": { "schema": problem } } })
}

fn operation(route: &Route, problem: &Value, schemas: &mut Shapes) -> Value {
    let answer = (route.answer)(schemas);
    let mut responses = Map::new();
    responses.insert(
        "200".to_owned(),
        json!({ "description": "Done.", "content": { "application/json": { "schema": answer } } }),
    );
    let mut operation = json!({
        "operationId": route.name,
        "summary": route.summary,
        "description": route.text,
    });
    let mut statuses: Vec<&str> = PROBLEMS.iter().map(|(status, _)| *status).collect();
    if route.path.contains("{id}") {
        statuses.push("404");
        operation["parameters"] = json!([{
            "name": "id",
            "in": "path",
            "required": true,
            "description": "Broker id.",
            "schema": { "type": "integer", "format": "int32", "minimum": 0 },
        }]);
    }
    for status in statuses {
        let reference = format!("#/components/responses/Problem{status}");
        responses.insert(status.to_owned(), json!({ "$ref": reference }));
    }
    if let Some(conflict) = route.conflict {
        responses.insert("409".to_owned(), response(conflict, problem));
    }
    operation["responses"] = responses.into();
    operation
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    if let (true, Some(reference)) = (name == "$ref", member.as_str()) {
                        found.push(reference.to_owned());
                    }
                    references(member, found);
                }
            }
            Value::Array(elements) => elements.iter().for_each(|element| references(element, found)),
            _ => {}
        }
    }

    #[test]
    fn every_endpoint_is_in_the_document_and_every_reference_leads_somewhere() {
        let document: Value = serde_json::from_str(&document()).unwrap();
        for route in TABLE {
            let operation = &document["paths"][route.path][route.method.to_ascii_lowercase()];
            assert_eq!(operation["operationId"], route.name);
        }
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > TABLE.len());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let health = &document["components"]["schemas"]["ClusterHealth"]["properties"];
        assert!(
            health["reasons"].is_object(),
            "what is flattened is there: {health}"
        );
    }

    #[test]
    fn the_committed_document_is_current() {
        let committed = include_str!("../../../docs/reference/admin-api.json");
        assert_eq!(document(), committed, "run `make generate`");
    }
}
