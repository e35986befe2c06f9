//! Why a pass ended early.

use crate::broker_api::AdminError;

/// Why a pass ended early; it is repeated after a while.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server said no, or nothing.
    #[error("kubernetes: {0}")]
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

    /// Whether somebody else wrote at the same time, which needs no mention.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Kube(error) if matches!(&**error, kube::Error::Api(status) if status.code == 409))
    }
}
