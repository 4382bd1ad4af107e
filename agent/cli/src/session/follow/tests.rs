use super::*;
use crate::output::tests::vm;

#[test]
fn every_state_says_what_to_do_after_a_loss() {
    for (state, next) in [
        (VmState::Starting, Next::Again),
        (VmState::Running, Next::Again),
        (VmState::Stopping, Next::Wait),
        (VmState::Exited { code: 7 }, Next::Ended(7)),
        (VmState::Exited { code: 137 }, Next::Ended(137)),
        (
            VmState::Failed {
                reason: "no program `x`".into(),
                code: Some(127),
            },
            Next::Failed("run web: no program `x`".into(), 127),
        ),
        (
            VmState::Failed {
                reason: "the guest panicked".into(),
                code: None,
            },
            Next::Failed("run web: the guest panicked".into(), 1),
        ),
    ] {
        assert_eq!(after_loss(&vm("web", state.clone())), next, "{state:?}");
    }
    let back_off = VmState::BackOff {
        until_ms: 1,
        reason: "exited with 3".into(),
    };
    let Next::Failed(message, 1) = after_loss(&vm("web", back_off)) else {
        panic!();
    };
    assert!(message.contains("secovia stop web"), "{message}");
}
