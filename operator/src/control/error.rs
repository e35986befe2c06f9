//! Why a pass ended early.

use crate::broker_api::AdminError;

/// Why a pass ended early; it is repeated after a while.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server said no, or nothing.
    #[error("kubernetes: {}", words(.0))]
    Kube(#[source] Box<kube::Error>),
    /// A child of this name exists and belongs to something else.
    #[error(
        "{kind} {name} exists and does not belong to {owner}: delete it, or give the resource another name"
    )]
    NameConflict {
        /// Kind of the child.
        kind: String,
        /// Name of the child.
        name: String,
        /// Who would have owned it.
        owner: String,
    },
    /// A broker said no, or nothing.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// What people are told: of an answer its message alone, which has everything, and not all that came with it.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    }
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Kube(Box::new(error))
    }
}

impl Error {
    /// All words for metrics.
    pub(super) const REASONS: [&str; 6] = [
        "Conflict",
        "Forbidden",
        "ApiServer",
        "Connection",
        "NameConflict",
        "Broker",
    ];

    /// Word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Kube(error) => match &**error {
                kube::Error::Api(status) if status.code == 409 => "Conflict",
                kube::Error::Api(status) if status.code == 403 => "Forbidden",
                kube::Error::Api(_) => "ApiServer",
                _ => "Connection",
            },
            Self::NameConflict { .. } => "NameConflict",
            Self::Admin(_) => "Broker",
        }
    }

    /// Whether the API server has found something wrong in what was asked for.
    pub fn is_invalid(&self) -> bool {
        self.invalid().is_some()
    }

    /// What the API server has found wrong in what was asked for.
    pub(super) fn invalid(&self) -> Option<&kube::core::Status> {
        match self {
            Self::Kube(error) => match &**error {
                kube::Error::Api(status) if status.code == 422 => Some(status),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether the API server has understood what was asked for and does not do it: a quota or another rule is against it.
    pub fn is_refusal(&self) -> bool {
        let refused = |error: &kube::Error| matches!(error, kube::Error::Api(status) if matches!(status.code, 403 | 422));
        matches!(self, Self::Kube(error) if refused(error))
    }

    /// Whether somebody else wrote at the same time, which needs no mention.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Kube(error) if matches!(&**error, kube::Error::Api(status) if status.code == 409))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_answer_its_message_is_told_once() {
        let said = "Service \"prod-a\" is invalid: spec.ports[0].nodePort: Invalid value: 5";
        let answer: kube::core::Status = serde_json::from_value(serde_json::json!({
            "status": "Failure", "code": 422, "reason": "Invalid", "message": said,
            "details": { "causes": [{ "field": "spec.ports[0].nodePort" }] },
        }))
        .unwrap();
        let error = Error::from(kube::Error::Api(Box::new(answer)));
        assert_eq!(error.to_string(), format!("kubernetes: {said}"));
    }
}
