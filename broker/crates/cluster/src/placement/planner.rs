//! What is moved next when brokers have come or are to go, by value.
//!
//! The goals, in this order; each change serves one and harms none before it:
//!
//! 1. Replicas leave brokers that are being decommissioned. This alone happens also to partitions that somebody placed since
//!    brokers came or were to go, and while the cluster is not to rebalance.
//! 2. Internal topics have three replicas, or as many as there are brokers.
//! 3. The replicas of a partition share as few racks as they must.
//! 4. Brokers have equally many replicas, but for one.
//! 5. Brokers are preferred leaders equally often; once all else is done, since it moves no data.
//!
//! Every change of goals 3 to 5 makes a number smaller that no later goal makes greater (pairs of replicas in one rack; the
//! sum of the squares of what brokers carry, or lead), and those of goals 1 and 2 cannot be repeated: so there is an end.
//!
//! What somebody else moves is left alone. A partition without a leader waits, and so does a broker that is not there: until
//! it is back, or unregistered, replicas are not as even as they could be.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use uuid::Uuid;

use super::board::Board;
use super::fitness::{Fitness, Fitnesses};
use crate::metadata::Image;

/// Preferred leaders changed at a time.
const MAX_LEADS: usize = 1000;

/// What the planner looks at.
pub(crate) struct View<'a> {
    pub(crate) image: &'a Image,
    pub(crate) fitness: &'a Fitnesses,
    /// Whether a partition has a leader: topic id and index.
    pub(crate) has_leader: &'a dyn Fn(Uuid, i32) -> bool,
    /// Partitions that the cluster moves at a time.
    pub(crate) max_moves: usize,
    /// Whether replicas move for evenness.
    pub(crate) is_enabled: bool,
}

/// A partition that is to get other replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) topic_id: Uuid,
    pub(crate) index: i32,
    /// Preferred leader first.
    pub(crate) replicas: Vec<i32>,
}

/// What is to be done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// What is moved next.
    pub(crate) moves: Vec<Move>,
    /// Whether nothing is left to be done for evenness, now or later.
    pub(crate) is_even: bool,
}

/// Plans what is moved next.
pub(crate) fn plan(view: &View<'_>) -> Plan {
    let mut planner = Planner {
        board: Board::new(view),
        max_moves: view.max_moves,
    };
    planner.leave();
    let is_due = view.is_enabled && view.image.rebalance_due.is_some();
    let mut is_even = false;
    if is_due {
        is_even = planner.balance(view.image);
    }
    let Board { parts, changed, .. } = planner.board;
    let moves = changed.iter().filter_map(|place| {
        let part = parts.get(*place)?;
        Some(Move {
            topic_id: part.topic_id,
            index: part.index,
            replicas: part.replicas.clone(),
        })
    });
    Plan {
        moves: moves.collect(),
        is_even,
    }
}

struct Planner<'a> {
    board: Board<'a>,
    max_moves: usize,
}

