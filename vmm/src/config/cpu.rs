//! Custom CPU templates, from text to bits.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use secovia_vmm_api::{CpuConfig, CpuConfigSpec, CpuidRegister};

use super::error::ConfigError;
use crate::cpuid::{Bits, LeafChange, Template};

/// No template is as long.
const MAX_SIZE: u64 = 1 << 20;

/// A template of this file, or of this text.
pub(super) fn check(config: &CpuConfig) -> Result<Template, ConfigError> {
    match config {
        CpuConfig::File(path) => template(&read(path)?),
        CpuConfig::Template(spec) => template(spec),
    }
}

fn read(path: &Path) -> Result<CpuConfigSpec, ConfigError> {
    let failed = |reason: String| ConfigError::CpuFile {
        path: path.into(),
        reason,
    };
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_SIZE).read_to_end(&mut text))
        .map_err(|error| failed(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| failed(error.to_string()))
}

fn template(spec: &CpuConfigSpec) -> Result<Template, ConfigError> {
    let mut capabilities = Vec::new();
    for (at, text) in spec.kvm_capabilities.iter().enumerate() {
        let fault = || fault(format!("kvm_capabilities.{at}"), text, NUMBER);
        match text.strip_prefix('!') {
            // A capability that is not there is missed when KVM refuses something, and not before.
            Some(text) => drop(number(text).ok_or_else(fault)?),
            None => capabilities.push(number(text).ok_or_else(fault)?),
        }
    }
    let mut leaves = Vec::new();
    for (at, leaf) in spec.cpuid_modifiers.iter().enumerate() {
        let field = |name: &str| format!("cpuid_modifiers.{at}.{name}");
        let number = |name, text: &str| number(text).ok_or_else(|| fault(field(name), text, NUMBER));
        let mut registers = [Bits::default(); 4];
        for modifier in &leaf.modifiers {
            let register = match modifier.register {
                CpuidRegister::Eax => &mut registers[0],
                CpuidRegister::Ebx => &mut registers[1],
                CpuidRegister::Ecx => &mut registers[2],
                CpuidRegister::Edx => &mut registers[3],
            };
            let text = &modifier.bitmap;
            *register = bitmap(text, 32).ok_or_else(|| fault(field("modifiers"), text, BITMAP_32))?;
        }
        leaves.push(LeafChange {
            function: number("leaf", &leaf.leaf)?,
            index: number("subleaf", &leaf.subleaf)?,
            registers,
        });
    }
    let mut registers = Vec::new();
    for (at, msr) in spec.msr_modifiers.iter().enumerate() {
        let field = |name: &str| format!("msr_modifiers.{at}.{name}");
        registers.push((
            number(&msr.addr).ok_or_else(|| fault(field("addr"), &msr.addr, NUMBER))?,
            bitmap(&msr.bitmap, 64).ok_or_else(|| fault(field("bitmap"), &msr.bitmap, BITMAP_64))?,
        ));
    }
    Ok(Template {
        capabilities,
        leaves,
        registers,
    })
}

const NUMBER: &str = "a number, as in \"0x1a\" or \"26\"";
const BITMAP_32: &str = "\"0b\" and up to 32 digits of 0, 1 and x";
const BITMAP_64: &str = "\"0b\" and up to 64 digits of 0, 1 and x";

fn fault(field: String, text: &str, remedy: &'static str) -> ConfigError {
    ConfigError::CpuText {
        field,
        text: text.into(),
        remedy,
    }
}

/// Decimal digits, or hexadecimal ones with `0x` before them.
fn number(text: &str) -> Option<u32> {
    let (digits, radix) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    // from_str_radix would take a sign too.
    let good = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    good.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
}

/// `0b` and a digit for each bit, the highest first.
fn bitmap(text: &str, width: usize) -> Option<Bits> {
    let digits = text.strip_prefix("0b")?.bytes().filter(|digit| *digit != b'_');
    let mut bits = Bits::default();
    let mut count = 0;
    for digit in digits {
        let (mask, value) = match digit {
            b'0' => (1, 0),
            b'1' => (1, 1),
            b'x' => (0, 0),
            _ => return None,
        };
        bits = Bits {
            mask: bits.mask << 1 | mask,
            value: bits.value << 1 | value,
        };
        count += 1;
        if count > width {
            return None;
        }
    }
    (count > 0).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Template, String> {
        let spec: CpuConfigSpec = serde_json::from_str(text).map_err(|error| error.to_string())?;
        check(&CpuConfig::Template(spec)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_template_is_read_bit_by_bit() {
        let text = r#"{
            "kvm_capabilities": ["!56", "171"],
            "cpuid_modifiers": [{ "leaf": "0x1", "subleaf": "0", "flags": 0, "modifiers": [
                { "register": "ecx", "bitmap": "0b1xx0" }, { "register": "edx", "bitmap": "0b0_1" } ] }],
            "msr_modifiers": [{ "addr": "0x10a", "bitmap": "0b1x" }]
        }"#;
        let none = Bits::default();
        let bits = |mask, value| Bits { mask, value };
        assert_eq!(
            parsed(text).unwrap(),
            Template {
                capabilities: vec![171],
                leaves: vec![LeafChange {
                    function: 1,
                    index: 0,
                    registers: [none, none, bits(0b1001, 0b1000), bits(0b11, 0b01)],
                }],
                registers: vec![(0x10a, bits(0b10, 0b10))],
            }
        );
        assert_eq!(bits(0b1001, 0b1000).apply(0b0111), 0b1110);
        let all = bitmap(&format!("0b{}", "1".repeat(64)), 64).unwrap();
        assert_eq!(all, bits(u64::MAX, u64::MAX));
        assert_eq!(parsed("{}").unwrap(), Template::default());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let leaf = |leaf: &str, bitmap: &str| {
            format!(
                r#"{{ "cpuid_modifiers": [{{ "leaf": "{leaf}", "subleaf": "0x0", "flags": 0,
                    "modifiers": [{{ "register": "eax", "bitmap": "{bitmap}" }}] }}] }}"#
            )
        };
        let long = "1".repeat(33);
        for (text, expected) in [
            (
                leaf("one", "0b1"),
                "cpu-config.cpuid_modifiers.0.leaf: \"one\"; give a number",
            ),
            (leaf("0x+1", "0b1"), "cpuid_modifiers.0.leaf"),
            (leaf("0x100000000", "0b1"), "cpuid_modifiers.0.leaf"),
            (leaf("", "0b1"), "cpuid_modifiers.0.leaf"),
            (
                leaf("1", "101"),
                "cpuid_modifiers.0.modifiers: \"101\"; give \"0b\"",
            ),
            (leaf("1", "0b"), "cpuid_modifiers.0.modifiers"),
            (leaf("1", "0b2"), "cpuid_modifiers.0.modifiers"),
            (leaf("1", &format!("0b{long}")), "up to 32 digits"),
            (
                r#"{ "kvm_capabilities": ["!x"] }"#.into(),
                "cpu-config.kvm_capabilities.0: \"!x\"",
            ),
            (
                r#"{ "msr_modifiers": [{ "addr": "-1", "bitmap": "0b1" }] }"#.into(),
                "msr_modifiers.0.addr",
            ),
            (
                r#"{ "reg_modifiers": [] }"#.into(),
                "unknown field `reg_modifiers`",
            ),
        ] {
            let error = parsed(&text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        let missing = check(&CpuConfig::File("/nowhere/cpu".into()))
            .unwrap_err()
            .to_string();
        assert!(
            missing.starts_with("cpu-config: /nowhere/cpu: No such file"),
            "{missing}"
        );
    }
}
