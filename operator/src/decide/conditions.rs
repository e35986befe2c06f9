//! Conditions: written from scratch in each pass; the time of a change is carried over from before.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Longest message of a condition, in characters; a longer one is cut.
const MAX_MESSAGE: usize = 2048;

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holds {
    /// It does.
    True,
    /// It does not.
    False,
    /// That is not known yet.
    Unknown,
}

impl Holds {
    fn text(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// The conditions of one pass.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Conditions {
    generation: i64,
    said: Vec<Condition>,
}

impl Conditions {
    /// Nothing is said yet of this generation of the spec.
    pub fn of(generation: i64) -> Self {
        Self {
            generation,
            said: Vec::new(),
        }
    }

    /// Says something; what was said of the same before is taken back.
    pub fn say(&mut self, kind: &str, holds: impl Into<Holds>, reason: &str, message: impl Into<String>) {
        let message: String = message.into();
        self.said.retain(|condition| condition.type_ != kind);
        self.said.push(Condition {
            type_: kind.to_owned(),
            status: holds.into().text().to_owned(),
            reason: reason.to_owned(),
            message: message.chars().take(MAX_MESSAGE).collect(),
            observed_generation: Some(self.generation),
            last_transition_time: Time(Timestamp::UNIX_EPOCH),
        });
    }

    /// Keeps what was said before, as it was said: of the spec that it spoke of. What has been said since stands.
    pub fn keep(&mut self, before: &[Condition]) {
        for old in before {
            if self.get(&old.type_).is_none() {
                self.said.push(old.clone());
            }
        }
    }

    /// What was said of this.
    pub fn get(&self, kind: &str) -> Option<&Condition> {
        find(&self.said, kind)
    }

    /// The conditions with the times at which they changed: those of `before` where the status is the same.
    pub fn since(mut self, before: &[Condition], now: Timestamp) -> Vec<Condition> {
        for condition in &mut self.said {
            let same = find(before, &condition.type_).filter(|old| old.status == condition.status);
            condition.last_transition_time = same.map_or(Time(now), |old| old.last_transition_time.clone());
        }
        self.said
    }
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_speaks_of_the_spec_that_it_spoke_of() {
        let mut before = Conditions::of(1);
        before.say("StorageExpanded", true, "Expanded", "");
        before.say("Ready", true, "Serving", "");
        let before = before.since(&[], Timestamp::UNIX_EPOCH);
        let mut now = Conditions::of(2);
        now.say("Ready", false, "ReconcileError", "");
        now.keep(&before);
        let now = now.since(&before, Timestamp::UNIX_EPOCH);
        let generation = |kind| find(&now, kind).unwrap().observed_generation;
        assert_eq!(generation("StorageExpanded"), Some(1));
        assert_eq!((generation("Ready"), now.len()), (Some(2), 2));
    }

    #[test]
    fn the_time_changes_only_with_the_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut first = Conditions::of(1);
        first.say("Ready", true, "Serving", "3 brokers");
        let first = first.since(&[], at(10));
        let mut second = Conditions::of(2);
        second.say("Ready", true, "Serving", "4 brokers");
        let second = second.since(&first, at(20));
        assert_eq!(second[0].last_transition_time.0, at(10));
        assert_eq!(
            (second[0].message.as_str(), second[0].observed_generation),
            ("4 brokers", Some(2))
        );
        let mut third = Conditions::of(2);
        third.say("Ready", true, "Serving", "");
        third.say("Ready", Holds::Unknown, "Reconciling", "");
        let third = third.since(&second, at(30));
        assert_eq!((third.len(), third[0].last_transition_time.0), (1, at(30)));
    }
}
