use std::collections::BTreeMap;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tar::{EntryType, Header};

use super::maker::*;
use super::*;

fn member(kind: EntryType, path: &[u8], link: &[u8]) -> Archive {
    Archive::of([Layer::new().member(kind, path, link, b"")])
}

fn file(path: &[u8]) -> Archive {
    member(EntryType::Regular, path, b"")
}

fn header(change: impl FnOnce(&mut Header)) -> Archive {
    let mut header = Header::new_gnu();
    header.set_path("x").unwrap();
    header.set_mode(0o644);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    change(&mut header);
    header.set_cksum();
    Archive::of([Layer::new().raw(&header, b"")])
}

/// 10 GB of zeros in gzip, packed once and repeated.
fn zeros() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    for _ in 0..64 {
        encoder.write_all(&[0; 1 << 20]).unwrap();
    }
    encoder.finish().unwrap().repeat(10 * 1024 / 64)
}

/// The header of a file of so many bytes.
fn told(size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_mode(0o644);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    header
}

/// Each is refused for its own reason, and nothing is written but the image under way, within its bounds.
#[test]
fn what_a_layer_must_not_have_is_refused() {
    let long = [&b"d/"[..], &[b'n'; 256]].concat();
    let deep = b"d/".repeat(130);
    let table: Vec<(&str, Archive, &str)> = vec![
        (
            "traversal",
            file(b"../../etc/passwd"),
            "\"../../etc/passwd\" its path leads out through `..`",
        ),
        ("traversal within", file(b"a/../../x"), "leads out through `..`"),
        (
            "absolute",
            file(b"/etc/passwd"),
            "\"/etc/passwd\" its path is absolute",
        ),
        ("whiteout of above", file(b"../.wh.etc"), "leads out"),
        ("whiteout of nothing", file(b"a/.wh..."), "whiteout of nothing"),
        (
            "hard link outward",
            member(EntryType::Link, b"x", b"../../etc/shadow"),
            "what it links to leads out",
        ),
        (
            "absolute hard link",
            member(EntryType::Link, b"x", b"/etc/shadow"),
            "what it links to is absolute",
        ),
        (
            "hard link to nothing",
            member(EntryType::Link, b"x", b"etc/shadow"),
            "which is no file of the image",
        ),
        (
            "hard link to itself",
            member(EntryType::Link, b"x", b"x"),
            "hard link to itself",
        ),
        (
            "hard link to a directory",
            Archive::of([Layer::new().dir("d/").link("x", "d")]),
            "which is no file of the image",
        ),
        (
            "through an absolute link",
            Archive::of([Layer::new().symlink("out", "/etc").file("out/passwd", "x")]),
            "leads through \"out\", which is not a directory",
        ),
        (
            "through a link of a layer below",
            Archive::of([
                Layer::new().symlink("out", "/"),
                Layer::new().file("out/etc/x", "x"),
            ]),
            "layer 2: \"out/etc/x\" its path leads through \"out\"",
        ),
        (
            "whiteout through a link",
            Archive::of([Layer::new().symlink("out", "/etc").file("out/.wh.passwd", "")]),
            "leads through \"out\"",
        ),
        (
            "hard link through a link",
            Archive::of([Layer::new().symlink("out", "/etc").link("x", "out/shadow")]),
            "leads through \"out\"",
        ),
        (
            "through a file",
            Archive::of([Layer::new().file("f", "").file("f/x", "")]),
            "leads through \"f\"",
        ),
        (
            "character device",
            member(EntryType::Char, b"dev/mem", b""),
            "\"dev/mem\" is a device",
        ),
        (
            "block device",
            member(EntryType::Block, b"dev/sda", b""),
            "is a device",
        ),
        (
            "the root as a file",
            member(EntryType::Symlink, b"./", b"/etc"),
            "takes the place of the root",
        ),
        ("line end in a name", file(b"a\nb"), "control character"),
        ("escape in a name", file(b"\x1b[2J"), "control character"),
        ("no UTF-8", file(b"a\xff\xfe"), "is not UTF-8"),
        (
            "line end in a link",
            member(EntryType::Symlink, b"x", b"a\nb"),
            "what it links to has a control character",
        ),
        (
            "link to nothing",
            member(EntryType::Symlink, b"x", b""),
            "is a link to nothing",
        ),
        ("long name", file(&long), "more than 255 bytes"),
        ("long path", file(&[b'p'; 5000]), "more than 4095 bytes"),
        ("deep path", file(&deep), "more than 128 directories deep"),
        (
            "sparse file",
            member(EntryType::GNUSparse, b"x", b""),
            "is a sparse file",
        ),
        (
            "sparse file by extension",
            Archive::of([Layer::new().pax(&[("GNU.sparse.major", b"1")]).file("x", "")]),
            "is a sparse file",
        ),
        (
            "unknown kind",
            member(EntryType::new(b'Z'), b"x", b""),
            "is of a kind",
        ),
        (
            "two sizes",
            Archive::of([Layer::new().pax(&[("size", b"0")]).file("x", "hello")]),
            "has two sizes",
        ),
        (
            "path by extension",
            Archive::of([Layer::new().pax(&[("path", b"/etc/x")]).file("x", "")]),
            "\"/etc/x\" its path is absolute",
        ),
        (
            "nonsense extension",
            Archive::of([Layer::new().member(EntryType::XHeader, b"p", b"", b"nonsense")]),
            "makes no sense",
        ),
        (
            "owner beyond",
            header(|header| header.set_uid(1 << 32)),
            "belongs to 4294967296",
        ),
        (
            "owner nobody is",
            header(|header| header.set_gid(u64::from(u32::MAX))),
            "belongs to 4294967295",
        ),
        (
            "size beyond",
            header(|header| header.set_size(1 << 60)),
            "more than `images.image_max`",
        ),
        (
            "size of 10 GB",
            header(|header| header.set_size(10 << 30)),
            "more than `images.image_max`",
        ),
        (
            "long extension",
            header(|header| {
                header.set_entry_type(EntryType::GNULongName);
                header.set_size(8 << 20);
            }),
            "extension of more than",
        ),
        (
            "too many members",
            Archive::of([(0..3_000).fold(Layer::new(), |layer, at| layer.file(&format!("{at}"), ""))]),
            "members than an image may",
        ),
        (
            "one name too often",
            Archive::of([(0..3_000).fold(Layer::new(), |layer, _| layer.file("x", ""))]),
            "members than an image may",
        ),
        (
            "no tar",
            Archive::packed([(b"hello".repeat(200), digest(&b"hello".repeat(200)))]),
            "is not a tar archive",
        ),
        (
            "cut short",
            {
                let tar = Layer::new().file("x", &"y".repeat(5_000)).tar()[..2_000].to_vec();
                let unpacked = digest(&tar);
                Archive::packed([(tar, unpacked)])
            },
            "not a tar archive",
        ),
        (
            "gzip of nothing",
            Archive::packed([(vec![0x1f, 0x8b, 8, 0], digest(b""))]),
            "unexpected end of file",
        ),
        (
            "zstd of nothing",
            Archive::packed([(vec![0x28, 0xb5, 0x2f, 0xfd, 0xff, 0xff], digest(b""))]),
            "layer 1: ",
        ),
    ];
    for (what, archive, expected) in table {
        for files in [archive.oci(), archive.docker()] {
            let error = build_tar(tar_of(&files)).expect_err(what).to_string();
            assert!(error.contains(expected), "{what}: {error}");
            assert!(error.starts_with("layer "), "{what}: {error}");
            assert!(!error.contains(['\n', '\x1b']), "{what}: {error:?}");
        }
    }
}

