use std::path::Path;

use super::*;
use crate::config::Config;

const RESERVE: &str = "[reserve]\ncpu = 1\nmemory = \"2G\"\ndisk = \"10G\"\n";

fn parse(text: &str) -> Result<Policy, String> {
    Config::parse(Path::new("agent.toml"), text)
        .map(|config| config.policy)
        .map_err(|error| error.to_string())
}

#[test]
fn a_reservation_is_all_that_lending_needs() {
    let policy = parse(RESERVE).unwrap();
    let lending = policy.lending.unwrap();
    assert_eq!(
        lending.reserve,
        Amounts {
            cpu: 1_000,
            memory: 2 << 30,
            disk: 10 << 30
        }
    );
    assert_eq!(
        (lending.cap, lending.schedule),
        (Amounts::UNLIMITED, Schedule::always())
    );
    assert_eq!(
        (policy.reclaim, policy.labels),
        (Reclaim::default(), Labels::default())
    );
    assert_eq!(parse("").unwrap(), Policy::none());
}

#[test]
fn windows_cap_what_they_name() {
    let text = format!(
        "{RESERVE}[cap]\nmemory = \"4G\"\n[schedule]\ntime_zone = \"Europe/Rome\"\n\
         [[schedule.window]]\ndays = [\"sat\"]\nfrom = \"00:00\"\nto = \"24:00\"\ncpu = 0.5\n"
    );
    let lending = parse(&text).unwrap().lending.unwrap();
    assert_eq!((lending.cap.memory, lending.cap.cpu), (4 << 30, u64::MAX));
    let cap = lending.schedule.windows[0].cap;
    assert_eq!((cap.cpu, cap.memory), (500, u64::MAX));
}

#[test]
fn what_is_wrong_is_named_with_its_line_and_a_remedy() {
    let window =
        |lines: &str| format!("{RESERVE}[schedule]\ntime_zone = \"UTC\"\n[[schedule.window]]\n{lines}");
    let table = [
        (
            "[reserve]\ncpu = 1\nmemory = \"1G\"\n".to_string(),
            "line 1: missing field `disk`",
        ),
        (
            RESERVE.replace("cpu = 1", "cpu = 0"),
            "line 2: `reserve.cpu` is 0; the owner needs",
        ),
        (RESERVE.replace("2G", "0G"), "line 3: `reserve.memory` is 0"),
        (RESERVE.replace("10G", "0M"), "line 4: `reserve.disk` is 0"),
        (
            RESERVE.replace("2G", "2"),
            "line 3: `reserve.memory` is \"2\"; give a size such as \"512M\"",
        ),
        (
            RESERVE.replace("cpu = 1", "cpu = -1"),
            "line 2: `reserve.cpu` is -1; give a number of CPUs",
        ),
        (RESERVE.replace("cpu", "cpus"), "line 2: unknown field `cpus`"),
        (
            format!("{RESERVE}[cap]\ndisk = \"x\"\n"),
            "line 6: `cap.disk` is \"x\"",
        ),
        (
            "\n[cap]\ncpu = 1\n".to_string(),
            "line 2: `cap` limits what is lent, but nothing is: add the section [reserve]",
        ),
        (
            "[schedule]\ntime_zone = \"UTC\"\n".to_string(),
            "line 1: `schedule` limits",
        ),
        (
            format!("{RESERVE}[schedule]\ntime_zone = \"Mars/Olympus\"\n"),
            "line 6: `schedule.time_zone` is \"Mars/Olympus\"",
        ),
        (
            format!("{RESERVE}[[schedule.window]]\ndays = [\"mon\"]\nfrom = \"01:00\"\nto = \"02:00\"\n"),
            "`schedule.time_zone` is missing",
        ),
        (
            window("days = [\"mo\"]\nfrom = \"01:00\"\nto = \"02:00\"\n"),
            "line 8: `schedule.window.days` has \"mo\"; use mon",
        ),
        (
            window("days = []\nfrom = \"01:00\"\nto = \"02:00\"\n"),
            "line 8: `schedule.window.days` is empty",
        ),
        (
            window("days = [\"mon\", \"Monday\"]\nfrom = \"01:00\"\nto = \"02:00\"\n"),
            "twice",
        ),
        (
            window("days = [\"mon\"]\nfrom = \"1:00\"\nto = \"02:00\"\n"),
            "line 9: `schedule.window.from` is \"1:00\"; give a time",
        ),
        (
            window("days = [\"mon\"]\nfrom = \"01:00\"\nto = \"25:00\"\n"),
            "line 10: `schedule.window.to` is \"25:00\"",
        ),
        (
            window("days = [\"mon\"]\nfrom = \"24:00\"\nto = \"02:00\"\n"),
            "leaves no time",
        ),
        (
            window("days = [\"mon\"]\nfrom = \"02:00\"\nto = \"02:00\"\n"),
            "for a whole day write",
        ),
        (
            window("days = [\"mon\"]\nfrom = \"01:00\"\nto = \"02:00\"\ncpu = nan\n"),
            "line 11: `schedule.window.cpu` is NaN",
        ),
        (
            "[measure]\nwindow_h = 0\n".to_string(),
            "line 2: `measure.window_h` is 0; use 1 to 672",
        ),
        ("[measure]\nwarm_up_s = 0\n".to_string(), "use 1 to 86400"),
        ("[measure]\nmargin_percent = 51\n".to_string(), "use 1 to 50"),
        (
            "[reclaim]\ndeadline_s = 0\n".to_string(),
            "line 2: `reclaim.deadline_s` is 0; use 1 to 3600",
        ),
        ("[reclaim]\nhold_ms = 1\n".to_string(), "use 100 to 600000"),
        ("[reclaim]\ncooldown_s = 0\n".to_string(), "use 1 to 86400"),
        (
            "[reclaim]\nsqueeze_io = \"0M\"\n".to_string(),
            "`reclaim.squeeze_io` is 0",
        ),
        (
            "[labels]\ncountry = \"it\"\n".to_string(),
            "line 2: `labels.country` is \"it\"; give two capital letters",
        ),
        (
            "[labels]\nsite = \"town hall\"\n".to_string(),
            "line 2: `labels.site` is \"town hall\"; use 1 to 63",
        ),
        (
            "[labels]\ncolour = \"red\"\n".to_string(),
            "line 2: unknown field `colour`",
        ),
    ];
    for (text, expected) in table {
        let error = parse(&text).unwrap_err();
        assert!(error.contains(expected), "{text}: {error}");
        assert!(
            error.starts_with("configuration agent.toml, line ") && !error.contains('\n'),
            "{error}"
        );
    }
}
