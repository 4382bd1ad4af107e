use serde_json::json;
use tar::EntryType;

use super::maker::*;
use super::*;
use crate::caller::Caller;

/// An inode's number, by erofs-utils.
fn number(image: &std::path::Path, path: &str) -> u64 {
    let output = Command::new("dump.erofs")
        .arg(format!("--path={path}"))
        .arg(image)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let number = text.split("NID: ").nth(1).and_then(|rest| rest.split(' ').next());
    number.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

fn files(archive: &Archive) -> Vec<String> {
    let (_, image) = build_tar(tar_of(&archive.oci())).unwrap();
    listing(&unpack(&image).path().join("root"))
}

/// Layers lie on one another: what is above wins, whiteouts take away, links hold.
#[test]
fn layers_make_one_tree() {
    let lower = Layer::new()
        .dir("./")
        .dir("etc/")
        .file("etc/passwd", "root")
        .file("etc/gone", "x")
        .file("bin/sh", "shell")
        .symlink("bin/ash", "/bin/sh")
        .link("bin/dash", "bin/sh")
        .file("opaque/old", "x")
        .file("opaque/sub/old", "x")
        .file("dir-to-file/x", "x")
        .file("file-to-dir", "x")
        .file("whole/a/b", "x")
        .symlink("link-to-dir", "/etc");
    let upper = Layer::new()
        .file("etc/passwd", "root and more")
        .file("etc/.wh.gone", "")
        .file("opaque/new", "y")
        .file("opaque/sub/new", "y")
        .file("opaque/.wh..wh..opq", "")
        .file("dir-to-file", "now a file")
        .dir("file-to-dir/")
        .file("file-to-dir/x", "y")
        .file(".wh.whole", "")
        .file(".wh.never-there", "")
        .file(".wh..wh.plnk/note", "")
        .dir("link-to-dir/")
        .file("link-to-dir/x", "y")
        .link("bin/again", "bin/dash")
        .file("twice", "first")
        .file("twice", "last");
    assert_eq!(
        files(&Archive::of([lower, upper])),
        [
            "bin/ 755",
            "bin/again 644 1 shell",
            "bin/ash -> /bin/sh",
            "bin/dash 644 1 shell",
            "bin/sh 644 1 shell",
            "dir-to-file 644 1 now a file",
            "etc/ 755",
            "etc/passwd 644 1 root and more",
            "file-to-dir/ 755",
            "file-to-dir/x 644 1 y",
            "link-to-dir/ 755",
            "link-to-dir/x 644 1 y",
            "opaque/ 755",
            "opaque/new 644 1 y",
            "opaque/sub/ 755",
            "opaque/sub/new 644 1 y",
            "twice 644 1 last",
        ]
    );
}

/// Names of one file lead to one inode, which counts them. (Unpacking makes a file of each.)
#[test]
fn hard_links_are_one_file() {
    let layers = [
        Layer::new().file("a", "x").link("b", "a"),
        Layer::new().link("d/c", "b").file(".wh.a", ""),
    ];
    let (_, image) = build_tar(tar_of(&Archive::of(layers).oci())).unwrap();
    let dir = unpack(&image);
    let image = dir.path().join("image");
    let (b, c) = (number(&image, "/b"), number(&image, "/d/c"));
    assert_eq!(b, c);
    let links = 32 * b as usize + 44;
    assert_eq!(fs::read(image).unwrap()[links..links + 4], 2_u32.to_le_bytes());
}

/// A whiteout concerns the layers below, wherever in its own layer it stands.
#[test]
fn a_whiteout_spares_its_own_layer() {
    let lower = || Layer::new().file("d/old", "x").file("f", "x");
    for upper in [
        Layer::new()
            .file(".wh.d", "")
            .file(".wh.f", "")
            .dir("d/")
            .file("d/new", "y")
            .file("f", "y"),
        Layer::new()
            .dir("d/")
            .file("d/new", "y")
            .file("f", "y")
            .file(".wh.d", "")
            .file(".wh.f", ""),
    ] {
        let expected = ["d/ 755", "d/new 644 1 y", "f 644 1 y"];
        assert_eq!(files(&Archive::of([lower(), upper])), expected);
    }
}

/// Sizes around those of a block, many names, long names, empty files: what EROFS lays out differently.
#[test]
fn every_size_arrives_whole() {
    let mut layer = Layer::new();
    let mut expected = Vec::new();
    for size in [
        0, 1, 31, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 8192, 12_288, 100_000,
    ] {
        let content: Vec<u8> = (0..size).map(|at| (at * 7 + at / 251) as u8).collect();
        let name = format!("size-{size}");
        layer = layer.member(EntryType::Regular, name.as_bytes(), b"", &content);
        expected.push((name, content));
    }
    for number in 0..700 {
        layer = layer.file(&format!("many/{}-{number}", "n".repeat(number % 200)), "");
    }
    let (long, target) = ("l".repeat(255), "t".repeat(4095));
    layer = layer.file(&format!("long/{long}"), "x").symlink("far", &target);
    let (_, image) = build_tar(tar_of(&Archive::of([layer]).oci())).unwrap();
    let dir = unpack(&image);
    let root = dir.path().join("root");
    for (name, content) in expected {
        assert!(fs::read(root.join(&name)).unwrap() == content, "{name}");
    }
    assert_eq!(fs::read_dir(root.join("many")).unwrap().count(), 700);
    assert_eq!(fs::read(root.join("long").join(long)).unwrap(), b"x");
    assert_eq!(fs::read_link(root.join("far")).unwrap().as_os_str().len(), 4095);
}

/// Owners, set-user-id and times are the guest's, and are kept; a capability too.
#[test]
fn what_a_file_has_is_kept() {
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10];
    let layer = Layer::new()
        .pax(&[
            ("uid", b"70000"),
            ("gid", b"70001"),
            ("mtime", b"1234567890.5"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.user.other", b"dropped"),
            ("path", "bin/p\u{ef}ng".as_bytes()),
        ])
        .file("short", "ping");
    let mut tar = layer.tar();
    // The member's mode; its header follows that of the extension and its content.
    let header = Header::from_byte_slice(&tar[1024..1536]);
    let mut header = header.clone();
    header.set_mode(0o4755);
    header.set_cksum();
    tar[1024..1536].copy_from_slice(header.as_bytes());
    let unpacked = digest(&tar);
    let archive = Archive::packed([(tar, unpacked)]);
    let (_, image) = build_tar(tar_of(&archive.oci())).unwrap();
    let dir = unpack(&image);
    let metadata = fs::metadata(dir.path().join("root/bin/p\u{ef}ng")).unwrap();
    // Unpacking loses this bit; it is in the inode.
    let inode = 32 * number(&dir.path().join("image"), "/bin/p\u{ef}ng") as usize;
    let bytes = fs::read(dir.path().join("image")).unwrap();
    assert_eq!(bytes[inode + 4..inode + 6], 0o104_755_u16.to_le_bytes());
    assert_eq!(metadata.mtime(), 1_234_567_890);
    if nix::unistd::geteuid().is_root() {
        assert_eq!((metadata.uid(), metadata.gid()), (70_000, 70_001));
    }
    let kept = |what: &[u8]| bytes.windows(what.len()).any(|window| window == what);
    assert!(kept(&[b"capability", &capability[..]].concat()) && !kept(b"dropped"));
}

use tar::Header;

/// However it is packed, and whatever holds it, the same image has the same bytes.
#[test]
fn the_same_image_is_the_same_whatever_it_comes_in() {
    let layer = || Layer::new().file("a/b", "text").symlink("c", "a/b").tar();
    let unpacked = digest(&layer());
    let halves = layer();
    let (one, two) = halves.split_at(700);
    let zstd =
        |bytes: &[u8]| ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest);
    let skippable = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, b'x', b'y', b'z'];
    let packings = [
        layer(),
        gzip(&layer()),
        [gzip(one), gzip(two)].concat(),
        zstd(&layer()),
        [&skippable[..], &zstd(one), &zstd(two), &skippable].concat(),
    ];
    let dir = tempfile::tempdir().unwrap();
    let mut images = Vec::new();
    for (number, packed) in packings.into_iter().enumerate() {
        let archive = Archive::packed([(packed, unpacked.clone())]);
        let oci = archive.oci();
        let mut sources = vec![
            Source::archive(tar_of(&oci)).unwrap(),
            Source::archive(tar_of(&oci)).unwrap(),
        ];
        let layout = dir.path().join(images.len().to_string());
        directory_of(&oci, &layout);
        sources.push(Source::open(&layout, &Caller::root()).unwrap().unwrap());
        sources.push(Source::archive(tar_of(&archive.docker())).unwrap());
        for source in sources {
            let out = tempfile::NamedTempFile::new().unwrap();
            build(&source, LIMITS, out.as_file()).unwrap_or_else(|error| panic!("{number}: {error}"));
            let mut bytes = fs::read(out.path()).unwrap();
            // The identifier is that of the manifest, which names the packed layer.
            bytes[1024 + 48..1024 + 64].fill(0);
            images.push(digest(&bytes));
        }
    }
    images.dedup();
    assert_eq!(images.len(), 1);
}

