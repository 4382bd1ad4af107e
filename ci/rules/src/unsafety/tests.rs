use super::*;

fn line(text: &str) -> Option<usize> {
    unsafe_line(&syn::parse_file(text).unwrap())
}

#[test]
fn every_form_is_seen() {
    assert_eq!(line("fn f() {\n    unsafe { g() }\n}"), Some(2));
    assert_eq!(line("unsafe fn f() {}"), Some(1));
    assert_eq!(line("unsafe impl Send for X {}"), Some(1));
    assert_eq!(line("fn f() { m!(unsafe { g() }) }"), Some(1));
}

#[test]
fn safe_code_and_tests_are_not() {
    assert_eq!(line("/// not unsafe\nfn f() { \"unsafe\"; }"), None);
    assert_eq!(
        line("mod a { #[cfg(test)] mod tests { fn f() { unsafe { g() } } } }"),
        None
    );
}

#[test]
fn a_listed_file_may_and_must_hold_some() {
    let source = |text: &str| Source {
        path: "vmm/src/memory.rs".into(),
        module: vec!["memory".into()],
        file: syn::parse_file(text).unwrap(),
        lines: 1,
    };
    let rules = |files: &[&str]| Rules {
        crates: Default::default(),
        unsafe_files: files.iter().map(|file| file.to_string()).collect(),
        full_room: 500,
    };
    let (has, has_not) = (source("unsafe fn f() {}"), source("fn f() {}"));
    assert_eq!(check(&[has], &rules(&["vmm/src/memory.rs"])), []);
    assert_eq!(check(&[source("unsafe fn f() {}")], &rules(&[])).len(), 1);
    assert_eq!(check(&[has_not], &rules(&["vmm/src/memory.rs"])).len(), 1);
}
