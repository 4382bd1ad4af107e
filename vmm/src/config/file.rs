//! The configuration file.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use secovia_vmm_api::VmSpec;

use super::error::ConfigError;

/// No machine takes as much to describe.
const MAX_SIZE: u64 = 1 << 20;

/// Reads a machine's specification from a JSON file; unknown and doubled fields are refused by name.
pub fn read(path: &Path) -> Result<VmSpec, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.into(),
        source,
    };
    // Most fit at once.
    let mut text = Vec::with_capacity(4096);
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_SIZE + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(ConfigError::Size {
            path: path.into(),
            max: MAX_SIZE,
        });
    }
    serde_json::from_slice(&text).map_err(|source| ConfigError::Json {
        path: path.into(),
        source,
    })
}
