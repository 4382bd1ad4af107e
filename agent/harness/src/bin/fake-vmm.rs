//! Stands in for `secovia-vmm`: takes its command line and its configuration, and serves a guest at the end of its
//! socket that has no machine. The guest's processes are this process's own, in the jail that it finds itself in, and end
//! with it as a machine's would: it is the first of its process namespace.
//!
//! What the configuration names as the kernel says what kind of machine this is: `boot` serves the guest, `exit N`
//! says a last word and ends with status N, `hang` does nothing for ever.
//!
//! In a jail there is no shell, no file can be executed but this program, and no link leads to it. So the image is a
//! static busybox; who wants a shell from the guest gets this program, told to become the image, and the shell the same
//! for what it runs.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio, exit};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::fexecve;
use secovia_guest_protocol::{Decoder, Frame, ProcessSpec, Request, VolumeSpec, WorkloadSpec, encode};
use secovia_init::children::Reaping;
use secovia_init::server::{Machine, Server};
use secovia_vmm_api::VmSpec;

/// The command-line word of the process that plays the guest.
const GUEST: &str = "--guest";

/// The command-line word of a process that becomes the image, before the words that this is to have.
const IMAGE: &str = "--image";

/// The image, as the agent calls it in the jail.
const IMAGE_FILE: &str = "/rootfs";

/// What the tests have the shell run.
const PROGRAMS: [&str; 3] = ["cat", "sleep", "true"];

struct NoMachine;

impl Machine for NoMachine {
    fn set_network(&self, _: &secovia_guest_protocol::NetworkSetup) -> io::Result<()> {
        Ok(())
    }

    fn set_hostname(&self, _: &str) -> io::Result<()> {
        Ok(())
    }

    /// The containers of a guest without a machine share a root, and find their volumes there.
    fn volume_files(&self) -> Option<PathBuf> {
        Some("/volumes".into())
    }

    fn prepare_volumes(&self, _: &[VolumeSpec]) -> io::Result<()> {
        Ok(())
    }

    fn started_after_ns(&self) -> u64 {
        1_000_000
    }

    fn power_off(&self) {
        exit(0);
    }
}

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().collect();
    let program = words.remove(0);
    if words.first().is_some_and(|word| word == IMAGE) {
        let error = become_the_image(&words[1..]);
        eprintln!("fake-vmm: run {words:?}: {error}");
        return ExitCode::from(126);
    }
    let after = |key: &str| {
        words
            .iter()
            .position(|word| word == key)
            .and_then(|at| words.get(at + 1))
    };
    let result = match (after(GUEST), after("--config-file"), after("--id")) {
        (Some(config), ..) => guest(&program, config),
        (None, Some(config), Some(_)) if words.iter().any(|word| word == "--no-api") => {
            machine(&program, config)
        }
        _ => Err("usage: --config-file FILE --no-api --id ID".into()),
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("fake-vmm: {error}");
            ExitCode::from(2)
        }
    }
}

type Outcome = Result<u8, Box<dyn std::error::Error>>;

fn machine(program: &str, config: &str) -> Outcome {
    let spec: VmSpec = serde_json::from_slice(&fs::read(config)?)?;
    let boot = spec.boot_source.ok_or("boot-source: missing")?;
    let kernel = fs::read_to_string(&boot.kernel_image_path)?;
    println!("console of a machine with the kernel {kernel:?}");
    match kernel.trim().split_once(' ') {
        Some(("exit", status)) => {
            eprintln!("fake-vmm: this machine ends at once");
            Ok(status.parse()?)
        }
        _ if kernel.trim() == "hang" => loop {
            std::thread::sleep(Duration::from_secs(60));
        },
        _ => {
            for drive in &spec.drives {
                drive.path_on_host.as_ref().map(fs::metadata).transpose()?;
            }
            // The guest ends when this pipe does, that is with this process, whatever ends it.
            let mut guest = Command::new(program)
                .args([GUEST, config])
                .stdin(Stdio::piped())
                .spawn()?;
            let _tether = guest.stdin.take();
            let status = guest.wait()?;
            Ok(status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(1))
        }
    }
}

