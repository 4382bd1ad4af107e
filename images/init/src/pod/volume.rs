//! Files of the host's in volumes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Component, Path, PathBuf};

use secovia_guest_protocol::FileSpec;

/// How long a file's path may be.
const PATH_MAX: usize = 1024;
/// What all files may have, in bytes.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Whether this can be the name of a container or volume, and of a directory.
pub(super) fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(plain)
}

/// A file that is being written.
pub(crate) struct Incoming {
    file: File,
    mode: u32,
    written: u64,
}

impl Incoming {
    /// A new file in a volume that lies below `volumes`. Until it is whole nobody but root may read it.
    pub(crate) fn create(volumes: &Path, spec: &FileSpec) -> io::Result<Self> {
        let path = place(volumes, spec).ok_or_else(|| {
            let message = format!(
                "{:?} in volume {:?} is no place for a file",
                spec.path, spec.volume
            );
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })?;
        if let Some(parent) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        // One that an earlier try left, which came to nothing.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path)?;
        if spec.gid != 0 {
            fchown(&file, None, Some(spec.gid))?;
        }
        Ok(Self {
            file,
            mode: spec.mode & 0o777,
            written: 0,
        })
    }

    /// More of its bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written = self.written.saturating_add(bytes.len() as u64);
        if self.written > BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.file.write_all(bytes)
    }

    /// It is whole.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.file.set_permissions(fs::Permissions::from_mode(self.mode))
    }
}

fn place(volumes: &Path, spec: &FileSpec) -> Option<PathBuf> {
    let path = Path::new(&spec.path);
    let mut names = path.components().peekable();
    let is_plain = names.peek().is_some() && names.all(|part| matches!(part, Component::Normal(_)));
    let is_good =
        is_plain && is_name(&spec.volume) && spec.path.len() <= PATH_MAX && !spec.path.contains('\0');
    is_good.then(|| volumes.join(&spec.volume).join(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(volume: &str, path: &str, mode: u32) -> FileSpec {
        FileSpec {
            volume: volume.into(),
            path: path.into(),
            mode,
            gid: 0,
        }
    }

    #[test]
    fn a_file_is_written_whole_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = Incoming::create(dir.path(), &spec("v", "a/b", 0o440)).unwrap();
        let path = dir.path().join("v/a/b");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(), 0o600);
        file.write(b"one ").unwrap();
        file.write(b"two").unwrap();
        file.finish().unwrap();
        assert_eq!((fs::read(&path).unwrap(), mode()), (b"one two".to_vec(), 0o440));
        // The host comes back after it was cut off.
        drop(Incoming::create(dir.path(), &spec("v", "a/b", 0o440)).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"");
    }

    #[test]
    fn no_path_leads_out_of_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        for (volume, path) in [
            ("v", "../x"),
            ("v", "/x"),
            ("v", "a/../../x"),
            ("v", ""),
            ("v", "."),
            ("v", "a\0"),
            ("..", "x"),
            ("", "x"),
            ("a/b", "x"),
        ] {
            assert!(
                Incoming::create(dir.path(), &spec(volume, path, 0o600)).is_err(),
                "{volume} {path}"
            );
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
