//! What guards the guest's memory and the devices' registers, held against a second, plainer description of itself for
//! every input of a model that has all the edges: no samples, no seed.
//!
//! A model checker could not be had (Kani comes from outside of the registries). It would not see much more: the code
//! only adds, subtracts and compares, so that what it does depends on the order of a few numbers and on whether a sum
//! overflows. So each number takes every value near the edges that there are (zero, the ends of each range, the largest
//! number), in every combination; between them nothing changes but the size of the gaps.
//!
//! | module | proves |
//! |---|---|
//! | `dispatch` | a register access reaches the one device whose range holds all of it, or none |
//! | `memory` | a buffer is accepted if all of it is memory, and then leads to exactly these bytes, however it is cut |
//! | `chain` | a chain of descriptors is accepted if it keeps the rules of virtio 1.2, 2.7, and then has these parts |
//! | `bucket` | a token bucket lets through neither more nor less than its rate, to the nanosecond |
//!
//! What only the crate itself can see stands beside the code: `virtio/mmio/registers/tests.rs` (the status machine, every
//! register), `virtio/vsock/credit/tests.rs` (credit), `virtio/block/request/tests.rs` (ranges of a disk).

mod bucket;
mod chain;
mod dispatch;
mod memory;
