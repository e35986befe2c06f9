//! Every rule and every bound of the kinds: what the API server accepts, what it refuses, and what it says then.

pub(crate) mod examples;

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use takhin_e2e::kubernetes::{ControlPlane, Kube, Refusal, refusal};

use crate::stage::{Suites, kinds};

pub(crate) fn add(suites: &mut Suites) {
    suites.add("admission: every rule refuses what it is for and says so", rules);
    suites.add("admission: every bound is kept, at its edges and beyond", bounds);
    suites.add("admission: unknown fields are refused", unknown);
}

/// Where everything is tried; nothing is made there.
const NAMESPACE: &str = "default";

/// An object of a kind.
pub(crate) fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "takhin.io/v1alpha1",
        "kind": kind,
        "metadata": { "name": name, "namespace": NAMESPACE },
        "spec": spec,
    })
}

fn refused(kube: &Kube, object: &Value) -> Result<Refusal> {
    let said = refusal(kube.try_apply(object)).with_context(|| format!("{object:#}"))?;
    // 422: it is well-formed, and wrong.
    ensure!(said.code == 422, "{said:?} for {object:#}");
    Ok(said)
}

fn rules(plane: &ControlPlane) -> Result<()> {
    let kube = plane.kube();
    let all = messages(plane)?;
    let mut unproven = all.clone();
    ensure!(unproven.len() > 20, "{} rules", unproven.len());
    for case in examples::refused() {
        let said = match &case.before {
            None => refused(kube, &object(case.kind, &case.name, &case.spec))?,
            Some(before) => {
                kube.apply(&object(case.kind, &case.name, before))?;
                let said = refused(kube, &object(case.kind, &case.name, &case.spec));
                kube.delete(case.kind, NAMESPACE, &case.name)?;
                said?
            }
        };
        let by_a_rule = all.iter().any(|rule| said.message.contains(rule));
        ensure!(by_a_rule, "refused by something else: {}", said.message);
        unproven.retain(|rule| !said.message.contains(rule));
    }
    ensure!(unproven.is_empty(), "no case for {unproven:#?}");
    for (kind, before, after) in examples::changes() {
        kube.apply(&object(kind, "changing", &before))?;
        let accepted = kube.try_apply(&object(kind, "changing", &after));
        kube.delete(kind, NAMESPACE, "changing")?;
        accepted.with_context(|| format!("{kind} from {before} to {after}"))?;
    }
    Ok(())
}

/// The messages of all rules that the API server has.
fn messages(plane: &ControlPlane) -> Result<BTreeSet<String>> {
    fn collect(value: &Value, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                let rules = map.get("x-kubernetes-validations").and_then(Value::as_array);
                for rule in rules.into_iter().flatten() {
                    into.insert(
                        rule["message"]
                            .as_str()
                            .unwrap_or("a rule without a message")
                            .to_owned(),
                    );
                }
                map.values().for_each(|value| collect(value, into));
            }
            Value::Array(list) => list.iter().for_each(|value| collect(value, into)),
            _ => {}
        }
    }
    let mut all = BTreeSet::new();
    for kind in plane.kube().list("CustomResourceDefinition", "")? {
        collect(&kind["spec"], &mut all);
    }
    Ok(all)
}

/// A bound: where it is in the schema's example, what just keeps it and what does not, and what the refusal has to name.
struct Bound {
    place: String,
    kept: Vec<Value>,
    broken: Vec<Value>,
}

fn bounds(plane: &ControlPlane) -> Result<()> {
    let kube = plane.kube();
    ensure!(kinds()?.len() == 3);
    let mut tried = 0;
    for (kind, examples) in examples::whole() {
        for example in &examples {
            kube.try_apply(&object(kind, "whole", example))
                .with_context(|| format!("{example:#}"))?;
        }
        let mut found = Vec::new();
        collect(&schema(plane, kind)?, "", &mut found);
        for bound in found.iter().filter(|bound| !examples::is_refused(&bound.place)) {
            // The first example that has the place.
            let Some(example) = examples
                .iter()
                .find(|example| example.pointer(&bound.place).is_some())
            else {
                bail!("no example of {kind} has {}", bound.place);
            };
            tried += try_bound(kube, kind, example, bound)?;
        }
    }
    eprintln!("        {tried} values tried");
    ensure!(tried > 130, "{tried} values tried");
    Ok(())
}

