mod good;
mod hostile;
mod maker;

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::build::{read_tree, write_contents};
use super::*;
use crate::images::erofs::Layout;

const LIMITS: Limits = Limits {
    bytes: 16 << 20,
    members: 2_000,
};

fn build_tar(file: File) -> Result<(Plan, File), OciError> {
    let out = tempfile::tempfile().unwrap();
    let plan = build(&Source::archive(file)?, LIMITS, &out)?;
    Ok((plan, out))
}

/// The image's files, unpacked by erofs-utils into a directory.
fn unpack(image: &File) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("image");
    fs::copy(
        format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(image)),
        &copy,
    )
    .unwrap();
    let root = dir.path().join("root");
    let output = Command::new("fsck.erofs")
        .arg(format!("--extract={}", root.display()))
        .args(["--preserve", "--overwrite"])
        .arg(&copy)
        .output()
        .expect("erofs-utils is not installed: run ci/packages as root");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    dir
}

/// Every file below a directory, a line each: its kind, mode, links and what it holds.
fn listing(dir: &std::path::Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            let mode = metadata.mode() & 0o7777;
            if metadata.is_dir() {
                lines.push(format!("{name}/ {mode:o}"));
                open.push(path);
            } else if metadata.is_symlink() {
                lines.push(format!("{name} -> {}", fs::read_link(path).unwrap().display()));
            } else {
                let text = fs::read(&path).unwrap();
                let text = match text.len() {
                    0..=40 => String::from_utf8(text).unwrap(),
                    length => format!("{length} bytes"),
                };
                lines.push(format!("{name} {mode:o} {} {text}", metadata.nlink()));
            }
        }
    }
    lines.sort();
    lines
}
