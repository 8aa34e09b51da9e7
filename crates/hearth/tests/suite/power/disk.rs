//! What a loss of power may leave of files that were changed and not synced, after ALICE (Pillai and
//! others, OSDI 2014) and CrashMonkey (Mohan and others, OSDI 2018). Nothing is taken to be on disk
//! that was not synced by name: the data of a file by a sync of the file, a name in a directory by a
//! sync of the directory. Of the rest any part may be.

use crate::power::trace::Event;
use fastrand::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

/// What the kernel writes at once.
const PAGE: u64 = 4096;
/// What a disk writes at once.
const SECTOR: usize = 512;

type Inode = usize;
type Name = (Inode, String);

/// A change that is in the kernel's memory, and may be on disk.
#[derive(Clone, Debug)]
struct Pending {
    /// The number of its event.
    event: usize,
    /// Different for each change.
    id: u64,
    change: Change,
    synced: bool,
    /// A sync of it has failed: none that follows is one of it.
    lost: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Write { inode: Inode, offset: u64, bytes: Rc<[u8]> },
    Resize { inode: Inode, len: u64 },
    Name { name: Name, inode: Option<Inode> },
    Move { from: Name, to: Name, inode: Inode },
}

/// How much of a change has reached the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    Nothing,
    Whole,
    /// A file has its new length and not its new bytes.
    Zeroes,
    /// Bytes up to this one.
    Head(usize),
    /// Bytes from this one on.
    Tail(usize),
}

/// What is on the disk after a loss of power, named so that equal names mean equal contents.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Remains {
    syncs: u64,
    parts: Vec<(u64, Part)>,
}

/// A file system over the events so far.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    /// What of each inode is surely on disk; `None` for a directory.
    contents: Vec<Option<Vec<u8>>>,
    /// How long each file is for processes.
    lengths: Vec<u64>,
    /// The names as processes see them.
    live: BTreeMap<Name, Inode>,
    /// The names that are surely on disk.
    durable: BTreeMap<Name, Inode>,
    pending: Vec<Pending>,
    syncs: u64,
    next_id: u64,
}

impl Disk {
    /// An empty directory.
    pub(crate) fn new(root: &Path) -> Disk {
        Disk {
            root: root.to_owned(),
            contents: vec![None],
            lengths: vec![0],
            live: BTreeMap::new(),
            durable: BTreeMap::new(),
            pending: Vec::new(),
            syncs: 0,
            next_id: 0,
        }
    }

    /// Takes in the event of this number. Returns whether there is anything new to lose.
    pub(crate) fn apply(&mut self, number: usize, event: &Event) -> bool {
        match event {
            Event::Create(path) => {
                let name = self.name(path);
                if self.live.contains_key(&name) {
                    return false;
                }
                self.make(number, name, Some(Vec::new()));
            }
            // Their targets are of no matter here.
            Event::Symlink(path) => self.make(number, self.name(path), Some(Vec::new())),
            Event::MakeDir(path) => self.make(number, self.name(path), None),
            Event::Write { path, offset, bytes } => {
                let inode = self.find(path).unwrap_or_else(|| panic!("{path:?} does not exist"));
                let (offset, bytes) = (offset.unwrap_or(self.lengths[inode]), bytes.clone());
                let end = offset + bytes.len() as u64;
                self.lengths[inode] = self.lengths[inode].max(end);
                self.push(number, Change::Write { inode, offset, bytes });
            }
            Event::Resize { path, len } => {
                let Some(inode) = self.find(path) else { return false };
                self.lengths[inode] = *len;
                self.push(number, Change::Resize { inode, len: *len });
            }
            Event::Rename { from, to } => {
                let (from, to) = (self.name(from), self.name(to));
                let inode = self.live.remove(&from).expect("what is renamed is there");
                self.live.insert(to.clone(), inode);
                self.push(number, Change::Move { from, to, inode });
            }
            Event::Link { from, to } => {
                // What lies elsewhere has no content here.
                let inode = match from.starts_with(&self.root).then(|| self.find(from)).flatten() {
                    Some(inode) => inode,
                    None => self.inode(Some(Vec::new())),
                };
                let name = self.name(to);
                self.live.insert(name.clone(), inode);
                self.push(number, Change::Name { name, inode: Some(inode) });
            }
            Event::Remove(path) => {
                let name = self.name(path);
                self.live.remove(&name);
                self.push(number, Change::Name { name, inode: None });
            }
            Event::Sync { path, since, failed } => {
                // Of a file that has no name any more nothing is asked.
                let Some(inode) = self.find(path) else { return false };
                self.sync(inode, *since, *failed);
            }
            Event::Answer | Event::Other => return false,
        }
        true
    }

