//! A disk that forgets: files and directories with what is synced of them and what is not.
//!
//! It is harsher than most file systems. A file's contents are safe when the file was synced, its name when its
//! directory was; what was not may survive a loss of power all the same, page by page and even by half pages, names up
//! to any point of their history.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};

pub const ROOT: u64 = 1;
/// What reaches a disk as a whole, or so it is hoped.
const PAGE: usize = 4096;
/// What does.
const SECTOR: usize = 512;

type Page = Box<[u8; PAGE]>;

/// Why something cannot be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum No {
    /// There is no power.
    Dead,
    Missing,
    Exists,
    NotADirectory,
    IsADirectory,
    NotEmpty,
    OtherDirectory,
}

#[derive(Debug, Default)]
struct File {
    /// What a loss of power leaves alone.
    synced: Vec<u8>,
    /// Pages written since.
    written: BTreeMap<u64, Page>,
    length: u64,
}

#[derive(Debug, Clone)]
enum Change {
    Put(OsString, u64),
    Remove(OsString),
    Rename(OsString, OsString),
}

#[derive(Debug, Default)]
struct Directory {
    entries: BTreeMap<OsString, u64>,
    synced: BTreeMap<OsString, u64>,
    changes: Vec<Change>,
}

#[derive(Debug)]
enum Node {
    File(File),
    Directory(Directory),
}

/// What a loss of power has taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loss {
    pub pages: u64,
    pub pages_kept: u64,
    pub names: u64,
}

/// How much of what is not synced survives.
#[derive(Clone, Copy, Debug)]
enum Survival {
    Nothing,
    Everything,
    Some,
}

pub struct Disk {
    nodes: HashMap<u64, Node>,
    open: HashMap<u64, u64>,
    next: u64,
    dead: bool,
    /// Says that it has synced, and has not: to see that the test would notice.
    lies: bool,
}

fn apply(entries: &mut BTreeMap<OsString, u64>, change: &Change) {
    match change {
        Change::Put(name, node) => {
            entries.insert(name.clone(), *node);
        }
        Change::Remove(name) => {
            entries.remove(name);
        }
        Change::Rename(from, to) => {
            if let Some(node) = entries.remove(from) {
                entries.insert(to.clone(), node);
            }
        }
    }
}

impl File {
    fn page(&self, number: u64) -> Page {
        if let Some(page) = self.written.get(&number) {
            return page.clone();
        }
        let mut page = Box::new([0; PAGE]);
        let start = (number as usize).saturating_mul(PAGE).min(self.synced.len());
        let there = &self.synced[start..self.synced.len().min(start + PAGE)];
        page[..there.len()].copy_from_slice(there);
        page
    }

    fn read(&self, offset: u64, count: usize) -> Vec<u8> {
        let end = self.length.min(offset.saturating_add(count as u64));
        let mut out = Vec::with_capacity(count);
        let mut at = offset;
        while at < end {
            let (number, start) = (at / PAGE as u64, at as usize % PAGE);
            let some = (PAGE - start).min((end - at) as usize);
            out.extend_from_slice(&self.page(number)[start..start + some]);
            at += some as u64;
        }
        out
    }

    fn write(&mut self, offset: u64, mut bytes: &[u8]) {
        let mut at = offset;
        while !bytes.is_empty() {
            let (number, start) = (at / PAGE as u64, at as usize % PAGE);
            let some = (PAGE - start).min(bytes.len());
            let mut page = self.written.remove(&number).unwrap_or_else(|| self.page(number));
            page[start..start + some].copy_from_slice(&bytes[..some]);
            self.written.insert(number, page);
            bytes = &bytes[some..];
            at += some as u64;
        }
        self.length = self.length.max(at);
    }

    fn resize(&mut self, length: u64) {
        if length < self.length {
            // What is cut off reads as zeros if the file grows again.
            let first = length / PAGE as u64;
            for number in first..self.length.div_ceil(PAGE as u64) {
                let mut page = self.page(number);
                let keep = if number == first { length as usize % PAGE } else { 0 };
                page[keep..].fill(0);
                self.written.insert(number, page);
            }
        }
        self.length = length;
    }

