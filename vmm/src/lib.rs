//! One microVM: a minimal KVM virtual machine monitor. The program is `secovia-vmm`; this library is what it is made of.
//!
//! # Layers
//! ```text
//! process, cli, logger, metrics        the process: words in, exit status out
//! machine                              assembly, event loop, life: the only place that knows everything
//! api                                  Firecracker's API: the socket's thread, requests, the machine as asked for
//! config, probe                        what is asked for, checked once; how fast KVM is
//! boot  acpi  vcpu                     kernel and tables into memory; registers, states, threads
//! confine                              what the process may still do when a guest has taken it over
//! kvm  cpuid  memory  layout  sys      KVM's calls; what CPUID says; guest memory; addresses; what no crate wraps
//! secovia-devices                      device models, which know none of this
//! ```
//! Arrows point down. A configuration as it is written (`VmSpec`) becomes one that holds ([`config::VmConfig`]) once, and
//! nothing below sees the former.
//!
//! # The machine
//! Hardware-reduced ACPI describes all of it, so that unmodified distribution kernels find everything: local APICs (in
//! KVM, in x2APIC mode where the guest likes), one I/O APIC of 24 pins (ours), a serial port, virtio devices over MMIO, an
//! event device with power button and generation ID, a panic device, reset and sleep registers. There is no PIC, PIT,
//! clock chip, PCI or firmware. Where each is, [`layout`] says.
//!
//! An interrupt goes device, pin, I/O APIC, message, `KVM_SIGNAL_MSI`; nothing is routed in the kernel. A queue
//! notification is served by the vCPU that wrote it. Both keep the start short: see [`kvm`].
//!
//! # Threads
//! | thread | does |
//! |---|---|
//! | two unnamed ones | ask KVM at the start for what takes it long ([`kvm::Questions`]), and end |
//! | main | builds the machine, then the event loop: the host's side of devices, what vCPUs left of their work, console input, signals, the end |
//! | `api` | where the API is served: reads requests and hands them to main, one at a time; opens a drive's new file |
//! | `vcpuN` | runs the guest and serves its register accesses, which includes the disk's I/O and packets of the guest's; a few milliseconds at a time |
//!
//! SIGTERM, SIGINT and SIGHUP are blocked everywhere and read from a descriptor. The first real-time signal fetches a
//! vCPU's thread back from the guest; a flag that its handler sets closes the gap before KVM_RUN.
//!
//! # Lock order
//! 1. a device (transport, serial port, event device), held for one register access or one host event;
//! 2. the I/O APIC, taken by a device that raises its line.
//!
//! Nothing is locked under the I/O APIC, and no device takes another's lock. The vCPUs' request and the first ending
//! have a lock each, under which nothing else is taken, and so have the values by which the machine changes a device
//! while it works (`LimitHandle`, `BlockHandle`, `BalloonHandle`) and those that it counts. While vCPUs run the buses are only read, without a lock.
//!
//! # Confinement
//! Every thread is under a filter of system calls before anything of a stranger's is read, and the process has no files
//! but its configuration's: [`confine`], which also says what a new device has to bring.
//!
//! # Pause
//! The main thread asks all vCPUs to hold still and waits until they do (a call of a device is brought to its end); then it
//! calls no device either, until the machine goes on: packets, connections and timers wait in the kernel, and each device is
//! called once afterwards.
//!
//! # The end
//! The first vCPU whose guest shuts down, resets, panics or breaks tells the event loop and stops. The loop returns an
//! exit status; the API's thread ends and its socket goes; vCPUs are finished, then devices dropped, which removes the
//! vsock socket, then the virtual machine; memory goes with the process.
//!
//! # Unsafe code
//! Only in [`kvm`], [`memory`], [`sys`] and the handler of forbidden system calls in [`confine`]. Everything that reads a file or a guest is checked code.

pub mod acpi;
pub mod api;
#[cfg(feature = "back-door")]
mod back_door;
pub mod boot;
pub mod cli;
pub mod config;
pub mod confine;
pub mod cpuid;
pub mod kvm;
pub mod layout;
pub mod logger;
pub mod machine;
pub mod memory;
pub mod metrics;
pub mod mmds;
pub mod probe;
pub mod process;
pub mod sys;
pub mod vcpu;
