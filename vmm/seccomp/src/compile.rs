//! From rules to a filter, a program for the kernel's classic BPF.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

use crate::error::RulesError;
use crate::rules::{Answer, Condition, List, OWN_PID, Rule, Rules, Test};

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    program: BpfProgram,
}

/// `seccomp_data.nr` lies at the very start.
const LOAD_NUMBER: sock_filter = statement(0x20, 0);
/// Ends the program with the error ENOSYS (`SECCOMP_RET_ERRNO`, and 38).
const RETURN_ENOSYS: sock_filter = statement(0x06, 0x0005_0000 | 38);
/// Jump if equal to a constant.
const JUMP_EQUAL: u16 = 0x15;

/// Jump if the accumulator is at least a constant.
const JUMP_GREATER_EQUAL: u16 = 0x35;
/// Jump in any case.
const JUMP: u16 = 0x05;

const fn statement(code: u16, k: u32) -> sock_filter {
    sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

impl Rules {
    /// The filter of a list. What no rule covers is answered by SIGSYS.
    pub fn compile(&self, list: List) -> Result<Filter, RulesError> {
        let mut program = vec![LOAD_NUMBER];
        // No conditions at all where one rule has none; other lists' rules may have some.
        let mut allowed: BTreeMap<i64, Option<Vec<SeccompRule>>> = BTreeMap::new();
        for rule in self.rules.iter().filter(|rule| rule.is_in(list)) {
            let number = i64::from(rule.call.id());
            match rule.answer {
                // The compiler knows only one answer for what is covered, so that these come first. The number of a
                // call of another architecture's would be refused likewise, which is no harm.
                Answer::ENOSYS => program.extend([
                    sock_filter {
                        jf: 1,
                        ..statement(JUMP_EQUAL, number as u32)
                    },
                    RETURN_ENOSYS,
                ]),
                Answer::Allow => {
                    let conditions = conditions(rule).map_err(|reason| failed(list, reason))?;
                    let rules = allowed.entry(number).or_insert_with(|| Some(Vec::new()));
                    match (rules.as_mut(), conditions) {
                        (Some(rules), Some(conditions)) => rules.push(conditions),
                        _ => *rules = None,
                    }
                }
            }
        }
        // The compiler takes a call without conditions for one that is always allowed.
        let allowed: Vec<_> = allowed
            .into_iter()
            .map(|(number, rules)| (number, rules.unwrap_or_default()))
            .collect();
        let leaves = allowed.chunks(CALLS_IN_LEAF).map(|calls| {
            let filter = SeccompFilter::new(
                calls.iter().cloned().collect(),
                SeccompAction::Trap,
                SeccompAction::Allow,
                TargetArch::x86_64,
            );
            let first = calls.first().map_or(0, |call| call.0 as u32);
            let program = filter.and_then(TryInto::try_into);
            program
                .map(|program| Leaf { first, program })
                .map_err(|error| failed(list, error))
        });
        program.extend(search(&leaves.collect::<Result<Vec<_>, _>>()?));
        Ok(Filter { program })
    }
}

/// Some calls with neighbouring numbers, by a program of their own that ends with an answer for every call.
struct Leaf {
    /// The lowest number.
    first: u32,
    program: BpfProgram,
}

/// How many calls a leaf tests one after the other.
const CALLS_IN_LEAF: usize = 4;

/// A binary search for the leaf that knows the call, whose number is in the accumulator.
///
/// The compiler tests all calls of a program one after the other. When a filter is installed Linux runs it for each of its
/// 460 numbers, to find those that are always allowed: with one long program that takes a third of a millisecond.
fn search(leaves: &[Leaf]) -> BpfProgram {
    let (lower, upper) = leaves.split_at(leaves.len() / 2);
    let Some(middle) = upper.first() else {
        return Vec::new();
    };
    if lower.is_empty() {
        return middle.program.clone();
    }
    let lower = search(lower);
    let mut program = match u8::try_from(lower.len()) {
        Ok(length) => vec![sock_filter {
            jt: length,
            ..statement(JUMP_GREATER_EQUAL, middle.first)
        }],
        // Too far for a jump that depends on something.
        Err(_) => vec![
            sock_filter {
                jf: 1,
                ..statement(JUMP_GREATER_EQUAL, middle.first)
            },
            statement(JUMP, lower.len() as u32),
        ],
    };
    program.extend(lower);
    program.extend(search(upper));
    program
}

/// A rule's conditions; `None` where it has none.
fn conditions(rule: &Rule) -> Result<Option<SeccompRule>, seccompiler::BackendError> {
    if rule.args.is_empty() {
        return Ok(None);
    }
    let conditions = rule.args.iter().map(|Condition { arg, test, .. }| {
        let (operator, value) = match *test {
            Test::Is(value) => (SeccompCmpOp::Eq, value),
            Test::Lacks(bits) => (SeccompCmpOp::MaskedEq(bits.into()), 0),
        };
        SeccompCondition::new(*arg, SeccompCmpArgLen::Dword, operator, value.into())
    });
    SeccompRule::new(conditions.collect::<Result<_, _>>()?).map(Some)
}

fn failed(list: List, error: impl std::fmt::Display) -> RulesError {
    RulesError::Compile {
        list: list.name(),
        reason: error.to_string(),
    }
}

impl Filter {
    /// A filter that was compiled before.
    pub fn of(program: &[sock_filter]) -> Self {
        Self {
            program: program.to_vec(),
        }
    }

    /// Its instructions.
    pub fn program(&self) -> &[sock_filter] {
        &self.program
    }

    /// The filter for the process `pid`.
    pub fn for_process(mut self, pid: u32) -> Self {
        for instruction in &mut self.program {
            if instruction.code == JUMP_EQUAL && instruction.k == OWN_PID {
                instruction.k = pid;
            }
        }
        self
    }
}
