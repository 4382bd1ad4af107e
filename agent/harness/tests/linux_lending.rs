//! The owner of the machine beside real guests, on a host whose KVM runs Linux.

use secovia_agent_harness::{Programs, scenarios};
use tokio::sync::Mutex;

/// Each takes the whole host.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const LOAD: &str = env!("CARGO_BIN_EXE_owner-load");

fn programs() -> Programs {
    Programs::real().expect("run these tests by ci/test, which sets what they need")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_owners_memory_comes_first() {
    let _one = ONE_AT_A_TIME.lock().await;
    scenarios::the_owners_memory_comes_first(&programs(), LOAD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_owners_cpu_time_comes_first() {
    let _one = ONE_AT_A_TIME.lock().await;
    scenarios::the_owners_cpu_time_comes_first(&programs(), LOAD).await;
}