/// A bomb is given up as soon as it has taken what an image may, whatever it says of itself; no byte of it is written.
#[test]
fn ten_gigabytes_of_zeros_are_refused() {
    // A file of that size; one that is as large as an image may be; and what stands behind the last file, which is
    // read for its digest.
    for size in [10 << 30, LIMITS.bytes - 512, 0] {
        let packed = [gzip(told(size).as_bytes()), zeros()].concat();
        assert!(packed.len() < 64 << 20, "{} bytes", packed.len());
        let out = tempfile::tempfile().unwrap();
        let archive = Archive::packed([(packed, digest(b""))]);
        let source = Source::archive(tar_of(&archive.oci())).unwrap();
        let begun = std::time::Instant::now();
        let error = build(&source, LIMITS, &out).unwrap_err().to_string();
        assert!(error.contains("more than `images.image_max`"), "{error}");
        assert_eq!(out.metadata().unwrap().len(), 0);
        assert!(begun.elapsed().as_secs() < 60, "{:?}", begun.elapsed());
    }
    // Many small files, each of which takes a block: the image counts too, not only its layers.
    let limits = Limits {
        bytes: 80 << 10,
        ..LIMITS
    };
    let layer = (0..20).fold(Layer::new(), |layer, at| {
        layer.file(&format!("{at}"), &"x".repeat(4_050))
    });
    let out = tempfile::tempfile().unwrap();
    let refused = build(
        &Source::archive(tar_of(&Archive::of([layer]).oci())).unwrap(),
        limits,
        &out,
    );
    assert!(refused.is_err());
    assert_eq!(out.metadata().unwrap().len(), 0);
}

#[test]
fn what_is_not_what_its_digest_says_is_refused() {
    let good = || Archive::of([Layer::new().file("a", "text")]).oci();
    let names: Vec<String> = good()
        .keys()
        .filter(|name| name.starts_with("blobs"))
        .cloned()
        .collect();
    assert_eq!(names.len(), 3, "configuration, layer, manifest");
    for name in names {
        let mut files = good();
        // A tar is well-formed with another time in it too, and JSON with one more space.
        let bytes = files.get_mut(&name).unwrap();
        match bytes.last_mut() {
            Some(b'}') => bytes.push(b' '),
            _ => bytes.extend([0; 512]),
        }
        let error = build_tar(tar_of(&files)).unwrap_err().to_string();
        assert!(
            error.contains(" has digest sha256:") && error.contains(&name),
            "{error}"
        );
    }
    // The configuration says what the layer is unpacked.
    let mut archive = Archive::of([Layer::new().file("a", "text")]);
    archive.layers[0].1 = digest(b"other");
    for files in [archive.oci(), archive.docker()] {
        let error = build_tar(tar_of(&files)).unwrap_err().to_string();
        assert!(error.contains("has digest sha256:"), "{error}");
    }
    // Docker names the configuration after its digest.
    let mut files = Archive::of([Layer::new().file("a", "text")]).docker();
    let name = files.keys().find(|name| name.len() == 69).unwrap().clone();
    files.get_mut(&name).unwrap().push(b' ');
    let error = build_tar(tar_of(&files)).unwrap_err().to_string();
    assert!(error.contains("not the one that its name says"), "{error}");
}

