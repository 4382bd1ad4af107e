//! The node daemon: images, records and the lives of this machine's microVMs, behind a local API.
//!
//! Layers, each knowing only those below it: `api` (HTTP) over `node` (all VMs) over `supervisor` (one VM) over
//! `records`, `images`, `logs`, `guest` and `process` (what a step touches), and the pure cores `lifecycle` and
//! `reconcile`, which touch nothing.

pub mod api;
pub mod config;
pub mod daemon;
pub mod guest;
pub mod images;
pub mod lifecycle;
pub mod logger;
pub mod logs;
pub mod node;
pub mod process;
pub mod reconcile;
pub mod records;
pub mod supervisor;
pub mod sys;