    fn sync(&mut self) {
        self.synced.resize(self.length as usize, 0);
        for (number, page) in std::mem::take(&mut self.written) {
            put(&mut self.synced, number, &page[..]);
        }
    }

    fn lose(&mut self, survival: Survival, random: &mut Random, loss: &mut Loss) {
        let keeps_length = match survival {
            Survival::Nothing => false,
            Survival::Everything => true,
            Survival::Some => random.coin(),
        };
        if keeps_length {
            self.synced.resize(self.length as usize, 0);
        }
        for (number, page) in std::mem::take(&mut self.written) {
            let (mut kept, mut lost) = (0, 0);
            // One page in eight is torn, the others go or stay as a whole.
            let (torn, whole) = (random.below(8) == 0, random.coin());
            for (index, sector) in page.chunks(SECTOR).enumerate() {
                let stays = match survival {
                    Survival::Nothing => false,
                    Survival::Everything => true,
                    Survival::Some if torn => random.coin(),
                    Survival::Some => whole,
                };
                if stays {
                    put_at(&mut self.synced, number as usize * PAGE + index * SECTOR, sector);
                    kept += 1;
                } else {
                    lost += 1;
                }
            }
            loss.pages += u64::from(lost > 0);
            loss.pages_kept += u64::from(kept > 0);
        }
        self.length = self.synced.len() as u64;
    }
}

/// Copies a page into a file as far as the file reaches.
fn put(into: &mut [u8], number: u64, page: &[u8]) {
    put_at(into, number as usize * PAGE, page);
}

fn put_at(into: &mut [u8], start: usize, bytes: &[u8]) {
    if start < into.len() {
        let end = into.len().min(start + bytes.len());
        into[start..end].copy_from_slice(&bytes[..end - start]);
    }
}

impl Directory {
    fn change(&mut self, change: Change) {
        apply(&mut self.entries, &change);
        self.changes.push(change);
    }

    fn sync(&mut self) {
        self.synced.clone_from(&self.entries);
        self.changes.clear();
    }

    fn lose(&mut self, survival: Survival, random: &mut Random, loss: &mut Loss) {
        let kept = match survival {
            Survival::Nothing => 0,
            Survival::Everything => self.changes.len(),
            Survival::Some => random.below(self.changes.len() as u64 + 1) as usize,
        };
        for change in &self.changes[..kept] {
            apply(&mut self.synced, change);
        }
        loss.names += (self.changes.len() - kept) as u64;
        self.changes.clear();
        self.entries.clone_from(&self.synced);
    }
}

/// SplitMix64: the same seed takes the same pages.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

impl Disk {
    pub fn new() -> Self {
        let nodes = HashMap::from([(ROOT, Node::Directory(Directory::default()))]);
        Self { nodes, open: HashMap::new(), next: ROOT + 1, dead: false, lies: false }
    }

    /// From now on.
    pub fn lie(&mut self) {
        self.lies = true;
    }

    fn alive(&self) -> Result<(), No> {
        if self.dead { Err(No::Dead) } else { Ok(()) }
    }

    fn directory(&mut self, node: u64) -> Result<&mut Directory, No> {
        self.alive()?;
        match self.nodes.get_mut(&node) {
            Some(Node::Directory(directory)) => Ok(directory),
            Some(Node::File(_)) => Err(No::NotADirectory),
            None => Err(No::Missing),
        }
    }

