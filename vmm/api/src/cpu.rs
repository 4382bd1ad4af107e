//! A custom CPU template: how the guest's processors differ from the host's.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A template where a configuration has one: in a file of its own, or in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(untagged)]
pub enum CpuConfig {
    /// A file with a template, as Firecracker's configuration file names it.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    File(PathBuf),
    /// A template.
    Template(CpuConfigSpec),
}

/// `PUT /cpu-config`. Numbers are text, decimal or with `0x`. Bitmaps are text, `0b` and a digit for each bit, the highest
/// first: `0` clears it, `1` sets it, `x` leaves it, and so do those that are left out in front; `_` may stand between.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CpuConfigSpec {
    /// KVM's capabilities by their numbers: those that must be there, and, with a `!` before it, one that need not be.
    #[serde(default)]
    pub kvm_capabilities: Vec<String>,
    /// What CPUID says otherwise.
    #[serde(default)]
    pub cpuid_modifiers: Vec<CpuidModifier>,
    /// What model-specific registers begin with.
    #[serde(default)]
    pub msr_modifiers: Vec<MsrModifier>,
}

/// A change of one leaf of CPUID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct CpuidModifier {
    /// The leaf.
    pub leaf: String,
    /// Its subleaf; 0 where it has none.
    pub subleaf: String,
    /// KVM's flags of the entry (1: the leaf has subleaves).
    pub flags: u32,
    /// What is changed.
    pub modifiers: Vec<RegisterModifier>,
}

/// A change of one register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RegisterModifier {
    /// Which.
    pub register: CpuidRegister,
    /// Its 32 bits.
    pub bitmap: String,
}

/// Where CPUID answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the processor's own names")]
pub enum CpuidRegister {
    Eax,
    Ebx,
    Ecx,
    Edx,
}

/// A change of one model-specific register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct MsrModifier {
    /// Its number.
    pub addr: String,
    /// Its 64 bits.
    pub bitmap: String,
}
