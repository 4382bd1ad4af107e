//! As `kvm_break_out`, where real Linux runs: in the lab that is another kernel, with cgroups of version 2.

#[test]
fn nothing_gets_out_and_no_layer_stands_alone() {
    secovia_system_tests::break_out::prove("nothing_gets_out_and_no_layer_stands_alone");
}
