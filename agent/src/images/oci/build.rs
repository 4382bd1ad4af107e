//! From layers to an image.

use std::fs::File;
use std::io;

use super::document::{LayerFile, Plan, read_plan};
use super::error::{LayerError, OciError};
use super::layer::{Budget, Digests, read_contents, read_layer};
use super::path::parse_path;
use super::source::Source;
use crate::images::erofs::Layout;
use crate::images::tree::{Content, Kind, NodeId, Tree};

/// What an image may be at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all layers unpacked, and of the image made of them.
    pub bytes: u64,
    /// Members of all layers: files, and what is said of them.
    pub members: u32,
}

/// Writes the image in `source` as an EROFS into an empty file. What it is made of is checked before its last byte is
/// written, not before the first.
pub fn build(source: &Source, limits: Limits, out: &File) -> Result<Plan, OciError> {
    let plan = read_plan(source)?;
    let mut tree = read_tree(source, &plan, limits)?;
    make_working_dir(&mut tree, &plan);
    let layout = Layout::of(&tree);
    if layout.size() > limits.bytes {
        return Err(OciError::Size {
            found: layout.size(),
            limit: limits.bytes,
        });
    }
    layout
        .write_nodes(&tree, identifier(&plan), out)
        .map_err(OciError::Write)?;
    write_contents(source, &plan, limits, &tree, &layout, out)?;
    Ok(plan)
}

pub(super) fn read_tree(source: &Source, plan: &Plan, limits: Limits) -> Result<Tree, OciError> {
    let mut tree = Tree::new(limits.members as usize);
    let mut budget = Budget {
        bytes: limits.bytes,
        members: limits.members.into(),
    };
    for (number, layer) in plan.layers.iter().enumerate() {
        let digests = read_layer(source.open_file(&layer.name)?, number, &mut tree, &mut budget)
            .map_err(in_layer(number))?;
        check(layer, &digests)?;
    }
    Ok(tree)
}

/// Makes the directory that the workload starts in, as everybody does who runs such images. Where it cannot be made the
/// guest says so.
fn make_working_dir(tree: &mut Tree, plan: &Plan) {
    let path = plan.workload.working_dir.as_deref().unwrap_or_default();
    if let Ok(names) = parse_path(path.trim_start_matches('/').as_bytes()) {
        let _ = tree.make_directories(plan.layers.len(), &names);
    }
}

/// What stops the second reading.
enum Stop {
    Layer(LayerError),
    Write(io::Error),
}

impl From<LayerError> for Stop {
    fn from(error: LayerError) -> Self {
        Self::Layer(error)
    }
}

pub(super) fn write_contents(
    source: &Source,
    plan: &Plan,
    limits: Limits,
    tree: &Tree,
    layout: &Layout,
    out: &File,
) -> Result<(), OciError> {
    let mut wanted: Vec<Vec<(Content, NodeId)>> = vec![Vec::new(); plan.layers.len()];
    for &id in layout.nodes() {
        if let Kind::File(content) = tree.node(id).kind
            && content.size > 0
        {
            wanted[content.layer].push((content, id));
        }
    }
    for (number, (layer, mut wanted)) in plan.layers.iter().zip(wanted).enumerate() {
        if wanted.is_empty() {
            continue;
        }
        wanted.sort_unstable_by_key(|(content, _)| content.offset);
        let contents: Vec<Content> = wanted.iter().map(|(content, _)| *content).collect();
        let packed = source.open_file(&layer.name)?;
        let digests = read_contents(packed, limits.bytes, &contents, |index, at, bytes| {
            let (_, id) = wanted[index];
            layout.write_content(id, at, bytes, out).map_err(Stop::Write)
        })
        .map_err(|stop| match stop {
            Stop::Layer(error) => in_layer(number)(error),
            Stop::Write(error) => OciError::Write(error),
        })?;
        check(layer, &digests)?;
    }
    Ok(())
}

fn check(layer: &LayerFile, digests: &Digests) -> Result<(), OciError> {
    let packed = layer.packed.iter().map(|expected| (expected, &digests.packed));
    for (expected, found) in packed.chain([(&layer.unpacked, &digests.unpacked)]) {
        if expected != found {
            return Err(OciError::Digest {
                what: layer.name.clone(),
                expected: expected.clone(),
                found: found.clone(),
            });
        }
    }
    Ok(())
}

fn in_layer(number: usize) -> impl FnOnce(LayerError) -> OciError {
    move |source| OciError::Layer {
        number: number + 1,
        source,
    }
}

/// An identifier of the file system that follows from the image's digest, marked as one by the maker's own rule.
fn identifier(plan: &Plan) -> [u8; 16] {
    let digits = plan.digest.trim_start_matches("sha256:").as_bytes();
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
        let text = std::str::from_utf8(pair).unwrap_or_default();
        *byte = u8::from_str_radix(text, 16).unwrap_or_default();
    }
    id[6] = 0x80 | (id[6] & 0x0f);
    id[8] = 0x80 | (id[8] & 0x3f);
    id
}
