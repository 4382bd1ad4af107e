use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use super::*;

const HIM: u32 = 54_321;

fn him(groups: &[u32]) -> Caller {
    Caller {
        uid: HIM,
        gid: HIM,
        groups: groups.to_vec(),
    }
}

#[test]
fn groups_are_the_first_and_the_others() {
    let caller = him(&[7]);
    assert!(caller.is_of(HIM) && caller.is_of(7) && !caller.is_of(8));
}

#[test]
fn a_link_and_a_directory_are_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "text").unwrap();
    symlink(&file, dir.path().join("link")).unwrap();
    assert!(Caller::root().open(&file).is_ok());
    assert!(Caller::root().open(&dir.path().join("link")).is_err());
    assert!(Caller::root().open(dir.path()).is_err());
}

/// The agent is root; a member of its group gets nothing opened that he could not open himself.
#[test]
fn a_file_is_opened_with_the_callers_rights() {
    if !geteuid().is_root() {
        println!("SKIP: taking another user's rights needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let file = |name: &str, mode: u32, uid: u32, gid: u32| {
        let path = dir.path().join(name);
        fs::write(&path, name).unwrap();
        chown(&path, Some(uid), Some(gid)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path
    };
    let (secret, his) = (file("secret", 0o600, 0, 0), file("his", 0o600, HIM, 0));
    let (group, other_group) = (file("group", 0o640, 0, 77), file("other", 0o640, 0, 78));
    let caller = him(&[77]);
    let refused = |path: &Path| caller.open(path).unwrap_err().kind() == io::ErrorKind::PermissionDenied;
    assert!(refused(&secret), "of root's");
    assert!(refused(&other_group), "of a group that he is not in");
    assert!(caller.open(&his).is_ok(), "his own");
    assert!(caller.open(&group).is_ok(), "of a group that he is in");

    let private = dir.path().join("private");
    fs::create_dir(&private).unwrap();
    fs::write(private.join("file"), "in a private directory").unwrap();
    fs::set_permissions(&private, Permissions::from_mode(0o700)).unwrap();
    assert!(refused(&private.join("file")), "behind a door that is shut");

    // Only that one thread's rights were given up.
    assert!(Caller::root().open(&secret).is_ok());
}
