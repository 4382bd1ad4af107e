//! A cpio archive with one file, as Linux takes it for an initial RAM disk ("newc").

/// Alignment of names and contents.
const ALIGNMENT: usize = 4;

/// An archive that holds the program `name`. Behind another archive, it replaces a file of that name in it.
pub(crate) fn with_program(name: &str, contents: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    add(&mut archive, name, 0o100_755, contents);
    add(&mut archive, "TRAILER!!!", 0, &[]);
    archive
}

fn add(archive: &mut Vec<u8>, name: &str, mode: usize, contents: &[u8]) {
    archive.extend(b"070701");
    // Inode, mode, owner, group, links, time, size, device, its own device, length of the name with its zero, checksum.
    let name_len = name.len() + 1;
    let fields = [1, mode, 0, 0, 1, 0, contents.len(), 0, 0, 0, 0, name_len, 0];
    for field in fields {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes().chain([0]));
    archive.resize(archive.len().next_multiple_of(ALIGNMENT), 0);
    archive.extend(contents);
    archive.resize(archive.len().next_multiple_of(ALIGNMENT), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut cpio = Command::new("cpio")
            .args(["--extract", "--quiet"])
            .current_dir(&folder)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let archive = with_program("init", b"#!/bin/sh\n");
        cpio.stdin.take().unwrap().write_all(&archive).unwrap();
        assert!(cpio.wait().unwrap().success());
        assert_eq!(std::fs::read(folder.path().join("init")).unwrap(), b"#!/bin/sh\n");
    }
}
