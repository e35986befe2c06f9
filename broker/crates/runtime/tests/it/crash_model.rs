//! The simulated disk against a model: what was synced survives every crash, what was not may go either way, and
//! nothing else appears.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::path::Path;

use proptest::prelude::*;
use takhin_runtime::sim::{CrashMode, SimDisk};
use takhin_runtime::{Disk, OpenMode};

#[derive(Debug, Clone)]
enum Step {
    Write { file: u8, pos: u16, len: u16 },
    Truncate { file: u8, len: u16 },
    Sync { file: u8 },
    Rename { from: u8, to: u8 },
    Remove { file: u8 },
    SyncDir,
    SyncFs,
    KillProcess,
    CutPower,
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0..4_u8;
    prop_oneof![
        8 => (file.clone(), 0..3000_u16, 1..2000_u16).prop_map(|(file, pos, len)| Step::Write { file, pos, len }),
        1 => (file.clone(), 0..3000_u16).prop_map(|(file, len)| Step::Truncate { file, len }),
        3 => file.clone().prop_map(|file| Step::Sync { file }),
        2 => (file.clone(), file.clone()).prop_map(|(from, to)| Step::Rename { from, to }),
        1 => file.prop_map(|file| Step::Remove { file }),
        2 => Just(Step::SyncDir),
        1 => Just(Step::SyncFs),
        1 => Just(Step::KillProcess),
        2 => Just(Step::CutPower),
    ]
}

/// A file of the model: what readers see, and for each byte the values that may be on the medium.
#[derive(Debug, Clone, Default)]
struct Model {
    data: Vec<u8>,
    /// Allowed after a power cut, by position: bit n stands for the value n, which is below 64.
    allowed: Vec<u64>,
    /// Lengths that the file may have after a power cut, both ends inclusive.
    len: (usize, usize),
}

impl Model {
    fn synced(data: Vec<u8>) -> Self {
        let allowed = data.iter().map(|byte| 1 << byte).collect();
        Self {
            len: (data.len(), data.len()),
            data,
            allowed,
        }
    }

    fn changed(&mut self) {
        let end = self.data.len();
        self.len = (self.len.0.min(end), self.len.1.max(end));
        self.allowed.resize(self.len.1, 0);
        for (at, allowed) in self.allowed.iter_mut().enumerate() {
            *allowed |= 1 << self.data.get(at).copied().unwrap_or(0);
            if at >= self.len.0 {
                *allowed |= 1; // an extension whose bytes were lost reads as zeros
            }
        }
    }

    fn check(&self, found: &[u8]) {
        assert!(
            (self.len.0..=self.len.1).contains(&found.len()),
            "length {} not in {:?}",
            found.len(),
            self.len
        );
        for (at, byte) in found.iter().enumerate() {
            assert!(
                self.allowed[at] & (1 << byte) != 0,
                "byte {at} is {byte}, allowed: {:b}",
                self.allowed[at]
            );
        }
    }
}

/// The whole disk: visible names, and for each name the files that may bear it after a power cut.
#[derive(Debug, Default)]
struct World {
    files: BTreeMap<usize, Model>,
    names: BTreeMap<String, usize>,
    durable: BTreeMap<String, BTreeSet<Option<usize>>>,
}

impl World {
    fn set_name(&mut self, name: &str, file: Option<usize>) {
        let may = self
            .durable
            .entry(name.to_owned())
            .or_insert_with(|| BTreeSet::from([None]));
        may.insert(file);
        match file {
            Some(file) => self.names.insert(name.to_owned(), file),
            None => self.names.remove(name),
        };
    }

    fn sync_names(&mut self) {
        for (name, may) in &mut self.durable {
            *may = BTreeSet::from([self.names.get(name).copied()]);
        }
    }
}

