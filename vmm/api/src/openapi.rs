//! The API's OpenAPI description, made from the types. `vmm/api/openapi.json` is what it gives.

use utoipa::OpenApi;

use crate::*;

/// Declares requests: what is answered, or what is sent.
macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident $method:ident $path:tt $kind:ident $type:ty;)*) => {
        $(requests!(@one [$(#[$doc])*] $name $method $path $kind $type);)*

        #[derive(OpenApi)]
        #[openapi(
            info(
                title = "secovia-vmm",
                description = "One microVM: what Firecracker's 1.x API has, as far as it is there. HTTP/1.1 with JSON over \
                    a Unix socket, one request at a time; unknown fields are refused.",
                license(name = "Apache-2.0", identifier = "Apache-2.0")
            ),
            servers((url = "http://localhost", description = "over the Unix socket (--api-sock)")),
            paths($($name),*)
        )]
        struct Document;
    };
    (@one [$($doc:tt)*] $name:ident $method:ident $path:tt tells $type:ty) => {
        #[utoipa::path($method, path = $path, responses(
            (status = 200, body = $type, description = "What was asked for."),
            (status = 400, body = Fault, description = "Refused."),
        ))]
        $($doc)*
        #[allow(dead_code, reason = "it stands for a request")]
        fn $name() {}
    };
    (@one [$($doc:tt)*] $name:ident $method:ident $path:tt prints $type:ty) => {
        #[utoipa::path($method, path = $path, responses(
            (status = 200, body = $type, content_type = "text/plain", description = "What was asked for."),
            (status = 400, body = Fault, description = "Refused."),
        ))]
        $($doc)*
        #[allow(dead_code, reason = "it stands for a request")]
        fn $name() {}
    };
    (@one [$($doc:tt)*] $name:ident $method:ident $path:tt takes $type:ty) => {
        #[utoipa::path($method, path = $path, request_body = $type, responses(
            (status = 204, description = "Done."),
            (status = 400, body = Fault, description = "Refused; nothing was changed."),
            (status = 413, body = Fault, description = "Refused: it is longer than is read or kept."),
        ))]
        $($doc)*
        #[allow(dead_code, reason = "it stands for a request")]
        fn $name() {}
    };
    (@one [$($doc:tt)*] $name:ident $method:ident $path:tt does $type:ty) => {
        #[utoipa::path($method, path = $path, responses(
            (status = 204, description = "Done."),
            (status = 400, body = Fault, description = "Refused; nothing was changed."),
        ))]
        $($doc)*
        #[allow(dead_code, reason = "it stands for a request")]
        fn $name() {}
    };
    (@one [$($doc:tt)*] $name:ident $method:ident $path:tt changes $type:ty) => {
        #[utoipa::path($method, path = $path, request_body = $type,
            params(("id" = String, Path, description = "The device's name, which the body says again.")),
            responses(
                (status = 204, description = "Done."),
                (status = 400, body = Fault, description = "Refused; nothing was changed."),
                (status = 413, body = Fault, description = "Refused: it is longer than is read."),
            ))]
        $($doc)*
        #[allow(dead_code, reason = "it stands for a request")]
        fn $name() {}
    };
}

requests! {
    /// The machine's name and what it does.
    get_info get "/" tells InstanceInfo;
    /// The program's version.
    get_version get "/version" tells VersionInfo;
    /// All that was configured.
    get_config get "/vm/config" tells VmSpec;
    /// Pauses or resumes. After the start.
    patch_vm patch "/vm" takes VmPatch;
    /// Does something at once.
    put_action put "/actions" takes ActionSpec;
    /// What boots. Before the start.
    put_boot_source put "/boot-source" takes BootSourceSpec;
    /// vCPUs and memory.
    get_machine get "/machine-config" tells MachineSpec;
    /// vCPUs and memory. Before the start.
    put_machine put "/machine-config" takes MachineSpec;
    /// A part of that. Before the start.
    patch_machine patch "/machine-config" takes MachinePatch;
    /// How the guest's processors differ from the host's. Before the start.
    put_cpu put "/cpu-config" takes CpuConfigSpec;
    /// A disk. Before the start.
    put_drive put "/drives/{id}" changes DriveSpec;
    /// Changes a disk. After the start.
    patch_drive patch "/drives/{id}" changes DrivePatch;
    /// A disk that is memory to the guest. Before the start.
    put_pmem put "/pmem/{id}" changes PmemSpec;
    /// A network interface. Before the start.
    put_network put "/network-interfaces/{id}" changes NetworkInterfaceSpec;
    /// Changes one's limits. After the start.
    patch_network patch "/network-interfaces/{id}" changes NetworkInterfacePatch;
    /// The socket device. Before the start.
    put_vsock put "/vsock" takes VsockSpec;
    /// The entropy device. Before the start.
    put_entropy put "/entropy" takes EntropySpec;
    /// The serial console. Before the start.
    put_serial put "/serial" takes SerialSpec;
    /// Memory that can be added: how much of it the guest has, and should have.
    get_memory_hotplug get "/hotplug/memory" tells MemoryHotplugStatus;
    /// Memory that can be added while the machine runs. Before the start.
    put_memory_hotplug put "/hotplug/memory" takes MemoryHotplugSpec;
    /// How much of it the guest should have. After the start.
    patch_memory_hotplug patch "/hotplug/memory" takes MemoryHotplugPatch;
    /// The balloon.
    get_balloon get "/balloon" tells BalloonSpec;
    /// The balloon. Before the start.
    put_balloon put "/balloon" takes BalloonSpec;
    /// The balloon's target. After the start.
    patch_balloon patch "/balloon" takes BalloonPatch;
    /// What the guest says of its memory. After the start.
    get_balloon_statistics get "/balloon/statistics" tells BalloonStatisticsReport;
    /// How often it is asked. After the start.
    patch_balloon_statistics patch "/balloon/statistics" takes BalloonStatisticsPatch;
    /// Asks the guest for all memory that it does not use, which goes back to the host. After the start.
    start_hinting patch "/balloon/hinting/start" takes BalloonHintingStart;
    /// How far that is. After the start.
    get_hinting get "/balloon/hinting/status" tells BalloonHintingStatus;
    /// Ends it. After the start.
    stop_hinting patch "/balloon/hinting/stop" does ();
    /// All metadata.
    get_mmds get "/mmds" tells Object;
    /// Replaces the metadata.
    put_mmds put "/mmds" takes Object;
    /// Changes the metadata, as a JSON merge patch (RFC 7396).
    patch_mmds patch "/mmds" takes Object;
    /// How the guest reads the metadata. Before the start.
    put_mmds_config put "/mmds/config" takes MmdsConfigSpec;
    /// The log. Before the start.
    put_logger put "/logger" takes LoggerSpec;
    /// All that is counted, since the start, in Prometheus' text form. Firecracker has no such request. After the start.
    get_metrics get "/metrics" prints String;
    /// Where metrics go. Before the start.
    put_metrics put "/metrics" takes MetricsSpec;
}

/// The description, as JSON.
pub fn openapi() -> String {
    // It is made of plain values: it cannot fail to be written.
    let mut text = Document::openapi().to_pretty_json().unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn openapi_file_is_current() {
        assert!(
            include_str!("../openapi.json") == super::openapi(),
            "renew it: cargo run -p secovia-vmm-api --features openapi --example openapi > vmm/api/openapi.json"
        );
    }
}