impl Planner<'_> {
    fn is_full(&self) -> bool {
        self.board.under_way + self.board.changed.len() >= self.max_moves
    }

    fn leaves(&self, id: i32) -> bool {
        self.board.fitness_of(id) == Fitness::Leaving
    }

    /// The best broker for one more replica of a partition with these; those that leave do not count.
    fn taker(&self, topic: Uuid, replicas: &[i32]) -> Option<i32> {
        let stays = replicas.iter().copied().filter(|id| !self.leaves(*id));
        self.board.taker(topic, &stays.collect::<Vec<_>>())
    }

    /// Goal 1.
    fn leave(&mut self) {
        for place in 0..self.board.parts.len() {
            if self.is_full() {
                return;
            }
            let part = &self.board.parts[place];
            if part.can_move
                && let Some(replicas) = self.without_leaving(place)
            {
                self.board.set(place, replicas);
            }
        }
    }

    /// The replicas of a partition with other brokers in place of those that leave; `None` if none leaves that another one
    /// can replace.
    fn without_leaving(&self, place: usize) -> Option<Vec<i32>> {
        let part = &self.board.parts[place];
        let mut replicas = part.replicas.clone();
        for at in 0..replicas.len() {
            if self.leaves(replicas[at])
                && let Some(taker) = self.taker(part.topic_id, &replicas)
            {
                replicas[at] = taker;
            }
        }
        (replicas != part.replicas).then_some(replicas)
    }

    /// Goals 2 to 5; whether all is done.
    fn balance(&mut self, image: &Image) -> bool {
        let has_grown = self.grow(image.internal_replicas());
        self.spread_racks();
        self.even_replicas();
        let is_to_wait = |id: i32| matches!(self.board.fitness_of(id), Fitness::Absent | Fitness::Gone);
        let is_waiting = self.board.brokers().any(is_to_wait)
            || self.board.parts.iter().any(|part| part.is_old && !part.can_move);
        let is_settled = has_grown
            && !is_waiting
            && self.board.under_way == 0
            && self.board.changed.is_empty()
            && !self
                .board
                .brokers()
                .any(|id| self.leaves(id) && self.board.load(id) > 0);
        is_settled && self.even_leads()
    }

    /// Goal 2; whether all internal topics have as many replicas.
    fn grow(&mut self, wanted: usize) -> bool {
        let mut has_grown = true;
        for place in 0..self.board.parts.len() {
            let part = &self.board.parts[place];
            if !part.is_internal || !part.is_old || part.replicas.len() >= wanted {
                continue;
            }
            has_grown = false;
            if !part.can_move || self.is_full() {
                continue;
            }
            let mut replicas = part.replicas.clone();
            while replicas.len() < wanted
                && let Some(taker) = self.taker(part.topic_id, &replicas)
            {
                replicas.push(taker);
            }
            // Two replicas are no safer than one: both are needed.
            if replicas.len() == wanted {
                self.board.set(place, replicas);
            }
        }
        has_grown
    }

    /// Goal 3.
    fn spread_racks(&mut self) {
        for place in 0..self.board.parts.len() {
            while !self.is_full()
                && self.board.parts[place].is_free()
                && let Some(replicas) = self.less_crowded(place)
            {
                self.board.set(place, replicas);
            }
        }
    }

    /// The replicas of a partition with another one in place of that which shares its rack with the most.
    fn less_crowded(&self, place: usize) -> Option<Vec<i32>> {
        let (board, part) = (&self.board, &self.board.parts[place]);
        let crowding = |(at, id): &(usize, &i32)| (board.beside(**id, &part.replicas), board.load(**id), *at);
        let (at, worst) = part.replicas.iter().enumerate().max_by_key(crowding)?;
        if board.beside(*worst, &part.replicas) == 0 {
            return None;
        }
        let kept: Vec<i32> = part.replicas.iter().copied().filter(|id| id != worst).collect();
        let candidates = board.brokers().filter(|id| {
            board.fitness_of(*id) == Fitness::Fit
                && !part.replicas.contains(id)
                && board.beside(*id, &kept) < board.beside(*worst, &kept)
        });
        let weight = |id: &i32| (board.beside(*id, &kept), board.load(*id), *id);
        let mut replicas = part.replicas.clone();
        replicas[at] = candidates.min_by_key(weight)?;
        Some(replicas)
    }

    /// Goal 4: from who has the most to who has the fewest, of the topic that is most uneven between them.
    fn even_replicas(&mut self) {
        while !self.is_full()
            && let Some((place, replicas)) = self.more_even()
        {
            self.board.set(place, replicas);
        }
    }

    fn more_even(&self) -> Option<(usize, Vec<i32>)> {
        let board = &self.board;
        let mut givers: Vec<i32> = board
            .brokers()
            .filter(|id| board.fitness_of(*id).is_there())
            .collect();
        givers.sort_by_key(|id| (Reverse(board.load(*id)), *id));
        let mut takers: Vec<i32> = board
            .brokers()
            .filter(|id| board.fitness_of(*id) == Fitness::Fit)
            .collect();
        takers.sort_by_key(|id| (board.load(*id), *id));
        givers.iter().find_map(|giver| {
            let mut poorer = takers
                .iter()
                .take_while(|taker| board.load(**taker) + 2 <= board.load(*giver));
            poorer.find_map(|taker| self.give(*giver, *taker))
        })
    }

    /// A replica that can go from one broker to another one without sharing more racks.
    fn give(&self, giver: i32, taker: i32) -> Option<(usize, Vec<i32>)> {
        let board = &self.board;
        let given = board.on(giver).filter_map(|place| {
            let part = board.parts.get(place)?;
            if !part.is_free() || part.replicas.contains(&taker) {
                return None;
            }
            let replace = |id: &i32| if *id == giver { taker } else { *id };
            let replicas: Vec<i32> = part.replicas.iter().map(replace).collect();
            if board.crowding(&replicas) > board.crowding(&part.replicas) {
                return None;
            }
            // As numbers that can be compared: how much more of the topic the giver has.
            let behind = board.topic_load(part.topic_id, taker);
            let ahead = (board.topic_load(part.topic_id, giver) + board.parts.len()).saturating_sub(behind);
            // Who leads too much gives what it leads.
            let leads_more = board.leads(giver) > board.leads(taker);
            let is_led = part.replicas.first() == Some(&giver);
            Some(((ahead, is_led == leads_more, Reverse(place)), replicas))
        });
        let ((_, _, Reverse(place)), replicas) = given.max_by_key(|(weight, _)| *weight)?;
        Some((place, replicas))
    }

    /// Goal 5; whether all is done.
    fn even_leads(&mut self) -> bool {
        let mut left = MAX_LEADS;
        while let Some(path) = self.path() {
            if left < path.len() {
                return false;
            }
            left -= path.len();
            for (place, leader) in path {
                let mut replicas = self.board.parts[place].replicas.clone();
                if let Some(at) = replicas.iter().position(|id| *id == leader) {
                    replicas.swap(0, at);
                }
                self.board.set(place, replicas);
            }
        }
        self.board.changed.is_empty()
    }

    /// The shortest way to have a broker lead one less and another one, which leads at least two less, one more: each
    /// partition on it gets the leader that stands beside it.
    fn path(&self) -> Option<Vec<(usize, i32)>> {
        let board = &self.board;
        let mut rich: Vec<i32> = board.brokers().collect();
        rich.sort_by_key(|id| (Reverse(board.leads(*id)), *id));
        rich.into_iter().find_map(|from| self.path_from(from))
    }

    fn path_from(&self, from: i32) -> Option<Vec<(usize, i32)>> {
        let board = &self.board;
        let most = board.leads(from).checked_sub(2)?;
        // How each broker was reached: from whom, by which partition.
        let mut reached: BTreeMap<i32, Option<(i32, usize)>> = [(from, None)].into();
        let mut next = vec![from];
        while !next.is_empty() {
            let mut found = Vec::new();
            for giver in next {
                for place in board.on(giver) {
                    let part = &board.parts[place];
                    if !part.is_free() || part.replicas.first() != Some(&giver) {
                        continue;
                    }
                    for taker in part.replicas.iter().skip(1) {
                        if !reached.contains_key(taker) && board.fitness_of(*taker).is_there() {
                            reached.insert(*taker, Some((giver, place)));
                            found.push(*taker);
                        }
                    }
                }
            }
            if let Some(to) = found.iter().copied().find(|id| board.leads(*id) <= most) {
                return Some(back(&reached, to));
            }
            next = found;
        }
        None
    }
}

/// The way to a broker that was reached.
fn back(reached: &BTreeMap<i32, Option<(i32, usize)>>, to: i32) -> Vec<(usize, i32)> {
    let mut path = Vec::new();
    let mut at = to;
    while let Some(Some((giver, place))) = reached.get(&at) {
        path.push((*place, at));
        at = *giver;
    }
    path
}
