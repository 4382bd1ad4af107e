//! What the owner has decided: what stays, what may be lent and when, and how it is taken back.

pub(crate) mod quantity;
mod spec;
#[cfg(test)]
mod tests;
mod window;

use std::ops::Range;

use jiff::tz::TimeZone;
use toml::Spanned;

pub use spec::{
    CapSpec, LabelsSpec, MeasureSpec, PolicySpec, ReclaimSpec, ReserveSpec, ScheduleSpec, WindowSpec,
};
pub use window::{Schedule, Window};

use super::resources::{Amounts, Each, Resource};

/// A Kubernetes label's value is not longer.
const LABEL_MAX: usize = 63;

/// The owner's policy.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// What is lent; none where nothing is.
    pub lending: Option<Lending>,
    /// How the machine is taken back.
    pub reclaim: Reclaim,
    /// Where this node is.
    pub labels: Labels,
}

/// What is lent.
#[derive(Debug, Clone, PartialEq)]
pub struct Lending {
    /// Stays the owner's, whatever happens. No part of it is 0.
    pub reserve: Amounts,
    /// Never lend more.
    pub cap: Amounts,
    /// When may be lent.
    pub schedule: Schedule,
    /// How the owner's use is measured.
    pub measure: Measure,
}

/// How the owner's use is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measure {
    /// How far back the owner's use counts.
    pub window_ms: u64,
    /// Nothing is offered before so much was measured.
    pub warm_up_ms: u64,
    /// This part of the machine is kept free beyond all else, because a measurement is of the past.
    pub margin_percent: u64,
}

/// How the machine is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reclaim {
    /// All is free this long after it was asked for.
    pub deadline_ms: u64,
    /// How long a rung may work before the next is climbed.
    pub hold_ms: u64,
    /// How long all must be calm before a rung is climbed down.
    pub cooldown_ms: u64,
    /// What all microVMs together may read, and write, a second while they are squeezed, in bytes.
    pub squeeze_io: u64,
}

impl Default for Reclaim {
    fn default() -> Self {
        Self {
            deadline_ms: 30_000,
            hold_ms: 3_000,
            cooldown_ms: 60_000,
            squeeze_io: 4 << 20,
        }
    }
}

/// Where this node is, and what it may hold; the pool shows it as labels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// ISO 3166-1: two capital letters.
    pub country: Option<String>,
    /// The region that runs the pool.
    pub region: Option<String>,
    /// The building.
    pub site: Option<String>,
    /// The most sensitive data that may be here.
    pub data_class: Option<String>,
}

/// What is wrong with a policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` {problem}")]
pub struct PolicyError {
    /// The key.
    pub key: String,
    /// What is wrong with its value, and what would be right.
    pub problem: String,
    /// Where it stands in the text, in bytes.
    pub span: Range<usize>,
}

fn wrong<T>(key: impl Into<String>, value: &Spanned<T>, problem: impl Into<String>) -> PolicyError {
    PolicyError {
        key: key.into(),
        problem: problem.into(),
        span: value.span(),
    }
}

impl Policy {
    /// Nothing is lent.
    pub fn none() -> Self {
        Self {
            lending: None,
            reclaim: Reclaim::default(),
            labels: Labels::default(),
        }
    }

    /// Checks the sections, all of them: the first that is wrong.
    pub fn check(spec: &PolicySpec) -> Result<Self, PolicyError> {
        let measure = measure(&spec.measure)?;
        let cap = spec
            .cap
            .as_ref()
            .map(|cap| caps("cap", cap.get_ref()))
            .transpose()?;
        let schedule = spec
            .schedule
            .as_ref()
            .map(|spec| schedule(spec.get_ref()))
            .transpose()?;
        let lending = match &spec.reserve {
            Some(spec) => Some(Lending {
                reserve: reserve(spec.get_ref())?,
                cap: cap.unwrap_or(Amounts::UNLIMITED),
                schedule: schedule.unwrap_or_else(Schedule::always),
                measure,
            }),
            None => {
                let orphan = |key: &str, span: Range<usize>| PolicyError {
                    key: key.into(),
                    problem:
                        "limits what is lent, but nothing is: add the section [reserve], or remove this one"
                            .into(),
                    span,
                };
                if let Some(cap) = &spec.cap {
                    return Err(orphan("cap", cap.span()));
                }
                if let Some(schedule) = &spec.schedule {
                    return Err(orphan("schedule", schedule.span()));
                }
                None
            }
        };
        Ok(Self {
            lending,
            reclaim: reclaim(&spec.reclaim)?,
            labels: labels(&spec.labels)?,
        })
    }
}

