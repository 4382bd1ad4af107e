//! `completion` and `man`: made from the definition of the command line.

use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::Cli;
use crate::failure::Failure;
use crate::output::print;

/// `secovia completion`.
pub(super) fn completion(shell: Shell) -> Result<u8, Failure> {
    print(&script(shell))?;
    Ok(0)
}

fn script(shell: Shell) -> String {
    let mut bytes = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "secovia", &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `secovia man`.
pub(super) fn man(dir: Option<&Path>) -> Result<u8, Failure> {
    let pages = pages()?;
    match dir {
        None => {
            if let Some((_, text)) = pages.first() {
                print(text)?;
            }
        }
        Some(dir) => {
            let write = |path: &Path, result: std::io::Result<()>| {
                result.map_err(|error| Failure::other(format!("man: write {}: {error}", path.display())))
            };
            write(dir, fs::create_dir_all(dir))?;
            for (name, text) in pages {
                let path = dir.join(name);
                write(&path, fs::write(&path, text))?;
            }
        }
    }
    Ok(0)
}

/// File names and texts of all pages, the main one first.
fn pages() -> Result<Vec<(String, String)>, Failure> {
    let mut command = Cli::command();
    command.build();
    let mut pages = Vec::new();
    collect(&command, "secovia".to_string(), &mut pages)
        .map_err(|error| Failure::other(format!("man: {error}")))?;
    Ok(pages)
}

fn collect(command: &Command, name: String, pages: &mut Vec<(String, String)>) -> std::io::Result<()> {
    let mut text = Vec::new();
    Man::new(command.clone()).render(&mut text)?;
    pages.push((format!("{name}.1"), String::from_utf8_lossy(&text).into_owned()));
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        collect(sub, format!("{name}-{}", sub.get_name()), pages)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_gets_a_script_that_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell);
            for word in ["doctor", "inspect", "memory"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }

    #[test]
    fn each_command_has_a_page() {
        let pages = pages().unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names[0], "secovia.1");
        for name in ["secovia-run.1", "secovia-image-import.1", "secovia-doctor.1"] {
            assert!(names.contains(&name), "{names:?}");
        }
        for (name, text) in &pages {
            assert!(
                text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"),
                "{name}"
            );
        }
        let run = &pages.iter().find(|(name, _)| name == "secovia-run.1").unwrap().1;
        assert!(run.contains("\\-\\-memory"), "{run}");
    }
}