    fn file(&mut self, node: u64) -> Result<&mut File, No> {
        self.alive()?;
        match self.nodes.get_mut(&node) {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Directory(_)) => Err(No::IsADirectory),
            None => Err(No::Missing),
        }
    }

    pub fn lookup(&mut self, parent: u64, name: &OsStr) -> Result<u64, No> {
        self.directory(parent)?.entries.get(name).copied().ok_or(No::Missing)
    }

    /// The length of a file; `None` for a directory.
    pub fn length(&mut self, node: u64) -> Result<Option<u64>, No> {
        self.alive()?;
        match self.nodes.get(&node) {
            Some(Node::File(file)) => Ok(Some(file.length)),
            Some(Node::Directory(_)) => Ok(None),
            None => Err(No::Missing),
        }
    }

    pub fn make(&mut self, parent: u64, name: &OsStr, is_directory: bool) -> Result<u64, No> {
        let node = self.next;
        let directory = self.directory(parent)?;
        if directory.entries.contains_key(name) {
            return Err(No::Exists);
        }
        directory.change(Change::Put(name.to_owned(), node));
        let made =
            if is_directory { Node::Directory(Directory::default()) } else { Node::File(File::default()) };
        self.nodes.insert(node, made);
        self.next += 1;
        Ok(node)
    }

    pub fn remove(&mut self, parent: u64, name: &OsStr, is_directory: bool) -> Result<(), No> {
        let node = self.lookup(parent, name)?;
        match self.nodes.get(&node) {
            Some(Node::Directory(_)) if !is_directory => return Err(No::IsADirectory),
            Some(Node::File(_)) if is_directory => return Err(No::NotADirectory),
            Some(Node::Directory(directory)) if !directory.entries.is_empty() => return Err(No::NotEmpty),
            _ => {}
        }
        self.directory(parent)?.change(Change::Remove(name.to_owned()));
        self.sweep();
        Ok(())
    }

    pub fn rename(&mut self, parent: u64, name: &OsStr, to_parent: u64, to: &OsStr) -> Result<(), No> {
        self.lookup(parent, name)?;
        if parent != to_parent {
            return Err(No::OtherDirectory);
        }
        self.directory(parent)?.change(Change::Rename(name.to_owned(), to.to_owned()));
        Ok(())
    }

    pub fn list(&mut self, node: u64) -> Result<Vec<(OsString, u64, bool)>, No> {
        let entries: Vec<(OsString, u64)> =
            self.directory(node)?.entries.iter().map(|(name, node)| (name.clone(), *node)).collect();
        let is_directory = |node: &u64| matches!(self.nodes.get(node), Some(Node::Directory(_)));
        Ok(entries.into_iter().map(|(name, node)| (name, node, is_directory(&node))).collect())
    }

    pub fn opened(&mut self, node: u64) -> Result<(), No> {
        self.file(node)?;
        *self.open.entry(node).or_default() += 1;
        Ok(())
    }

    pub fn closed(&mut self, node: u64) {
        let count = self.open.entry(node).or_default();
        *count = count.saturating_sub(1);
        if *count == 0 {
            self.open.remove(&node);
            self.sweep();
        }
    }

    pub fn read(&mut self, node: u64, offset: u64, count: usize) -> Result<Vec<u8>, No> {
        self.file(node).map(|file| file.read(offset, count))
    }

    pub fn write(&mut self, node: u64, offset: u64, bytes: &[u8]) -> Result<(), No> {
        self.file(node).map(|file| file.write(offset, bytes))
    }

    pub fn resize(&mut self, node: u64, length: u64) -> Result<(), No> {
        self.file(node).map(|file| file.resize(length))
    }

    pub fn sync_file(&mut self, node: u64) -> Result<(), No> {
        let lies = self.lies;
        let file = self.file(node)?;
        if !lies {
            file.sync();
        }
        Ok(())
    }

    pub fn sync_directory(&mut self, node: u64) -> Result<(), No> {
        self.directory(node)?.sync();
        self.sweep();
        Ok(())
    }

    /// The power fails: nothing works until [`Disk::power_on`], and what was not synced is at the mercy of the seed.
    pub fn cut(&mut self, seed: u64) -> Loss {
        let mut random = Random(seed);
        let survival = match random.below(4) {
            0 => Survival::Nothing,
            1 => Survival::Everything,
            _ => Survival::Some,
        };
        let mut loss = Loss::default();
        let mut numbers: Vec<u64> = self.nodes.keys().copied().collect();
        numbers.sort_unstable();
        for number in numbers {
            match self.nodes.get_mut(&number) {
                Some(Node::File(file)) => file.lose(survival, &mut random, &mut loss),
                Some(Node::Directory(directory)) => directory.lose(survival, &mut random, &mut loss),
                None => {}
            }
        }
        self.dead = true;
        loss
    }

    pub fn power_on(&mut self) {
        self.dead = false;
        self.sweep();
    }

    /// Frees what no name leads to, before or after any loss of power, and nobody has open.
    fn sweep(&mut self) {
        let mut wanted = BTreeSet::from([ROOT]);
        let mut rest = vec![ROOT];
        while let Some(number) = rest.pop() {
            let Some(Node::Directory(directory)) = self.nodes.get(&number) else { continue };
            let put = directory.changes.iter().filter_map(|change| match change {
                Change::Put(_, node) => Some(*node),
                Change::Remove(_) | Change::Rename(..) => None,
            });
            let named = directory.entries.values().chain(directory.synced.values()).copied();
            rest.extend(named.chain(put).filter(|node| wanted.insert(*node)));
        }
        self.nodes.retain(|number, _| wanted.contains(number) || self.open.contains_key(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    /// Seeds that keep nothing of what was not synced.
    fn harsh() -> impl Iterator<Item = u64> {
        (0..100).filter(|seed| Random(*seed).below(4) == 0)
    }

    #[test]
    fn what_is_synced_survives_every_cut() {
        for seed in 0..200 {
            let mut disk = Disk::new();
            let file = disk.make(ROOT, name("log"), false).unwrap();
            disk.write(file, 4000, &[7; 5000]).unwrap();
            disk.sync_file(file).unwrap();
            disk.sync_directory(ROOT).unwrap();
            disk.write(file, 9000, &[8; 9000]).unwrap();
            disk.cut(seed);
            assert_eq!(disk.read(file, 0, 1), Err(No::Dead));
            disk.power_on();
            let found = disk.lookup(ROOT, name("log")).unwrap();
            assert_eq!(disk.read(found, 4000, 5000).unwrap(), [7; 5000]);
            assert_eq!(disk.read(found, 0, 4000).unwrap(), [0; 4000]);
        }
    }

    #[test]
    fn what_is_not_synced_can_be_lost() {
        for seed in harsh() {
            let mut disk = Disk::new();
            let file = disk.make(ROOT, name("log"), false).unwrap();
            disk.write(file, 0, b"first").unwrap();
            disk.sync_file(file).unwrap();
            disk.sync_directory(ROOT).unwrap();
            disk.write(file, 0, b"other").unwrap();
            disk.make(ROOT, name("new"), false).unwrap();
            disk.rename(ROOT, name("log"), ROOT, name("moved")).unwrap();
            let loss = disk.cut(seed);
            disk.power_on();
            assert_eq!(loss, Loss { pages: 1, pages_kept: 0, names: 2 });
            assert_eq!(disk.read(file, 0, 9).unwrap(), b"first");
            assert_eq!(disk.lookup(ROOT, name("log")), Ok(file));
            assert_eq!(disk.lookup(ROOT, name("new")), Err(No::Missing));
        }
    }

    #[test]
    fn a_disk_that_lies_loses_what_it_has_promised() {
        for seed in harsh() {
            let mut disk = Disk::new();
            disk.lie();
            let file = disk.make(ROOT, name("log"), false).unwrap();
            disk.sync_directory(ROOT).unwrap();
            disk.write(file, 0, b"first").unwrap();
            disk.sync_file(file).unwrap();
            disk.cut(seed);
            disk.power_on();
            assert_eq!(disk.length(file), Ok(Some(0)));
        }
    }

    #[test]
    fn a_file_that_is_cut_short_and_grows_again_reads_as_zeros() {
        let mut disk = Disk::new();
        let file = disk.make(ROOT, name("log"), false).unwrap();
        disk.write(file, 0, &[7; 10_000]).unwrap();
        disk.sync_file(file).unwrap();
        disk.resize(file, 10).unwrap();
        disk.resize(file, 10_000).unwrap();
        assert_eq!(disk.read(file, 0, 10).unwrap(), [7; 10]);
        assert_eq!(disk.read(file, 10, 9_990).unwrap(), [0; 9_990]);
    }

    #[test]
    fn what_no_name_leads_to_is_freed_once_it_is_closed() {
        let mut disk = Disk::new();
        let file = disk.make(ROOT, name("log"), false).unwrap();
        disk.opened(file).unwrap();
        disk.remove(ROOT, name("log"), false).unwrap();
        disk.sync_directory(ROOT).unwrap();
        disk.write(file, 0, b"still open").unwrap();
        disk.closed(file);
        assert_eq!(disk.read(file, 0, 1), Err(No::Missing));
    }
}
