//! A cluster that becomes smaller or larger: what is done to get from the brokers that there are to those wished for.
//!
//! Smaller: the brokers with the highest ids lose their replicas first, their pods afterwards, the highest first. Larger:
//! the StatefulSet grows at once. A wish that is taken back in the middle keeps what is still there.
//!
//! A broker that comes back with another volume is refused by the others under its id, for what it had promised. It loses its
//! replicas as one that is to go does, is forgotten, and joins anew.

use std::collections::{BTreeMap, BTreeSet};

/// What brokers say of one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Member {
    /// Whether it is to lose all its replicas.
    pub decommissioning: bool,
    /// Whether it was not heard of.
    pub silent: bool,
    /// Replicas that it has.
    pub replicas: u64,
}

/// What was observed.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Brokers wished for.
    pub wished: i32,
    /// Brokers that the StatefulSet has; `None` before there is one.
    pub replicas: Option<i32>,
    /// Registered brokers by id; `None` if none answers.
    pub members: Option<BTreeMap<i32, Member>>,
    /// Victims that have nothing any more.
    pub empty: Vec<i32>,
    /// Brokers whose pods say that they have another volume than the one that their id is known with.
    pub lost: BTreeSet<i32>,
    /// Whether somebody has said that replicas need not be moved.
    pub skip_check: bool,
}

/// What is to be done next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// Brokers that the StatefulSet is to have now.
    pub replicas: i32,
    /// Brokers that are to lose their replicas.
    pub decommission: Vec<i32>,
    /// Brokers that are to lose their replicas because they have lost their data, and to join anew.
    pub renew: Vec<i32>,
    /// Brokers that are kept after all.
    pub recommission: Vec<i32>,
    /// Brokers that are gone for good and only have to be forgotten.
    pub unregister: Vec<i32>,
    /// What is waited for before the cluster can become smaller.
    pub waiting_for: Option<String>,
}

/// Decides.
pub fn decide(observed: &Observed) -> Plan {
    let wished = observed.wished;
    let Some(replicas) = observed.replicas else {
        return Plan {
            replicas: wished,
            ..Plan::default()
        };
    };
    let members = observed.members.clone().unwrap_or_default();
    // One that is silent may be about to be forgotten and to join anew; it is kept once it is heard of.
    let recommission = ids(&members, |id, member| {
        id < wished && member.decommissioning && !member.silent
    });
    let is_lost = |id: i32, member: &Member| member.silent && observed.lost.contains(&id);
    let is_empty = |member: &Member| member.decommissioning && member.silent && member.replicas == 0;
    // What has nothing, was to go, and has no pod, or one of another volume.
    let unregister = ids(&members, |id, member| {
        is_empty(member) && (id >= replicas && id >= wished || is_lost(id, member))
    });
    let renew = ids(&members, |id, member| {
        id < wished && is_lost(id, member) && !is_empty(member)
    });
    let mut plan = Plan {
        replicas: replicas.max(wished),
        renew,
        recommission,
        unregister,
        ..Plan::default()
    };
    if wished >= replicas {
        return plan;
    }
    if observed.skip_check {
        plan.replicas = wished;
        return plan;
    }
    if observed.members.is_none() {
        plan.waiting_for = Some("a broker to answer on its admin port".to_owned());
        return plan;
    }
    plan.decommission = (wished..replicas).rev().collect();
    // From the top, as far as they are empty.
    while plan.replicas > wished && is_gone(observed, &members, plan.replicas - 1) {
        plan.replicas -= 1;
    }
    plan.decommission.retain(|id| members.contains_key(id));
    if plan.replicas > wished {
        let left: u64 = (wished..plan.replicas)
            .filter_map(|id| members.get(&id))
            .map(|member| member.replicas)
            .sum();
        plan.waiting_for = Some(format!(
            "{left} replicas to move away from {}",
            list(&(wished..plan.replicas).collect::<Vec<_>>())
        ));
    }
    plan
}

fn is_gone(observed: &Observed, members: &BTreeMap<i32, Member>, id: i32) -> bool {
    // One that never registered has nothing either.
    observed.empty.contains(&id) || !members.contains_key(&id)
}

fn ids(members: &BTreeMap<i32, Member>, wanted: impl Fn(i32, &Member) -> bool) -> Vec<i32> {
    let found = members.iter().filter(|(id, member)| wanted(**id, member));
    found.map(|(id, _)| *id).collect()
}

