//! The policy's sections as they are written in `agent.toml`. Each value knows its place, for the error that names it.

use serde::Deserialize;
use toml::Spanned;

/// `[reserve]`: what stays the owner's, whatever happens. The section is what switches lending on.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReserveSpec {
    pub(super) cpu: Spanned<f64>,
    pub(super) memory: Spanned<String>,
    pub(super) disk: Spanned<String>,
}

/// `[cap]`: never lend more than this.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CapSpec {
    pub(super) cpu: Option<Spanned<f64>>,
    pub(super) memory: Option<Spanned<String>>,
    pub(super) disk: Option<Spanned<String>>,
}

/// `[schedule]`: when may be lent.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScheduleSpec {
    pub(super) time_zone: Option<Spanned<String>>,
    pub(super) window: Vec<WindowSpec>,
}

/// `[[schedule.window]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowSpec {
    pub(super) days: Spanned<Vec<String>>,
    pub(super) from: Spanned<String>,
    pub(super) to: Spanned<String>,
    pub(super) cpu: Option<Spanned<f64>>,
    pub(super) memory: Option<Spanned<String>>,
    pub(super) disk: Option<Spanned<String>>,
}

/// `[measure]`: how the owner's use is measured.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeasureSpec {
    pub(super) window_h: Option<Spanned<u64>>,
    pub(super) warm_up_s: Option<Spanned<u64>>,
    pub(super) margin_percent: Option<Spanned<u64>>,
}

/// `[reclaim]`: how the machine is taken back.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReclaimSpec {
    pub(super) deadline_s: Option<Spanned<u64>>,
    pub(super) hold_ms: Option<Spanned<u64>>,
    pub(super) cooldown_s: Option<Spanned<u64>>,
    pub(super) squeeze_io: Option<Spanned<String>>,
}

/// `[labels]`: where this node is, and what it may hold.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LabelsSpec {
    pub(super) country: Option<Spanned<String>>,
    pub(super) region: Option<Spanned<String>>,
    pub(super) site: Option<Spanned<String>>,
    pub(super) data_class: Option<Spanned<String>>,
}

/// All sections of the policy.
#[derive(Debug, Clone, Default)]
pub struct PolicySpec {
    /// Without it nothing is measured and nothing lent.
    pub reserve: Option<Spanned<ReserveSpec>>,
    /// Where absent: no caps.
    pub cap: Option<Spanned<CapSpec>>,
    /// Where absent: at any time.
    pub schedule: Option<Spanned<ScheduleSpec>>,
    /// Where absent: the defaults.
    pub measure: MeasureSpec,
    /// Where absent: the defaults.
    pub reclaim: ReclaimSpec,
    /// Where absent: none.
    pub labels: LabelsSpec,
}
