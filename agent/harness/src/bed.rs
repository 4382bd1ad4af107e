//! An agent in directories of its own, with an image in its store.

use std::fs;
use std::ops::Range;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use secovia_agent_api::client::Client;
use secovia_agent_api::{ImageImport, LogQuery, Vm, VmState};
use sha2::{Digest, Sha256};

use crate::{Programs, log_text};

/// How long anything may take that has no time of its own: an emulated host is slow.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// How often something is looked at that is waited for: an emulated host has little to spare.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// What a test sets otherwise than the agent's defaults.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What the stand-in's kernel file says.
    pub kernel: &'static str,
    /// Restart delays and the time of a stable run, in milliseconds.
    pub restart: (u64, u64, u64),
    /// Size of a log file.
    pub log_max_bytes: u64,
    /// How long a guest may take.
    pub boot_timeout_s: u64,
    /// Whose members may use the socket.
    pub socket_group: &'static str,
    /// More lines of the configuration.
    pub more: &'static str,
    /// The sections of the policy.
    pub policy: &'static str,
    /// The network namespace that the agent takes for the host's; this process's own where none is given.
    pub netns: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kernel: "boot",
            restart: (50, 200, 60_000),
            log_max_bytes: 16 << 20,
            boot_timeout_s: 120,
            socket_group: "secovia",
            more: "",
            policy: "",
            netns: None,
        }
    }
}

/// An agent's world. Dropped, it takes everything that runs in it down.
#[derive(Debug)]
pub struct Testbed {
    dir: tempfile::TempDir,
    programs: Programs,
    /// Whom its VMs run as: nobody else's, so that tests can run side by side.
    uids: Range<u32>,
    netns: Option<PathBuf>,
    agent: Option<Child>,
}

/// A range of user ids that no other world has: by this process's number, and by the worlds that it had before.
fn own_uids() -> Range<u32> {
    const FIRST: u32 = 1_000_000_000;
    const EACH: u32 = 16;
    static WORLDS: AtomicU32 = AtomicU32::new(0);
    let world = WORLDS.fetch_add(1, Ordering::Relaxed) % 64;
    let first = FIRST + (std::process::id() % (1 << 20) * 64 + world) * EACH;
    first..first + EACH
}

impl Testbed {
    /// A world without an agent yet.
    pub fn new(programs: &Programs, settings: &Settings) -> Self {
        let dir = tempfile::Builder::new().prefix("secovia-").tempdir().unwrap();
        let bed = Self {
            dir,
            programs: programs.clone(),
            uids: own_uids(),
            netns: settings.netns.clone(),
            agent: None,
        };
        let file = |name: &str, text: &str| {
            let path = bed.path(name);
            fs::write(&path, text).unwrap();
            path
        };
        let kernel = programs
            .kernel
            .clone()
            .unwrap_or_else(|| file("kernel", settings.kernel));
        let initrd = programs.initrd.clone().unwrap_or_else(|| file("initrd", ""));
        let (first, max, stable) = settings.restart;
        let config = format!(
            "state_dir = {:?}\nruntime_dir = {:?}\nvmm = {:?}\njailer = {:?}\nkernel = {kernel:?}\n\
             initrd = {initrd:?}\nvm_uids = {{ first = {}, count = {} }}\nlog_level = \"debug\"\nsocket_group = {:?}\nlog_max_bytes = {}\nboot_timeout_s = {}\n\
             {}[restart]\nfirst_delay_ms = {first}\nmax_delay_ms = {max}\nstable_after_ms = {stable}\n{}",
            bed.path("state"),
            bed.path("run"),
            programs.vmm,
            programs.jailer,
            bed.uids.start,
            bed.uids.len(),
            settings.socket_group,
            settings.log_max_bytes,
            settings.boot_timeout_s,
            settings.more,
            settings.policy,
        );
        file("agent.toml", &config);
        bed
    }

    /// A world with an agent that has an image named `base`.
    pub async fn with_image(programs: &Programs, settings: &Settings) -> Self {
        let mut bed = Self::new(programs, settings);
        bed.start().await;
        let path = match &programs.image {
            Some(path) => path.clone(),
            None => bed.fake_image("base"),
        };
        let path = path.to_str().unwrap().to_string();
        bed.client()
            .import_image(&ImageImport { path, name: None })
            .await
            .unwrap();
        bed
    }

