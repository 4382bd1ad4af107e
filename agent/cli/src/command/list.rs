//! `ps` and `inspect`.

use secovia_agent_api::client::Client;
use secovia_agent_api::{Vm, VmState};

use crate::args::{InspectArgs, PsArgs};
use crate::failure::{FAILED, Failure};
use crate::output::{Table, human, print, print_json};

/// Wider commands are cut in a listing; `inspect` shows them whole.
const COMMAND_WIDTH: usize = 40;

/// `secovia ps`.
pub(super) async fn ps(client: &Client, args: &PsArgs) -> Result<u8, Failure> {
    let vms = client.list_vms(args.all).await.map_err(Failure::agent("ps"))?;
    if args.json {
        print_json(&vms)?;
    } else {
        print(&listing(&vms, human::now_ms()))?;
    }
    Ok(0)
}

fn listing(vms: &[Vm], now_ms: u64) -> String {
    let mut table = Table::new(["NAME", "IMAGE", "STATE", "CPUS", "MEMORY", "RESTARTS", "COMMAND"]);
    for vm in vms {
        table.row([
            vm.name.clone(),
            vm.image.clone(),
            human::state(vm, now_ms),
            vm.cpus.to_string(),
            human::mib(vm.memory_mib),
            vm.restarts.to_string(),
            human::shortened(&human::command(&vm.command), COMMAND_WIDTH),
        ]);
    }
    table.render()
}

/// `secovia inspect`.
pub(super) async fn inspect(client: &Client, args: &InspectArgs) -> Result<u8, Failure> {
    let mut vms = Vec::new();
    let mut status = 0;
    for name in &args.names {
        match client.vm(name).await {
            Ok(vm) => vms.push(vm),
            Err(error) => {
                Failure::agent(format!("inspect {name}"))(error).tell();
                status = FAILED;
            }
        }
    }
    if args.json {
        print_json(&vms)?;
    } else {
        let now_ms = human::now_ms();
        let texts: Vec<String> = vms.iter().map(|vm| details(vm, now_ms)).collect();
        print(&texts.join("\n"))?;
    }
    Ok(status)
}

/// All that is known, a line each; what is not there has no line.
fn details(vm: &Vm, now_ms: u64) -> String {
    let mut lines: Vec<(&str, String)> = vec![
        ("name", vm.name.clone()),
        ("id", vm.id.clone()),
        ("state", human::state(vm, now_ms)),
    ];
    match &vm.state {
        VmState::Failed { reason, .. } | VmState::BackOff { reason, .. } => {
            lines.push(("reason", reason.clone()))
        }
        VmState::Created
        | VmState::Starting
        | VmState::Running
        | VmState::Stopping
        | VmState::Exited { .. } => {}
    }
    lines.extend([
        ("image", format!("{} ({})", vm.image, vm.image_digest)),
        ("command", human::command(&vm.command)),
        ("cpus", vm.cpus.to_string()),
        (
            "CPU share",
            format!("{}.{:02}", vm.cpu_millis / 1_000, vm.cpu_millis % 1_000 / 10),
        ),
        ("memory", human::mib(vm.memory_mib)),
        (
            "writable layer",
            vm.disk_mib.map_or_else(
                || "in memory".to_string(),
                |mib| format!("disk of {}", human::mib(mib)),
            ),
        ),
        ("restart", format!("{} ({} so far)", vm.restart, vm.restarts)),
        ("removed at its end", if vm.rm { "yes" } else { "no" }.to_string()),
        ("terminal", if vm.tty { "yes" } else { "no" }.to_string()),
        ("created", human::time(vm.created_at_ms)),
    ]);
    let mut optional = |label, value: Option<String>| {
        if let Some(value) = value {
            lines.push((label, value));
        }
    };
    optional("user", vm.user.clone());
    optional("directory", vm.working_dir.clone());
    optional("started", vm.started_at_ms.map(human::time));
    optional("ended", vm.ended_at_ms.map(human::time));
    optional(
        "addresses",
        vm.network
            .as_ref()
            .map(|network| format!("{}, {}", network.ipv4, network.ipv6)),
    );
    let published = vm.network.iter().flat_map(|network| &network.publish);
    let published: Vec<String> = published.map(ToString::to_string).collect();
    optional("published", (!published.is_empty()).then(|| published.join(", ")));
    optional("VMM process", vm.vmm_pid.map(|pid| pid.to_string()));
    optional(
        "last start",
        vm.timing.map(|timing| {
            format!(
                "guest up after {} (its kernel took {}), command after {}",
                human::millis(timing.guest_us),
                human::millis(timing.init_us),
                human::millis(timing.workload_us)
            )
        }),
    );
    for (key, value) in &vm.env {
        lines.push(("env", format!("{key}={value}")));
    }
    let width = lines.iter().map(|(label, _)| label.len()).max().unwrap_or(0) + 1;
    lines
        .into_iter()
        .map(|(label, value)| {
            format!(
                "{:width$} {}\n",
                format!("{label}:"),
                crate::output::printable(&value)
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::vm;

    #[test]
    fn a_listing_has_a_line_for_each() {
        let mut long = vm("b", VmState::Created);
        long.command = vec!["x".repeat(80)];
        let text = listing(&[vm("web-1", VmState::Running), long], 62_000);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..2],
            [
                "NAME   IMAGE  STATE         CPUS  MEMORY   RESTARTS  COMMAND",
                "web-1  base   running 60 s  1     256 MiB  0         sh -c 'exit 7'"
            ]
        );
        assert!(lines[2].ends_with("xxx…"), "{text}");
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn details_name_what_is_known_and_nothing_else() {
        let mut vm = vm(
            "web",
            VmState::Failed {
                reason: "no KVM".into(),
                code: None,
            },
        );
        vm.env.insert("A".into(), "b".into());
        let text = details(&vm, 62_000);
        for line in [
            "name:               web\n",
            "reason:             no KVM\n",
            "env:                A=b\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("VMM process"), "{text}");
    }
}
