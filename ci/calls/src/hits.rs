//! Which rules were needed, on which kind of thread. As text one line for each: the thread, a tab, the rule's name.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::Path;

use secovia_seccomp::{List, Rule, Rules};

use crate::error::Error;

/// Rules that were needed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Hits(BTreeSet<String>);

fn line(list: List, rule: &Rule) -> String {
    format!("{}\t{}", list.name(), rule.name())
}

impl Hits {
    /// One more.
    pub(crate) fn add(&mut self, list: List, rule: &Rule) {
        self.0.insert(line(list, rule));
    }

    /// Whether a rule was needed on a kind of thread.
    pub(crate) fn have(&self, list: List, rule: &Rule) -> bool {
        self.0.contains(&line(list, rule))
    }

    /// Those of another run too.
    pub(crate) fn join(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Those of a file.
    pub(crate) fn of_file(path: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(path).map_err(Error::at("read", path))?;
        Ok(Self(text.lines().map(String::from).collect()))
    }

    /// Those of all files in a folder.
    pub(crate) fn of_folder(path: &Path) -> Result<Self, Error> {
        let mut all = Self::default();
        for entry in fs::read_dir(path).map_err(Error::at("list", path))? {
            let entry = entry.map_err(Error::at("list", path))?;
            all.join(Self::of_file(&entry.path())?);
        }
        Ok(all)
    }

    /// Those that name no rule there is.
    pub(crate) fn that_are_none_of(&self, rules: &Rules) -> Vec<String> {
        let known: BTreeSet<_> = rules
            .all()
            .iter()
            .flat_map(|rule| rule.on().iter().map(|list| line(*list, rule)))
            .collect();
        self.0.difference(&known).cloned().collect()
    }
}

impl fmt::Display for Hits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use secovia_seccomp::RULES;

    use super::*;

    #[test]
    fn what_was_needed_survives_as_text_and_is_told_from_what_is_no_rule() {
        let rules = Rules::parse(RULES).unwrap();
        let rule = &rules.all()[0];
        let mut hits = Hits::default();
        assert!(!hits.have(List::Vcpu, rule));
        hits.add(List::Vcpu, rule);
        assert!(hits.have(List::Vcpu, rule) && !hits.have(List::Main, rule));

        let folder = std::env::temp_dir().join(format!("secovia-calls-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("one"), hits.to_string()).unwrap();
        fs::write(folder.join("two"), "main\tno: such\n").unwrap();
        let read = Hits::of_folder(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert!(read.have(List::Vcpu, rule));
        assert_eq!(read.that_are_none_of(&rules), ["main\tno: such"]);
    }
}
