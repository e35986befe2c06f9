//! Every field of every kind with a value that cannot be: what the schema knows of it is refused at apply (`admission.rs` tries
//! the bounds), and everything else is told in a condition. A field of the schema that is in none of the tables fails the test.

mod cases;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use takhin_e2e::kubernetes::{ControlPlane, Kube, refusal};

use crate::admission::examples::{EMBEDDED, KEY, is_refused, whole};
use crate::admission::{object, schema};
use crate::room::{Room, SOON};
use crate::stage::Suites;

pub(crate) fn add(suites: &mut Suites) {
    suites.add(
        "fields: a value of another type is refused in each of them",
        types,
    );
    suites.add(
        "fields: each has bounds, or a condition that names what is wrong",
        known,
    );
    suites.add("fields: what no schema can know is told in a condition", told);
}

/// A field: its place in a spec, and its schema.
struct Field {
    place: String,
    schema: Value,
}

/// All fields of a spec, those of types of Kubernetes itself as one.
fn fields(schema: &Value, place: &str, into: &mut Vec<Field>) {
    let name = place.rsplit('/').next().unwrap_or_default();
    if !place.is_empty() {
        let (place, schema) = (place.to_owned(), schema.clone());
        into.push(Field { place, schema });
    }
    if EMBEDDED.contains(&name) {
        return;
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        fields(inner, &format!("{place}/{name}"), into);
    }
    if schema["items"].is_object() {
        fields(&schema["items"], &format!("{place}/0"), into);
    }
    if schema["additionalProperties"].is_object() {
        fields(&schema["additionalProperties"], &format!("{place}/{KEY}"), into);
    }
}

fn fields_of(plane: &ControlPlane, kind: &str) -> Result<Vec<Field>> {
    let mut all = Vec::new();
    fields(&schema(plane, kind)?, "", &mut all);
    Ok(all)
}

fn types(plane: &ControlPlane) -> Result<()> {
    let mut tried = 0;
    for (kind, examples) in whole() {
        for field in fields_of(plane, kind)?
            .iter()
            .filter(|field| !is_refused(&field.place))
        {
            let has = |example: &&Value| example.pointer(&field.place).is_some();
            let Some(example) = examples.iter().find(has) else {
                // That every one is in an example is what `admission.rs` sees to; this one is refused by a rule.
                ensure!(
                    field.place.ends_with("/certificate"),
                    "no example of {kind} has {}",
                    field.place
                );
                continue;
            };
            let wrong = match field.schema["type"].as_str() {
                Some("string") => json!(7),
                Some("integer" | "boolean" | "object" | "array") => json!("nonsense"),
                other => anyhow::bail!("{kind} {} is of type {other:?}", field.place),
            };
            let mut spec = example.clone();
            if let Some(place) = spec.pointer_mut(&field.place) {
                wrong.clone_into(place);
            }
            type_is_refused(plane.kube(), kind, &field.place, &spec)?;
            tried += 1;
        }
    }
    // The one type of Kubernetes that is written as text and is none.
    for (kind, examples) in whole().into_iter().filter(|(kind, _)| *kind != "Topic") {
        let mut spec = examples.first().cloned().unwrap_or_default();
        spec["resources"] = json!({ "requests": { "cpu": "one" } });
        let said = refusal(plane.kube().try_apply(&object(kind, "typed", &spec)))?;
        let words = ["spec.resources.requests", "\"one\"", "should match"];
        ensure!(words.iter().all(|word| said.message.contains(word)), "{said:?}");
    }
    eprintln!("        {tried} fields");
    ensure!(tried > 90, "{tried} fields");
    Ok(())
}

fn type_is_refused(kube: &Kube, kind: &str, place: &str, spec: &Value) -> Result<()> {
    let said =
        refusal(kube.try_apply(&object(kind, "typed", spec))).with_context(|| format!("{kind} {place}"))?;
    let name = place
        .split('/')
        .rfind(|part| part.parse::<usize>().is_err() && *part != KEY);
    let names = said.message.contains(name.unwrap_or_default());
    let helps = ["must be of type", "expected ", "non-map"]
        .iter()
        .any(|words| said.message.contains(words));
    ensure!(names && helps, "{kind} {place}: {said:?}");
    Ok(())
}

/// Fields that have neither bounds nor a case, and why.
const CANNOT_BE_WRONG: &[(&str, &str)] = &[
    // A registry may need no Secret: that one is not there is told by the pull that fails (`brokers.rs`, an image).
    ("TakhinCluster", "/imagePullSecrets/0/name"),
    // Any text: the keys are what can be wrong.
    ("TakhinCluster", "/listeners/0/serviceAnnotations/one.of-them"),
    ("TakhinCluster", "/podMetadata/annotations/one.of-them"),
    ("PikaSource", "/source/listedAs/serviceAnnotations/one.of-them"),
];

/// Whether the schema knows more of a field than its type; of yes and no, and of what only has fields, there is no more.
fn is_bounded(schema: &Value) -> bool {
    let bounds = ["minimum", "maximum", "enum", "pattern"];
    let scalar = matches!(schema["type"].as_str(), Some("string" | "integer"));
    !scalar || bounds.iter().any(|bound| !schema[*bound].is_null())
}

fn known(plane: &ControlPlane) -> Result<()> {
    let cases = cases::all();
    let mut there = BTreeSet::new();
    for (kind, _) in whole() {
        for field in fields_of(plane, kind)? {
            let name = field.place.rsplit('/').next().unwrap_or_default();
            let is_embedded = EMBEDDED.contains(&name);
            let has_case = cases
                .iter()
                .any(|case| case.kind == kind && case.place == field.place);
            let is_exempt = CANNOT_BE_WRONG.contains(&(kind, &field.place));
            let bounded = is_bounded(&field.schema) && !is_embedded;
            ensure!(
                bounded || has_case || is_exempt || is_refused(&field.place),
                "{kind} {}: give it bounds, a case here, or a reason in CANNOT_BE_WRONG",
                field.place
            );
            ensure!(
                !(is_exempt && (bounded || has_case)),
                "{} needs no reason",
                field.place
            );
            there.insert((kind, field.place));
        }
    }
    for case in &cases {
        ensure!(
            there.contains(&(case.kind, case.place.to_owned())),
            "no field {}",
            case.place
        );
    }
    for (kind, place) in CANNOT_BE_WRONG {
        ensure!(there.contains(&(*kind, (*place).to_owned())), "no field {place}");
    }
    Ok(())
}

fn told(plane: &ControlPlane) -> Result<()> {
    let room = Room::new(plane, "fields")?;
    let operator = room.lone_operator()?;
    room.small_cluster("prod")?;
    let broker = room.broker("prod")?;
    let cases = cases::all();
    let name = |number: usize| format!("wrong-{number}");
    for (number, case) in cases.iter().enumerate() {
        room.kube()
            .apply(&room.ours(case.kind, &name(number), case.spec.clone()))?;
    }
    for (number, case) in cases.iter().enumerate() {
        let what = format!("to say of {} in a condition: {:?}", case.place, case.words);
        let waited = room
            .kube()
            .wait((case.kind, &room.name, &name(number)), &what, SOON, |seen| {
                let all = seen.pointer("/status/conditions")?.as_array()?;
                let says = |said: &Value| {
                    let message = said["message"].as_str().unwrap_or_default();
                    said["status"] != "True" && case.words.iter().all(|word| message.contains(word))
                };
                all.iter().any(says).then_some(())
            });
        waited.with_context(|| operator.tail())?;
    }
    eprintln!("        {} specs", cases.len());
    drop(broker);
    room.leave()
}
