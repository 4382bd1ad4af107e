//! A crate's source files: which module each is, and its syntax tree.

use std::path::{Path, PathBuf};

use syn::spanned::Spanned;

use crate::rules::{Finding, Rules};

#[cfg(test)]
mod tests;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("cannot parse {path}: {source}")]
    Parse { path: PathBuf, source: syn::Error },
}

/// One file of production code.
pub(crate) struct Source {
    /// From the tree's root.
    pub(crate) path: PathBuf,
    /// Its module, from the crate's root: `["virtio", "queue"]`; the root's is empty.
    pub(crate) module: Vec<String>,
    /// Its text as a tree, without what is compiled for tests alone.
    pub(crate) file: syn::File,
    /// Lines that are not for tests alone.
    pub(crate) lines: usize,
}

/// The files of the library or program whose root file is given, without those that are compiled for tests alone.
pub(crate) fn read_crate(tree: &Path, root: &Path) -> Result<Vec<Source>, Error> {
    let mut sources = Vec::new();
    let folder = root.parent().unwrap_or(Path::new("/"));
    read_module(tree, root, folder, Vec::new(), &mut sources)?;
    Ok(sources)
}

/// Reads the file of `module`, whose children lie in `folder`, and then its children.
fn read_module(
    tree: &Path,
    path: &Path,
    folder: &Path,
    module: Vec<String>,
    sources: &mut Vec<Source>,
) -> Result<(), Error> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: path.into(),
        source,
    })?;
    let source = parse(&text).map_err(|source| Error::Parse {
        path: path.into(),
        source,
    })?;
    for item in &source.0.items {
        let syn::Item::Mod(child) = item else { continue };
        if child.content.is_some() {
            continue;
        }
        let name = child.ident.to_string();
        let beside = folder.join(format!("{name}.rs"));
        let inside = folder.join(&name).join("mod.rs");
        let file = if beside.exists() { beside } else { inside };
        let mut child = module.clone();
        child.push(name.clone());
        read_module(tree, &file, &folder.join(&name), child, sources)?;
    }
    sources.push(Source {
        path: path.strip_prefix(tree).unwrap_or(path).into(),
        module,
        file: source.0,
        lines: source.1,
    });
    Ok(())
}

/// The tree without items for tests alone, and the number of lines without theirs.
fn parse(text: &str) -> syn::Result<(syn::File, usize)> {
    let mut file = syn::parse_file(text)?;
    let mut lines = text.lines().count();
    file.items.retain(|item| {
        let keep = !is_for_tests(attributes(item));
        if !keep {
            let span = item.span();
            lines = lines.saturating_sub(span.end().line + 1 - span.start().line);
        }
        keep
    });
    Ok((file, lines))
}

/// `#[cfg(test)]`, also as `#[cfg(all(test, ...))]`.
pub(crate) fn is_for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        if !attribute.path().is_ident("cfg") {
            return false;
        }
        let syn::Meta::List(list) = &attribute.meta else {
            return false;
        };
        let condition = list.tokens.to_string();
        condition == "test" || condition.starts_with("all (test")
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Const(item) => &item.attrs,
        syn::Item::Enum(item) => &item.attrs,
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Static(item) => &item.attrs,
        syn::Item::Struct(item) => &item.attrs,
        syn::Item::Trait(item) => &item.attrs,
        syn::Item::Type(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// Long files are worth a look: have they still one job?
pub(crate) fn check_length(files: &[Source], rules: &Rules) -> Vec<Finding> {
    files
        .iter()
        .filter(|file| file.lines > rules.full_room)
        .map(|file| {
            Finding::Warning(format!(
                "{} has {} lines of production code: has it still one job?",
                file.path.display(),
                file.lines
            ))
        })
        .collect()
}
