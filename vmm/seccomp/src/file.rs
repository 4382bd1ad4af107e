//! The rules as they stand in their file.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Sysno;
use crate::error::RulesError;
use crate::rules::{Answer, Condition, List, OWN_PID, Rule, Rules, Test};

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSpec {
    /// For the person who reads it.
    #[serde(rename = "about")]
    _about: Vec<String>,
    /// Names for numbers.
    values: BTreeMap<String, String>,
    groups: Vec<GroupSpec>,
}

/// Rules that belong together: those of one device, say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupSpec {
    /// What they are for.
    group: String,
    rules: Vec<RuleSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleSpec {
    call: String,
    on: Vec<List>,
    #[serde(default)]
    args: Vec<ConditionSpec>,
    #[serde(default)]
    answer: Answer,
    #[serde(default)]
    rare: Vec<List>,
    why: String,
}

/// A condition; exactly one of the tests is given.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConditionSpec {
    arg: u8,
    is: Option<String>,
    lacks: Option<String>,
    #[serde(default)]
    own_pid: bool,
}

impl Rules {
    /// Reads rules from their text.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        serde_json::from_str::<FileSpec>(text)?.check()
    }
}

impl FileSpec {
    fn check(self) -> Result<Rules, RulesError> {
        let values = Values::read(&self.values)?;
        let mut rules: Vec<Rule> = Vec::new();
        for group in self.groups {
            for spec in group.rules {
                let rule = spec.check(&group.group, &values)?;
                let doubled = rules.iter().any(|other| {
                    let common = rule.on.iter().any(|list| other.on.contains(list));
                    // One without conditions makes any other of the same call useless, or contradicts it.
                    let same = rule.args == other.args || rule.args.is_empty() || other.args.is_empty();
                    rule.call == other.call && common && same
                });
                if doubled {
                    return Err(RulesError::Doubled { rule: rule.name() });
                }
                rules.push(rule);
            }
        }
        Ok(Rules { rules })
    }
}

impl RuleSpec {
    fn check(self, group: &str, values: &Values) -> Result<Rule, RulesError> {
        let name = format!("{group}: {}", self.call);
        let Ok(call) = self.call.parse::<Sysno>() else {
            return Err(RulesError::Call { rule: name });
        };
        if self.why.trim().is_empty() {
            return Err(RulesError::Reason { rule: name });
        }
        if self.on.is_empty() {
            return Err(RulesError::NoThread { rule: name });
        }
        if self.answer != Answer::Allow && !self.args.is_empty() {
            return Err(RulesError::Conditions { rule: name });
        }
        if self.rare.iter().any(|list| !self.on.contains(list)) {
            return Err(RulesError::Rare { rule: name });
        }
        let args = self.args.into_iter().map(|spec| spec.check(&name, values));
        Ok(Rule {
            args: args.collect::<Result<_, _>>()?,
            group: group.into(),
            call,
            on: self.on,
            answer: self.answer,
            rare: self.rare,
            why: self.why,
        })
    }
}

impl ConditionSpec {
    fn check(self, rule: &str, values: &Values) -> Result<Condition, RulesError> {
        let (arg, rule) = (self.arg, rule.to_owned());
        if arg > 5 {
            return Err(RulesError::Argument { rule, arg });
        }
        let (test, text) = match (self.is, self.lacks, self.own_pid) {
            (Some(text), None, false) => (Test::Is(values.sum(&rule, &text)?), format!("is {text}")),
            (None, Some(text), false) => (Test::Lacks(values.sum(&rule, &text)?), format!("lacks {text}")),
            (None, None, true) => (Test::Is(OWN_PID), "is its own process".into()),
            _ => return Err(RulesError::Test { rule, arg }),
        };
        Ok(Condition { arg, test, text })
    }
}

/// Numbers by name.
struct Values(BTreeMap<String, u32>);

impl Values {
    fn read(texts: &BTreeMap<String, String>) -> Result<Self, RulesError> {
        let number = |text: &str| match text.strip_prefix("0x") {
            Some(digits) => u32::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        let values = texts.iter().map(|(name, text)| match number(text) {
            Some(value) => Ok((name.clone(), value)),
            None => Err(RulesError::Value {
                name: name.clone(),
                text: text.clone(),
            }),
        });
        Ok(Self(values.collect::<Result<_, _>>()?))
    }

    /// All the bits of names with `|` between them.
    fn sum(&self, rule: &str, text: &str) -> Result<u32, RulesError> {
        text.split('|').map(str::trim).try_fold(0, |sum, name| {
            let value = self.0.get(name).ok_or_else(|| RulesError::UnknownValue {
                rule: rule.into(),
                name: name.into(),
            });
            Ok(sum | value?)
        })
    }
}
