//! `agent.toml`. Whatever it says, it is refused with its place and a remedy, or can be worked with.
#![no_main]

use std::path::Path;

use secovia_agent::config::Config;

libfuzzer_sys::fuzz_target!(|text: &str| {
    match Config::parse(Path::new("agent.toml"), text) {
        Ok(config) => {
            for path in [
                &config.state_dir,
                &config.runtime_dir,
                &config.vmm,
                &config.kernel,
                &config.initrd,
            ] {
                assert!(path.is_absolute(), "{path:?}");
            }
            assert!((1_000..=86_400_000).contains(&config.boot_timeout_ms));
            assert!((1..=config.backoff.max_ms).contains(&config.backoff.first_ms));
        }
        Err(error) => {
            let error = error.to_string();
            assert!(
                error.starts_with("configuration agent.toml") && !error.contains('\n'),
                "{error}"
            );
        }
    }
});
