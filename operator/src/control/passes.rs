//! What every pass has around it: a span, a line in the log when it fails, numbers.

use kube::runtime::controller::{Action, Error as Ended};
use kube::runtime::watcher;
use kube::{Resource, ResourceExt as _};
use tracing::field::Empty;
use tracing::{Instrument as _, Span, debug, info_span, warn};

use super::context::Context;
use super::error::Error;
use super::metrics;

/// What a controller's stream says of a pass that did not succeed.
type ControllerError = Ended<Error, watcher::Error>;

/// A resource in a pass, for people and for numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Subject<'a> {
    /// The controller, as metrics name it.
    pub(super) controller: &'static str,
    /// Kind of the resource.
    pub(super) kind: &'static str,
    /// Its namespace.
    pub(super) namespace: &'a str,
    /// Its name.
    pub(super) name: &'a str,
    /// Which version of the wish is looked at, where there is one.
    pub(super) generation: Option<i64>,
}

impl Subject<'_> {
    /// The span of a pass; [`ended`] says how it came out.
    pub(super) fn span(&self, context: &Context) -> Span {
        info_span!(
            "reconcile",
            controller = self.controller,
            kind = self.kind,
            namespace = self.namespace,
            name = self.name,
            generation = self.generation,
            reconcile_id = format!("{:016x}", context.env.rng.next_u64()),
            outcome = Empty,
            otel.status_code = Empty,
        )
    }
}

/// Says in the span of a pass how it came out: `success`, or the reason why it failed.
pub(super) fn ended(span: &Span, outcome: &str) {
    span.record("outcome", outcome);
    if outcome != "success" {
        span.record("otel.status_code", "ERROR");
    }
}

/// Runs a pass over a resource.
pub(super) async fn run<K>(
    context: &Context,
    (controller, kind): (&'static str, &'static str),
    object: &K,
    pass: impl Future<Output = Result<Action, Error>>,
) -> Result<Action, Error>
where
    K: Resource<DynamicType = ()>,
{
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let subject = Subject {
        controller,
        kind,
        namespace: &namespace,
        name: &name,
        generation: object.meta().generation,
    };
    let span = subject.span(context);
    let begun = context.env.clock.instant();
    let done = pass.instrument(span.clone()).await;
    let took = context.env.clock.instant().saturating_duration_since(begun);
    match &done {
        Ok(_) => {
            metrics::passed(controller, took, context.env.clock.now_ms());
            context.succeeded(&key(controller, object));
            ended(&span, "success");
        }
        Err(error) => {
            metrics::failed(controller, error.reason(), took);
            if !error.is_conflict() {
                span.in_scope(|| warn!(%error, "not reconciled"));
            }
            // Last, because lines of the log have all that is in the span.
            ended(&span, error.reason());
        }
    }
    done
}

/// The pause before the next pass over a resource, after one that failed.
pub(super) fn again<K>(context: &Context, controller: &'static str, object: &K) -> Action
where
    K: Resource<DynamicType = ()>,
{
    Action::requeue(context.failed(&key(controller, object)))
}

/// What a controller's stream says of a pass. A resource without a finalizer is gone before anybody sees that it is deleted:
/// the pass that is due then finds nothing, and this is where metrics and the count of its failures go.
pub(super) fn noted(
    context: &Context,
    (controller, kind): (&'static str, &'static str),
    error: &ControllerError,
) {
    let Ended::ObjectNotFound(gone) = error else {
        debug!(%error, controller, "a pass failed");
        return;
    };
    let namespace = gone.namespace.clone().unwrap_or_default();
    context.succeeded(&format!("{controller} {namespace}/{}", gone.name));
    forget(context, kind, (&namespace, &gone.name));
}

/// A resource is gone, or goes: nothing more is said of it.
pub(super) fn forget(context: &Context, kind: &str, (namespace, name): (&str, &str)) {
    metrics::gone(kind, namespace, name);
    context.written.forget(&status_key(kind, namespace, name));
}

/// A resource, as it is noted that its status was written.
pub(super) fn status_key(kind: &str, namespace: &str, name: &str) -> String {
    format!("{kind} {namespace}/{name}")
}

fn key<K: Resource<DynamicType = ()>>(controller: &str, object: &K) -> String {
    let namespace = object.namespace().unwrap_or_default();
    format!("{controller} {namespace}/{}", object.name_any())
}
