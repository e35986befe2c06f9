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

/// Why a container does not run, if it should.
fn trouble(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.clone().unwrap_or_default();
        let ordinary = ["PodInitializing", "ContainerCreating", ""];
        return (!ordinary.contains(&reason.as_str())).then(|| match &waiting.message {
            Some(message) => format!("{reason}: {message}"),
            None => reason,
        });
    }
    let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
    Some(format!(
        "its container {} ended with code {}",
        container.name, ended.exit_code
    ))
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