#[test]
fn what_an_archive_must_not_be_is_refused() {
    let good = Archive::of([Layer::new().file("a", "text")]);
    let with = |name: &str, bytes: Vec<u8>| {
        let mut files = good.oci();
        files.insert(name.into(), bytes);
        files
    };
    let index: serde_json::Value = serde_json::from_slice(&good.oci()["index.json"]).unwrap();
    let index_of = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut index = index.clone();
        change(&mut index);
        with("index.json", index.to_string().into())
    };
    let mut several = good.docker();
    let text = String::from_utf8(several["manifest.json"].clone()).unwrap();
    let one = text.trim_matches(['[', ']']);
    several.insert("manifest.json".into(), format!("[{one},{one}]").into());
    let layers = (0..500).map(|_| Layer::new());
    let mut foreign = Archive::of([Layer::new()]);
    foreign.config = json!({"Env": ["no equals sign"]});
    let mut fewer = good.oci();
    fewer.retain(|name, _| name == "index.json" || name == "oci-layout");
    type Files = BTreeMap<String, Vec<u8>>;
    let table: Vec<(&str, Files, &str)> = vec![
        (
            "500 layers",
            Archive::of(layers).oci(),
            "has 500 layers, more than 128",
        ),
        (
            "nothing",
            BTreeMap::new(),
            "neither `index.json` (OCI) nor `manifest.json` (docker)",
        ),
        ("no JSON", with("index.json", b"{".to_vec()), "index.json: EOF"),
        (
            "deep JSON",
            with("index.json", b"[".repeat(100_000)),
            "index.json: ",
        ),
        (
            "large JSON",
            with("index.json", vec![b' '; 5 << 20]),
            "larger than 4194304 bytes",
        ),
        ("missing blob", fewer, "is not in the archive"),
        ("several", several, "holds several images (test:latest"),
        ("wrong environment", foreign.oci(), "in `Env`"),
        (
            "another platform",
            index_of(&|index| {
                index["manifests"][0]["platform"] = json!({"architecture": "arm64", "os": "linux"});
            }),
            "has no image for linux/amd64",
        ),
        (
            "digest that leads out",
            index_of(&|index| {
                index["manifests"][0]["digest"] = json!("sha256:../../../../etc/passwd");
            }),
            "index.json: ",
        ),
        (
            "digest by another rule",
            index_of(&|index| {
                index["manifests"][0]["digest"] = json!("md5:../../etc/passwd");
            }),
            "index.json: ",
        ),
        (
            "digest by a rule that is not read",
            index_of(&|index| {
                index["manifests"][0]["digest"] = json!(format!("sha512:{}", "0".repeat(128)));
            }),
            "only sha256 is read",
        ),
        (
            "not an image",
            index_of(&|index| {
                index["manifests"][0]["mediaType"] = json!("application/x-thing");
            }),
            "names a application/x-thing, not an image",
        ),
    ];
    for (what, files, expected) in table {
        let error = build_tar(tar_of(&files)).expect_err(what).to_string();
        assert!(error.contains(expected), "{what}: {error}");
    }
    let mut compressed = tempfile::tempfile().unwrap();
    compressed.write_all(&gzip(b"x")).unwrap();
    let error = Source::archive(compressed).unwrap_err().to_string();
    assert!(error.contains("gunzip"), "{error}");
    let mut cut = tar_of(&good.oci());
    cut.set_len(3_000).unwrap();
    cut.flush().unwrap();
    assert!(build_tar(cut).is_err());
}

/// Whoever owns the archive may change it between the two readings.
#[test]
fn an_archive_that_changes_is_refused() {
    let archive = Archive::of([Layer::new().file("a", &"x".repeat(10_000))]);
    let source = Source::archive(tar_of(&archive.oci())).unwrap();
    let plan = read_plan(&source).unwrap();
    let tree = read_tree(&source, &plan, LIMITS).unwrap();
    let layout = Layout::of(&tree);
    let Source::Archive { file, members } = &source else {
        unreachable!()
    };
    let (at, _) = members[&plan.layers[0].name];
    std::os::unix::fs::FileExt::write_all_at(file, b"y", at + 600).unwrap();
    let out = tempfile::tempfile().unwrap();
    let error = write_contents(&source, &plan, LIMITS, &tree, &layout, &out).unwrap_err();
    assert!(matches!(error, OciError::Digest { .. }), "{error}");
}
