//! The names of the simulated disk: directories with a visible and a durable list of names, and the changes
//! between the two.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path};

use super::content::Content;
use crate::rng::Rng;

pub(super) type Ino = u64;

const ROOT: Ino = 0;

#[derive(Debug)]
enum Node {
    Dir(Dir),
    File(Content),
}

#[derive(Debug, Default)]
struct Dir {
    names: BTreeMap<String, Ino>,
    durable: BTreeMap<String, Ino>,
}

/// One name in one directory.
type Key = (Ino, String);

/// A change of names that reaches the medium as a whole or not at all.
#[derive(Debug)]
struct NameChange(Vec<(Key, Option<Ino>)>);

impl NameChange {
    fn touches_dir(&self, dirs: &BTreeSet<Ino>) -> bool {
        self.0.iter().any(|((dir, _), _)| dirs.contains(dir))
    }
    fn touches(&self, keys: &BTreeSet<Key>) -> bool {
        self.0.iter().any(|(key, _)| keys.contains(key))
    }
}

#[derive(Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<Ino, Node>,
    next: Ino,
    /// Changes of names since they were last synced, oldest first.
    pending: Vec<NameChange>,
    /// Open handles of each file, so that a removed file lives on until they are closed.
    handles: BTreeMap<Ino, usize>,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, Node::Dir(Dir::default()))]),
            next: ROOT + 1,
            pending: Vec::new(),
            handles: BTreeMap::new(),
        }
    }

    pub(super) fn file(&mut self, ino: Ino) -> io::Result<&mut Content> {
        match self.nodes.get_mut(&ino) {
            Some(Node::File(content)) => Ok(content),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn dir(&mut self, ino: Ino) -> io::Result<&mut Dir> {
        match self.nodes.get_mut(&ino) {
            Some(Node::Dir(dir)) => Ok(dir),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn lookup(&mut self, path: &Path) -> io::Result<Ino> {
        let mut at = ROOT;
        for name in components(path)? {
            at = *self.dir(at)?.names.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    /// The directory that holds `path`, and its last name.
    fn parent(&mut self, path: &Path) -> io::Result<Key> {
        let mut names = components(path)?;
        let last = names.pop().ok_or(io::ErrorKind::InvalidInput)?;
        let mut at = ROOT;
        for name in names {
            at = *self.dir(at)?.names.get(&name).ok_or(io::ErrorKind::NotFound)?;
        }
        self.dir(at)?;
        Ok((at, last))
    }

    /// Applies a change to the visible names and queues it for the medium.
    fn change(&mut self, change: NameChange) -> io::Result<()> {
        for ((dir, name), ino) in &change.0 {
            let names = &mut self.dir(*dir)?.names;
            match ino {
                Some(ino) => names.insert(name.clone(), *ino),
                None => names.remove(name),
            };
        }
        self.pending.push(change);
        Ok(())
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<Ino> {
        let key = self.parent(path)?;
        let ino = self.add_node(Node::File(Content::default()));
        self.change(NameChange(vec![(key, Some(ino))]))?;
        Ok(ino)
    }

    fn add_node(&mut self, node: Node) -> Ino {
        let ino = self.next;
        self.next += 1;
        self.nodes.insert(ino, node);
        ino
    }

    /// Creates missing directories, durable at once.
    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        if self.lookup(path).is_ok_and(|ino| self.dir(ino).is_ok()) {
            return Ok(());
        }
        let mut at = ROOT;
        for name in components(path)? {
            at = match self.dir(at)?.names.get(&name) {
                Some(ino) => *ino,
                None => {
                    let ino = self.add_node(Node::Dir(Dir::default()));
                    self.change(NameChange(vec![((at, name), Some(ino))]))?;
                    ino
                }
            };
            self.dir(at)?;
        }
        for dir in path.ancestors().skip(1) {
            self.sync_dir(dir)?;
        }
        Ok(())
    }

    pub(super) fn read_dir(&mut self, path: &Path) -> io::Result<Vec<(String, Option<u64>)>> {
        let ino = self.lookup(path)?;
        let names = self.dir(ino)?.names.clone();
        let len_of = |ino: Ino| match self.nodes.get(&ino) {
            Some(Node::File(content)) => Some(content.data().len() as u64),
            _ => None,
        };
        Ok(names.into_iter().map(|(name, ino)| (name, len_of(ino))).collect())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let ino = self.lookup(path)?;
        self.file(ino)?;
        let key = self.parent(path)?;
        self.change(NameChange(vec![(key, None)]))
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let ino = self.lookup(path)?;
        self.dir(ino)?;
        let key = self.parent(path)?;
        self.empty_dir(ino)?;
        self.change(NameChange(vec![(key, None)]))
    }

    fn empty_dir(&mut self, ino: Ino) -> io::Result<()> {
        for (name, child) in self.dir(ino)?.names.clone() {
            if self.dir(child).is_ok() {
                self.empty_dir(child)?;
            }
            self.change(NameChange(vec![((ino, name), None)]))?;
        }
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let ino = self.lookup(from)?;
        let (from_key, to_key) = (self.parent(from)?, self.parent(to)?);
        if from_key == to_key {
            return Ok(());
        }
        if components(to)?.starts_with(&components(from)?) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if let Ok(target) = self.lookup(to) {
            match (
                self.dir(ino).is_ok(),
                self.dir(target).map(|dir| dir.names.is_empty()),
            ) {
                (true, Ok(true)) | (false, Err(_)) => {}
                (true, Ok(false)) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
                (true, Err(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                (false, Ok(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            }
        }
        self.change(NameChange(vec![(from_key, None), (to_key, Some(ino))]))
    }

    /// Makes the names of a directory durable, and with them the other half of renames and whatever earlier
    /// change of the same names they rest on.
    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let mut removed = false;
        for change in self.take_pending(path)? {
            removed |= change.0.iter().any(|(_, ino)| ino.is_none());
            self.commit(change)?;
        }
        if removed {
            self.sweep();
        }
        Ok(())
    }

    /// A directory sync failed: its changes never reach the medium.
    pub(super) fn drop_dir_changes(&mut self, path: &Path) -> io::Result<()> {
        self.take_pending(path).map(drop)
    }

    fn take_pending(&mut self, path: &Path) -> io::Result<Vec<NameChange>> {
        let ino = self.lookup(path)?;
        self.dir(ino)?;
        let dirs = BTreeSet::from([ino]);
        let mut keys = BTreeSet::new();
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        for change in std::mem::take(&mut self.pending).into_iter().rev() {
            if change.touches_dir(&dirs) || change.touches(&keys) {
                keys.extend(change.0.iter().map(|(key, _)| key.clone()));
                taken.push(change);
            } else {
                left.push(change);
            }
        }
        left.reverse();
        taken.reverse();
        self.pending = left;
        Ok(taken)
    }

    fn commit(&mut self, change: NameChange) -> io::Result<()> {
        for ((dir, name), ino) in change.0 {
            let durable = &mut self.dir(dir)?.durable;
            match ino {
                Some(ino) => durable.insert(name, ino),
                None => durable.remove(&name),
            };
        }
        Ok(())
    }

    pub(super) fn sync_all(&mut self) -> io::Result<()> {
        for change in std::mem::take(&mut self.pending) {
            self.commit(change)?;
        }
        for content in self.files() {
            content.sync();
        }
        self.sweep();
        Ok(())
    }

    pub(super) fn drop_all_dirty(&mut self) {
        self.pending.clear();
        for content in self.files() {
            content.drop_dirty();
        }
    }

    /// The power fails. Of the changes to one name a prefix survives; changes to different names are independent.
    pub(super) fn power_cut(&mut self, rng: &Rng) -> io::Result<()> {
        let mut lost = BTreeSet::new();
        for change in std::mem::take(&mut self.pending) {
            if change.touches(&lost) || rng.chance(0.5) {
                lost.extend(change.0.into_iter().map(|(key, _)| key));
            } else {
                self.commit(change)?;
            }
        }
        for node in self.nodes.values_mut() {
            match node {
                Node::Dir(dir) => dir.names.clone_from(&dir.durable),
                Node::File(content) => content.crash(rng),
            }
        }
        self.close_all();
        Ok(())
    }

    /// Every process ended: its handles are closed.
    pub(super) fn close_all(&mut self) {
        self.handles.clear();
        self.sweep();
    }

    pub(super) fn opened(&mut self, ino: Ino) {
        *self.handles.entry(ino).or_default() += 1;
    }

    pub(super) fn closed(&mut self, ino: Ino) {
        if let Some(count) = self.handles.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                self.handles.remove(&ino);
            }
        }
    }

    /// Sum of the lengths of all files, in bytes.
    pub(super) fn used(&self) -> u64 {
        let len = |node: &Node| match node {
            Node::File(content) => content.data().len() as u64,
            Node::Dir(_) => 0,
        };
        self.nodes.values().map(len).sum()
    }

    fn files(&mut self) -> impl Iterator<Item = &mut Content> {
        self.nodes.values_mut().filter_map(|node| match node {
            Node::File(content) => Some(content),
            Node::Dir(_) => None,
        })
    }

    /// Frees what no name, visible, durable or on its way, and no handle leads to.
    fn sweep(&mut self) {
        let mut todo: Vec<Ino> = vec![ROOT];
        todo.extend(self.handles.keys());
        todo.extend(
            self.pending
                .iter()
                .flat_map(|change| change.0.iter().filter_map(|(_, ino)| *ino)),
        );
        let mut live = BTreeSet::new();
        while let Some(ino) = todo.pop() {
            if live.insert(ino)
                && let Some(Node::Dir(dir)) = self.nodes.get(&ino)
            {
                todo.extend(dir.names.values().chain(dir.durable.values()));
            }
        }
        self.nodes.retain(|ino, _| live.contains(ino));
        // Changes inside a directory that is gone for good have nothing left to change.
        let nodes = &self.nodes;
        self.pending
            .retain(|change| change.0.iter().all(|((dir, _), _)| nodes.contains_key(dir)));
    }
}

fn components(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for part in path.components() {
        match part {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                names.push(name.to_str().ok_or(io::ErrorKind::InvalidInput)?.to_owned());
            }
            Component::ParentDir | Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(names)
}
