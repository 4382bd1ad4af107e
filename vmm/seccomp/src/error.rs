//! What is wrong with a file of rules: which rule, what, and the remedy, in one line.

/// Rules that lead to no filter.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say what the fields are")]
pub enum RulesError {
    #[error("{0}; correct the file")]
    Json(#[from] serde_json::Error),
    #[error("values.{name}: {text:?}; give a number of 32 bits, decimal or with 0x")]
    Value { name: String, text: String },
    #[error("{rule}: there is no such system call; correct its name")]
    Call { rule: String },
    #[error("{rule}: argument {arg}; a system call has 0 to 5")]
    Argument { rule: String, arg: u8 },
    #[error("{rule}: {name:?} is not among the values; add it there")]
    UnknownValue { rule: String, name: String },
    #[error("{rule}: argument {arg} has no test; give one of is, lacks or own_pid")]
    Test { rule: String, arg: u8 },
    #[error("{rule}: no reason; say why the call is needed")]
    Reason { rule: String },
    #[error("{rule}: on no thread; name those that need it")]
    NoThread { rule: String },
    #[error("{rule}: rare on a thread that it is not on; correct one of the two")]
    Rare { rule: String },
    #[error("{rule}: an earlier rule says the same on one of its threads; keep one")]
    Doubled { rule: String },
    #[error("{rule}: a call that is refused takes no conditions; remove them")]
    Conditions { rule: String },
    #[error("compile the filter {list}: {reason}")]
    Compile { list: &'static str, reason: String },
}
