//! Pods, as whoever may make one in the region writes them. Whatever one says, it is refused by the names of its fields, or is
//! a microVM that stays within its own name, its own numbers and its own variables.
#![no_main]

use secovia_agent_api::{Amounts, VolumeContent};
use secovia_pool::pod::identity::label;
use secovia_pool::pod::{Facts, Sources, Trouble, needs, translate};

libfuzzer_sys::fuzz_target!(|text: &[u8]| {
    let Ok(pod) = serde_json::from_slice(text) else {
        return;
    };
    let mut sources = Sources::default();
    let needs = needs(&pod);
    for (index, name) in needs.config_maps.into_iter().enumerate() {
        if index % 2 == 0 {
            let data = [("key".into(), "$(A) value".into()), ("a=b".into(), String::new())];
            sources.config_maps.insert(name, data.into());
        }
    }
    for name in needs.secrets {
        let data = [("key".into(), b"secret".to_vec()), ("blob".into(), vec![0xff])];
        sources.secrets.insert(name, data.into());
    }
    let facts = Facts {
        node_name: "node-1".into(),
        host_ip: [192, 0, 2, 7].into(),
        cpus: 4,
        allocatable: Amounts {
            cpu_millis: 3_000,
            memory_bytes: 4 << 30,
            disk_bytes: 10 << 30,
        },
    };
    let machine = match translate(&pod, &sources, &facts) {
        Ok(machine) => machine,
        Err(Trouble::Refused(refusals)) => {
            for refusal in refusals {
                let field = &refusal.field;
                assert!(field.starts_with("spec") || field.starts_with("metadata"), "{field}");
                assert!(!refusal.why.is_empty());
            }
            return;
        }
        Err(Trouble::Missing(what)) => {
            assert!(!what.is_empty());
            return;
        }
    };
    let create = machine.create;
    let name = create.name.expect("a name");
    assert!((1..=63).contains(&name.len()), "{name}");
    assert!((1..=4).contains(&create.cpus));
    let cpu = create.cpu_millis.expect("a share");
    assert!((10..=u32::from(create.cpus) * 1_000).contains(&cpu));
    assert!(create.memory_mib >= 64 && create.disk_mib.is_none_or(|mib| mib >= 16));
    for label in [label::UID, label::NAMESPACE, label::NAME] {
        assert!(create.labels.contains_key(label), "{label}");
    }
    let containers = create.init_containers.iter().chain(&create.containers);
    let environments = containers.clone().map(|container| &container.env).chain([&create.env]);
    for (key, value) in environments.flatten() {
        assert!(!key.is_empty() && !key.contains(['=', '\0']) && !value.contains('\0'), "{key}");
    }
    for mount in containers.flat_map(|container| &container.mounts) {
        assert!(mount.path.starts_with('/'), "{mount:?}");
        assert!(create.volumes.iter().any(|volume| volume.name == mount.volume), "{mount:?}");
    }
    for volume in &create.volumes {
        if let VolumeContent::Files { files } = &volume.content {
            for file in files {
                let inside = file.path.split('/').all(|part| !matches!(part, "" | "." | ".."));
                assert!(inside, "{}", file.path);
            }
        }
    }
    assert!(create.publish.iter().all(|port| port.host_port != 0 && port.guest_port != 0));
});
