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

/// The objects in which limits stand, good and bad.
pub(crate) fn limits() -> Vec<(Value, Result<Value, &'static str>)> {
    let full = json!({ "size": 10, "one_time_burst": 5, "refill_time": 100 });
    let least = json!({ "size": 10, "refill_time": 100 });
    let same = |value: Value| (value.clone(), Ok(value));
    vec![
        same(json!({ "bandwidth": full, "ops": least })),
        same(json!({ "ops": full })),
        (
            json!({ "bandwidth": { "size": 1 } }),
            Err("missing field `refill_time`"),
        ),
        (
            json!({ "bandwidth": { "refill_time": 1 } }),
            Err("missing field `size`"),
        ),
        (
            json!({ "bandwidth": { "size": -1, "refill_time": 1 } }),
            Err("invalid value: integer `-1`"),
        ),
        (
            json!({ "ops": { "size": 1, "refill_time": "1" } }),
            Err("invalid type: string"),
        ),
        (
            json!({ "ops": { "size": 1, "refill_time": 1, "burst": 1 } }),
            Err("unknown field `burst`"),
        ),
        (json!({ "iops": {} }), Err("unknown field `iops`")),
    ]
}
