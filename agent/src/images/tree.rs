//! The files of an image, as its layers one after another make them: names, owners, modes and where each content lies.
//! Nothing here is a file of the host's; a hostile name is a string in a map.

use std::collections::BTreeMap;
use std::mem;

/// A node's place in its tree.
pub type NodeId = usize;

/// The root directory's.
pub const ROOT: NodeId = 0;

/// All names and link targets of one image may have so many bytes together; they are held in memory.
const TEXT_MAX: usize = 64 << 20;

/// The mode of a directory that is named by what lies in it alone.
const IMPLIED_MODE: u16 = 0o755;

/// A tree of files.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    nodes_max: usize,
    text: usize,
}

/// A file of any kind. Several names may lead to one.
#[derive(Debug)]
pub struct Node {
    /// Owner, mode and the like.
    pub meta: Meta,
    /// What it is.
    pub kind: Kind,
}

/// What every file has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Permissions, with the bits for set-user-id, set-group-id and sticky.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// When it was changed last, in Unix time.
    pub mtime_s: u64,
    /// The value of the attribute `security.capability`, where it has one.
    pub capability: Option<Box<[u8]>>,
}

/// What a file is.
#[derive(Debug)]
pub enum Kind {
    /// A directory, by name.
    Directory(BTreeMap<Box<str>, Entry>),
    /// A regular file.
    File(Content),
    /// A symbolic link to this.
    Symlink(Box<str>),
    /// A named pipe.
    Fifo,
}

/// A name in a directory.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// What it leads to.
    pub node: NodeId,
    /// The layer that put it there.
    layer: usize,
}

/// Where a regular file's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// The layer, counted from 0.
    pub layer: usize,
    /// The first byte in the unpacked layer.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
}

/// Why a layer's entry has no place in the tree.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreeError {
    /// A part of the path is no directory. Links are never followed.
    #[error("its path leads through {0:?}, which is not a directory")]
    Through(String),
    /// A hard link to nothing, or to a directory.
    #[error("is a hard link to {0:?}, which is no file of the image")]
    LinkTarget(String),
    /// A hard link to the name that it has itself.
    #[error("is a hard link to itself")]
    LinkToItself,
    /// The root directory cannot be anything else.
    #[error("takes the place of the root directory")]
    Root,
    /// More files than there may be.
    #[error("is one more than the {0} files that an image may have")]
    Files(usize),
    /// More names than there may be.
    #[error("goes beyond the {TEXT_MAX} bytes that all names and links of an image may have")]
    Text,
}

impl Tree {
    /// An empty root directory, to which so many files may be added. Files that are replaced count too.
    pub fn new(nodes_max: usize) -> Self {
        Self {
            nodes: vec![implied_directory()],
            nodes_max,
            text: 0,
        }
    }

