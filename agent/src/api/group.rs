//! Groups of the host.

use std::fs;

/// The number of a group. Read from the file, because a static program cannot load what the C library would ask; a
/// package makes its group there.
pub(super) fn group_id(name: &str) -> Option<u32> {
    find_group(&fs::read_to_string("/etc/group").ok()?, name)
}

fn find_group(file: &str, name: &str) -> Option<u32> {
    file.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_found_by_its_whole_name() {
        let file = "root:x:0:\nsecovia-x:x:5:\nsecovia:x:71:ann,bob\nbroken\nsecovia2:x:6:\n";
        assert_eq!(find_group(file, "secovia"), Some(71));
        assert_eq!(find_group(file, "broken"), None);
        assert_eq!(find_group(file, "none"), None);
    }
}
