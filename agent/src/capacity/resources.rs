//! Amounts of what a machine has and lends.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a machine has that can be lent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resource {
    /// CPU time, in thousandths of a CPU.
    Cpu,
    /// Main memory, in bytes.
    Memory,
    /// Disk space, in bytes.
    Disk,
}

impl Resource {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Cpu, Self::Memory, Self::Disk];

    /// Its name, as in the policy's keys.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Disk => "disk",
        }
    }

    /// An amount of it, for people. Rounded down: nobody is promised more than there is.
    pub fn show(self, amount: u64) -> String {
        match self {
            Self::Cpu => format!("{}.{:03} CPUs", amount / 1_000, amount % 1_000),
            Self::Memory | Self::Disk => format!("{} MiB", amount >> 20),
        }
    }
}

/// One value for each resource.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Each<T> {
    /// For [`Resource::Cpu`].
    pub cpu: T,
    /// For [`Resource::Memory`].
    pub memory: T,
    /// For [`Resource::Disk`].
    pub disk: T,
}

/// An amount of each resource.
pub type Amounts = Each<u64>;

impl<T> Each<T> {
    /// What `of` says of each resource.
    pub fn from_fn(mut of: impl FnMut(Resource) -> T) -> Self {
        Self {
            cpu: of(Resource::Cpu),
            memory: of(Resource::Memory),
            disk: of(Resource::Disk),
        }
    }

    /// The value for `resource`.
    pub fn get(&self, resource: Resource) -> &T {
        match resource {
            Resource::Cpu => &self.cpu,
            Resource::Memory => &self.memory,
            Resource::Disk => &self.disk,
        }
    }

    /// The value for `resource`, to be changed.
    pub fn get_mut(&mut self, resource: Resource) -> &mut T {
        match resource {
            Resource::Cpu => &mut self.cpu,
            Resource::Memory => &mut self.memory,
            Resource::Disk => &mut self.disk,
        }
    }
}

impl Amounts {
    /// Nothing of anything.
    pub const NONE: Self = Self {
        cpu: 0,
        memory: 0,
        disk: 0,
    };

    /// More than any machine has.
    pub const UNLIMITED: Self = Self {
        cpu: u64::MAX,
        memory: u64::MAX,
        disk: u64::MAX,
    };

    /// Both together, at most what can be counted.
    pub fn plus(self, other: Self) -> Self {
        Self::from_fn(|resource| self.get(resource).saturating_add(*other.get(resource)))
    }

    /// What is left of this without `other`, at least nothing.
    pub fn minus(self, other: Self) -> Self {
        Self::from_fn(|resource| self.get(resource).saturating_sub(*other.get(resource)))
    }

    /// The lesser of each.
    pub fn min(self, other: Self) -> Self {
        Self::from_fn(|resource| *self.get(resource).min(other.get(resource)))
    }

    /// The greater of each.
    pub fn max(self, other: Self) -> Self {
        Self::from_fn(|resource| *self.get(resource).max(other.get(resource)))
    }

    /// Whether no resource exceeds `limit`.
    pub fn fits(self, limit: Self) -> bool {
        Resource::ALL
            .iter()
            .all(|resource| self.get(*resource) <= limit.get(*resource))
    }
}

impl fmt::Display for Amounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = Resource::ALL.map(|resource| {
            let amount = resource.show(*self.get(resource));
            match resource {
                Resource::Cpu => amount,
                Resource::Memory | Resource::Disk => format!("{amount} {}", resource.word()),
            }
        });
        f.write_str(&shown.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_never_wrap() {
        let some = Amounts {
            cpu: 1_500,
            memory: 3 << 30,
            disk: 0,
        };
        assert_eq!(Amounts::UNLIMITED.plus(some), Amounts::UNLIMITED);
        assert_eq!(Amounts::NONE.minus(some), Amounts::NONE);
        assert!(some.fits(some) && !some.fits(Amounts::NONE));
        assert_eq!(some.to_string(), "1.500 CPUs, 3072 MiB memory, 0 MiB disk");
    }
}
