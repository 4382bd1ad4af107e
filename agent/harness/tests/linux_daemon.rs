//! The agent as a process, with the real VMM and a real guest: one scenario at a time, on a host whose KVM runs Linux.

use std::time::Duration;

use secovia_agent_harness::{Programs, scenarios};
use tokio::sync::Mutex;

/// The host may be an emulated one with little memory.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

fn programs() -> Programs {
    Programs::real().expect("run these tests by ci/test, which sets what they need")
}

macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
            async fn $name() {
                let _one = ONE_AT_A_TIME.lock().await;
                scenarios::$name(&programs()).await;
            }
        )*
    };
}

scenarios!(
    run_hands_over_output_and_status,
    input_reaches_who_asked_for_it,
    exec_signal_and_stop,
    a_stop_ends_the_deaf,
    a_missing_program_is_told,
    an_image_from_elsewhere_runs,
    environment_and_directory,
    a_killed_vmm_is_told_within_a_second,
    a_failing_workload_is_restarted_and_given_up,
    a_log_is_followed_to_the_end,
    much_output_arrives_whole,
    a_killed_agent_finds_its_vms_again,
    a_stopped_agent_leaves_its_vms_alone,
    what_happened_meanwhile_is_found_out,
    a_stop_outlives_the_agent,
    a_clock_that_is_set_holds_nothing_up,
    always_comes_back_with_the_agent,
    a_vm_is_held_in_its_bounds,
    a_reclaim_outlives_the_agent,
    a_policy_is_reloaded_whole_or_not_at_all,
    a_network_leaves_nothing_behind,
    containers_have_their_own_logs,
    a_container_is_started_again_without_its_vm,
    a_vm_ends_with_its_containers,
    microvms_and_the_owners_network_are_apart,
    a_disk_keeps_what_was_written,
    a_hammering_guest_is_held_in_its_bounds,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_moment_of_a_run_is_a_bad_one_to_die() {
    let _one = ONE_AT_A_TIME.lock().await;
    scenarios::no_moment_of_a_run_is_a_bad_one_to_die(&programs(), 50, Duration::from_secs(4)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_owner_takes_it_back_in_time() {
    let _one = ONE_AT_A_TIME.lock().await;
    scenarios::the_owner_takes_it_back_in_time(&programs(), 20, 30).await;
}