fn reserve(spec: &ReserveSpec) -> Result<Amounts, PolicyError> {
    let nothing = "is 0; the owner needs something to live on, reserve at least a little";
    let cpu = cpus("reserve.cpu", &spec.cpu)?;
    if cpu == 0 {
        return Err(wrong("reserve.cpu", &spec.cpu, nothing));
    }
    let memory = size("reserve.memory", &spec.memory)?;
    if memory == 0 {
        return Err(wrong("reserve.memory", &spec.memory, nothing));
    }
    let disk = size("reserve.disk", &spec.disk)?;
    if disk == 0 {
        return Err(wrong("reserve.disk", &spec.disk, nothing));
    }
    Ok(Amounts { cpu, memory, disk })
}

fn caps(section: &str, spec: &CapSpec) -> Result<Amounts, PolicyError> {
    let key = |resource: Resource| format!("{section}.{}", resource.word());
    Ok(Each {
        cpu: optional(&spec.cpu, |value| cpus(key(Resource::Cpu), value))?,
        memory: optional(&spec.memory, |value| size(key(Resource::Memory), value))?,
        disk: optional(&spec.disk, |value| size(key(Resource::Disk), value))?,
    })
}

fn optional<T>(
    value: &Option<Spanned<T>>,
    read: impl FnOnce(&Spanned<T>) -> Result<u64, PolicyError>,
) -> Result<u64, PolicyError> {
    value.as_ref().map_or(Ok(u64::MAX), read)
}

fn cpus(key: impl Into<String>, value: &Spanned<f64>) -> Result<u64, PolicyError> {
    quantity::millis(*value.get_ref()).ok_or_else(|| {
        let problem = format!("is {}; give a number of CPUs such as 2.0 or 0.5", value.get_ref());
        wrong(key, value, problem)
    })
}

fn size(key: impl Into<String>, value: &Spanned<String>) -> Result<u64, PolicyError> {
    quantity::bytes(value.get_ref()).ok_or_else(|| {
        let problem = format!("is {:?}; give a size such as \"512M\" or \"2G\"", value.get_ref());
        wrong(key, value, problem)
    })
}

fn schedule(spec: &ScheduleSpec) -> Result<Schedule, PolicyError> {
    let zone = match &spec.time_zone {
        None => TimeZone::UTC,
        Some(name) => TimeZone::get(name.get_ref()).map_err(|_| {
            let problem = format!("is {:?}; give a name such as \"Europe/Rome\"", name.get_ref());
            wrong("schedule.time_zone", name, problem)
        })?,
    };
    let windows: Vec<Window> = spec.window.iter().map(window).collect::<Result<_, _>>()?;
    if let (Some(window), None) = (spec.window.first(), &spec.time_zone) {
        let problem = "is missing; say whose clock the windows mean, such as \"Europe/Rome\"";
        return Err(wrong("schedule.time_zone", &window.from, problem));
    }
    Ok(Schedule { zone, windows })
}

fn window(spec: &WindowSpec) -> Result<Window, PolicyError> {
    let mut days = Vec::new();
    for name in spec.days.get_ref() {
        let day = quantity::weekday(name).ok_or_else(|| {
            let problem = format!("has {name:?}; use mon, tue, wed, thu, fri, sat and sun");
            wrong("schedule.window.days", &spec.days, problem)
        })?;
        if days.contains(&day) {
            let problem = format!("has {name:?} twice; name each day once");
            return Err(wrong("schedule.window.days", &spec.days, problem));
        }
        days.push(day);
    }
    if days.is_empty() {
        let problem = "is empty; name the days on which the window begins";
        return Err(wrong("schedule.window.days", &spec.days, problem));
    }
    let time = |key: &str, value: &Spanned<String>| {
        quantity::minutes(value.get_ref()).ok_or_else(|| {
            let problem = format!("is {:?}; give a time of day such as \"18:30\"", value.get_ref());
            wrong(key, value, problem)
        })
    };
    let from = time("schedule.window.from", &spec.from)?;
    let to = time("schedule.window.to", &spec.to)?;
    if from == to || from == quantity::DAY_MINUTES {
        let problem = "leaves no time; for a whole day write from = \"00:00\" and to = \"24:00\"";
        return Err(wrong("schedule.window.from", &spec.from, problem));
    }
    let cap = CapSpec {
        cpu: spec.cpu.clone(),
        memory: spec.memory.clone(),
        disk: spec.disk.clone(),
    };
    Ok(Window {
        days,
        from,
        to,
        cap: caps("schedule.window", &cap)?,
    })
}

