//! Kubernetes' `$(NAME)` in commands, arguments and environments.
//!
//! Source: "Define dependent environment variables" in Kubernetes' documentation: `$(NAME)` is the variable's value, `$$` is one
//! `$`, and a name that is not known stays as it is written.

use std::collections::BTreeMap;

/// `text` with every known `$(NAME)` filled in. What is filled in is not looked at again.
pub fn expand(text: &str, known: &BTreeMap<String, String>) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        rest = if let Some(after) = after.strip_prefix('$') {
            expanded.push('$');
            after
        } else if let Some((name, after)) = after.strip_prefix('(').and_then(|after| after.split_once(')')) {
            match known.get(name) {
                Some(value) => expanded.push_str(value),
                None => expanded.extend(["$(", name, ")"]),
            }
            after
        } else {
            expanded.push('$');
            after
        };
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_is_filled_in_and_all_else_stays() {
        let known = [("A", "1"), ("B", "$(A)"), ("", "never")].map(|(key, value)| (key.into(), value.into()));
        let known = BTreeMap::from(known);
        for (text, expanded) in [
            ("", ""),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(C) $(C", "$(C) $(C"),
            ("$", "$"),
            ("$A ${A} $", "$A ${A} $"),
            ("a$$b", "a$b"),
            ("é$(A)é", "é1é"),
        ] {
            assert_eq!(expand(text, &known), expanded, "{text}");
        }
    }
}
