//! Decisions by value: from what was observed in this pass to the one next step.

pub mod conditions;
pub mod placement;
pub mod quantity;
pub mod roll;
pub mod scale;
pub mod topic;
