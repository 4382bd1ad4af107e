//! The configuration file. Whatever it says, it is refused with a reason or describes a machine that can be built;
//! and what was read can be written and read again.
#![no_main]

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use secovia_vmm::config::{self, MAX_VCPUS, MIN_MEMORY_MIB, VmConfig};
use secovia_vmm_api::{CpuConfig, VmSpec};
use secovia_vmm_fuzz::file;

/// The host's memory, as the machine is told.
const HOST: u64 = 8 << 30;

/// Paths become one of these: the fuzzer must not open what it happens to name.
const PATHS: [&str; 4] = ["/dev/null", "/proc/self/exe", "/nowhere/secovia", ""];

fn tame(path: &mut PathBuf) {
    let sum = path.as_os_str().len();
    *path = PATHS[sum % PATHS.len()].into();
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let input = file(data);
    let mut spec = match config::read(Path::new(&format!("/proc/self/fd/{}", input.as_raw_fd()))) {
        Ok(spec) => spec,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let text = serde_json::to_vec(&spec).expect("a specification can be written");
    let again: VmSpec = serde_json::from_slice(&text).expect("what was written can be read");
    assert_eq!(again, spec);

    if let Some(source) = &mut spec.boot_source {
        tame(&mut source.kernel_image_path);
        source.initrd_path.iter_mut().for_each(tame);
    }
    for pmem in &mut spec.pmem {
        tame(&mut pmem.path_on_host);
    }
    for drive in &mut spec.drives {
        drive.path_on_host.iter_mut().chain(&mut drive.socket).for_each(tame);
    }
    if let Some(CpuConfig::File(path)) = &mut spec.cpu_config {
        tame(path);
    }
    if let Some(vsock) = &mut spec.vsock {
        tame(&mut vsock.uds_path);
    }
    match VmConfig::new(spec, HOST) {
        Ok(config) => {
            assert!((1..=MAX_VCPUS).contains(&config.topology.vcpus()));
            assert!(config.memory >= MIN_MEMORY_MIB << 20 && config.memory <= HOST);
            assert!(!config.boot.command_line.contains(['\0', '\n']));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
