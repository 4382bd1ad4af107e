//! What a row of the table is.

use serde_json::{Value, json};

/// What a request should come to.
pub(crate) enum Expected {
    /// Status 204, and then this at this place of `/vm/config`.
    Taken(&'static str, Value),
    /// Status 200 with this in the answer.
    Told(Value),
    /// Status 400 with this in its text, and nothing is changed.
    Refused(&'static str),
}

pub(crate) type Row = (&'static str, String, Value, Expected);

/// Buckets, good and bad.
pub(crate) fn buckets() -> Vec<(Value, Result<(), &'static str>)> {
    vec![
        (
            json!({ "size": 10, "one_time_burst": 5, "refill_time": 100 }),
            Ok(()),
        ),
        (json!({ "size": 10, "refill_time": 100 }), Ok(())),
        (json!({ "size": 1 }), Err("missing field `refill_time`")),
        (json!({ "refill_time": 1 }), Err("missing field `size`")),
        (
            json!({ "size": -1, "refill_time": 1 }),
            Err("invalid value: integer `-1`"),
        ),
        (
            json!({ "size": 1, "refill_time": "1" }),
            Err("invalid type: string"),
        ),
        (
            json!({ "size": 1, "refill_time": 1, "burst": 1 }),
            Err("unknown field `burst`"),
        ),
    ]
}

/// The objects in which limits stand, good and bad.
pub(crate) fn limits() -> Vec<(Value, Result<Value, &'static str>)> {
    let mut limits = vec![(json!({ "iops": {} }), Err("unknown field `iops`"))];
    for (bucket, outcome) in buckets() {
        for name in ["bandwidth", "ops"] {
            let limit = json!({ name: bucket });
            limits.push((limit.clone(), outcome.map(|()| limit)));
        }
    }
    let full = json!({ "size": 10, "one_time_burst": 5, "refill_time": 100 });
    let both = json!({ "bandwidth": full, "ops": { "size": 10, "refill_time": 100 } });
    limits.push((both.clone(), Ok(both)));
    let last = json!({ "ops": full });
    limits.push((last.clone(), Ok(last)));
    limits
}
