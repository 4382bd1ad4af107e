use std::time::Duration;

use clap::CommandFactory;

use super::*;

fn parse(line: &[&str]) -> Result<Command, clap::Error> {
    Cli::try_parse_from(std::iter::once(&"secovia").chain(line)).map(|cli| cli.command)
}

fn run(line: &[&str]) -> RunArgs {
    match parse(line) {
        Ok(Command::Run(args)) => args,
        other => panic!("{line:?}: {other:?}"),
    }
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn a_command_follows_the_image_with_or_without_dashes() {
    for (line, command) in [
        (&["run", "base"][..], &[][..]),
        (&["run", "base", "--", "uname", "-a"], &["uname", "-a"]),
        (&["run", "base", "uname", "-a"], &["uname", "-a"]),
        (&["run", "base", "sh", "-c", "exit 7"], &["sh", "-c", "exit 7"]),
        (&["run", "base", "--", "--odd"], &["--odd"]),
        (&["run", "base", "env", "--", "x"], &["env", "--", "x"]),
        (&["run", "base", "--", "ls", "--", "--rm"], &["ls", "--", "--rm"]),
        (&["run", "base", "ls", "--rm"], &["ls", "--rm"]),
    ] {
        let args = run(line);
        assert_eq!(args.image, "base", "{line:?}");
        assert_eq!(args.command, command, "{line:?}");
        assert!(!args.rm, "{line:?}");
    }
    match parse(&["exec", "-it", "web", "--", "sh", "-l"]).unwrap() {
        Command::Exec(args) => {
            assert!(args.interactive && args.tty);
            assert_eq!(
                (args.name.as_str(), args.command),
                ("web", vec!["sh".into(), "-l".into()])
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn run_takes_its_options() {
    let args = run(&[
        "run",
        "--name",
        "w",
        "--cpus",
        "2",
        "--memory",
        "1G",
        "--disk",
        "512",
        "-e",
        "A=b=c",
        "--env",
        "HOME",
        "--user",
        "www:www",
        "--workdir",
        "/srv",
        "--restart",
        "on-failure:3",
        "--detach",
        "web",
    ]);
    assert_eq!(
        (args.cpus, args.memory, args.disk),
        (2, Mib(1024), Some(Mib(512)))
    );
    assert_eq!(
        args.env[0],
        EnvVar {
            key: "A".into(),
            value: Some("b=c".into())
        }
    );
    assert_eq!(
        args.env[1],
        EnvVar {
            key: "HOME".into(),
            value: None
        }
    );
    assert_eq!(args.restart, RestartPolicy::OnFailure { max_retries: Some(3) });
    assert!(args.detach && !args.rm && !args.tty);
}

#[test]
fn wrong_usage_has_status_2() {
    for line in [
        &["run"][..],
        &["frobnicate"],
        &["run", "--cpus", "0", "base"],
        &["run", "--cpus", "33", "base"],
        &["run", "--cpu-share", "0", "base"],
        &["run", "--cpu-share", "much", "base"],
        &["run", "--memory", "lots", "base"],
        &["run", "--memory", "0", "base"],
        &["run", "--memory", "99999999999999999T", "base"],
        &["run", "--env", "=x", "base"],
        &["run", "--restart", "sometimes", "base"],
        &["run", "--detach", "-t", "base"],
        &["exec", "web"],
        &["stop"],
        &["stop", "--grace", "soon", "web"],
        &["kill", "--signal", "NONE", "web"],
        &["kill", "--signal", "65", "web"],
        &["logs", "--since", "yesterday", "web"],
        &["top", "--interval", "1ms"],
        &["image", "import"],
        &["completion", "tcl"],
        &["reclaim"],
        &["reclaim", "--now", "--deadline", "soon"],
        &["audit"],
    ] {
        let error = parse(line).expect_err(&format!("{line:?}"));
        assert_eq!(error.exit_code(), 2, "{line:?}");
    }
    assert_eq!(parse(&["--help"]).unwrap_err().exit_code(), 0);
    assert_eq!(parse(&["--version"]).unwrap_err().exit_code(), 0);
}

#[test]
fn values_are_read_as_people_write_them() {
    for (text, mib) in [
        ("512", 512),
        ("512M", 512),
        ("512MiB", 512),
        ("2g", 2048),
        ("1T", 1 << 20),
    ] {
        assert_eq!(text.parse(), Ok(Mib(mib)), "{text}");
    }
    assert_eq!(values::cpu_millis("0.25"), Ok(250));
    for (text, seconds) in [("10", 10), ("0", 0), ("1500ms", 2), ("2m", 120)] {
        assert_eq!(values::seconds(text), Ok(seconds), "{text}");
    }
    for (text, number) in [("TERM", 15), ("sighup", 1), ("9", 9), ("SIGUSR2", 12), ("34", 34)] {
        assert_eq!(values::signal(text), Ok(number), "{text}");
    }
    assert_eq!("10m".parse(), Ok(Since::Ago(Duration::from_secs(600))));
    assert_eq!("1970-01-01T00:00:02Z".parse(), Ok(Since::At(2000)));
    assert_eq!(Since::Ago(Duration::from_secs(2)).resolve(5000), 3000);
    assert_eq!(Since::Ago(Duration::from_secs(9)).resolve(5000), 0);
}

#[test]
fn the_socket_may_stand_anywhere() {
    for line in [
        &["secovia", "--socket", "/s", "ps"],
        &["secovia", "ps", "--socket", "/s"],
    ] {
        assert_eq!(Cli::try_parse_from(line).unwrap().socket, PathBuf::from("/s"));
    }
}

#[test]
fn every_command_and_option_has_a_help_text() {
    fn check(command: &clap::Command) {
        assert!(
            command.get_about().is_some_and(|a| !a.to_string().is_empty()),
            "{}",
            command.get_name()
        );
        for argument in command.get_arguments() {
            assert!(
                argument.get_help().is_some(),
                "{} of {}",
                argument.get_id(),
                command.get_name()
            );
        }
        for sub in command.get_subcommands() {
            check(sub);
        }
    }
    check(&Cli::command());
}

#[test]
fn what_follows_pool_is_the_pools() {
    for line in [
        &["pool", "join", "--server", "https://r"][..],
        &["pool", "--help"],
        &["pool", "status", "--json"],
    ] {
        match parse(line).unwrap() {
            Command::Pool { args } => assert_eq!(args, line[1..], "{line:?}"),
            other => panic!("{line:?}: {other:?}"),
        }
    }
}