/// Brokers for people.
pub fn list(ids: &[i32]) -> String {
    let names: Vec<String> = ids.iter().map(|id| format!("broker {id}")).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn five(wished: i32) -> Observed {
        let member = Member {
            replicas: 6,
            ..Member::default()
        };
        Observed {
            wished,
            replicas: Some(5),
            members: Some((0..5).map(|id| (id, member)).collect()),
            ..Observed::default()
        }
    }

    fn set(observed: &mut Observed, id: i32, member: Member) {
        observed.members.as_mut().unwrap().insert(id, member);
    }

    #[test]
    fn victims_are_emptied_before_their_pods_go() {
        let mut observed = five(3);
        let plan = decide(&observed);
        assert_eq!((plan.replicas, plan.decommission), (5, vec![4, 3]));
        assert_eq!(
            plan.waiting_for.as_deref(),
            Some("12 replicas to move away from broker 3, broker 4")
        );
        // The lower one is empty first: the higher one still needs its place.
        observed.empty = vec![3];
        assert_eq!(decide(&observed).replicas, 5);
        observed.empty = vec![4];
        assert_eq!(decide(&observed).replicas, 4);
        observed.empty = vec![4, 3];
        let plan = decide(&observed);
        assert_eq!((plan.replicas, plan.waiting_for), (3, None));
    }

    #[test]
    fn what_is_gone_is_forgotten_and_what_stays_is_kept() {
        let gone = Member {
            decommissioning: true,
            silent: true,
            replicas: 0,
        };
        let mut observed = five(4);
        observed.replicas = Some(4);
        set(&mut observed, 4, gone);
        assert_eq!(decide(&observed).unregister, [4]);
        set(&mut observed, 4, Member { replicas: 1, ..gone });
        assert_eq!(decide(&observed).unregister, Vec::<i32>::new());
        // Wished for again: kept once it is heard of.
        observed.wished = 5;
        assert_eq!(decide(&observed).recommission, Vec::<i32>::new());
        set(
            &mut observed,
            4,
            Member {
                silent: false,
                ..gone
            },
        );
        let plan = decide(&observed);
        assert_eq!(
            (plan.replicas, plan.recommission, plan.decommission),
            (5, vec![4], vec![])
        );
    }

    #[test]
    fn who_has_lost_its_data_is_emptied_forgotten_and_not_kept_as_it_was() {
        let mut observed = five(5);
        let silent = Member {
            silent: true,
            replicas: 6,
            decommissioning: false,
        };
        set(&mut observed, 1, silent);
        let nothing = Plan {
            replicas: 5,
            ..Plan::default()
        };
        // One that is away may come back as it was.
        assert_eq!(decide(&observed), nothing);
        observed.lost = [1].into();
        let renew = Plan {
            renew: vec![1],
            ..nothing.clone()
        };
        assert_eq!(decide(&observed), renew);
        let going = Member {
            decommissioning: true,
            ..silent
        };
        set(&mut observed, 1, going);
        assert_eq!(decide(&observed), renew);
        set(&mut observed, 1, Member { replicas: 0, ..going });
        let forgotten = Plan {
            unregister: vec![1],
            ..nothing.clone()
        };
        assert_eq!(decide(&observed), forgotten);
        // Its pod has begun again and says nothing yet.
        observed.lost.clear();
        assert_eq!(decide(&observed), nothing);
        // It has found its volume again.
        set(
            &mut observed,
            1,
            Member {
                silent: false,
                ..going
            },
        );
        observed.lost = [1].into();
        let kept = Plan {
            recommission: vec![1],
            ..nothing
        };
        assert_eq!(decide(&observed), kept);
    }

    #[test]
    fn nothing_is_taken_while_nobody_answers_unless_somebody_insists() {
        let mut observed = five(3);
        observed.members = None;
        let plan = decide(&observed);
        assert_eq!((plan.replicas, plan.decommission.len()), (5, 0));
        assert!(plan.waiting_for.is_some());
        observed.skip_check = true;
        assert_eq!(decide(&observed).replicas, 3);
    }

    #[test]
    fn growth_is_at_once() {
        assert_eq!(decide(&five(7)).replicas, 7);
        let new = Observed {
            wished: 3,
            ..Observed::default()
        };
        assert_eq!(decide(&new).replicas, 3);
    }
}
