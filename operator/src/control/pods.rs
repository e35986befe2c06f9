//! What keeps pods from running, in words for people.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// What keeps a pod from running that waiting alone may not mend.
pub(super) fn stuck(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = status.init_container_statuses.iter().flatten();
    let mut all = all.chain(status.container_statuses.iter().flatten());
    all.find_map(trouble).or_else(|| match status.phase.as_deref() {
        Some("Running") => None,
        _ => unscheduled(pod),
    })
}

/// The last line that one of the pod's containers wrote before it ended with an error.
pub(super) fn last_words(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?;
    status.container_statuses.iter().flatten().find_map(words)
}

/// What a container said last. Kubernetes has the end of what it wrote, because its `terminationMessagePolicy` says so.
fn words(container: &ContainerStatus) -> Option<&str> {
    let states = [container.state.as_ref(), container.last_state.as_ref()];
    let ended = states
        .into_iter()
        .flatten()
        .find_map(|state| state.terminated.as_ref());
    let said = ended.filter(|ended| ended.exit_code != 0)?.message.as_deref()?;
    let last = said.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    // Programs of ours begin with their name.
    let own = ["takhin: ", "takhin-cdc: "];
    Some(
        own.iter()
            .find_map(|name| last.strip_prefix(name))
            .unwrap_or(last),
    )
}

/// Why a container does not run, if it should.
fn trouble(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.clone().unwrap_or_default();
        let ordinary = ["PodInitializing", "ContainerCreating", ""];
        // Why it ended says more than how long it is until it is started again.
        let message = words(container).or(waiting.message.as_deref());
        return (!ordinary.contains(&reason.as_str())).then(|| match message {
            Some(message) => format!("{reason}: {message}"),
            None => reason,
        });
    }
    let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
    let what = format!(
        "its container {} ended with code {}",
        container.name, ended.exit_code
    );
    Some(match words(container) {
        Some(words) => format!("{what}: {words}"),
        None => what,
    })
}

fn unscheduled(pod: &Pod) -> Option<String> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let scheduled = conditions
        .iter()
        .find(|condition| condition.type_ == "PodScheduled")?;
    (scheduled.status == "False").then(|| {
        format!(
            "it has no node: {}",
            scheduled.message.clone().unwrap_or_default()
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(state: Value, last: Value) -> Pod {
        let container = json!({
            "name": "broker", "image": "x", "imageID": "", "ready": false, "restartCount": 1,
            "state": state, "lastState": last,
        });
        serde_json::from_value(json!({ "status": { "phase": "Running", "containerStatuses": [container] } }))
            .unwrap()
    }

    #[test]
    fn why_a_program_ended_is_told_in_its_last_line() {
        let said = "{\"level\":\"INFO\"}\ntakhin: node id 2 is taken\n\n";
        let ended = json!({ "terminated": { "exitCode": 1, "message": said } });
        let back_off = json!({ "waiting": { "reason": "CrashLoopBackOff", "message": "back-off 10s" } });
        let told = stuck(&pod(back_off.clone(), ended.clone()));
        assert_eq!(told.as_deref(), Some("CrashLoopBackOff: node id 2 is taken"));
        let told = stuck(&pod(ended.clone(), json!({})));
        let whole = "its container broker ended with code 1: node id 2 is taken";
        assert_eq!(told.as_deref(), Some(whole));
        let told = stuck(&pod(back_off, json!({ "terminated": { "exitCode": 137 } })));
        assert_eq!(told.as_deref(), Some("CrashLoopBackOff: back-off 10s"));
        // It runs again, and nothing is wrong with it yet.
        let again = pod(json!({ "running": {} }), ended);
        assert_eq!(
            (stuck(&again), last_words(&again)),
            (None, Some("node id 2 is taken"))
        );
        let done = pod(
            json!({ "terminated": { "exitCode": 0, "message": "done" } }),
            json!({}),
        );
        assert_eq!(last_words(&done), None);
    }
}
