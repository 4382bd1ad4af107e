//! A host whose clock is set while microVMs run.

use std::time::{Duration, Instant};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime, clock_settime};
use secovia_agent_api::{RestartPolicy, StopRequest, VmState};

use crate::{Programs, Settings, Testbed, sh};

const HOUR: i64 = 3_600;

/// The host's clock; when this is dropped it is what it would have been.
struct Clock {
    begun: Instant,
    at_first: TimeSpec,
}

impl Clock {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            at_first: clock_gettime(ClockId::CLOCK_REALTIME).unwrap(),
        }
    }

    /// Sets it apart from what it should be, in seconds.
    fn set_off(&self, seconds: i64) {
        let right = self.at_first + TimeSpec::from_duration(self.begun.elapsed());
        let time = TimeSpec::new(right.tv_sec() + seconds, right.tv_nsec());
        clock_settime(ClockId::CLOCK_REALTIME, time).unwrap();
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.set_off(0);
    }
}

/// A clock that is set back by two days, then forward by four: what runs runs on, what waits for its next start or its end waits
/// no longer for it, another agent finds all as it was, and the audit chain is whole.
pub async fn a_clock_that_is_set_holds_nothing_up(programs: &Programs) {
    if std::env::var_os("SECOVIA_LAB").is_none() {
        println!("SKIP: clock: it sets the host's clock: only in the lab");
        return;
    }
    let mut bed = Testbed::with_image(programs, &Settings::default()).await;
    let client = bed.client();
    client
        .create_vm(&sh("steady", "while :; do sleep 1; done"))
        .await
        .unwrap();
    let steady = bed.running("steady").await;
    let clock = Clock::new();
    for (hours, fails, deaf) in [(-48, "fails-1", "deaf-1"), (48, "fails-2", "deaf-2")] {
        let mut create = sh(fails, "exit 3");
        create.restart = RestartPolicy::OnFailure { max_retries: None };
        client.create_vm(&create).await.unwrap();
        let script = "trap '' TERM; echo up; while :; do sleep 1; done";
        client.create_vm(&sh(deaf, script)).await.unwrap();
        bed.wait_for(fails, "ended", |vm| vm.starts > 1 || !vm.state.is_active())
            .await;
        bed.said(deaf, "up").await;
        let (ends, name) = (bed.client(), deaf.to_string());
        let stopped = tokio::spawn(async move { ends.stop_vm(&name, &StopRequest { grace_s: 2 }).await });
        tokio::time::sleep(Duration::from_millis(500)).await;
        clock.set_off(hours * HOUR);
        let begun = Instant::now();
        let starts = bed.client().vm(fails).await.unwrap().starts;
        bed.wait_for(fails, "started again", |vm| vm.starts > starts)
            .await;
        stopped.await.unwrap().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        bed.kill_agent();
        bed.start().await;
        let now = bed.client().vm("steady").await.unwrap();
        assert_eq!((now.vmm_pid, now.starts), (steady.vmm_pid, steady.starts));
        assert_eq!(now.state, VmState::Running);
        for name in [fails, deaf] {
            bed.client().delete_vm(name, true).await.unwrap();
        }
    }
    assert_eq!(bed.client().verify_audit().await.unwrap().broken, None);
    bed.assert_records_are_true().await;
}
