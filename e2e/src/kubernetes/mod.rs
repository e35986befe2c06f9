//! A real Kubernetes control plane on loopback, without nodes: etcd, kube-apiserver, kube-controller-manager.
//!
//! ```text
//! test ── kube-rs, kubectl, helm ──▶ kube-apiserver ──▶ etcd
//!                                      ▲   │ audit log
//! takhin-operator (its role only) ─────┤   └──▶ who asked for what, and what was answered
//! kube-controller-manager ─────────────┘
//! [`pods`]: says of pods what a kubelet would
//! ```
//!
//! The programs come from `e2e/setup/kubernetes.sh`, which builds them once. Each [`ControlPlane`] has ports, data and keys
//! of its own, so that several run side by side, and is gone with its directory when it is dropped.

mod api;
pub mod audit;
pub mod ground;
mod identities;
pub mod nodes;
pub mod operator;
mod plane;
pub mod pods;
mod programs;
mod server;
mod watch;

pub use api::{Kube, Refusal, condition, refusal, text};
pub use audit::{Audit, Entry};
pub use ground::{Existing, Ground};
pub use operator::Operator;
pub use plane::ControlPlane;
pub use programs::Programs;
pub use watch::Watch;
