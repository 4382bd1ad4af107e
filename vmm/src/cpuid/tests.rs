use super::*;

fn entry(function: u32, index: u32) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function,
        index,
        ..Default::default()
    }
}

fn host() -> Vec<kvm_cpuid_entry2> {
    vec![
        kvm_cpuid_entry2 {
            eax: 0x1f,
            ..entry(0, 0)
        },
        kvm_cpuid_entry2 {
            ebx: 0x0740_0800,
            ecx: VMX | 1,
            edx: HTT,
            ..entry(1, 0)
        },
        kvm_cpuid_entry2 {
            eax: 0xfc1f_c121,
            ..entry(4, 0)
        }, // level 1, data
        kvm_cpuid_entry2 {
            eax: 0xfc1f_c163,
            ..entry(4, 3)
        }, // level 3, unified
        kvm_cpuid_entry2 {
            eax: 7,
            ebx: 3,
            ..entry(0xa, 0)
        },
        kvm_cpuid_entry2 {
            edx: 55,
            ..entry(0xb, 0)
        },
        kvm_cpuid_entry2 {
            ecx: SVM | PERFCTR_CORE | 1 << 22,
            ..entry(0x8000_0001, 0)
        },
        kvm_cpuid_entry2 {
            eax: 0x6c65_7449,
            ..entry(0x8000_0002, 0)
        },
        kvm_cpuid_entry2 {
            eax: 0x3030,
            ecx: 0x703f,
            ..entry(0x8000_0008, 0)
        },
        kvm_cpuid_entry2 {
            eax: 1,
            edx: 0xff,
            ..entry(0x8000_000a, 0)
        },
        kvm_cpuid_entry2 {
            eax: 0x0000_4121,
            ..entry(AMD_CACHES, 0)
        },
        kvm_cpuid_entry2 {
            eax: 9,
            ebx: 0x0107,
            ecx: 0x303,
            ..entry(0x8000_001e, 0)
        },
        kvm_cpuid_entry2 {
            eax: 0x0100_00fb,
            ..entry(0x4000_0001, 0)
        },
    ]
}

fn shown(vcpus: u8, smt: bool) -> Shown {
    Shown {
        topology: Topology::new(vcpus, smt),
        tsc_deadline: true,
    }
}

fn find(entries: &[kvm_cpuid_entry2], function: u32, index: u32) -> kvm_cpuid_entry2 {
    *entries
        .iter()
        .find(|entry| (entry.function, entry.index) == (function, index))
        .unwrap()
}

#[test]
fn nested_virtualisation_and_counters_are_hidden() {
    let entries = common(&host(), shown(1, false));
    assert_eq!(find(&entries, 1, 0).ecx & VMX, 0);
    assert_eq!(find(&entries, 0x8000_0001, 0).ecx, 1 << 22);
    assert_eq!(find(&entries, 0x8000_000a, 0).edx, 0);
    assert_eq!(find(&entries, 0xa, 0).eax, 0);
}

#[test]
fn hypervisor_and_timer_are_shown() {
    let entries = common(&host(), shown(1, false));
    assert_eq!(find(&entries, 1, 0).ecx, 1 | HYPERVISOR | X2APIC | TSC_DEADLINE);
    let without = Shown {
        tsc_deadline: false,
        ..shown(1, false)
    };
    assert_eq!(find(&common(&host(), without), 1, 0).ecx & TSC_DEADLINE, 0);
}

#[test]
fn brand_string_and_kvm_leaves_stay() {
    let entries = common(&host(), shown(3, false));
    assert_eq!(find(&entries, 0x8000_0002, 0).eax, 0x6c65_7449);
    assert_eq!(find(&entries, 0x4000_0001, 0).eax, 0x0100_00fb);
}

#[test]
fn the_processors_name_is_the_hosts() {
    let mut supported = host();
    add_brand(&mut supported, |leaf| [leaf, 1, 2, 3]);
    let names: Vec<_> = supported
        .iter()
        .filter(|entry| BRAND.contains(&entry.function))
        .collect();
    assert_eq!(names.len(), 3);
    assert_eq!(
        (names[2].function, names[2].eax, names[2].edx),
        (0x8000_0004, 0x8000_0004, 3)
    );
}

#[test]
fn one_vcpu_is_alone() {
    let entries = common(&host(), shown(1, false));
    assert_eq!(find(&entries, 1, 0).edx & HTT, 0);
    assert_eq!(find(&entries, 1, 0).ebx >> 16 & 0xff, 1);
    assert_eq!(find(&entries, 0xb, 0).ebx, 1);
    assert_eq!(find(&entries, 0xb, 1).eax, 0);
    assert_eq!(find(&entries, 0x8000_0008, 0).ecx, 0);
    assert_eq!(find(&entries, 4, 3).eax >> 14, 0);
}

#[test]
fn six_vcpus_as_threads_of_three_cores() {
    let entries = common(&host(), shown(6, true));
    assert_eq!(find(&entries, 1, 0).ebx >> 16 & 0xff, 8);
    for leaf in [0xb, 0x1f] {
        let (threads, cores, end) = (
            find(&entries, leaf, 0),
            find(&entries, leaf, 1),
            find(&entries, leaf, 2),
        );
        assert_eq!((threads.eax, threads.ebx, threads.ecx), (1, 2, 0x100));
        assert_eq!((cores.eax, cores.ebx, cores.ecx), (3, 6, 0x201));
        assert_eq!((end.eax, end.ebx, end.ecx), (0, 0, 2));
    }
    // Level 1 is shared by a core's two threads, level 3 by all; four numbers for cores.
    assert_eq!(find(&entries, 4, 0).eax, 3 << 26 | 1 << 14 | 0x121);
    assert_eq!(find(&entries, 4, 3).eax, 3 << 26 | 7 << 14 | 0x163);
    assert_eq!(find(&entries, AMD_CACHES, 0).eax, 1 << 14 | 0x121);
    assert_eq!(find(&entries, 0x8000_0008, 0).ecx, 3 << 12 | 5);
    assert_eq!(find(&entries, 0x8000_001e, 0).ebx, 1 << 8);
}

#[test]
fn each_vcpu_knows_its_number() {
    let topology = Topology::new(4, true);
    let mut entries = common(&host(), shown(4, true));
    personalise(&mut entries, topology, 3);
    assert_eq!(find(&entries, 1, 0).ebx >> 24, 3);
    assert_eq!(find(&entries, 0xb, 0).edx, 3);
    assert_eq!(find(&entries, 0xb, 1).edx, 3);
    assert_eq!(find(&entries, 0x8000_001e, 0).eax, 3);
    assert_eq!(find(&entries, 0x8000_001e, 0).ebx, 1 << 8 | 1);
    // And forgets the one before.
    personalise(&mut entries, topology, 0);
    assert_eq!(find(&entries, 1, 0).ebx >> 24, 0);
    assert_eq!(find(&entries, 0x8000_001e, 0).ebx, 1 << 8);
}

#[test]
fn a_host_without_leaf_0xb_gets_none() {
    let mut host = host();
    host[0].eax = 0xa;
    let entries = common(&host, shown(2, false));
    assert!(!entries.iter().any(|entry| matches!(entry.function, 0xb | 0x1f)));
}
