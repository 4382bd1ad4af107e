//! The agent as a process, with a stand-in for the VMM.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use secovia_agent_api::{ImageImport, KillRequest, RestartPolicy, VmCreate, VmState, WaitUntil};
use secovia_agent_harness::{Programs, Settings, Testbed, run, scenarios, sh};

fn programs() -> Programs {
    Programs::fake(
        env!("CARGO_BIN_EXE_agent-under-test"),
        env!("CARGO_BIN_EXE_fake-vmm"),
        env!("CARGO_BIN_EXE_jailer-under-test"),
    )
}

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            async fn $name() {
                scenarios::$name(&programs()).await;
            }
        )*
    };
}

scenarios!(
    run_hands_over_output_and_status,
    input_reaches_who_asked_for_it,
    exec_signal_and_stop,
    a_stop_ends_the_deaf,
    a_missing_program_is_told,
    environment_and_directory,
    a_killed_vmm_is_told_within_a_second,
    a_failing_workload_is_restarted_and_given_up,
    a_log_is_followed_to_the_end,
    much_output_arrives_whole,
    a_killed_agent_finds_its_vms_again,
    a_stopped_agent_leaves_its_vms_alone,
    what_happened_meanwhile_is_found_out,
    a_stop_outlives_the_agent,
    always_comes_back_with_the_agent,
    a_vm_is_held_in_its_bounds,
    a_reclaim_outlives_the_agent,
    a_policy_is_reloaded_whole_or_not_at_all,
    a_network_leaves_nothing_behind,
    containers_have_their_own_logs,
    a_container_is_started_again_without_its_vm,
    a_vm_ends_with_its_containers,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_moment_of_a_run_is_a_bad_one_to_die() {
    scenarios::no_moment_of_a_run_is_a_bad_one_to_die(&programs(), 50, Duration::from_millis(60)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_owner_takes_it_back_in_time() {
    scenarios::the_owner_takes_it_back_in_time(&programs(), 20, 4).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn memory_is_bounded_without_a_policy() {
    scenarios::memory_is_bounded_without_a_policy(&programs()).await;
}

async fn bed(kernel: &'static str) -> Testbed {
    let settings = Settings {
        kernel,
        boot_timeout_s: 1,
        ..Settings::default()
    };
    Testbed::with_image(&programs(), &settings).await
}

/// Each way in which a machine does not come up has its own words, and leaves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_machine_that_does_not_come_up_is_explained() {
    for (kernel, words) in [
        (
            "exit 1",
            "the VMM failed; it said: fake-vmm: this machine ends at once",
        ),
        ("exit 2", "refused its configuration"),
        ("exit 3", "reset itself"),
        ("exit 4", "kernel panicked"),
        ("exit 77", "unknown status 77"),
        ("hang", "did not come up within 1 s"),
    ] {
        let bed = bed(kernel).await;
        bed.client().create_vm(&sh("x", "true")).await.unwrap();
        let vm = bed.client().wait_vm("x", WaitUntil::Ended).await.unwrap();
        assert!(
            matches!(&vm.state, VmState::Failed { reason, code: None } if reason.contains(words)),
            "{kernel}: {vm:?}"
        );
        bed.assert_nothing_runs();
    }
}

/// A VM that fails again and again waits longer each time, and a stop ends the waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn waits_between_restarts_grow_and_end_with_a_stop() {
    let bed = bed("exit 1").await;
    let client = bed.client();
    let mut create = sh("x", "true");
    create.restart = RestartPolicy::Always;
    client.create_vm(&create).await.unwrap();
    bed.wait_for("x", "at its third wait", |vm| {
        vm.restarts >= 3 && matches!(vm.state, VmState::BackOff { .. })
    })
    .await;
    assert!(
        client.delete_vm("x", false).await.is_err(),
        "it will start again: it is active"
    );
    let vm = client.kill_vm("x", &KillRequest::default()).await.unwrap();
    assert!(matches!(vm.state, VmState::Failed { .. }), "{vm:?}");
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(client.vm("x").await.unwrap().state, vm.state);
    bed.assert_nothing_runs();
}

/// A stop while the guest boots does not wait for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_boot_can_be_broken_off() {
    let settings = Settings {
        kernel: "hang",
        ..Settings::default()
    };
    let bed = Testbed::with_image(&programs(), &settings).await;
    let client = bed.client();
    client.create_vm(&sh("x", "true")).await.unwrap();
    let begun = Instant::now();
    let vm = client.stop_vm("x", &Default::default()).await.unwrap();
    assert!(
        matches!(&vm.state, VmState::Failed { reason, .. } if reason.contains("before its workload")),
        "{vm:?}"
    );
    assert!(begun.elapsed() < Duration::from_secs(2));
    bed.assert_nothing_runs();
}

/// What cannot be is refused by name, and nothing is left of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn bad_requests_are_refused_by_name() {
    let bed = bed("boot").await;
    let client = bed.client();
    client.create_vm(&sh("taken", "sleep 60")).await.unwrap();
    let base = || sh("new", "true");
    let table: [(&str, VmCreate); 13] = [
        (
            "image `none`",
            VmCreate {
                image: "none".into(),
                ..base()
            },
        ),
        (
            "image `../base`",
            VmCreate {
                image: "../base".into(),
                ..base()
            },
        ),
        (
            "named `taken`",
            VmCreate {
                name: Some("taken".into()),
                ..base()
            },
        ),
        (
            "`name`",
            VmCreate {
                name: Some("Not_Good".into()),
                ..base()
            },
        ),
        (
            "`name`",
            VmCreate {
                name: Some("0123456789abcdef".into()),
                ..base()
            },
        ),
        ("`cpus` is 0", VmCreate { cpus: 0, ..base() }),
        ("`cpus` is 33", VmCreate { cpus: 33, ..base() }),
        (
            "`cpu_millis` is 1001",
            VmCreate {
                cpu_millis: Some(1_001),
                ..base()
            },
        ),
        (
            "`memory_mib` is 63",
            VmCreate {
                memory_mib: 63,
                ..base()
            },
        ),
        (
            "the host has",
            VmCreate {
                memory_mib: 1 << 40,
                ..base()
            },
        ),
        (
            "free",
            VmCreate {
                disk_mib: Some(1 << 40),
                ..base()
            },
        ),
        (
            "`env` has the key",
            VmCreate {
                env: [("A=B".into(), String::new())].into(),
                ..base()
            },
        ),
        (
            "`working_dir`",
            VmCreate {
                working_dir: Some("srv".into()),
                ..base()
            },
        ),
    ];
    for (words, create) in table {
        let error = client.create_vm(&create).await.unwrap_err().to_string();
        assert!(error.contains(words), "{words}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
    assert_eq!(client.list_vms(true).await.unwrap().len(), 1);
    for error in [
        client.start_vm("taken").await.unwrap_err(),
        client.delete_vm("taken", false).await.unwrap_err(),
        client.delete_image("base").await.unwrap_err(),
        client.vm("none").await.unwrap_err(),
        client.delete_image("none").await.unwrap_err(),
        client.attach("none").await.unwrap_err(),
    ] {
        assert!(error.to_string().contains('`'), "{error}");
    }
    client.delete_vm("taken", true).await.unwrap();
    client.delete_image("base").await.unwrap();
    bed.assert_nothing_runs();
}

/// An image that is wrong does not come in, and leaves nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_corrupt_image_is_refused() {
    let bed = bed("boot").await;
    let client = bed.client();
    let dir = bed.fake_image("other");
    let import = ImageImport {
        path: dir.to_str().unwrap().into(),
        name: None,
    };
    let manifest = fs::read_to_string(dir.join("manifest.json")).unwrap();
    for (text, words) in [
        ("{".to_string(), "manifest.json: EOF"),
        (manifest.replace("\"user\"", "\"usr\""), "unknown field `usr`"),
        (manifest.replace("\"size\":", "\"size\":1"), "rootfs.erofs: has"),
    ] {
        fs::write(dir.join("manifest.json"), text).unwrap();
        let error = client.import_image(&import).await.unwrap_err().to_string();
        assert!(
            error.contains(words) && error.contains("build the image again"),
            "{error}"
        );
    }
    fs::write(dir.join("manifest.json"), manifest).unwrap();
    assert_eq!(client.list_images().await.unwrap().len(), 1);
    let names: Vec<_> = fs::read_dir(bed.path("state/images")).unwrap().collect();
    assert_eq!(names.len(), 1, "{names:?}");
    let info = client.import_image(&import).await.unwrap();
    assert_eq!((info.manifest.name.as_str(), info.used_by.len()), ("other", 0));
}

/// Images that no VM has give way to one that needs room, the one used longest ago first; nothing else does.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn images_give_way_within_their_quota() {
    let mut bed = bed("boot").await;
    let client = bed.client();
    let size = client.list_images().await.unwrap()[0].manifest.size;
    let create = VmCreate {
        start: false,
        ..sh("x", "true")
    };
    client.create_vm(&create).await.unwrap();
    // Room for three of the same size, and a little.
    bed.kill_agent();
    let config = bed.path("agent.toml");
    let quota = format!("[images]\nquota = \"{}K\"\n", 3 * size / 1024 + 64);
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace("[restart]", &format!("{quota}[restart]"))).unwrap();
    bed.start().await;
    let import = async |name: &str| {
        let path = bed.fake_image(name).to_str().unwrap().to_string();
        // Times are told apart by milliseconds.
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.import_image(&ImageImport { path, name: None }).await
    };
    let names = async || -> Vec<String> {
        let images = client.list_images().await.unwrap();
        images.into_iter().map(|image| image.manifest.name).collect()
    };
    import("one").await.unwrap();
    import("two").await.unwrap();
    assert_eq!(names().await, ["base", "one", "two"]);
    // Used again, the older one is the younger.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let create = VmCreate {
        start: false,
        image: "one".into(),
        ..sh("y", "true")
    };
    client.create_vm(&create).await.unwrap();
    client.delete_vm("y", false).await.unwrap();
    import("three").await.unwrap();
    assert_eq!(names().await, ["base", "one", "three"]);
    let gc = |to_bytes| secovia_agent_api::ImageGc { to_bytes };
    assert_eq!(client.gc_images(&gc(None)).await.unwrap().removed, [""; 0]);
    let report = client.gc_images(&gc(Some(0))).await.unwrap();
    assert_eq!(report.removed, ["one", "three"]);
    assert!(report.freed_bytes >= 2 * size, "{report:?}");
    assert_eq!(names().await, ["base"], "a VM has it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_moment_of_an_import_is_a_bad_one_to_die() {
    scenarios::no_moment_of_an_import_is_a_bad_one_to_die(&programs(), 30).await;
}