    /// What a loss of power may leave now: everything, nothing, names alone, data alone; each
    /// beginning; all but one change, or with it torn; and some by chance.
    pub(crate) fn remains(&self, rng: &mut Rng) -> Vec<Remains> {
        let open: Vec<&Pending> = self.pending.iter().filter(|pending| !pending.synced).collect();
        let mut found = Vec::new();
        let mut add = |part: &mut dyn FnMut(usize) -> Part| {
            let parts = open.iter().enumerate().map(|(at, pending)| (pending.id, part(at)));
            let parts = parts.filter(|(_, part)| *part != Part::Nothing).collect();
            found.push(Remains { syncs: self.syncs, parts });
        };
        let whole_if = |is: bool| if is { Part::Whole } else { Part::Nothing };
        add(&mut |_| Part::Nothing);
        add(&mut |_| Part::Whole);
        add(&mut |at| whole_if(open[at].change.bytes().is_none()));
        add(&mut |at| whole_if(open[at].change.bytes().is_some()));
        for (one, pending) in open.iter().enumerate() {
            add(&mut |at| whole_if(at < one));
            add(&mut |at| whole_if(at != one));
            let Change::Write { bytes, .. } = &pending.change else { continue };
            add(&mut |at| if at == one { Part::Zeroes } else { Part::Whole });
            let sectors = bytes.len().div_ceil(SECTOR);
            if sectors > 1 {
                let cut = rng.usize(1..sectors) * SECTOR;
                add(&mut |at| if at == one { Part::Head(cut) } else { whole_if(at < one) });
                add(&mut |at| if at == one { Part::Tail(cut) } else { Part::Whole });
            }
            let page = usize::try_from(PAGE).expect("a small number");
            if bytes.len() > page {
                add(&mut |at| if at == one { Part::Head(page) } else { Part::Whole });
            }
        }
        for _ in 0..if open.len() > 1 { 3 } else { 0 } {
            add(&mut |at| match (&open[at].change, rng.u8(..8)) {
                (_, 0..3) => Part::Nothing,
                (Change::Write { bytes, .. }, 3) if bytes.len() > SECTOR => {
                    Part::Head(rng.usize(1..bytes.len().div_ceil(SECTOR)) * SECTOR)
                }
                _ => Part::Whole,
            });
        }
        found
    }

    /// Whether a file system with a journal may leave this: names are changed on disk in their order, and
    /// the bytes of a write are there as a whole or not at all, since the length follows them.
    pub(crate) fn is_of_journal(&self, remains: &Remains) -> bool {
        let names = self.pending.iter().filter(|one| !one.synced && one.change.bytes().is_none());
        let kept = names.map(|one| remains.parts.iter().any(|(id, _)| *id == one.id));
        kept.is_sorted_by(|before, after| before >= after)
            && remains.parts.iter().all(|(_, part)| *part == Part::Whole)
    }

    /// Puts the files that remain into a directory.
    pub(crate) fn put(&self, remains: &Remains, target: &Path) {
        let part = |pending: &Pending| {
            let known = remains.parts.iter().find(|(id, _)| *id == pending.id);
            known.map_or(Part::Nothing, |(_, part)| *part)
        };
        let mut names = self.durable.clone();
        let mut contents: BTreeMap<Inode, Vec<u8>> = BTreeMap::new();
        for pending in &self.pending {
            let part = if pending.synced { Part::Whole } else { part(pending) };
            if part == Part::Nothing {
                continue;
            }
            if let Some(inode) = pending.change.bytes() {
                let content = contents.entry(inode).or_insert_with(|| self.content(inode).to_vec());
                pending.change.write(content, part);
            } else {
                pending.change.rename(&mut names);
            }
        }
        // A directory whose name is lost is lost with all that is in it.
        let mut directories = vec![(0, target.to_owned())];
        while let Some((directory, path)) = directories.pop() {
            for ((_, name), inode) in
                names.range((directory, String::new())..(directory + 1, String::new()))
            {
                let path = path.join(name);
                if self.contents[*inode].is_some() {
                    let content = contents.get(inode).map_or(self.content(*inode), Vec::as_slice);
                    std::fs::write(&path, content).expect("a file can be written");
                } else {
                    std::fs::create_dir(&path).expect("a directory can be made");
                    directories.push((*inode, path));
                }
            }
        }
    }

    fn content(&self, inode: Inode) -> &[u8] {
        self.contents[inode].as_deref().expect("a file")
    }

    /// The directory of a path, and the path's name there.
    fn name(&self, path: &Path) -> Name {
        let parent = path.parent().expect("a directory");
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let parent = self.find(parent).unwrap_or_else(|| panic!("the directory of {path:?}"));
        (parent, name)
    }

    fn find(&self, path: &Path) -> Option<Inode> {
        let path = path.strip_prefix(&self.root).expect("a path of the root");
        path.components().try_fold(0, |directory, component| match component {
            Component::Normal(name) => {
                self.live.get(&(directory, name.to_string_lossy().into_owned())).copied()
            }
            other => panic!("{other:?} is no name"),
        })
    }

    fn inode(&mut self, content: Option<Vec<u8>>) -> Inode {
        self.contents.push(content);
        self.lengths.push(0);
        self.contents.len() - 1
    }

    fn make(&mut self, number: usize, name: Name, content: Option<Vec<u8>>) {
        let inode = self.inode(content);
        self.live.insert(name.clone(), inode);
        self.push(number, Change::Name { name, inode: Some(inode) });
    }