fn read(disk: &SimDisk, name: &str) -> Vec<u8> {
    let file = disk.open(Path::new(name), OpenMode::Read).unwrap();
    let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Compares after a power cut, and continues the model from what was found.
fn after_power_cut(disk: &SimDisk, world: &mut World, next_file: &mut usize) {
    let found: BTreeMap<String, Vec<u8>> = disk
        .read_dir(Path::new(""))
        .unwrap()
        .into_iter()
        .map(|e| (e.name.clone(), read(disk, &e.name)))
        .collect();
    for (name, may) in &world.durable {
        match found.get(name) {
            None => assert!(may.contains(&None), "{name} is gone, it may only be {may:?}"),
            Some(bytes) => {
                let candidates: Vec<&Model> = may.iter().flatten().map(|file| &world.files[file]).collect();
                assert!(!candidates.is_empty(), "{name} came back");
                if let [only] = candidates[..] {
                    only.check(bytes);
                }
            }
        }
    }
    assert!(
        found.keys().all(|name| world.durable.contains_key(name)),
        "an unknown name appeared"
    );
    *world = World::default();
    for (name, bytes) in found {
        *next_file += 1;
        world.files.insert(*next_file, Model::synced(bytes));
        world.names.insert(name.clone(), *next_file);
        world.durable.insert(name, BTreeSet::from([Some(*next_file)]));
    }
}

fn run(seed: u64, steps: Vec<Step>) {
    let disk = SimDisk::new(seed);
    let mut world = World::default();
    let mut next_file = 0;
    for (i, step) in steps.into_iter().enumerate() {
        let fill = u8::try_from(i % 63 + 1).unwrap();
        match step {
            Step::Write { .. } | Step::Truncate { .. } | Step::Sync { .. } => {
                content_step(&disk, &mut world, &mut next_file, (step, fill));
            }
            Step::Rename { .. } | Step::Remove { .. } => name_step(&disk, &mut world, step),
            Step::SyncDir => {
                disk.sync_dir(Path::new("")).unwrap();
                world.sync_names();
            }
            Step::SyncFs => {
                disk.sync_fs(Path::new("")).unwrap();
                world.sync_names();
                for model in world.files.values_mut() {
                    *model = Model::synced(std::mem::take(&mut model.data));
                }
            }
            Step::KillProcess => disk.crash(CrashMode::Process),
            Step::CutPower => {
                disk.crash(CrashMode::Power);
                after_power_cut(&disk, &mut world, &mut next_file);
            }
        }
        for (name, id) in &world.names {
            assert_eq!(read(&disk, name), world.files[id].data, "readers see every write");
        }
    }
}

fn content_step(disk: &SimDisk, world: &mut World, next_file: &mut usize, (step, fill): (Step, u8)) {
    match step {
        Step::Write { file, pos, len } => {
            let name = file.to_string();
            let handle = disk.open(Path::new(&name), OpenMode::CreateOrWrite).unwrap();
            if !world.names.contains_key(&name) {
                *next_file += 1;
                world.files.insert(*next_file, Model::default());
                world.set_name(&name, Some(*next_file));
            }
            let (pos, len) = (usize::from(pos), usize::from(len));
            handle
                .write_at(&mut [IoSlice::new(&vec![fill; len])], pos as u64)
                .unwrap();
            let model = world.files.get_mut(&world.names[&name]).unwrap();
            model.data.resize(model.data.len().max(pos + len), 0);
            model.data[pos..pos + len].fill(fill);
            model.changed();
        }
        Step::Truncate { file, len } => {
            let Some(id) = world.names.get(&file.to_string()) else {
                return;
            };
            disk.open(Path::new(&file.to_string()), OpenMode::Write)
                .unwrap()
                .set_len(len.into())
                .unwrap();
            let model = world.files.get_mut(id).unwrap();
            model.data.resize(len.into(), 0);
            model.changed();
        }
        Step::Sync { file } => {
            let Some(id) = world.names.get(&file.to_string()) else {
                return;
            };
            disk.open(Path::new(&file.to_string()), OpenMode::Write)
                .unwrap()
                .sync_data()
                .unwrap();
            let model = world.files.get_mut(id).unwrap();
            *model = Model::synced(std::mem::take(&mut model.data));
        }
        other => unreachable!("{other:?} changes no content"),
    }
}

fn name_step(disk: &SimDisk, world: &mut World, step: Step) {
    match step {
        Step::Rename { from, to } => {
            let (from, to) = (from.to_string(), to.to_string());
            let Some(id) = world.names.get(&from).copied().filter(|_| from != to) else {
                return;
            };
            disk.rename(Path::new(&from), Path::new(&to)).unwrap();
            world.set_name(&from, None);
            world.set_name(&to, Some(id));
        }
        Step::Remove { file } => {
            if world.names.contains_key(&file.to_string()) {
                disk.remove_file(Path::new(&file.to_string())).unwrap();
                world.set_name(&file.to_string(), None);
            }
        }
        other => unreachable!("{other:?} changes no name"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn sim_disk_matches_the_model(seed: u64, steps in prop::collection::vec(step(), 1..60)) {
        run(seed, steps);
    }
}
