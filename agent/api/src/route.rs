//! The routes: templates for the agent's router (`{vm}` is an identifier or a name), and functions that fill them in.
//!
//! | method and route | body or query | answer |
//! |---|---|---|
//! | `GET /v1/version` | | [`Version`](crate::Version) |
//! | `GET /v1/health` | | [`Health`](crate::Health) |
//! | `GET /v1/openapi.json` | | this API's OpenAPI description |
//! | `POST /v1/vms` | [`VmCreate`](crate::VmCreate) | 201 [`Vm`](crate::Vm), as soon as the record is durable |
//! | `GET /v1/vms` | [`ListQuery`](crate::ListQuery) | list of [`Vm`](crate::Vm), oldest first |
//! | `GET /v1/vms/{vm}` | | [`Vm`](crate::Vm) |
//! | `DELETE /v1/vms/{vm}` | [`DeleteQuery`](crate::DeleteQuery) | 204, when nothing of it is left |
//! | `POST /v1/vms/{vm}/start` | | [`Vm`](crate::Vm), as soon as the intent is durable |
//! | `POST /v1/vms/{vm}/stop` | [`StopRequest`](crate::StopRequest) | [`Vm`](crate::Vm), when it has ended |
//! | `POST /v1/vms/{vm}/kill` | [`KillRequest`](crate::KillRequest) | [`Vm`](crate::Vm) |
//! | `GET /v1/vms/{vm}/wait` | [`WaitQuery`](crate::WaitQuery) | [`Vm`](crate::Vm), when the state is reached |
//! | `GET /v1/vms/{vm}/stats` | | [`VmStats`](crate::VmStats) |
//! | `GET /v1/vms/{vm}/logs` | [`LogQuery`](crate::LogQuery) | JSON lines of [`LogRecord`](crate::LogRecord) |
//! | `POST /v1/vms/{vm}/attach` | `Upgrade` | 101, when the guest answers; first frame `Request::Attach` |
//! | `POST /v1/vms/{vm}/exec` | `Upgrade` | 101, when the guest answers; first frame `Request::Exec` |
//! | `GET /v1/images` | | list of [`ImageInfo`](crate::ImageInfo), by name |
//! | `POST /v1/images` | [`ImageImport`](crate::ImageImport) | 201 [`ImageInfo`](crate::ImageInfo) |
//! | `POST /v1/upload/images` | [`ImageUpload`](crate::ImageUpload), a tar | 201 [`ImageInfo`](crate::ImageInfo) |
//! | `DELETE /v1/images/{image}` | | 204 |
//! | `POST /v1/gc/images` | [`ImageGc`](crate::ImageGc) | [`ImageGcReport`](crate::ImageGcReport) |
//!
//! The guest's last frames are never cut: an agent shuts a guest down only when the attach sessions have taken the
//! workload's exit, or have had a bounded time to do so.

/// The agent's version.
pub const VERSION: &str = "/v1/version";
/// Whether the agent is able to work.
pub const HEALTH: &str = "/v1/health";
/// The OpenAPI description.
pub const OPENAPI: &str = "/v1/openapi.json";
/// All microVMs.
pub const VMS: &str = "/v1/vms";
/// One microVM.
pub const VM: &str = "/v1/vms/{vm}";
/// Starts a microVM that is not running.
pub const VM_START: &str = "/v1/vms/{vm}/start";
/// Stops one, gently at first.
pub const VM_STOP: &str = "/v1/vms/{vm}/stop";
/// Ends one at once, or signals its workload.
pub const VM_KILL: &str = "/v1/vms/{vm}/kill";
/// Waits for a state.
pub const VM_WAIT: &str = "/v1/vms/{vm}/wait";
/// What it uses now.
pub const VM_STATS: &str = "/v1/vms/{vm}/stats";
/// The workload's output.
pub const VM_LOGS: &str = "/v1/vms/{vm}/logs";
/// The workload's standard streams, live.
pub const VM_ATTACH: &str = "/v1/vms/{vm}/attach";
/// One more process in the guest.
pub const VM_EXEC: &str = "/v1/vms/{vm}/exec";
/// All images.
pub const IMAGES: &str = "/v1/images";
/// Takes in an image that the caller sends.
pub const IMAGES_UPLOAD: &str = "/v1/upload/images";
/// Images that no microVM uses give way. (Not below the images: one may be named so.)
pub const IMAGES_GC: &str = "/v1/gc/images";
/// What is lent.
pub const OFFER: &str = "/v1/offer";
/// The owner takes the machine back.
pub const RECLAIM: &str = "/v1/reclaim";
/// The owner gives it again.
pub const RELEASE: &str = "/v1/release";
/// What the agent did with what it lends.
pub const AUDIT: &str = "/v1/audit";
/// Whether that record is whole.
pub const AUDIT_VERIFY: &str = "/v1/audit/verify";
/// One image.
pub const IMAGE: &str = "/v1/images/{image}";

/// `template` for the microVM with this identifier or name.
///
/// ```
/// use secovia_agent_api::route;
/// assert_eq!(route::for_vm(route::VM_START, "web-1"), "/v1/vms/web-1/start");
/// assert_eq!(route::for_vm(route::VM, "../x?"), "/v1/vms/..%2Fx%3F");
/// ```
pub fn for_vm(template: &str, vm: &str) -> String {
    template.replace("{vm}", &escape(vm))
}

/// The route of the image with this name.
pub fn for_image(name: &str) -> String {
    IMAGE.replace("{image}", &escape(name))
}

/// `path` with `parameters` as its query, escaped; parameters without a value are left out.
pub fn with_query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let query: Vec<String> = parameters
        .iter()
        .filter_map(|(key, value)| value.as_ref().map(|value| format!("{key}={}", escape(value))))
        .collect();
    if query.is_empty() {
        path.to_string()
    } else {
        format!("{path}?{}", query.join("&"))
    }
}

/// Percent-encodes all but RFC 3986's unreserved characters, so that what a person types stays one path segment.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(byte.into());
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_person_types_stays_one_segment() {
        assert_eq!(for_vm(VM_LOGS, "a/b c"), "/v1/vms/a%2Fb%20c/logs");
        assert_eq!(for_image("é?#"), "/v1/images/%C3%A9%3F%23");
    }

    #[test]
    fn a_query_holds_what_was_given() {
        assert_eq!(with_query("/p", &[("a", None)]), "/p");
        assert_eq!(
            with_query(
                "/p",
                &[("a", Some("1 2".into())), ("b", None), ("c", Some("x&y".into()))]
            ),
            "/p?a=1%202&c=x%26y"
        );
    }
}
