//! Images from elsewhere.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::time::Instant;

use secovia_agent_api::{ImageImport, VmCreate};
use secovia_guest_protocol::ExitStatus;
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::{Programs, Settings, Testbed, run};

/// A member of a layer: kind, mode, path, link, content.
type Member<'a> = (EntryType, u32, &'a str, &'a str, &'a [u8]);

fn tar<'a>(members: impl IntoIterator<Item = Member<'a>>) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, mode, path, link, content) in members {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(content.len() as u64);
        if link.is_empty() {
            builder.append_data(&mut header, path, content).unwrap();
        } else {
            builder.append_link(&mut header, path, link).unwrap();
        }
    }
    builder.into_inner().unwrap()
}

fn digits(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// What the base image is made of, in two layers, as an OCI archive.
fn archive() -> Vec<u8> {
    let busybox = fs::read("/bin/busybox").expect("busybox-static is not installed: run ci/packages as root");
    let file = EntryType::Regular;
    let lower = tar([
        (file, 0o755, "bin/busybox", "", &busybox[..]),
        (EntryType::Link, 0o755, "bin/sh", "bin/busybox", b""),
        (EntryType::Symlink, 0o777, "bin/cat", "/bin/busybox", b""),
        (EntryType::Symlink, 0o777, "bin/id", "busybox", b""),
        (EntryType::Symlink, 0o777, "bin/stat", "busybox", b""),
        (file, 0o644, "etc/gone", "", b"x"),
        (file, 0o644, "etc/text", "", b"lower"),
    ]);
    let large: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
    let upper = tar([
        (file, 0o644, "etc/.wh.gone", "", &b""[..]),
        (file, 0o640, "etc/text", "", b"upper\n"),
        (file, 0o4755, "bin/su", "", b"#!"),
        (file, 0o644, "large", "", &large),
    ]);
    let config = json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [
            format!("sha256:{}", digits(&lower)), format!("sha256:{}", digits(&upper))
        ]},
        "config": {
            "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo $WORD $(pwd); cat /etc/text; ls /etc"],
            "Env": ["WORD=hello", "PATH=/bin"], "WorkingDir": "/srv/app"
        }
    });
    let mut files = BTreeMap::new();
    let mut blob = |bytes: Vec<u8>, kind: &str| {
        let descriptor = json!({
            "mediaType": format!("application/vnd.oci.image.{kind}"), "size": bytes.len(),
            "digest": format!("sha256:{}", digits(&bytes))
        });
        files.insert(format!("blobs/sha256/{}", digits(&bytes)), bytes);
        descriptor
    };
    let config = blob(config.to_string().into(), "config.v1+json");
    let layers = [blob(lower, "layer.v1.tar"), blob(upper, "layer.v1.tar")];
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let manifest = blob(manifest.to_string().into(), "manifest.v1+json");
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    files.insert("index.json".into(), index.to_string().into());
    files.insert("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    tar(files
        .iter()
        .map(|(name, bytes)| (file, 0o644, name.as_str(), "", &bytes[..])))
}

/// An OCI archive is imported and runs: its layers are one file system, its configuration is the workload's.
pub async fn an_image_from_elsewhere_runs(programs: &Programs) {
    let mut bed = Testbed::new(programs, &Settings::default());
    bed.start().await;
    let client = bed.client();
    let path = bed.path("app.tar");
    std::io::Write::write_all(&mut File::create(&path).unwrap(), &archive()).unwrap();
    let import = ImageImport {
        path: path.to_str().unwrap().into(),
        name: Some("app".into()),
    };
    let image = client.import_image(&import).await.unwrap().manifest;
    assert_eq!(image.entrypoint, ["/bin/sh", "-c"]);
    let create = |command: &[&str]| VmCreate {
        command: command.iter().map(ToString::to_string).collect(),
        memory_mib: 128,
        rm: true,
        ..VmCreate::new("app")
    };
    let ended = run(&client, create(&[]), None).await;
    assert_eq!(
        ended.exit,
        Some(ExitStatus::Exited(0)),
        "{ended:?}\n{}",
        bed.agent_log()
    );
    // What the agent and PID 1 put into /etc of every guest is not the image's.
    let (mine, etc) = ended.stdout.split_at("hello /srv/app\nupper\n".len());
    assert_eq!(mine, "hello /srv/app\nupper\n");
    assert!(etc.contains("text") && !etc.contains("gone"), "{etc}");
    let script =
        "busybox stat -c '%a %u' /etc/text /bin/su; busybox stat -c %h /bin/sh; busybox sha256sum /large";
    let ended = run(&client, create(&[script]), None).await;
    let large: Vec<u8> = (0..1_000_000_u32).map(|at| (at % 251) as u8).collect();
    let expected = format!("640 0\n4755 0\n2\n{}  /large\n", digits(&large));
    assert_eq!(ended.stdout, expected, "{ended:?}");
}

/// Whenever the agent is killed while an image comes in: afterwards the image is there whole or not at all, and nothing
/// of what was under way is left.
pub async fn no_moment_of_an_import_is_a_bad_one_to_die(programs: &Programs, rounds: u32) {
    let mut bed = Testbed::new(programs, &Settings::default());
    let path = bed.path("app.tar");
    fs::write(&path, archive()).unwrap();
    let import = ImageImport {
        path: path.to_str().unwrap().into(),
        name: Some("app".into()),
    };
    bed.start().await;
    let begun = Instant::now();
    bed.client().import_image(&import).await.unwrap();
    // From its beginning to well behind its end, also where this machine is busy.
    let step = begun.elapsed() * 2 / rounds;
    bed.client().delete_image("app").await.unwrap();
    bed.kill_agent();
    let mut arrived = 0;
    for round in 0..rounds {
        bed.start().await;
        let client = bed.client();
        let leftovers: Vec<_> = fs::read_dir(bed.path("state/images"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| name != "app")
            .collect();
        assert!(leftovers.is_empty(), "{leftovers:?}");
        let images = client.list_images().await.unwrap();
        if let [image] = &images[..] {
            arrived += 1;
            let bytes = fs::read(bed.path("state/images/app/rootfs.erofs")).unwrap();
            assert_eq!(image.manifest.digest, format!("sha256:{}", digits(&bytes)));
            client.delete_image("app").await.unwrap();
        } else {
            assert!(!bed.path("state/images/app").exists(), "half an image");
        }
        let import = import.clone();
        let under_way = tokio::spawn(async move { client.import_image(&import).await.is_ok() });
        tokio::time::sleep(step * round).await;
        bed.kill_agent();
        under_way.await.unwrap();
    }
    println!("{arrived} of {rounds} imports had arrived when the agent was killed");
    assert!(
        0 < arrived && arrived < rounds,
        "{arrived} of {rounds}: the moments are not those of an import"
    );
}