/// A number in its range, or the default.
fn number(
    key: &str,
    value: &Option<Spanned<u64>>,
    range: Range<u64>,
    default: u64,
) -> Result<u64, PolicyError> {
    match value {
        None => Ok(default),
        Some(value) if range.contains(value.get_ref()) => Ok(*value.get_ref()),
        Some(value) => {
            let problem = format!("is {}; use {} to {}", value.get_ref(), range.start, range.end - 1);
            Err(wrong(key, value, problem))
        }
    }
}

fn measure(spec: &MeasureSpec) -> Result<Measure, PolicyError> {
    Ok(Measure {
        window_ms: number("measure.window_h", &spec.window_h, 1..24 * 28 + 1, 24)? * 3_600_000,
        warm_up_ms: number("measure.warm_up_s", &spec.warm_up_s, 1..86_401, 60)? * 1_000,
        margin_percent: number("measure.margin_percent", &spec.margin_percent, 1..51, 5)?,
    })
}

fn reclaim(spec: &ReclaimSpec) -> Result<Reclaim, PolicyError> {
    let default = Reclaim::default();
    let squeeze_io = match &spec.squeeze_io {
        None => default.squeeze_io,
        Some(value) => match size("reclaim.squeeze_io", value)? {
            0 => {
                let problem = "is 0, which would stop the microVMs for good; give at least \"64K\"";
                return Err(wrong("reclaim.squeeze_io", value, problem));
            }
            bytes => bytes,
        },
    };
    Ok(Reclaim {
        deadline_ms: number(
            "reclaim.deadline_s",
            &spec.deadline_s,
            1..3_601,
            default.deadline_ms / 1_000,
        )? * 1_000,
        hold_ms: number("reclaim.hold_ms", &spec.hold_ms, 100..600_001, default.hold_ms)?,
        cooldown_ms: number(
            "reclaim.cooldown_s",
            &spec.cooldown_s,
            1..86_401,
            default.cooldown_ms / 1_000,
        )? * 1_000,
        squeeze_io,
    })
}

fn labels(spec: &LabelsSpec) -> Result<Labels, PolicyError> {
    let label = |key: &str, value: &Option<Spanned<String>>| match value {
        Some(value) if !is_label(value.get_ref()) => {
            let problem = format!(
                "is {:?}; use 1 to {LABEL_MAX} of A-Z, a-z, 0-9, `-`, `_` and `.`, a letter or digit at both ends",
                value.get_ref()
            );
            Err(wrong(key, value, problem))
        }
        value => Ok(value.as_ref().map(|value| value.get_ref().clone())),
    };
    if let Some(value) = spec.country.as_ref().filter(|value| !is_country(value.get_ref())) {
        let problem = format!(
            "is {:?}; give two capital letters such as \"IT\"",
            value.get_ref()
        );
        return Err(wrong("labels.country", value, problem));
    }
    Ok(Labels {
        country: label("labels.country", &spec.country)?,
        region: label("labels.region", &spec.region)?,
        site: label("labels.site", &spec.site)?,
        data_class: label("labels.data_class", &spec.data_class)?,
    })
}

fn is_country(text: &str) -> bool {
    text.len() == 2 && text.bytes().all(|b| b.is_ascii_uppercase())
}

/// Kubernetes' rule for the value of a label.
fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    let outer = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= LABEL_MAX
        && text.bytes().all(inner)
        && outer(text.bytes().next())
        && outer(text.bytes().last())
}