pub(crate) fn schema(plane: &ControlPlane, kind: &str) -> Result<Value> {
    let all = plane.kube().list("CustomResourceDefinition", "")?;
    let found = all
        .iter()
        .find(|found| found["spec"]["names"]["kind"] == kind)
        .context("no such kind")?;
    let place = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
    Ok(found.pointer(place).context("no schema")?.clone())
}

fn try_bound(kube: &Kube, kind: &str, example: &Value, bound: &Bound) -> Result<usize> {
    let with = |value: &Value| {
        let mut spec = example.clone();
        if let Some(place) = spec.pointer_mut(&bound.place) {
            value.clone_into(place);
        }
        object(kind, "whole", &spec)
    };
    for value in &bound.kept {
        let accepted = kube.try_apply(&with(value));
        accepted.with_context(|| format!("{kind} {} = {value}", bound.place))?;
    }
    for value in &bound.broken {
        let said =
            refused(kube, &with(value)).with_context(|| format!("{kind} {} = {value}", bound.place))?;
        // The API server's way to write the place; keys of maps and items of lists are in brackets.
        let field = bound
            .place
            .split('/')
            .rfind(|part| part.parse::<usize>().is_err())
            .unwrap_or_default();
        ensure!(
            said.message.contains(field),
            "{kind} {} = {value}: {}",
            bound.place,
            said.message
        );
    }
    Ok(bound.kept.len() + bound.broken.len())
}

/// The bounds of a schema and what is in it. Types of Kubernetes itself have none of ours.
fn collect(schema: &Value, place: &str, into: &mut Vec<Bound>) {
    let mut kept = Vec::new();
    let mut broken = Vec::new();
    let whole = |name: &str| schema[name].as_i64();
    if let Some(least) = whole("minimum") {
        kept.push(json!(least));
        broken.push(json!(least - 1));
    }
    if let Some(most) = whole("maximum") {
        kept.push(json!(most));
        broken.push(json!(most + 1));
    }
    if schema["enum"].is_array() {
        let all = schema["enum"].as_array().cloned().unwrap_or_default();
        // What this release refuses by a rule is among them.
        kept.extend(
            all.into_iter()
                .filter(|value| !value.is_null() && !examples::is_refused_by_a_rule(place, value)),
        );
        broken.push(json!("Nonsense"));
    }
    if let Some(least) = schema["minLength"].as_u64().filter(|least| *least > 0) {
        broken.push(json!("a".repeat(usize::try_from(least).unwrap_or(1) - 1)));
    }
    if let Some(most) = schema["maxLength"].as_u64() {
        broken.push(json!("a".repeat(usize::try_from(most).unwrap_or(0) + 1)));
    }
    if schema["pattern"].is_string() {
        broken.push(json!("! not so"));
    }
    if let Some(most) = schema["maxItems"].as_u64() {
        broken.push(Value::Array(examples::many_items(place, most + 1)));
    }
    if let Some(most) = schema["maxProperties"].as_u64() {
        let pairs = (0..=most).map(|number| (format!("key-{number}"), json!("x")));
        broken.push(Value::Object(pairs.collect()));
    }
    if !(kept.is_empty() && broken.is_empty()) {
        into.push(Bound {
            place: place.to_owned(),
            kept,
            broken,
        });
    }
    if place
        .rsplit('/')
        .next()
        .is_some_and(|name| examples::EMBEDDED.contains(&name))
    {
        return;
    }
    for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
        collect(inner, &format!("{place}/{name}"), into);
    }
    if schema["items"].is_object() {
        collect(&schema["items"], &format!("{place}/0"), into);
    }
    if schema["additionalProperties"].is_object() {
        collect(
            &schema["additionalProperties"],
            &format!("{place}/{}", examples::KEY),
            into,
        );
    }
}

fn unknown(plane: &ControlPlane) -> Result<()> {
    for (kind, examples) in examples::whole() {
        let Some(example) = examples.first() else { continue };
        let mut spec = example.clone();
        spec["replicasss"] = json!(3);
        let said = refusal(plane.kube().try_apply(&object(kind, "unknown", &spec)))?;
        ensure!(said.message.contains("replicasss"), "{kind}: {said:?}");
    }
    Ok(())
}
