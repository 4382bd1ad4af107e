use super::*;

const PASSWD: &str = "\
root:x:0:0:root:/root:/bin/sh
broken line
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
nohome:x:34:35
app:x:1000:1000:App,,,:/home/app:/bin/sh
7:x:70:70::/seven:/bin/sh
";
const GROUP: &str = "\
root:x:0:
video:x:44:app,other
www-data:x:33:
app:x:1000:
adm:x:4:syslog,app
none:x:notanumber:app
";

fn id(wanted: &str) -> Identity {
    resolve(wanted, PASSWD, GROUP).unwrap()
}

#[test]
fn a_name_brings_its_groups_and_its_home() {
    let app = Identity {
        uid: 1000,
        gid: 1000,
        groups: vec![44, 4],
        home: "/home/app".into(),
    };
    assert_eq!(id("app"), app);
    assert_eq!(id("1000"), app, "a number that has an entry is that user");
    assert_eq!(id("root").home, "/root");
}

#[test]
fn a_group_that_was_asked_for_is_the_only_one() {
    assert_eq!((id("app:video").gid, id("app:video").groups), (44, vec![]));
    assert_eq!((id("33:44").uid, id("33:44").gid), (33, 44));
    assert_eq!(id("app:4242").gid, 4242);
}

#[test]
fn a_number_needs_no_entry() {
    assert_eq!(
        id("4242"),
        Identity {
            uid: 4242,
            gid: 0,
            groups: vec![],
            home: "/".into()
        }
    );
    assert_eq!(id("4242:17").gid, 17);
}

#[test]
fn a_name_of_digits_wins_over_the_number() {
    assert_eq!(id("7").uid, 70);
}

#[test]
fn short_lines_still_count_and_empty_files_know_only_numbers() {
    assert_eq!(id("nohome").home, "/");
    assert_eq!(resolve("0", "", "").unwrap().uid, 0);
    assert_eq!(resolve("root", "", ""), Err(UserError::NoUser("root".into())));
}

#[test]
fn strangers_are_named() {
    for bad in [
        "nobody",
        "",
        "-1",
        "+5",
        "4294967295",
        "99999999999",
        "broken line",
    ] {
        assert_eq!(resolve(bad, PASSWD, GROUP), Err(UserError::NoUser(bad.into())));
    }
    assert_eq!(
        resolve("app:wheel", PASSWD, GROUP),
        Err(UserError::NoGroup("wheel".into()))
    );
    assert_eq!(resolve("app:", PASSWD, GROUP), Err(UserError::NoGroup("".into())));
}