/// An image that a VM uses stays what it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_image_in_use_is_not_replaced() {
    let bed = bed("boot").await;
    let client = bed.client();
    let create = VmCreate {
        start: false,
        ..sh("x", "true")
    };
    client.create_vm(&create).await.unwrap();
    let dir = bed.fake_image("base");
    let import = ImageImport {
        path: dir.to_str().unwrap().into(),
        name: None,
    };
    assert_eq!(
        client.import_image(&import).await.unwrap().used_by,
        ["x"],
        "the same may come again"
    );
    let manifest = fs::read_to_string(dir.join("manifest.json")).unwrap();
    let other = bed.fake_image("next");
    let text = fs::read_to_string(other.join("manifest.json"))
        .unwrap()
        .replace("\"next\"", "\"base\"");
    fs::write(other.join("manifest.json"), &text).unwrap();
    assert_ne!(manifest, text);
    let import = ImageImport {
        path: other.to_str().unwrap().into(),
        name: None,
    };
    let error = client.import_image(&import).await.unwrap_err().to_string();
    assert!(error.contains("used by x"), "{error}");
    client.delete_vm("x", false).await.unwrap();
    client.import_image(&import).await.unwrap();
}

/// One agent for each state directory, and a start that fails says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_second_agent_is_refused() {
    let mut bed = bed("boot").await;
    let second = || {
        let output = bed.command().stderr(Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    };
    let said = second();
    assert!(said.contains("in use by another agent (process "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    bed.client().version().await.unwrap();
    // A socket that a killed agent left is no obstacle.
    bed.kill_agent();
    assert!(bed.path("run/agent.sock").exists());
    bed.start().await;
    bed.client().version().await.unwrap();
}

/// Whatever is wrong at the start is one line that names the file and what to do, and a status that is not 0.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_start_that_fails_says_why() {
    let mut bed = bed("boot").await;
    bed.kill_agent();
    let config = fs::read_to_string(bed.path("agent.toml")).unwrap();
    let fails = |words: &str| {
        let output = bed.command().output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        let last = said.lines().last().unwrap_or_default();
        assert!(
            last.starts_with("secovia-agent: ") && last.contains(words),
            "{words}: {said}"
        );
    };
    fs::write(bed.path("agent.toml"), format!("{config}\nsurprise = 1\n")).unwrap();
    fails("unknown field `surprise`");
    if !secovia_agent::sys::has_core_scheduling() {
        fs::write(
            bed.path("agent.toml"),
            format!("core_scheduling = true\n{config}"),
        )
        .unwrap();
        fails("`core_scheduling`");
    }
    fs::remove_file(bed.path("agent.toml")).unwrap();
    fails("agent.toml");
    fs::write(bed.path("agent.toml"), &config).unwrap();
    let records = bed.path("state/records.redb");
    let good = fs::read(&records).unwrap();
    fs::write(&records, vec![7; 10_000]).unwrap();
    fails("records.redb");
    fs::write(&records, good).unwrap();
    fs::remove_file(bed.path("run/agent.sock")).unwrap();
    fs::write(bed.path("run/agent.sock"), "").unwrap();
    fails("is no socket");
    fs::remove_file(bed.path("run/agent.sock")).unwrap();
    let checked = bed.command().arg("--check").output().unwrap();
    assert!(checked.status.success(), "{checked:?}");
    bed.start().await;
    assert_eq!(bed.client().list_images().await.unwrap().len(), 1);
}

/// Nobody else gets what a VM says, has or is.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn files_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let bed = bed("boot").await;
    let secret = "s3cr3t-value";
    let mut create = sh("private", "echo $SECRET");
    create.env = [("SECRET".to_string(), secret.to_string())].into();
    run(&bed.client(), create, None).await;
    let mode = |name: &str| fs::metadata(bed.path(name)).unwrap().permissions().mode() & 0o7777;
    for (name, expected) in [
        ("state", 0o700),
        ("state/records.redb", 0o600),
        ("state/images", 0o700),
        ("state/vms", 0o700),
        ("run/vms", 0o700),
    ] {
        assert_eq!(mode(name), expected, "{name}");
    }
    assert_eq!(mode("run/agent.sock") & 0o007, 0, "others stay out");
    assert!(!bed.agent_log().contains(secret), "secrets are not logged");
}
