//! What the targets share.

use std::sync::LazyLock;

use tokio::runtime::Runtime;

/// The agent's own runtime, made once.
pub fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        // The agent blocks in place, which a runtime of one thread does not allow.
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all().build().expect("a runtime")
    });
    &RUNTIME
}
