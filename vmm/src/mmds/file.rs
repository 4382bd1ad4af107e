//! Metadata in a file (`--metadata`).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::store::{Mmds, MmdsError};

/// Why the file is not the metadata now.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum FileError {
    #[error("--metadata: {path}: {source}; give a readable JSON file")]
    Read { path: PathBuf, source: io::Error },
    #[error("--metadata: {path}: {source}; correct the file")]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error("--metadata: {path}: {source}")]
    Data { path: PathBuf, source: MmdsError },
}

/// Puts what is in the file at `path` into `mmds`.
pub fn read(path: &Path, mmds: &mut Mmds) -> Result<(), FileError> {
    let failed = |source| FileError::Read {
        path: path.into(),
        source,
    };
    let mut text = Vec::new();
    let file = File::open(path).map_err(failed)?;
    // White space is not counted by the limit, but read it is.
    let most = (mmds.limit() as u64).saturating_mul(4).saturating_add(4096);
    file.take(most).read_to_end(&mut text).map_err(failed)?;
    let data: Value = serde_json::from_slice(&text).map_err(|source| FileError::Json {
        path: path.into(),
        source,
    })?;
    mmds.put(data).map_err(|source| FileError::Data {
        path: path.into(),
        source,
    })
}
