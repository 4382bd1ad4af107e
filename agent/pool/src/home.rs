//! What this node keeps of its pool: who it is there, what it trusts, and its keys. All of it in one directory that only
//! its owner may enter, in files that only he may read.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, chown};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::certificate::Purpose;
use crate::error::PoolError;

/// At which port the region asks for logs and figures of Pods, where nothing is said: where it asks a kubelet.
pub const USUAL_PORT: u16 = 10_250;

/// Who this node is, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Membership {
    /// The URL of the region's API server.
    pub server: String,
    /// The name of this node there.
    pub node: String,
    /// Where the region reaches this node.
    pub address: IpAddr,
    /// At which port it asks for logs and figures of Pods.
    #[serde(default = "usual_port")]
    pub port: u16,
    /// Whether it is on its way out: then nothing registers it again.
    #[serde(default)]
    pub leaving: bool,
}

fn usual_port() -> u16 {
    USUAL_PORT
}

/// The directory.
#[derive(Debug, Clone)]
pub struct Home {
    dir: PathBuf,
}

const MEMBERSHIP: &str = "pool.json";
const CA: &str = "ca.crt";
const IMAGES: &str = "images";

impl Home {
    /// The directory, which need not be there yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Where the region's own certificate lies.
    pub fn ca(&self) -> PathBuf {
        self.dir.join(CA)
    }

    /// Where key and certificate for this purpose lie, in one file, so that they are never of two minds.
    pub fn pem(&self, purpose: Purpose) -> PathBuf {
        self.dir.join(match purpose {
            Purpose::Client => "client.pem",
            Purpose::Serving => "serving.pem",
        })
    }

    /// Where images lie that are on their way to the agent.
    pub fn images(&self) -> PathBuf {
        self.dir.join(IMAGES)
    }

    /// The pool that this node is in.
    pub fn membership(&self) -> Result<Membership, PoolError> {
        let path = self.dir.join(MEMBERSHIP);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(PoolError::NotJoined {
                    dir: self.dir.clone(),
                });
            }
            Err(error) => return Err(PoolError::file("read", &path)(error)),
        };
        serde_json::from_slice(&text).map_err(|error| PoolError::wrong(path.display(), error))
    }

    /// Keeps what a join brought. The membership comes last: with it, all is there.
    pub fn keep(&self, membership: &Membership, ca: &[u8], client: &[u8]) -> Result<(), PoolError> {
        self.write(CA, ca)?;
        self.write_pem(Purpose::Client, client)?;
        self.keep_membership(membership)
    }

    /// Keeps another state of the same membership.
    pub fn keep_membership(&self, membership: &Membership) -> Result<(), PoolError> {
        let text = serde_json::to_vec_pretty(membership)
            .map_err(|error| PoolError::wrong(self.dir.join(MEMBERSHIP).display(), error))?;
        self.write(MEMBERSHIP, &text)
    }

    /// Key and certificate for this purpose.
    pub fn read_pem(&self, purpose: Purpose) -> Result<Option<Vec<u8>>, PoolError> {
        let path = self.pem(purpose);
        match fs::read(&path) {
            Ok(pem) => Ok(Some(pem)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(PoolError::file("read", &path)(error)),
        }
    }

    /// Keeps key and certificate for this purpose.
    pub fn write_pem(&self, purpose: Purpose, pem: &[u8]) -> Result<(), PoolError> {
        let path = self.pem(purpose);
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        self.write(&name, pem)
    }

    /// Forgets the pool. The membership goes first: without it the rest is nothing.
    pub fn forget(&self) -> Result<(), PoolError> {
        let pems = [Purpose::Client, Purpose::Serving].map(|purpose| self.pem(purpose));
        for path in [self.dir.join(MEMBERSHIP)]
            .into_iter()
            .chain(pems)
            .chain([self.ca()])
        {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(PoolError::file("remove", &path)(error));
                }
                _ => self.sync()?,
            }
        }
        // Bytes of images are nothing to keep, and no reason to stay.
        let _ = fs::remove_dir_all(self.images());
        Ok(())
    }

    /// Writes a file whole or not at all, and durably. It is the directory's owner's, whoever writes: root joins, and the
    /// service, which is not root, renews.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), PoolError> {
        let make = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        make.map_err(PoolError::file("make directory", &self.dir))?;
        let path = self.dir.join(name);
        let part = self.dir.join(format!("{name}.part"));
        write_private(&part, &self.dir, bytes)
            .and_then(|()| fs::rename(&part, &path))
            .map_err(PoolError::file("write", &path))?;
        self.sync()
    }

    fn sync(&self) -> Result<(), PoolError> {
        let sync = File::open(&self.dir).and_then(|dir| dir.sync_all());
        sync.map_err(PoolError::file("write directory", &self.dir))
    }
}

fn write_private(part: &Path, dir: &Path, bytes: &[u8]) -> io::Result<()> {
    // What a crash left there may have another mode.
    match fs::remove_file(part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(part)?;
    file.write_all(bytes)?;
    let owner = fs::metadata(dir)?;
    if owner.uid() != file.metadata()?.uid() {
        chown(part, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_kept_is_private_and_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("pool"));
        assert!(matches!(home.membership(), Err(PoolError::NotJoined { .. })));
        let membership = Membership {
            server: "https://r:6443".into(),
            node: "town".into(),
            address: IpAddr::from([10, 0, 0, 1]),
            port: 1,
            leaving: false,
        };
        fs::create_dir(dir.path().join("pool")).unwrap();
        fs::set_permissions(dir.path().join("pool"), fs::Permissions::from_mode(0o700)).unwrap();
        // What a crash left, open to all.
        fs::write(dir.path().join("pool/client.pem.part"), "x").unwrap();
        home.keep(&membership, b"ca", b"key").unwrap();
        assert_eq!(home.membership().unwrap(), membership);
        assert_eq!(home.read_pem(Purpose::Client).unwrap().unwrap(), b"key");
        assert_eq!(home.read_pem(Purpose::Serving).unwrap(), None);
        for entry in fs::read_dir(dir.path().join("pool")).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.path());
        }
        home.forget().unwrap();
        home.forget().unwrap();
        assert_eq!(fs::read_dir(dir.path().join("pool")).unwrap().count(), 0);
    }

    #[test]
    fn a_membership_that_is_torn_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(MEMBERSHIP), "{").unwrap();
        let error = Home::new(dir.path()).membership().unwrap_err().to_string();
        assert!(error.contains("pool.json"), "{error}");
    }
}
