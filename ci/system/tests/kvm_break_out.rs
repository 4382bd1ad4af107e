//! A guest that has taken its VMM's process over finds itself nowhere. With stub guests, so that any KVM will do.

#[test]
fn nothing_gets_out_and_no_layer_stands_alone() {
    secovia_system_tests::break_out::prove("nothing_gets_out_and_no_layer_stands_alone");
}
