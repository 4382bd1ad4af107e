//! What a balloon is.

use std::time::Duration;

/// A balloon's settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BalloonConfig {
    /// The target at the start, in pages of 4 KiB.
    pub pages: u32,
    /// The guest may take pages back when it runs out of memory.
    pub deflate_on_oom: bool,
    /// How often the guest is asked how its memory stands; never, where there is nothing.
    pub statistics_interval: Option<Duration>,
    /// The guest can be asked for all pages that it does not use.
    pub hinting: bool,
    /// The guest tells of pages that it does not use.
    pub reporting: bool,
}
