//! Starts one VMM in a jail. The program is `secovia-jailer`; this library is what it is made of.
//!
//! # Layers
//! ```text
//! program, cli               the process: words in, exit status out
//! apply                      does the steps of a plan, undoes them where one fails
//! plan                       which steps, in which order: a value, printed by --dry-run
//! facts                      what the host is, as far as the plan depends on it
//! options                    what was asked for, each value strictly read
//! sys                        system calls that no crate wraps
//! ```
//! Arrows point down. [`plan::plan`] touches nothing; [`apply::apply`] decides nothing.
//!
//! # What holds
//! A VMM that was taken over by its guest finds itself as a user of its own, without capabilities and without a way to get
//! some, in a root that holds the files it was given, nodes of the devices it was given, and nothing else; alone in its
//! namespaces, within its cgroup and its limits, with no environment and no descriptor of the host's but the standard
//! streams and those that the caller names.
//!
//! # Paths
//! Others may try to have the jailer open what they cannot: by a link, a FIFO, a device in the place of a file, or by
//! changing a path between check and use. So every path is walked one component at a time, without following a symbolic
//! link; what is found is held as a descriptor, checked through it, and mounted through it ([`apply`]): no path is
//! resolved twice. See [`plan::Step::OpenFile`] for what a file has to be.
//!
//! # Rights
//! The jailer is root, with CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_MKNOD, CAP_SETGID, CAP_SETPCAP, CAP_SETUID and
//! CAP_SYS_ADMIN; CAP_SYS_RESOURCE too where limits are raised above its own. It needs no others.
//!
//! # Processes
//! The main thread stays on the host, with all rights, to undo what was done. A second thread enters the jail, and in the
//! end becomes the VMM: running a program from any thread ends the others and keeps the process's ID. It makes its namespaces
//! while the main thread works on the host, since those are the dearest steps (of the network above all). With
//! `--new-pid-ns` the second thread starts one process, which becomes the VMM, and tells the caller what came of it; while
//! that process gives its rights up, the thread closes the jail behind it and then lets it run the VMM.
//!
//! # Cost
//! What takes long, in milliseconds on two cores with an ext4 root: this program's own start 0.8, namespaces 0.4 (of the
//! network alone 0.35) beside the host's steps 0.3, mounts 0.1, the VMM's process 0.15, letting go of the host's mounts 0.1
//! (the kernel waits for all their readers) beside the VMM's giving up of its rights 0.1, running it 0.1. `ci/bench start`
//! measures the whole.
//!
//! Of the start 0.6 is the C library's, which asks the processor about its caches some 50 times: a virtual machine's host
//! answers each time, as here, while a processor of one's own takes no time for it.
//!
//! # Unsafe code
//! Only in [`sys`].

pub mod apply;
pub mod cli;
pub mod facts;
pub mod options;
pub mod plan;
pub mod program;
pub mod sys;
