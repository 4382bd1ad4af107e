//! What a container asks for becomes the size of its microVM.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource;

use super::Quantity;
use super::facts::Facts;
use super::refusal::{Judge, has_any};

const MIB: u64 = 1 << 20;

/// The least that the agent takes.
const MEMORY_LEAST_MIB: u64 = 64;
const DISK_LEAST_MIB: u64 = 16;
const CPU_LEAST_MILLIS: u32 = 10;

/// A container that names no memory gets this much: a microVM has some, and it is its own.
const MEMORY_USUAL_MIB: u64 = 256;

/// What a container asks for and may have at most, as it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) cpu: Option<Quantity>,
    pub(super) memory: Option<Quantity>,
    pub(super) disk: Option<Quantity>,
}

/// Both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Resources {
    pub(super) requests: Asked,
    pub(super) limits: Asked,
}

/// A microVM's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) cpus: u8,
    pub(super) cpu_millis: u32,
    /// What its CPU time may be at most, in thousandths of a CPU, before it is rounded up.
    pub(super) most_millis: u64,
    pub(super) memory_mib: u64,
    pub(super) disk_mib: Option<u64>,
}

pub(super) fn read(resources: Option<&ResourceRequirements>, at: &str, judge: &mut Judge) -> Resources {
    let Some(ResourceRequirements {
        claims,
        limits,
        requests,
    }) = resources
    else {
        return Resources::default();
    };
    judge.refuse_if(
        has_any(claims),
        format!("{at}.claims"),
        "this node lends no devices; leave it out",
    );
    let mut read = Resources {
        requests: asked(requests.as_ref(), &format!("{at}.requests"), judge),
        limits: asked(limits.as_ref(), &format!("{at}.limits"), judge),
    };
    // As the API server does it; one that did not is no reason to give less.
    let (requests, limits) = (&mut read.requests, read.limits);
    requests.cpu = requests.cpu.or(limits.cpu);
    requests.memory = requests.memory.or(limits.memory);
    requests.disk = requests.disk.or(limits.disk);
    read
}

fn asked(amounts: Option<&BTreeMap<String, resource::Quantity>>, at: &str, judge: &mut Judge) -> Asked {
    let mut asked = Asked::default();
    for (name, amount) in amounts.into_iter().flatten() {
        let place = match name.as_str() {
            "cpu" => &mut asked.cpu,
            "memory" => &mut asked.memory,
            "ephemeral-storage" => &mut asked.disk,
            _ => {
                let why = "this node lends cpu, memory and ephemeral-storage; leave it out";
                judge.refuse(format!("{at}.{name}"), why);
                continue;
            }
        };
        match Quantity::try_from(amount) {
            Ok(amount) => *place = Some(amount),
            Err(error) => judge.refuse(format!("{at}.{name}"), error.to_string()),
        }
    }
    asked
}

/// A limit of memory is the guest's memory, for a microVM has no more than that; a request of CPU is what its time counts for;
/// a limit of CPU is a number of vCPUs, rounded up, for a guest has whole ones, and not more than the host.
pub(super) fn size(resources: &Resources, facts: &Facts) -> Size {
    let Resources { requests, limits } = resources;
    let millis = requests.cpu.map_or(0, Quantity::millis);
    let most = limits.cpu.map_or(millis, Quantity::millis).max(millis);
    let host = u64::from(facts.cpus.clamp(1, 32));
    let cpus = most.div_ceil(1_000).clamp(1, host) as u8;
    let cpu_millis = u32::try_from(millis)
        .unwrap_or(u32::MAX)
        .clamp(CPU_LEAST_MILLIS, u32::from(cpus) * 1_000);
    let mib = |amount: Quantity| amount.divided(MIB);
    let disk = limits.disk.or(requests.disk).map(mib).filter(|mib| *mib > 0);
    Size {
        cpus,
        cpu_millis,
        most_millis: most,
        memory_mib: limits
            .memory
            .or(requests.memory)
            .map(mib)
            .filter(|mib| *mib > 0)
            .map_or(MEMORY_USUAL_MIB, |mib| mib.max(MEMORY_LEAST_MIB)),
        disk_mib: disk.map(|mib| mib.max(DISK_LEAST_MIB)),
    }
}

/// The size of a microVM with several containers: what those that run side by side have in all, or one init container where
/// that has more.
pub(super) fn together(init: &[Size], containers: &[Size], facts: &Facts) -> Size {
    let most = |of: fn(&Size) -> u64| {
        let sum: u64 = containers.iter().map(of).sum();
        init.iter().map(of).fold(sum, u64::max)
    };
    let host = u64::from(facts.cpus.clamp(1, 32));
    let cpus = most(|size| size.most_millis).div_ceil(1_000).clamp(1, host) as u8;
    let millis = u32::try_from(most(|size| size.cpu_millis.into())).unwrap_or(u32::MAX);
    let disk = most(|size| size.disk_mib.unwrap_or(0));
    Size {
        cpus,
        cpu_millis: millis.min(u32::from(cpus) * 1_000),
        most_millis: most(|size| size.most_millis),
        memory_mib: most(|size| size.memory_mib),
        disk_mib: Some(disk).filter(|mib| *mib > 0),
    }
}
