//! Who a command runs as: `name`, `uid`, `name:group` or `uid:gid`, looked up in the image's own files. Pure.

/// A user with everything that the kernel and the environment want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups: those that list the user, unless a group was asked for.
    pub(crate) groups: Vec<u32>,
    /// The home directory; `/` for a number that has no entry.
    pub(crate) home: String,
}

/// Why there is no such user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UserError {
    #[error("user {0:?} is not in the image's /etc/passwd")]
    NoUser(String),
    #[error("group {0:?} is not in the image's /etc/group")]
    NoGroup(String),
}

/// Looks up `wanted` in the texts of passwd and group. A number needs no entry; lines that make no sense are skipped.
pub(crate) fn resolve(wanted: &str, passwd: &str, group: &str) -> Result<Identity, UserError> {
    let (user, wanted_group) = match wanted.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (wanted, None),
    };
    let entry = passwd.lines().filter_map(passwd_line).find(|e| e.is(user));
    let (uid, primary, home) = match (&entry, number(user)) {
        (Some(e), _) => (e.uid, e.gid, e.home),
        (None, Some(uid)) => (uid, 0, "/"),
        (None, None) => return Err(UserError::NoUser(user.to_string())),
    };
    let (gid, groups) = match wanted_group {
        Some(name) => (find_group(name, group)?, Vec::new()),
        None => (primary, groups_of(entry.map(|e| e.name), group)),
    };
    Ok(Identity {
        uid,
        gid,
        groups,
        home: home.to_string(),
    })
}

#[derive(Debug, Clone, Copy)]
struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

impl Entry<'_> {
    /// A name wins over a number, as everywhere.
    fn is(&self, user: &str) -> bool {
        self.name == user || number(user) == Some(self.uid)
    }
}

fn passwd_line(line: &str) -> Option<Entry<'_>> {
    let mut fields = line.split(':');
    let (name, _password) = (fields.next()?, fields.next()?);
    let (uid, gid) = (number(fields.next()?)?, number(fields.next()?)?);
    let home = fields.nth(1).filter(|h| !h.is_empty()).unwrap_or("/");
    (!name.is_empty()).then_some(Entry { name, uid, gid, home })
}

/// Name, number and members of one line of the group file.
fn group_line(line: &str) -> Option<(&str, u32, &str)> {
    let mut fields = line.split(':');
    let (name, _password) = (fields.next()?, fields.next()?);
    let gid = number(fields.next()?)?;
    (!name.is_empty()).then_some((name, gid, fields.next().unwrap_or_default()))
}

fn find_group(wanted: &str, group: &str) -> Result<u32, UserError> {
    group
        .lines()
        .filter_map(group_line)
        .find(|(name, _, _)| *name == wanted)
        .map(|(_, gid, _)| gid)
        .or_else(|| number(wanted))
        .ok_or_else(|| UserError::NoGroup(wanted.to_string()))
}

fn groups_of(user: Option<&str>, group: &str) -> Vec<u32> {
    let Some(user) = user else {
        return Vec::new();
    };
    group
        .lines()
        .filter_map(group_line)
        .filter(|(_, _, members)| members.split(',').any(|m| m == user))
        .map(|(_, gid, _)| gid)
        .collect()
}

/// A plain decimal number; the last one is the kernel's "no such id" and not a user.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|n| digits && *n != u32::MAX)
}

#[cfg(test)]
mod tests;
