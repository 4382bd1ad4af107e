//! The node daemon: images, records and the lives of this machine's microVMs, behind a local API.
//!
//! ```text
//! daemon ── api                  HTTP over the Unix socket, who may use it, sessions to guests
//!             └── node           all VMs: names, images in use; what runs is found again at the start; the ladder is climbed
//!                   ├── reconcile        pure: records and host to steps
//!                   └── supervisor       one task for each VM: event, new life, record, steps
//!                         ├── lifecycle  pure: life and event to life and steps
//!                         ├── lending    admission, orders, audit log, measure of the owner's use
//!                         │     └── capacity   pure: policy, offer, ledger, ladder
//!                         ├── records    durable
//!                         ├── images     checked byte for byte
//!                         ├── logs       output, and how far the guest was read
//!                         ├── guest      sessions with PID 1
//!                         ├── network    addresses, links, rules
//!                         └── process    VMM processes, their jails, files and control groups
//! ```
//!
//! Two promises hold at every moment, so that the agent may be killed at any: what the agent has done is never more
//! than what it has written down, and a VMM that runs can be found and told from every other process.
//!
//! A VM is not trusted, and neither is its VMM, which its guest may have taken over. So each runs as a user of its own
//! ([`uids`]), locked in by the jailer ([`process::Launcher`]); what lies in its jail is never followed or believed, and it
//! is known by what the kernel says of it ([`process::find`]). The agent itself keeps of root's rights what it needs
//! ([`rights`]).

pub mod api;
pub mod caller;
pub mod capacity;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod guest;
pub mod images;
pub mod lending;
pub mod lifecycle;
pub mod logger;
pub mod logs;
pub mod network;
pub mod node;
pub mod process;
pub mod reconcile;
pub mod records;
pub mod rights;
pub mod supervisor;
pub mod sys;
pub mod uids;
