//! Limits of what devices move.

use secovia_devices::limiter::{BucketConfig, LimiterConfig};
use secovia_vmm_api::{RateLimiterSpec, TokenBucketSpec};

/// Every limit that can be written down holds: a bucket of no size, or that fills up in no time, limits nothing.
pub fn limit(spec: Option<RateLimiterSpec>) -> LimiterConfig {
    let spec = spec.unwrap_or_default();
    LimiterConfig {
        bandwidth: spec.bandwidth.map(bucket),
        operations: spec.ops.map(bucket),
    }
}

/// A change of limits: what is not written down stays as it is.
pub fn change(spec: RateLimiterSpec) -> LimiterConfig {
    limit(Some(spec))
}

/// One bucket alone.
pub(super) fn bucket(spec: TokenBucketSpec) -> BucketConfig {
    BucketConfig {
        size: spec.size,
        one_time_burst: spec.one_time_burst.unwrap_or_default(),
        refill_time: spec.refill_time,
    }
}