    /// The node of this number, which one of the tree's entries has.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id]
    }

    /// How many nodes there ever were; every [`NodeId`] is less.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Puts a file at `path`. It takes the place of what was there, but a directory joins a directory.
    pub fn put(&mut self, layer: usize, path: &[&str], meta: Meta, kind: Kind) -> Result<(), TreeError> {
        let Some((name, parents)) = path.split_last() else {
            return match kind {
                Kind::Directory(_) => {
                    self.nodes[ROOT].meta = meta;
                    Ok(())
                }
                _ => Err(TreeError::Root),
            };
        };
        let parent = self.make_directories(layer, parents)?;
        if matches!(kind, Kind::Directory(_))
            && let Some(entry) = self.entries(parent).get_mut(*name)
        {
            let node = entry.node;
            if matches!(self.nodes[node].kind, Kind::Directory(_)) {
                self.nodes[node].meta = meta;
                self.insert(parent, name, Entry { node, layer });
                return Ok(());
            }
        }
        if let Kind::Symlink(target) = &kind {
            self.count_text(target.len())?;
        }
        let node = self.add(name, Node { meta, kind })?;
        self.insert(parent, name, Entry { node, layer });
        Ok(())
    }

    /// Gives the file at `target` the name `path` too.
    pub fn link(&mut self, layer: usize, path: &[&str], target: &[&str]) -> Result<(), TreeError> {
        let no_target = || TreeError::LinkTarget(target.join("/"));
        let (name, parents) = path.split_last().ok_or(TreeError::Root)?;
        if path == target {
            return Err(TreeError::LinkToItself);
        }
        let (last, rest) = target.split_last().ok_or_else(no_target)?;
        let dir = self.find_directory(rest)?.ok_or_else(no_target)?;
        let node = self.entries(dir).get(*last).ok_or_else(no_target)?.node;
        if matches!(self.nodes[node].kind, Kind::Directory(_)) {
            return Err(no_target());
        }
        let parent = self.make_directories(layer, parents)?;
        self.count_text(name.len())?;
        self.insert(parent, name, Entry { node, layer });
        Ok(())
    }

    /// Removes what the layers below put at `name` in the directory `path`.
    pub fn whiteout(&mut self, layer: usize, path: &[&str], name: &str) -> Result<(), TreeError> {
        let Some(dir) = self.find_directory(path)? else {
            return Ok(());
        };
        if let Some(entry) = self.entries(dir).get(name).copied()
            && !self.keeps(entry, layer)
        {
            self.entries(dir).remove(name);
        }
        Ok(())
    }

    /// Removes all that the layers below put into the directory `path`.
    pub fn opaque(&mut self, layer: usize, path: &[&str]) -> Result<(), TreeError> {
        if let Some(dir) = self.find_directory(path)? {
            self.clear(dir, layer);
        }
        Ok(())
    }

    /// Whether something of this layer is left of the entry when all that came before is taken out of it.
    fn keeps(&mut self, entry: Entry, layer: usize) -> bool {
        let is_directory = matches!(self.nodes[entry.node].kind, Kind::Directory(_));
        if is_directory {
            self.clear(entry.node, layer);
        }
        entry.layer == layer || (is_directory && !self.entries(entry.node).is_empty())
    }

    fn clear(&mut self, dir: NodeId, layer: usize) {
        let mut entries = mem::take(self.entries(dir));
        entries.retain(|_, entry| self.keeps(*entry, layer));
        *self.entries(dir) = entries;
    }

    /// The directory at `path`, where there is one.
    fn find_directory(&mut self, path: &[&str]) -> Result<Option<NodeId>, TreeError> {
        let mut dir = ROOT;
        for (depth, name) in path.iter().enumerate() {
            let Some(entry) = self.entries(dir).get(*name) else {
                return Ok(None);
            };
            dir = entry.node;
            if !matches!(self.nodes[dir].kind, Kind::Directory(_)) {
                return Err(TreeError::Through(path[..=depth].join("/")));
            }
        }
        Ok(Some(dir))
    }

    /// The directory at `path`; what is missing of it is made.
    pub fn make_directories(&mut self, layer: usize, path: &[&str]) -> Result<NodeId, TreeError> {
        let mut dir = ROOT;
        for depth in 0..path.len() {
            dir = match self.find_directory(&path[..=depth])? {
                Some(found) => found,
                None => {
                    let node = self.add(path[depth], implied_directory())?;
                    self.insert(dir, path[depth], Entry { node, layer });
                    node
                }
            };
        }
        Ok(dir)
    }

    fn add(&mut self, name: &str, node: Node) -> Result<NodeId, TreeError> {
        if self.nodes.len() > self.nodes_max {
            return Err(TreeError::Files(self.nodes_max));
        }
        self.count_text(name.len())?;
        self.nodes.push(node);
        Ok(self.nodes.len() - 1)
    }

    fn count_text(&mut self, bytes: usize) -> Result<(), TreeError> {
        self.text += bytes;
        if self.text > TEXT_MAX {
            return Err(TreeError::Text);
        }
        Ok(())
    }

    fn insert(&mut self, dir: NodeId, name: &str, entry: Entry) {
        self.entries(dir).insert(name.into(), entry);
    }

    /// The names in a directory; nothing where the node is none, which its callers have looked at.
    fn entries(&mut self, dir: NodeId) -> &mut BTreeMap<Box<str>, Entry> {
        match &mut self.nodes[dir].kind {
            Kind::Directory(entries) => entries,
            _ => unreachable!("node {dir} was looked up as a directory"),
        }
    }
}

fn implied_directory() -> Node {
    Node {
        meta: Meta {
            mode: IMPLIED_MODE,
            ..Meta::default()
        },
        kind: Kind::Directory(BTreeMap::new()),
    }
}
