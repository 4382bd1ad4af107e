//! CPU templates: what the guest sees of them, and what is refused.

mod common;

use common::{Machine, Outcome, kvm};
use secovia_stub_guests as stubs;
use serde_json::{Value, json};

/// The processor's name begins with this bitmap.
fn name(bitmap: &str) -> Value {
    let modifier = json!({ "register": "eax", "bitmap": bitmap });
    json!({ "leaf": "0x80000002", "subleaf": "0x0", "flags": 0, "modifiers": [modifier] })
}

fn run(template: Value) -> Outcome {
    Machine::stub(stubs::FEATURES).with("/cpu-config", template).run()
}

#[test]
fn the_guest_sees_the_bits_of_the_template() {
    if !kvm() {
        return;
    }
    let register = |bitmap: &str| json!({ "addr": "0xc0000102", "bitmap": bitmap });
    for (template, output) in [
        (
            json!({ "cpuid_modifiers": [name("0b1")], "msr_modifiers": [register("0b1")] }),
            "11\n",
        ),
        (
            json!({ "cpuid_modifiers": [name("0b0")], "msr_modifiers": [register("0b0")] }),
            "00\n",
        ),
        (
            json!({ "kvm_capabilities": ["!56", "0"], "cpuid_modifiers": [name("0bx0"), name("0b1x")],
                    "msr_modifiers": [register("0b10"), register("0bx1")] }),
            "01\n",
        ),
    ] {
        let outcome = run(template.clone());
        assert_eq!(
            (outcome.output.as_str(), outcome.errors.as_str(), outcome.status),
            (output, "", Some(3)),
            "{template}: {outcome:?}"
        );
    }
    // The same in a file, as Firecracker's configuration has it.
    let machine = Machine::stub(stubs::FEATURES);
    let path = machine.folder.join("cpu.json");
    std::fs::write(&path, json!({ "cpuid_modifiers": [name("0b1")] }).to_string()).unwrap();
    assert_eq!(machine.with("/cpu-config", json!(path)).run().output, "10\n");
}

#[test]
fn what_this_host_has_not_is_named() {
    if !kvm() {
        return;
    }
    for (template, status, expected) in [
        (
            json!({ "kvm_capabilities": ["99999"] }),
            1,
            "cpu-config.kvm_capabilities: KVM has no capability 99999 here",
        ),
        (
            json!({ "cpuid_modifiers": [{ "leaf": "0x7777", "subleaf": "0", "flags": 0, "modifiers": [] }] }),
            2,
            "cpu-config.cpuid_modifiers: leaf 0x7777, subleaf 0x0: KVM has none here",
        ),
        (
            json!({ "msr_modifiers": [{ "addr": "0x7777", "bitmap": "0b1" }] }),
            1,
            "model-specific register 0x7777: refused",
        ),
    ] {
        let outcome = run(template);
        assert_eq!(
            (outcome.output.as_str(), outcome.status),
            ("", Some(status)),
            "{outcome:?}"
        );
        assert!(outcome.errors.contains(expected), "{outcome:?}");
    }
}
