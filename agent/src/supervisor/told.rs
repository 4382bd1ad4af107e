//! What a guest with several containers is told of them.

use secovia_agent_api::{Check, Probe, RestartPolicy, TerminalSize, VmContainer, VolumeContent};
use secovia_guest_protocol as told;
use secovia_guest_protocol::{ProcessSpec, WindowSize};

use super::machine::{disk_of, network_setup};
use crate::network::Network;
use crate::records::{PodContainer, PodSpec, Record};

/// The containers of a record; nothing for one of one workload.
pub(super) fn pod(record: &Record, network: Option<&Network>) -> Option<told::PodSpec> {
    let PodSpec {
        init,
        containers,
        volumes,
    } = record.spec.pod.as_ref()?;
    let hostname = record.spec.hostname.clone();
    let volume = |volume: &secovia_agent_api::Volume| told::VolumeSpec {
        name: volume.name.clone(),
        kind: match &volume.content {
            VolumeContent::Empty {} => told::VolumeKind::Layer {},
            VolumeContent::Memory { size_bytes } => told::VolumeKind::Memory { size: *size_bytes },
            VolumeContent::Files { .. } => told::VolumeKind::Files {},
        },
    };
    let all = |list: &[PodContainer]| list.iter().map(|one| container(record, one)).collect();
    Some(told::PodSpec {
        hostname: hostname.unwrap_or_else(|| record.name.clone()),
        network: network_setup(record, network),
        volumes: volumes.iter().map(volume).collect(),
        init: all(init),
        containers: all(containers),
        restart: match record.life.policy {
            RestartPolicy::No => told::PodRestart::Never,
            RestartPolicy::OnFailure { .. } => told::PodRestart::OnFailure,
            RestartPolicy::Always => told::PodRestart::Always,
        },
    })
}

/// The files of its volumes, with their bytes.
pub(super) fn files(record: &Record) -> Vec<(told::FileSpec, Vec<u8>)> {
    let mut all = Vec::new();
    for volume in record.spec.pod.iter().flat_map(|pod| &pod.volumes) {
        let VolumeContent::Files { files } = &volume.content else {
            continue;
        };
        for file in files {
            let spec = told::FileSpec {
                volume: volume.name.clone(),
                path: file.path.clone(),
                mode: file.mode,
                gid: file.gid,
            };
            // Checked before the record was written.
            all.push((spec, file.content.clone().into_bytes().unwrap_or_default()));
        }
    }
    all
}

fn container(record: &Record, container: &PodContainer) -> told::ContainerSpec {
    let spec = container.spec.clone();
    let is_it = |one: &&VmContainer| one.name == spec.name;
    told::ContainerSpec {
        disk: disk_of(&record.spec, &spec.image),
        process: ProcessSpec {
            argv: spec.command,
            env: spec.env,
            cwd: spec.working_dir,
            user: spec.user,
            tty: spec
                .tty
                .map(|TerminalSize { rows, cols }| WindowSize { rows, cols }),
        },
        stdin: spec.stdin,
        mounts: spec
            .mounts
            .into_iter()
            .map(|mount| told::MountSpec {
                volume: mount.volume,
                path: mount.path,
                read_only: mount.read_only,
            })
            .collect(),
        restarts: record.containers.iter().find(is_it).map_or(0, |one| one.restarts),
        liveness: spec.liveness.map(probe),
        readiness: spec.readiness.map(probe),
        startup: spec.startup.map(probe),
        grace_ms: u64::from(spec.grace_s) * 1_000,
        name: container.spec.name.clone(),
    }
}

fn probe(probe: Probe) -> told::ProbeSpec {
    let ms = |seconds: u32| u64::from(seconds) * 1_000;
    told::ProbeSpec {
        check: match probe.check {
            Check::Exec { command } => told::Check::Exec { argv: command },
            Check::Http {
                host,
                port,
                path,
                headers,
            } => told::Check::Http {
                host,
                port,
                path,
                headers,
            },
            Check::Tcp { host, port } => told::Check::Tcp { host, port },
        },
        initial_delay_ms: ms(probe.initial_delay_s),
        period_ms: ms(probe.period_s),
        timeout_ms: ms(probe.timeout_s),
        success: probe.success,
        failure: probe.failure,
    }
}