    fn push(&mut self, event: usize, change: Change) {
        let id = self.next_id;
        self.next_id += 1;
        self.pending.push(Pending { event, id, change, synced: false, lost: false });
    }

    fn sync(&mut self, inode: Inode, since: usize, failed: bool) {
        self.syncs += 1;
        let is_file = self.contents[inode].is_some();
        if failed {
            if is_file {
                self.lose(inode, since);
            }
            return;
        }
        let mut pages = BTreeSet::new();
        for pending in &mut self.pending {
            let of_it = match is_file {
                true => pending.change.bytes() == Some(inode),
                false => pending.change.is_in(inode),
            };
            if of_it && pending.event < since && !pending.lost {
                pending.synced = true;
                pages.extend(pending.change.pages());
            }
        }
        // The kernel writes whole pages, with what else is in them.
        for pending in &mut self.pending {
            let again = pending.change.pages().all(|page| pages.contains(&page));
            if pending.lost && pending.change.bytes() == Some(inode) && again {
                pending.synced = true;
            }
        }
        self.settle();
    }

    /// A sync has failed: the kernel takes for clean what may not be on disk, page by page.
    fn lose(&mut self, inode: Inode, since: usize) {
        let mut pending = Vec::new();
        for one in std::mem::take(&mut self.pending) {
            if one.synced || one.event >= since || one.change.bytes() != Some(inode) {
                pending.push(one);
                continue;
            }
            let Change::Write { offset, bytes, .. } = &one.change else {
                pending.push(Pending { lost: true, ..one });
                continue;
            };
            for page in one.change.pages() {
                let from = (page * PAGE).max(*offset);
                let to = ((page + 1) * PAGE).min(offset + bytes.len() as u64);
                let within = |at: u64| usize::try_from(at - offset).expect("within a write");
                let bytes = bytes[within(from)..within(to)].into();
                let change = Change::Write { inode, offset: from, bytes };
                let id = self.next_id;
                self.next_id += 1;
                pending.push(Pending { id, change, lost: true, ..one.clone() });
            }
        }
        self.pending = pending;
    }

    /// Takes what is synced, and behind nothing that is not, out of what is pending.
    fn settle(&mut self) {
        let mut blocked = BTreeSet::new();
        let mut rest = Vec::new();
        for pending in std::mem::take(&mut self.pending) {
            let touched = pending.change.touched();
            if !pending.synced || touched.iter().any(|inode| blocked.contains(inode)) {
                blocked.extend(touched);
                rest.push(pending);
                continue;
            }
            match pending.change.bytes() {
                Some(inode) => {
                    let content = self.contents[inode].as_mut().expect("a file");
                    pending.change.write(content, Part::Whole);
                }
                None => pending.change.rename(&mut self.durable),
            }
        }
        self.pending = rest;
    }
}

impl Change {
    /// The file whose bytes it changes.
    fn bytes(&self) -> Option<Inode> {
        match self {
            Change::Write { inode, .. } | Change::Resize { inode, .. } => Some(*inode),
            Change::Name { .. } | Change::Move { .. } => None,
        }
    }

    /// Whether it changes names of a directory.
    fn is_in(&self, directory: Inode) -> bool {
        self.bytes().is_none() && self.touched().contains(&directory)
    }

    /// The files and directories whose order of changes it is a part of.
    fn touched(&self) -> Vec<Inode> {
        match self {
            Change::Write { inode, .. } | Change::Resize { inode, .. } => vec![*inode],
            Change::Name { name, .. } => vec![name.0],
            Change::Move { from, to, .. } => vec![from.0, to.0],
        }
    }

    fn pages(&self) -> impl Iterator<Item = u64> + use<> {
        match self {
            Change::Write { offset, bytes, .. } if !bytes.is_empty() => {
                *offset / PAGE..(offset + bytes.len() as u64).div_ceil(PAGE)
            }
            _ => 0..0,
        }
    }

    fn write(&self, content: &mut Vec<u8>, part: Part) {
        let at = |number: u64| usize::try_from(number).expect("a small file");
        match self {
            Change::Resize { len, .. } => content.resize(at(*len), 0),
            Change::Write { offset, bytes, .. } => {
                let (from, to) = match part {
                    Part::Head(to) => (0, to.min(bytes.len())),
                    Part::Tail(from) => (from.min(bytes.len()), bytes.len()),
                    _ => (0, bytes.len()),
                };
                let (begin, end) = (at(*offset) + from, at(*offset) + to);
                let new = content.len()..content.len().max(end);
                content.resize(new.end, 0);
                if part == Part::Zeroes {
                    // What was there stays.
                    return;
                }
                content[begin..end].copy_from_slice(&bytes[from..to]);
            }
            Change::Name { .. } | Change::Move { .. } => unreachable!("it changes names"),
        }
    }

    fn rename(&self, names: &mut BTreeMap<Name, Inode>) {
        match self {
            Change::Name { name, inode: Some(inode) } => {
                names.insert(name.clone(), *inode);
            }
            Change::Name { name, inode: None } => {
                names.remove(name);
            }
            Change::Move { from, to, inode } => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
            _ => unreachable!("it changes bytes"),
        }
    }
}