    /// A path in this world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An image directory. It holds no file system but what the stand-in for the VMM takes for one: a static busybox.
    pub fn fake_image(&self, name: &str) -> PathBuf {
        let dir = self.path(&format!("image-{name}"));
        fs::create_dir_all(&dir).unwrap();
        let mut content =
            fs::read("/bin/busybox").expect("busybox-static is not installed: run ci/packages as root");
        content.extend(name.bytes());
        let digest: String = Sha256::digest(&content)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let manifest = format!(
            r#"{{"schema_version":1,"name":"{name}","digest":"sha256:{digest}","size":{},"command":["/bin/sh"],
                "env":{{"PATH":"/usr/sbin:/usr/bin:/sbin:/bin","FROM":"image"}},"user":null,"working_dir":null}}"#,
            content.len()
        );
        fs::write(dir.join("rootfs.erofs"), content).unwrap();
        fs::write(dir.join("manifest.json"), manifest).unwrap();
        dir
    }

    /// The agent's command line.
    pub fn command(&self) -> Command {
        let mut command = match &self.netns {
            None => Command::new(&self.programs.agent),
            Some(netns) => {
                // It becomes the agent: there is no process more.
                let mut enter = Command::new("nsenter");
                enter
                    .arg(format!("--net={}", netns.display()))
                    .arg(&self.programs.agent);
                enter
            }
        };
        command
            .arg("--config")
            .arg(self.path("agent.toml"))
            .stdin(Stdio::null());
        command
    }

    /// Starts the agent and waits until it answers.
    pub async fn start(&mut self) {
        assert!(self.agent.is_none(), "there is an agent already");
        let log = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(self.path("agent.log"))
            .unwrap();
        let child = self.command().stderr(log).spawn().unwrap();
        self.agent = Some(child);
        let begun = Instant::now();
        while let Err(error) = self.client().version().await {
            let ended = self.agent.as_mut().and_then(|agent| agent.try_wait().unwrap());
            assert!(
                ended.is_none(),
                "the agent ended: {ended:?}\n{}",
                self.agent_log()
            );
            assert!(begun.elapsed() < PATIENCE, "{error}\n{}", self.agent_log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Sends the agent a signal and waits for its end.
    pub fn end_agent(&mut self, signal: Signal) -> ExitStatus {
        let mut agent = self.agent.take().unwrap();
        kill(Pid::from_raw(agent.id() as i32), signal).unwrap();
        agent.wait().unwrap()
    }

    /// The agent's process.
    pub fn agent_pid(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// kill -9.
    pub fn kill_agent(&mut self) {
        assert_eq!(self.end_agent(Signal::SIGKILL).signal(), Some(9));
    }

    /// A client of the agent.
    pub fn client(&self) -> Client {
        Client::new(self.path("run/agent.sock"))
    }

    /// Whom the VMs of this world run as.
    pub fn uids(&self) -> &Range<u32> {
        &self.uids
    }

    /// What the agent said so far.
    pub fn agent_log(&self) -> String {
        fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// Whether the VMM is the real one.
    pub fn is_real(&self) -> bool {
        self.programs.kernel.is_some()
    }

    /// The VMMs of this world that run: identifier and process, from a look at all processes that shares no code with
    /// the agent's. They have the users of this world and a VMM's command line, or still the jailer's, which ends with it.
    pub fn vmms(&self) -> Vec<(String, u32)> {
        let mut vmms = Vec::new();
        for (pid, words) in processes() {
            let after = |key: &str| {
                words
                    .iter()
                    .rposition(|word| word == key)
                    .and_then(|at| words.get(at + 1))
            };
            if let (Some(_), Some(id)) = (after("--config-file"), after("--id"))
                && user(pid).is_some_and(|uid| self.uids.contains(&uid))
            {
                vmms.push((id.clone(), pid));
            }
        }
        vmms.sort();
        vmms
    }

    /// The jailers of this world that are at work.
    pub fn jailers(&self) -> Vec<u32> {
        let base = self.path("run/jail").display().to_string();
        processes()
            .filter(|(_, words)| words.contains(&base))
            .map(|(pid, _)| pid)
            .filter(|pid| user(*pid) == Some(0))
            .collect()
    }

    /// Waits until `until` says so of the VM.
    pub async fn wait_for(&self, vm: &str, what: &str, until: impl Fn(&Vm) -> bool) -> Vm {
        let begun = Instant::now();
        loop {
            let seen = self.client().vm(vm).await.unwrap();
            if until(&seen) {
                return seen;
            }
            assert!(
                begun.elapsed() < PATIENCE,
                "{vm} is not {what}: {:?}\n{}",
                seen.state,
                self.agent_log()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the VM runs.
    pub async fn running(&self, vm: &str) -> Vm {
        self.wait_for(vm, "running", |vm| vm.state == VmState::Running)
            .await
    }

    /// Waits until the workload has written `text`. Only then has its shell set up what stands before.
    pub async fn said(&self, vm: &str, text: &str) {
        let begun = Instant::now();
        while !log_text(&self.client(), vm, &LogQuery::default())
            .await
            .contains(text)
        {
            assert!(
                begun.elapsed() < PATIENCE,
                "{vm} does not say {text:?}\n{}",
                self.agent_log()
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// Nothing that a VM needs while it runs is left: no process of its user, no jailer, no file, no mount, no control
    /// group.
    pub fn assert_nothing_runs(&self) {
        let begun = Instant::now();
        let leftovers = || {
            let mut files = entries(&self.path("run/vms"));
            for program in entries(&self.path("run/jail")) {
                files.extend(entries(&self.path("run/jail").join(program)));
            }
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let world = self.dir.path().display().to_string();
            files.extend(
                mounts
                    .lines()
                    .filter(|line| line.contains(&world))
                    .map(String::from),
            );
            let mut processes: Vec<u32> = processes().map(|(pid, _)| pid).collect();
            processes.retain(|pid| user(*pid).is_some_and(|uid| self.uids.contains(&uid)));
            processes.extend(self.jailers());
            processes.extend(
                self.agent
                    .as_ref()
                    .map(|agent| zombies(agent.id()))
                    .into_iter()
                    .flatten(),
            );
            let groups: Vec<String> = entries(Path::new("/sys/fs/cgroup/secovia.slice"))
                .into_iter()
                .filter(|name| name.len() == 16 && name.bytes().all(|b| b.is_ascii_hexdigit()))
                .collect();
            (processes, files, groups)
        };
        while leftovers() != (vec![], vec![], vec![]) {
            assert!(
                begun.elapsed() < Duration::from_secs(5),
                "{:?}\n{}",
                leftovers(),
                self.agent_log()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// No VM runs without a record, and no record claims a VM that is not there for longer than it takes to notice its
    /// end.
    pub async fn assert_records_are_true(&self) {
        let begun = Instant::now();
        loop {
            // Looked at before the records: a VMM that is started meanwhile has its record before it runs.
            let vmms = self.vmms();
            let records = self.client().list_vms(true).await.unwrap();
            let wrong = disagreements(&records, &vmms, &self.vmms());
            if wrong.is_empty() {
                return;
            }
            assert!(
                begun.elapsed() < Duration::from_secs(1),
                "{wrong:#?}\n{}",
                self.agent_log()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// All processes that have words, with their words.
fn processes() -> impl Iterator<Item = (u32, Vec<String>)> {
    let numbers = fs::read_dir("/proc").unwrap();
    let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers.filter_map(|pid: u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = line.split(|byte| *byte == 0);
        let words: Vec<String> = words.map(|word| String::from_utf8_lossy(word).into()).collect();
        (words.len() > 1).then_some((pid, words))
    })
}

/// A process's children that ended and that it has not asked about.
fn zombies(parent: u32) -> Vec<u32> {
    let numbers = fs::read_dir("/proc").unwrap();
    let numbers = numbers.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let prefix = format!("Z {parent} ");
    let is_zombie = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with(&prefix))
    };
    numbers.filter(is_zombie).collect()
}

/// Whom a process runs as.
fn user(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// What records say that is not so, and what runs that they do not say. `before` and `after` are the VMMs that ran
/// before and after the records were read.
fn disagreements(records: &[Vm], before: &[(String, u32)], after: &[(String, u32)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for vm in records {
        let claims = matches!(vm.state, VmState::Starting | VmState::Running | VmState::Stopping);
        let there = vm
            .vmm_pid
            .is_some_and(|pid| after.contains(&(vm.id.clone(), pid)));
        if claims && !there {
            wrong.push(format!("{} ({}) is {:?} without a VMM", vm.id, vm.name, vm.state));
        }
    }
    for vmm in before.iter().filter(|vmm| after.contains(vmm)) {
        if !records.iter().any(|vm| vm.id == vmm.0) {
            wrong.push(format!("VMM {} of {} has no record", vmm.1, vmm.0));
        }
    }
    wrong
}

/// The names in a directory; none where it is missing.
pub(crate) fn entries(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into())
        .collect();
    names.sort();
    names
}

impl Drop for Testbed {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        for (_, pid) in self.vmms() {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
        // For whoever wants to see what went wrong.
        if std::thread::panicking() {
            eprintln!("--- agent:\n{}", self.agent_log());
        }
    }
}