/// Executes the image, which lies where nothing can be executed: a copy in memory can.
fn become_the_image(words: &[String]) -> io::Error {
    let run = || -> io::Result<()> {
        let copy = memfd_create(c"image", MFdFlags::MFD_CLOEXEC)?;
        io::copy(&mut File::open(IMAGE_FILE)?, &mut File::from(copy.try_clone()?))?;
        let text = |word: Vec<u8>| CString::new(word);
        let words = words.iter().map(|word| text(word.clone().into_bytes()));
        let words: Vec<CString> = words.collect::<Result<_, _>>()?;
        let variables = std::env::vars_os().map(|(mut name, value)| {
            name.push("=");
            name.push(value);
            text(name.into_vec())
        });
        let variables: Vec<CString> = variables.collect::<Result<_, _>>()?;
        match fexecve(copy, &words, &variables)? {}
    };
    match run() {
        Ok(()) => io::ErrorKind::Other.into(),
        Err(error) => error,
    }
}

/// Passes a session on to the server, with a request for a shell turned into one for this program.
fn session(server: &Server, program: &str, mut host: UnixStream) -> io::Result<()> {
    let mut decoder = Decoder::default();
    let mut frame = loop {
        match decoder.next_frame().map_err(io::Error::other)? {
            Some(frame) => break frame,
            None => {
                // One byte at a time: what follows the frame is passed on as it is.
                let mut byte = [0];
                host.read_exact(&mut byte)?;
                decoder.push(&byte);
            }
        }
    };
    match &mut frame {
        Frame::Request(
            Request::Start(WorkloadSpec { process, .. })
            | Request::Exec(process)
            | Request::ExecIn { process, .. },
        ) => serve_shell(program, process),
        Frame::Request(Request::StartPod(pod)) => {
            let all = pod.init.iter_mut().chain(&mut pod.containers);
            all.for_each(|container| serve_shell(program, &mut container.process));
        }
        _ => {}
    }
    let (mut ours, theirs) = UnixStream::pair()?;
    server.session(theirs.into());
    ours.write_all(&encode(&frame).map_err(io::Error::other)?)?;
    let (mut from, mut to) = (host.try_clone()?, ours.try_clone()?);
    std::thread::spawn(move || {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    });
    let copied = io::copy(&mut ours, &mut host);
    let _ = host.shutdown(Shutdown::Both);
    copied.map(drop)
}

/// `sh -c SCRIPT` as this program is able to do it.
fn serve_shell(program: &str, process: &mut ProcessSpec) {
    let [sh, c, script, rest @ ..] = process.argv.as_slice() else {
        return;
    };
    if (sh.as_str(), c.as_str()) != ("sh", "-c") {
        return;
    }
    let functions = PROGRAMS.map(|name| format!("{name}() {{ {program} {IMAGE} {name} \"$@\"; }}\n"));
    let script = functions.concat() + script;
    let words = [program, IMAGE, "sh", "-c", &script].map(String::from);
    process.argv = words.into_iter().chain(rest.iter().cloned()).collect();
}

fn guest(program: &str, config: &str) -> Outcome {
    std::thread::spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        exit(1);
    });
    let spec: VmSpec = serde_json::from_slice(&fs::read(config)?)?;
    let vsock = spec.vsock.ok_or("the configuration has no vsock")?;
    // The directory that the tests have a workload begin in.
    fs::create_dir_all("/tmp")?;
    let listener = UnixListener::bind(&vsock.uds_path)?;
    let server = Server::new(NoMachine, Reaping::Own)?;
    loop {
        let (mut stream, _) = listener.accept()?;
        let mut line = [0; 13];
        if stream.read_exact(&mut line).is_ok()
            && line == *b"CONNECT 1024\n"
            && stream.write_all(b"OK 1073741824\n").is_ok()
        {
            let (server, program) = (server.clone(), program.to_string());
            std::thread::spawn(move || session(&server, &program, stream));
        }
    }
}
