//! Everything but `run` and `exec`: what is asked, what is printed, what failures look like.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::fake::{Answer, FakeAgent, texts, web};

fn running() -> Value {
    web(json!({"status": "running"}))
}

#[test]
fn ps_prints_a_table_or_what_the_agent_said() {
    let agent = FakeAgent::start();
    agent
        .on("GET /v1/vms?all=false", Answer::Json(200, json!([running()])))
        .on(
            "GET /v1/vms?all=true",
            Answer::Json(200, json!([running(), running()])),
        );
    let (table, _) = texts(&agent.run(&["ps"]));
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(
        lines[0].starts_with("NAME") && lines[1].starts_with("web "),
        "{table}"
    );
    let output = agent.run(&["ps", "-a", "--json"]);
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(list.as_array().unwrap().len(), 2);
    assert_eq!(list[0]["state"]["status"], "running");
}

#[test]
fn an_error_of_the_agents_is_told_with_operation_and_object() {
    let agent = FakeAgent::start();
    agent.on(
        "POST /v1/vms/x/stop",
        Answer::error(404, "vm_not_found", "no microVM `x`; see `secovia ps -a`"),
    );
    let output = agent.run(&["stop", "x"]);
    assert_eq!(output.status.code(), Some(1));
    let told = "secovia: stop x: no microVM `x`; see `secovia ps -a`\n";
    assert_eq!(texts(&output), (String::new(), told.into()));
}

