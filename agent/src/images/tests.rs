use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::*;
use crate::caller::Caller;

const LIMITS: oci::Limits = oci::Limits {
    bytes: 64 << 20,
    members: 1000,
};

const HELLO: &str = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

fn manifest(name: &str) -> String {
    format!(
        r#"{{"schema_version":1,"name":"{name}","digest":"{HELLO}","size":5,"command":["/bin/sh"],"env":{{}},
            "user":null,"working_dir":null}}"#
    )
}

fn write(dir: &Path, manifest: &str, rootfs: &[u8]) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("manifest.json"), manifest).unwrap();
    fs::write(dir.join("rootfs.erofs"), rootfs).unwrap();
}

struct Place {
    dir: tempfile::TempDir,
    store: ImageStore,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = ImageStore::open(&dir.path().join("images")).unwrap();
        Self { dir, store }
    }

    fn source(&self) -> std::path::PathBuf {
        self.dir.path().join("source")
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.dir.path().join("images"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

#[test]
fn an_image_comes_in_is_found_replaced_and_removed() {
    let place = Place::new();
    write(&place.source(), &manifest("base"), b"hello");
    let staged = place
        .store
        .stage(&place.source(), None, &Caller::root(), LIMITS)
        .unwrap();
    assert!(place.store.list().unwrap().is_empty(), "not before the commit");
    let image = place.store.commit(staged).unwrap();
    assert_eq!(fs::read(&image.rootfs).unwrap(), b"hello");
    assert!(image.imported_ms > 0);
    assert_eq!(place.store.list().unwrap(), [image]);

    let other = manifest("base").replace("/bin/sh", "/bin/ash");
    write(&place.source(), &other, b"hello");
    let staged = place
        .store
        .stage(&place.source(), None, &Caller::root(), LIMITS)
        .unwrap();
    place.store.commit(staged).unwrap();
    assert_eq!(place.store.get("base").unwrap().manifest.command, ["/bin/ash"]);
    assert_eq!(place.names(), ["base"]);

    place.store.remove("base").unwrap();
    assert!(matches!(place.store.remove("base"), Err(ImageError::NotFound(_))));
    assert!(place.names().is_empty());
}

/// Each image that is wrong is refused by one line that names the file and what to do, and leaves nothing.
#[test]
fn what_is_wrong_is_refused_and_leaves_nothing() {
    let good = manifest("base");
    let table: [(&str, String, &[u8], &str); 12] = [
        ("json", "{".into(), b"hello", "manifest.json: EOF"),
        (
            "unknown field",
            good.replace("\"user\"", "\"usr\""),
            b"hello",
            "unknown field `usr`",
        ),
        (
            "doubled field",
            good.replace("\"size\":5", "\"size\":5,\"size\":5"),
            b"hello",
            "duplicate field `size`",
        ),
        (
            "missing field",
            good.replace("\"size\":5,", ""),
            b"hello",
            "missing field `size`",
        ),
        (
            "version",
            good.replace("_version\":1", "_version\":2"),
            b"hello",
            "`schema_version` is 2",
        ),
        ("name", manifest("../etc"), b"hello", "`name` is \"../etc\""),
        (
            "name of a temporary",
            manifest(".import-1"),
            b"hello",
            "`name` is \".import-1\"",
        ),
        (
            "digest's form",
            good.replace("sha256:", "md5:"),
            b"hello",
            "`digest` is",
        ),
        (
            "command",
            good.replace("[\"/bin/sh\"]", "[]"),
            b"hello",
            "`command` is empty",
        ),
        (
            "shorter",
            good.clone(),
            b"hell",
            "has 4 bytes, its manifest says 5",
        ),
        (
            "longer",
            good.clone(),
            b"hello!",
            "has 6 bytes, its manifest says 5",
        ),
        ("other bytes", good.clone(), b"jello", "has digest sha256:"),
    ];
    let place = Place::new();
    for (what, manifest, rootfs, expected) in table {
        write(&place.source(), &manifest, rootfs);
        let error = place
            .store
            .stage(&place.source(), None, &Caller::root(), LIMITS)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{what}: {error}");
        assert!(
            error.contains("source/") && error.contains(BUILD_AGAIN),
            "{what}: {error}"
        );
        assert!(!error.contains('\n'), "{what}: {error}");
        assert!(place.names().is_empty(), "{what}");
    }
}

#[test]
fn only_regular_files_are_read() {
    let place = Place::new();
    let source = place.source();
    write(&source, &manifest("base"), b"hello");
    fs::rename(source.join("rootfs.erofs"), source.join("real")).unwrap();
    symlink(source.join("real"), source.join("rootfs.erofs")).unwrap();
    assert!(
        place.store.stage(&source, None, &Caller::root(), LIMITS).is_err(),
        "a link"
    );
    fs::remove_file(source.join("rootfs.erofs")).unwrap();
    assert!(
        place.store.stage(&source, None, &Caller::root(), LIMITS).is_err(),
        "nothing"
    );
    fs::create_dir(source.join("rootfs.erofs")).unwrap();
    let error = place
        .store
        .stage(&source, None, &Caller::root(), LIMITS)
        .unwrap_err()
        .to_string();
    assert!(error.contains("is not a regular file"), "{error}");
    assert!(
        place
            .store
            .stage(&place.dir.path().join("missing"), None, &Caller::root(), LIMITS)
            .is_err()
    );
}

#[test]
fn damage_in_the_store_is_told_and_can_be_removed() {
    let place = Place::new();
    write(&place.source(), &manifest("base"), b"hello");
    place
        .store
        .commit(
            place
                .store
                .stage(&place.source(), None, &Caller::root(), LIMITS)
                .unwrap(),
        )
        .unwrap();
    let stored = place.dir.path().join("images/base");
    fs::write(stored.join("rootfs.erofs"), b"hell").unwrap();
    let error = place.store.get("base").unwrap_err().to_string();
    assert!(
        error.contains("rootfs.erofs") && error.contains(IMPORT_AGAIN),
        "{error}"
    );
    fs::write(stored.join("manifest.json"), b"junk").unwrap();
    let error = place.store.get("base").unwrap_err().to_string();
    assert!(
        error.contains("manifest.json") && error.contains(IMPORT_AGAIN),
        "{error}"
    );
    assert!(place.store.list().unwrap().is_empty());
    place.store.remove("base").unwrap();
    assert!(place.names().is_empty());
}

#[test]
fn unfinished_imports_are_removed_at_the_next_start() {
    let place = Place::new();
    let images = place.dir.path().join("images");
    write(&images.join(".import-0123"), &manifest("base"), b"hel");
    ImageStore::open(&images).unwrap();
    assert!(place.names().is_empty());
}
