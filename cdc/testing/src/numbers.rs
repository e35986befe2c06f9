//! A writer whose changes tell by themselves whether all of them arrived, and in which order.

use std::collections::BTreeMap;

use takhin_runtime::Rng;

use crate::master::Master;
use crate::topics::{Read, check_order, distinct};

/// Writes numbers that count up from 1 for each of a few keys; with chance from a seed.
#[derive(Debug)]
pub struct Numbers {
    /// Chance, for whoever needs more of it.
    pub random: Rng,
    last: BTreeMap<String, u64>,
}

impl Numbers {
    /// Nothing was written yet.
    pub fn new(seed: u64) -> Self {
        Self {
            random: Rng::from_seed(seed),
            last: BTreeMap::new(),
        }
    }

    /// The words of the next change of a key.
    fn next(&mut self, key: String) -> [Vec<u8>; 3] {
        let number = self.last.entry(key.clone()).or_default();
        *number += 1;
        let len = usize::try_from(self.random.range(0..200)).unwrap_or(0);
        let value = format!("{number}.{}", "x".repeat(len));
        [b"set".to_vec(), key.into_bytes(), value.into_bytes()]
    }

    /// Executes so many commands, in two databases.
    pub fn write(&mut self, master: &Master, count: u64) {
        for _ in 0..count {
            let db = format!("db{}", self.random.range(0..2));
            let key = format!("{db}-key{}", self.random.range(0..8));
            let words = self.next(key);
            master.execute(&db, &words.each_ref().map(Vec::as_slice));
        }
    }

    /// Executes so many commands on a master before 3.1; some of them are several changes in one record.
    pub fn write_legacy(&mut self, master: &Master, count: u64) {
        for _ in 0..count {
            let first = self.random.range(0..8);
            let several = if self.random.range(0..4) == 0 { 3 } else { 1 };
            let words: Vec<_> = (first..first + several)
                .map(|key| self.next(format!("key{key}")))
                .collect();
            let commands: Vec<_> = words
                .iter()
                .map(|words| words.each_ref().map(Vec::as_slice))
                .collect();
            let commands: Vec<&[&[u8]]> = commands.iter().map(<[_; 3]>::as_slice).collect();
            master.legacy(|legacy| legacy.execute(&commands));
        }
    }

    /// How many changes there were.
    pub fn written(&self) -> u64 {
        self.last.values().sum()
    }

    /// Whether every change is among what was read.
    pub fn is_whole(&self, read: &[Read]) -> bool {
        distinct(read) as u64 >= self.written()
    }

    /// Checks what was read, see [`check_order`]; returns how many records came again.
    #[track_caller]
    pub fn check(&self, read: &[Read]) -> usize {
        check_order(read, &self.last)
    }
}
