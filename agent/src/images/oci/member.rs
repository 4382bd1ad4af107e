//! One member of a layer's tar: its header, with what the extensions before it say.

use std::io::{self, Read};

use tar::{Entry, EntryType, Header};

use super::error::LayerError;

/// No extension is larger: it is held in memory. Attributes of a file are the largest.
const EXTENSION_MAX: u64 = 1 << 20;

/// Longest value of `security.capability` (`vfs_ns_cap_data` in the kernel's `linux/capability.h`).
const CAPABILITY_MAX: usize = 24;

/// The attribute that programs lose their rights without.
const CAPABILITY: &[u8] = b"SCHILY.xattr.security.capability";

/// What members say of the one that follows: GNU's long names, and POSIX's records.
#[derive(Debug, Default)]
pub(super) struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime_s: Option<u64>,
    pub(super) capability: Option<Box<[u8]>>,
}

impl Extensions {
    /// Takes in a member that is an extension; says whether it was one.
    pub(super) fn take(&mut self, member: &mut Entry<'_, impl Read>) -> Result<bool, LayerError> {
        match member.header().entry_type() {
            EntryType::GNULongName => self.path = Some(text(member)?),
            EntryType::GNULongLink => self.link = Some(text(member)?),
            EntryType::XHeader => self.records(&contents(member)?)?,
            // Of the whole archive: comments and the like. Nothing that a file is made of is taken from there.
            EntryType::XGlobalHeader => {}
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Records: a length, counted with itself, a space, `key=value` and a line's end. (The tar crate splits them at
    /// line ends, which values may have too.)
    fn records(&mut self, mut bytes: &[u8]) -> Result<(), LayerError> {
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes).ok_or(LayerError::Extension)?;
            self.record(key, value)?;
            bytes = rest;
        }
        Ok(())
    }

    fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), LayerError> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.uid = Some(number(value)?),
            b"gid" => self.gid = Some(number(value)?),
            // Before 1970 and parts of a second are left out.
            b"mtime" if value.starts_with(b"-") => self.mtime_s = Some(0),
            b"mtime" => {
                let seconds = value.split(|byte| *byte == b'.').next();
                self.mtime_s = Some(number(seconds.unwrap_or_default())?);
            }
            CAPABILITY if value.len() <= CAPABILITY_MAX => self.capability = Some(value.into()),
            CAPABILITY => return Err(LayerError::Extension),
            _ if key.starts_with(b"GNU.sparse.") => return Err(LayerError::Kind("a sparse file")),
            _ => {}
        }
        Ok(())
    }

    pub(super) fn path(&mut self, header: &Header) -> Vec<u8> {
        self.path
            .take()
            .unwrap_or_else(|| header.path_bytes().into_owned())
    }

    pub(super) fn link(&mut self, header: &Header) -> Vec<u8> {
        let in_header = || header.link_name_bytes().unwrap_or_default().into_owned();
        self.link.take().unwrap_or_else(in_header)
    }

    /// Bytes of the content. An extension that says otherwise than the header would make two readers see two archives.
    pub(super) fn size(&self, header: &Header) -> Result<u64, LayerError> {
        let size = header.size().map_err(LayerError::Tar)?;
        match self.size {
            Some(other) if other != size => Err(LayerError::TwoSizes),
            _ => Ok(size),
        }
    }

    pub(super) fn uid(&self, header: &Header) -> Result<u32, LayerError> {
        owner(self.uid.map_or_else(|| header.uid(), Ok))
    }

    pub(super) fn gid(&self, header: &Header) -> Result<u32, LayerError> {
        owner(self.gid.map_or_else(|| header.gid(), Ok))
    }

    pub(super) fn mtime_s(&self, header: &Header) -> u64 {
        // A time that cannot be read is none that anybody relies on.
        let time = self.mtime_s.unwrap_or_else(|| header.mtime().unwrap_or(0));
        if time > i64::MAX as u64 { 0 } else { time }
    }
}

fn owner(id: io::Result<u64>) -> Result<u32, LayerError> {
    let id = id.map_err(LayerError::Tar)?;
    // The last one means "nobody" to the kernel.
    match u32::try_from(id) {
        Ok(id) if id != u32::MAX => Ok(id),
        _ => Err(LayerError::Owner(id)),
    }
}

fn contents(member: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, LayerError> {
    let size = member.header().size().map_err(LayerError::Tar)?;
    if size > EXTENSION_MAX {
        return Err(LayerError::LargeExtension(EXTENSION_MAX));
    }
    let mut bytes = Vec::new();
    member.read_to_end(&mut bytes).map_err(LayerError::Tar)?;
    Ok(bytes)
}

/// A long name, which ends with a zero.
fn text(member: &mut Entry<'_, impl Read>) -> Result<Vec<u8>, LayerError> {
    let mut bytes = contents(member)?;
    let end = bytes.iter().position(|byte| *byte == 0);
    bytes.truncate(end.unwrap_or(bytes.len()));
    Ok(bytes)
}

/// The first record: its key and value, and what follows.
fn record(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = bytes.iter().position(|byte| *byte == b' ')?;
    let length = usize::try_from(number(&bytes[..space]).ok()?).ok()?;
    if length > bytes.len() {
        return None;
    }
    let (record, rest) = bytes.split_at(length);
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

fn number(digits: &[u8]) -> Result<u64, LayerError> {
    let text = std::str::from_utf8(digits).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or(LayerError::Extension)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_have_a_line_end() {
        let mut extensions = Extensions::default();
        extensions
            .records(b"38 SCHILY.xattr.security.capability=\n\0\n")
            .unwrap_err();
        let mut extensions = Extensions::default();
        extensions
            .records(b"40 SCHILY.xattr.security.capability=\n\0\x01\n12 path=abc\n")
            .unwrap();
        assert_eq!(extensions.capability.as_deref(), Some(&b"\n\0\x01"[..]));
        assert_eq!(extensions.path.as_deref(), Some(&b"abc"[..]));
    }

    #[test]
    fn what_is_no_record_is_refused() {
        let table: [&[u8]; 8] = [
            b"x",
            b"5 a=b\n",
            b"99 a=b\n",
            b"0 a=b\n",
            b"3 =\n",
            b"6 ab\n\n",
            b"-6 a=b\n",
            b"14 size=seven\n",
        ];
        for bytes in table {
            let refused = Extensions::default().records(bytes).is_err();
            assert!(refused, "{}", String::from_utf8_lossy(bytes));
        }
    }
}