#[test]
fn an_absent_agent_is_told_with_the_remedy() {
    let output = Command::new(env!("CARGO_BIN_EXE_secovia"))
        .args(["--socket", "/nonexistent/agent.sock", "ps"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let (_, told) = texts(&output);
    assert!(
        told.contains("/nonexistent/agent.sock") && told.contains("systemctl start secovia-agent"),
        "{told}"
    );
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[test]
fn several_are_stopped_at_once_and_each_is_told() {
    let agent = FakeAgent::start();
    agent
        .on("POST /v1/vms/a/stop", Answer::Json(200, running()))
        .on(
            "POST /v1/vms/b/stop",
            Answer::error(404, "vm_not_found", "no microVM `b`"),
        )
        .on("POST /v1/vms/c/stop", Answer::Json(200, running()));
    let output = agent.run(&["stop", "--grace", "1m", "a", "b", "c"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        texts(&output),
        ("a\nc\n".into(), "secovia: stop b: no microVM `b`\n".into())
    );
    assert_eq!(agent.seen("POST /v1/vms/c/stop"), [json!({"grace_s": 60})]);
}

#[test]
fn start_rm_and_kill_ask_for_what_was_typed() {
    let agent = FakeAgent::start();
    agent
        .on("POST /v1/vms/web/start", Answer::Json(200, running()))
        .on(
            "GET /v1/vms/0123456789abcdef/wait?until=started",
            Answer::Json(200, running()),
        )
        .on("DELETE /v1/vms/web?force=true", Answer::Text(204, String::new()))
        .on("POST /v1/vms/web/kill", Answer::Json(200, running()));
    for line in [
        &["start", "web"][..],
        &["rm", "-f", "web"],
        &["kill", "--signal", "HUP", "web"],
    ] {
        let output = agent.run(line);
        assert_eq!(
            (output.status.code(), texts(&output).0),
            (Some(0), "web\n".into()),
            "{line:?}: {output:?}"
        );
    }
    assert_eq!(agent.seen("POST /v1/vms/web/kill"), [json!({"signal": 1})]);
}

#[test]
fn a_start_that_fails_is_a_failure() {
    let agent = FakeAgent::start();
    let failed = web(json!({"status": "failed", "reason": "the kernel panicked"}));
    agent
        .on("POST /v1/vms/web/start", Answer::Json(200, running()))
        .on(
            "GET /v1/vms/0123456789abcdef/wait?until=started",
            Answer::Json(200, failed),
        );
    let output = agent.run(&["start", "web"]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        texts(&output),
        (String::new(), "secovia: start web: the kernel panicked\n".into())
    );
}

#[test]
fn wait_prints_each_status() {
    let agent = FakeAgent::start();
    agent
        .on(
            "GET /v1/vms/a/wait?until=ended",
            Answer::Json(200, web(json!({"status": "exited", "code": 7}))),
        )
        .on(
            "GET /v1/vms/b/wait?until=ended",
            Answer::Json(200, web(json!({"status": "failed", "reason": "the guest reset"}))),
        );
    let output = agent.run(&["wait", "a", "b"]);
    assert_eq!(
        (output.status.code(), texts(&output).0),
        (Some(0), "7\nfailed: the guest reset\n".into())
    );
}

#[test]
fn logs_are_the_bytes_that_were_written() {
    let agent = FakeAgent::start();
    let lines = "{\"at_ms\":1000,\"event\":{\"stdout\":{\"text\":\"a\\n\"}}}\n\
        {\"at_ms\":2000,\"event\":{\"stderr\":{\"base64\":\"/w==\"}}}\n";
    for _ in 0..2 {
        agent.on("GET /v1/vms/web/logs?tail=2", Answer::Text(200, lines.into()));
    }
    let output = agent.run(&["logs", "--tail", "2", "web"]);
    assert_eq!(
        (&output.stdout[..], &output.stderr[..]),
        (&b"a\n"[..], &b"\xff"[..])
    );
    let output = agent.run(&["logs", "-t", "--tail", "2", "web"]);
    assert_eq!(output.stdout, b"1970-01-01T00:00:01.000Z a\n");
}

#[test]
fn images_are_imported_by_absolute_path() {
    let agent = FakeAgent::start();
    let image = json!({
        "manifest": {"schema_version": 1, "name": "base", "digest": "sha256:00ff", "size": 4096, "command": ["sh"]},
        "imported_at_ms": 1, "used_by": [],
    });
    agent
        .on("POST /v1/images", Answer::Json(201, image.clone()))
        .on("GET /v1/images", Answer::Json(200, json!([image])));
    let dir = tempfile::tempdir().unwrap();
    let output = agent
        .command(&["image", "import", "."])
        .current_dir(dir.path())
        .output()
        .unwrap();
    assert_eq!(texts(&output).0, "base\n");
    let path = dir.path().canonicalize().unwrap();
    assert_eq!(agent.seen("POST /v1/images"), [json!({"path": path})]);
    assert!(texts(&agent.run(&["image", "ls"])).0.contains("00ff"));
    let output = agent.run(&["image", "import", "/nonexistent"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(texts(&output).1.contains("name a tar of an image"), "{output:?}");
}

#[test]
fn stats_are_the_difference_of_two_looks() {
    let agent = FakeAgent::start();
    let look = |at_ms: u64, cpu_time_us: u64| {
        Answer::Json(
            200,
            json!({
                "id": "0123456789abcdef", "name": "web", "at_ms": at_ms, "cpu_time_us": cpu_time_us,
                "memory_bytes": 1048576, "memory_limit_bytes": 268435456, "read_bytes": 0, "written_bytes": 0,
                "uptime_s": 5,
            }),
        )
    };
    let route = "GET /v1/vms/0123456789abcdef/stats";
    agent
        .on("GET /v1/vms?all=false", Answer::Json(200, json!([running()])))
        .on(route, look(1000, 0))
        .on(route, look(2000, 250_000));
    let output = agent.run(&["stats", "--json"]);
    let stats: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&stats[0]["name"], &stats[0]["cpu_percent"]),
        (&json!("web"), &json!(25.0))
    );
}

#[test]
fn version_answers_for_itself_without_an_agent() {
    let output = Command::new(env!("CARGO_BIN_EXE_secovia"))
        .args(["--socket", "/nonexistent/agent.sock", "version", "--json"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0));
    let versions: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        versions,
        json!({"client": env!("CARGO_PKG_VERSION"), "agent": null})
    );
}

#[test]
fn doctor_works_without_an_agent_and_its_status_is_its_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("agent.toml");
    std::fs::write(&config, "vmm = \"/nonexistent/vmm\"\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_secovia"))
        .args([
            "--socket",
            "/nonexistent/agent.sock",
            "doctor",
            "--json",
            "--config",
        ])
        .arg(&config)
        .output()
        .unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(report["ready"], false);
    let vmm = report["checks"]
        .as_array()
        .unwrap()
        .iter()
        .find(|check| check["id"] == "vmm")
        .unwrap();
    assert_eq!(vmm["status"], "fail");
    assert!(
        vmm["message"].as_str().unwrap().contains("/nonexistent/vmm"),
        "{vmm}"
    );
}

#[test]
fn a_closed_output_is_no_panic() {
    let agent = FakeAgent::start();
    agent.on("GET /v1/vms?all=true", Answer::Json(200, json!([running()])));
    for line in [&["ps", "-a"][..], &["man"], &["completion", "bash"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = agent
            .command(line)
            .stdout(writer)
            .stderr(Stdio::piped())
            .output()
            .unwrap();
        assert_eq!(
            (output.status.code(), &output.stderr[..]),
            (Some(141), &b""[..]),
            "{line:?}"
        );
    }
}

#[test]
fn man_writes_a_page_for_each_command() {
    let dir = tempfile::tempdir().unwrap();
    let pages = dir.path().join("man1");
    let status = Command::new(env!("CARGO_BIN_EXE_secovia"))
        .args(["man", "--dir"])
        .arg(&pages)
        .status()
        .unwrap();
    assert!(status.success());
    for page in ["secovia.1", "secovia-run.1", "secovia-image-ls.1"] {
        assert!(std::fs::metadata(pages.join(page)).unwrap().len() > 200, "{page}");
    }
}