#[test]
fn the_configuration_becomes_the_workload() {
    let mut archive = Archive::of([Layer::new().file("x", "")]);
    archive.config = json!({
        "Entrypoint": ["/entry", "first"], "Cmd": ["second"], "Env": ["A=1", "PATH=/bin", "B=x=y"],
        "User": "www-data:www-data", "WorkingDir": "srv/app", "StopSignal": "SIGQUIT",
        "Labels": {"maker": "we"}, "ExposedPorts": {"80/tcp": {}}
    });
    let (plan, image) = build_tar(tar_of(&archive.oci())).unwrap();
    let workload = plan.workload;
    assert_eq!(workload.entrypoint, ["/entry", "first"]);
    assert_eq!(workload.command, ["second"]);
    assert_eq!(workload.env["A"], "1");
    assert_eq!(workload.env["B"], "x=y");
    assert_eq!(workload.env["PATH"], "/bin");
    assert_eq!(workload.user.as_deref(), Some("www-data:www-data"));
    assert_eq!(workload.working_dir.as_deref(), Some("/srv/app"));
    assert_eq!(workload.stop_signal.as_deref(), Some("SIGQUIT"));
    assert_eq!(workload.labels["maker"], "we");
    let made = listing(&unpack(&image).path().join("root"));
    assert_eq!(made, ["srv/ 755", "srv/app/ 755", "x 644 1 "]);

    archive.config = json!(null);
    let (plan, _) = build_tar(tar_of(&archive.docker())).unwrap();
    assert!(plan.workload.env["PATH"].contains("/usr/bin"), "the usual one");
}

/// Of an image for several platforms the one for this host is taken.
#[test]
fn the_image_for_this_host_is_chosen() {
    let archive = Archive::of([Layer::new().file("x", "")]);
    let mut files = archive.oci();
    let index: serde_json::Value = serde_json::from_slice(&files["index.json"]).unwrap();
    let ours = index["manifests"][0].clone();
    let entry = |architecture: &str, os: &str| {
        let mut entry = ours.clone();
        entry["platform"] = json!({"architecture": architecture, "os": os});
        if architecture != "amd64" {
            entry["digest"] = json!(digest(architecture.as_bytes()));
        }
        entry
    };
    let inner = json!({"schemaVersion": 2, "manifests": [
        entry("arm64", "linux"), entry("unknown", "unknown"), entry("amd64", "linux")
    ]});
    let inner = inner.to_string().into_bytes();
    let outer = json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": digest(&inner), "size": inner.len()
    }]});
    files.insert(format!("blobs/sha256/{}", &digest(&inner)[7..]), inner);
    files.insert("index.json".into(), outer.to_string().into());
    let (plan, _) = build_tar(tar_of(&files)).unwrap();
    assert_eq!(plan.digest, ours["digest"]);
}
