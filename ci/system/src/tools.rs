//! Programs of the host's for a guest: a disk that holds them, with the libraries that they need.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The loader of dynamic programs, at its place in every program of Debian's.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// What a guest does first, where `disk` is the disk's device: the programs are found by their names then.
pub(crate) fn use_them(disk: &str) -> String {
    format!(
        "mkdir -p /tools /lib64 /tmp\n\
         mount -t erofs -o ro {disk} /tools\n\
         ln -s /tools{LOADER} {LOADER}\n\
         export PATH=$PATH:/tools LD_LIBRARY_PATH=/tools\n"
    )
}

/// Makes the disk in `folder`: an EROFS with all files side by side, but for the loader.
pub(crate) fn disk(folder: &Path, programs: &[&Path]) -> PathBuf {
    let root = folder.join("tools");
    fs::create_dir_all(root.join("lib64")).expect("make a folder");
    let files: BTreeSet<PathBuf> = programs
        .iter()
        .flat_map(|program| std::iter::once(program.to_path_buf()).chain(libraries(program)))
        .collect();
    for file in files {
        let to = match file == Path::new(LOADER) {
            true => "lib64/ld-linux-x86-64.so.2".as_ref(),
            false => file.file_name().expect("a file has a name"),
        };
        fs::copy(&file, root.join(to)).unwrap_or_else(|error| panic!("copy {}: {error}", file.display()));
    }
    let disk = folder.join("tools.img");
    let output = Command::new("mkfs.erofs")
        .arg("--quiet")
        .args([&disk, &root])
        .output();
    let output = output.expect("run mkfs.erofs");
    assert!(output.status.success(), "mkfs.erofs: {output:?}");
    disk
}

/// What a dynamic program is linked to; nothing for a static one.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(program).output().expect("run ldd");
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(PathBuf::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_comes_with_its_loader_and_libraries() {
        let found = libraries("/bin/bash".as_ref());
        assert!(found.contains(&LOADER.into()), "{found:?}");
        assert!(found.iter().any(|path| path.ends_with("libc.so.6")), "{found:?}");
        let own = std::env::current_exe().unwrap();
        assert_eq!(libraries(&own), Vec::<PathBuf>::new());
    }
}
