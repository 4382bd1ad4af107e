//! From method, path and body to a request.

use secovia_vmm_api::{
    ActionSpec, BalloonHintingStart, DrivePatch, DriveSpec, NetworkInterfacePatch, NetworkInterfaceSpec,
    PmemSpec, VmPatch,
};
use serde::de::DeserializeOwned;

use super::http::Method;
use super::reply::Refusal;
use super::request::{Kind, Request};

/// The longest name of a drive or an interface.
const NAME_MAX: usize = 64;

/// Finds out what is asked for. `method` is nothing for one that means nothing here.
pub fn route(method: Option<Method>, path: &str, body: &[u8]) -> Result<Request, Refusal> {
    use Method::{Delete, Get, Patch, Put};

    let path = path.split('?').next().unwrap_or_default();
    let mut parts = path.trim_matches('/').split('/');
    let [first, second, third] = [(); 3].map(|()| parts.next());
    let unknown = || Refusal::Unknown { path: path.into() };
    let (Some(method), None) = (method, parts.next()) else {
        return Err(unknown());
    };
    let first = first.unwrap_or_default();
    if let Some(what) = not_yet(method, first, second) {
        return Err(Refusal::NotYet { what });
    }
    if method == Get && !body.is_empty() {
        return Err(Refusal::Body { path: path.into() });
    }
    Ok(match (method, first, second, third) {
        (Get, "", None, None) => Request::GetInfo,
        (Get, "version", None, None) => Request::GetVersion,
        (Get, "vm", Some("config"), None) => Request::GetConfig,
        (Get, "machine-config", None, None) => Request::GetMachine,
        (Get, "balloon", None, None) => Request::GetBalloon,
        (Get, "balloon", Some("statistics"), None) => Request::GetBalloonStatistics,
        (Put, "actions", None, None) => Request::Action(json::<ActionSpec>(path, body)?.action_type),
        (Put, "boot-source", None, None) => Request::PutBootSource(json(path, body)?),
        (Put, "machine-config", None, None) => Request::PutMachine(json(path, body)?),
        (Patch, "machine-config", None, None) => Request::PatchMachine(json(path, body)?),
        (Put, "drives", Some(id), None) => {
            let spec: DriveSpec = json(path, body)?;
            named(path, id, &spec.drive_id)?;
            Request::PutDrive(spec)
        }
        (Delete, "drives", Some(id), None) => Request::Unplug(Kind::Drive, id.into()),
        (Delete, "network-interfaces", Some(id), None) => Request::Unplug(Kind::Network, id.into()),
        (Patch, "drives", Some(id), None) => {
            let patch: DrivePatch = json(path, body)?;
            named(path, id, &patch.drive_id)?;
            Request::PatchDrive(patch, None)
        }
        (Put, "pmem", Some(id), None) => {
            let spec: PmemSpec = json(path, body)?;
            named(path, id, &spec.id)?;
            Request::PutPmem(spec)
        }
        (Put, "network-interfaces", Some(id), None) => {
            let spec: NetworkInterfaceSpec = json(path, body)?;
            named(path, id, &spec.iface_id)?;
            Request::PutNetwork(spec)
        }
        (Patch, "network-interfaces", Some(id), None) => {
            let patch: NetworkInterfacePatch = json(path, body)?;
            named(path, id, &patch.iface_id)?;
            Request::PatchNetwork(patch)
        }
        (Put, "vsock", None, None) => Request::PutVsock(json(path, body)?),
        (Put, "entropy", None, None) => Request::PutEntropy(json(path, body)?),
        (Put, "serial", None, None) => Request::PutSerial(json(path, body)?),
        (Get, "hotplug", Some("memory"), None) => Request::GetMemory,
        (Put, "hotplug", Some("memory"), None) => Request::PutMemory(json(path, body)?),
        (Patch, "hotplug", Some("memory"), None) => Request::PatchMemory(json(path, body)?),
        (Get, "balloon", Some("hinting"), Some("status")) => Request::GetHinting,
        (Put, "balloon", None, None) => Request::PutBalloon(json(path, body)?),
        (Patch, "balloon", None, None) => Request::PatchBalloon(json(path, body)?),
        (Patch, "balloon", Some("statistics"), None) => Request::PatchBalloonStatistics(json(path, body)?),
        (Patch, "balloon", Some("hinting"), Some("start")) => Request::StartHinting(match body {
            b"" => BalloonHintingStart::default(),
            body => json(path, body)?,
        }),
        (Patch, "balloon", Some("hinting"), Some("stop")) => Request::StopHinting,
        (Put, "logger", None, None) => Request::PutLogger(json(path, body)?),
        (Put, "metrics", None, None) => Request::PutMetrics(json(path, body)?),
        (Put, "cpu-config", None, None) => Request::PutCpu(json(path, body)?),
        (Put, "mmds", Some("config"), None) => Request::PutMmdsConfig(json(path, body)?),
        (Get, "mmds", None, None) => Request::GetMmds,
        (Put, "mmds", None, None) => Request::PutMmds(json(path, body)?),
        (Patch, "mmds", None, None) => Request::PatchMmds(json(path, body)?),
        (Get, "metrics", None, None) => Request::GetMetrics,
        (Patch, "vm", None, None) => Request::PatchVm(json::<VmPatch>(path, body)?.state),
        (Get | Put | Patch | Delete, ..) => return Err(unknown()),
    })
}

/// What Firecracker has and this program does not have yet.
fn not_yet(method: Method, first: &str, second: Option<&str>) -> Option<&'static str> {
    Some(match (method, first, second) {
        (_, "snapshot", Some("create" | "load")) => "a snapshot (/snapshot/create, /snapshot/load)",
        (Method::Delete, "pmem", Some(_)) => "a disk of /pmem that is taken away from a machine",
        _ => return None,
    })
}

fn json<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|source| Refusal::Json {
        path: path.into(),
        source,
    })
}

/// The name in the path is the name in the body, and one that can stand in a path.
fn named(path: &str, in_path: &str, in_body: &str) -> Result<(), Refusal> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if in_path != in_body {
        Err(Refusal::TwoNames {
            path: path.into(),
            name: in_body.into(),
        })
    } else if in_path.is_empty() || in_path.len() > NAME_MAX || !in_path.bytes().all(good) {
        Err(Refusal::Name { path: path.into() })
    } else {
        Ok(())
    }
}
