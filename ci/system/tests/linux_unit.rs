//! The agent as its unit has it run: under a real systemd, with all that the unit takes from it, with the real VMM and real
//! guests.

use std::path::Path;

use secovia_system_tests::given;
use secovia_system_tests::service::{Host, missing};

/// The agent's process, as the unit knows it.
fn agent(host: &Host) -> String {
    host.must(
        "systemctl",
        &["show", "--property=MainPID", "--value", "secovia-agent"],
    )
}

/// The process of the only microVM.
fn vmm(host: &Host) -> String {
    let text = host.must("secovia", &["ps", "--json"]);
    let list: serde_json::Value = serde_json::from_str(&text).expect("ps --json");
    assert_eq!(list[0]["state"]["status"], "running", "{text}");
    list[0]["vmm_pid"].to_string()
}

/// It starts, runs a guest with all its hardening, and its microVMs outlive it and are found again.
#[test]
fn the_unit_runs_guests_and_is_restarted_beside_them() {
    if let Some(reason) = missing() {
        eprintln!("SKIP: the_unit_runs_guests_and_is_restarted_beside_them: {reason}");
        return;
    }
    let host = Host::boot();
    host.must("systemctl", &["start", "secovia-agent"]);
    let image = given("SECOVIA_IMAGE_BASE");
    host.must("secovia", &["image", "import", &image.to_string_lossy()]);
    let said = host.must(
        "secovia",
        &["run", "base", "--", "sh", "-c", "echo from $(uname -s)"],
    );
    assert_eq!(said, "from Linux");

    host.must(
        "secovia",
        &[
            "run", "--detach", "--name", "stays", "base", "--", "sleep", "100000",
        ],
    );
    let (before, running) = (agent(&host), vmm(&host));
    host.must("systemctl", &["reload", "secovia-agent"]);
    assert_eq!(agent(&host), before, "{}", host.journal());
    host.must("systemctl", &["restart", "secovia-agent"]);
    assert_ne!(agent(&host), before);
    assert_eq!(host.must("secovia", &["exec", "stays", "echo", "still"]), "still");
    assert_eq!(vmm(&host), running);

    host.must("systemctl", &["stop", "secovia-agent"]);
    assert_eq!(agent(&host), "0");
    host.must("test", &["-d", &format!("/proc/{running}")]);
    host.must("systemctl", &["start", "secovia-agent"]);
    assert_eq!(host.must("secovia", &["exec", "stays", "echo", "still"]), "still");
    assert_eq!(vmm(&host), running);
    host.must("secovia", &["rm", "--force", "stays"]);
    let gone = Path::new("/proc").join(&running);
    assert!(
        !host
            .run("test", &["-d", &gone.to_string_lossy()])
            .status
            .success()
    );
}
