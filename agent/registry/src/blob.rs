//! One blob: fetched, gone on with after a break, checked, and only then named.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use oci_client::client::BlobResponse;
use oci_spec::image::Descriptor;
use sha2::{Digest, Sha256};

use crate::error::PullError;
use crate::registry::{Registry, hex};

/// So often in a row may a connection break before a byte came.
const BREAKS_MAX: u32 = 5;

/// The wait after the first break; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// Where a blob lies in OCI's layout. Its digits are checked by who read the digest.
pub(crate) fn blob_path(dir: &Path, digest: &str) -> PathBuf {
    dir.join("blobs").join(digest.replace(':', "/"))
}

/// Writes a file whole.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), PullError> {
    let failed = |source| PullError::Write {
        path: path.to_path_buf(),
        source,
    };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::write(path, bytes).map_err(failed)
}

/// Fetches a blob, where it is not here yet. `tell` hears how many of its bytes are here.
pub(crate) async fn fetch(
    registry: &Registry,
    blob: &Descriptor,
    dir: &Path,
    mut tell: impl FnMut(u64),
) -> Result<(), PullError> {
    let expected = blob.digest().to_string();
    let path = blob_path(dir, &expected);
    let failed = |source| PullError::Write {
        path: path.clone(),
        source,
    };
    if path.exists() {
        tell(blob.size());
        return Ok(());
    }
    let part = path.with_extension("part");
    fs::create_dir_all(dir.join("blobs/sha256")).map_err(failed)?;
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&part)
        .map_err(failed)?;
    let mut breaks = 0;
    loop {
        let here = file.metadata().map_err(failed)?.len();
        if here >= blob.size() {
            break;
        }
        let error = match go_on(registry, blob, &mut file, here, &mut tell).await {
            Ok(()) => continue,
            Err(error @ PullError::Connection { .. }) => error,
            Err(error) => return Err(error),
        };
        let more = file.metadata().map_err(failed)?.len() > here;
        breaks = if more { 1 } else { breaks + 1 };
        if breaks > BREAKS_MAX {
            return Err(error);
        }
        tokio::time::sleep(FIRST_WAIT * 2_u32.pow(breaks - 1)).await;
    }
    let found = hash_file(&mut file).map_err(failed)?;
    if found != expected {
        // The next pull begins anew.
        let _ = fs::remove_file(&part);
        return Err(registry.wrong_digest(&expected, found));
    }
    fs::rename(&part, &path).map_err(failed)
}

/// Fetches what is missing behind the `here` bytes in `file`, up to the end or a break.
async fn go_on(
    registry: &Registry,
    blob: &Descriptor,
    file: &mut File,
    here: u64,
    tell: &mut impl FnMut(u64),
) -> Result<(), PullError> {
    let digest = blob.digest().to_string();
    let failed = |source| PullError::Write {
        path: PathBuf::from(&digest),
        source,
    };
    let answer = registry
        .client
        .pull_blob_stream_partial(&registry.image, digest.as_str(), here, None)
        .await
        .map_err(|error| registry.error(error))?;
    let (mut stream, mut at) = match answer {
        BlobResponse::Partial(stream) => (stream.stream, here),
        // One that cannot go on begins anew.
        BlobResponse::Full(stream) => (stream.stream, 0),
    };
    file.set_len(at).map_err(failed)?;
    file.seek(SeekFrom::Start(at)).map_err(failed)?;
    while let Some(bytes) = stream.next().await {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            // All of it came, and it is not what it should be: that is said with both digests, when it is hashed.
            Err(_) if at == blob.size() => return Ok(()),
            Err(error) => return Err(registry.broken(error)),
        };
        at += bytes.len() as u64;
        if at > blob.size() {
            return Err(registry.problem(format!("gives more than the {} bytes of {digest}", blob.size())));
        }
        file.write_all(&bytes).map_err(failed)?;
        tell(at);
    }
    if at < blob.size() {
        return Err(registry.broken("the connection ended too soon"));
    }
    Ok(())
}

fn hash_file(file: &mut File) -> io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(hash)),
            count => hash.update(&buffer[..count]),
        }
    }
}
