use super::*;

/// A crate of `(module, text)`.
fn check_crate(files: &[(&str, &str)]) -> Vec<String> {
    let sources: Vec<_> = files
        .iter()
        .map(|(module, text)| Source {
            path: module.into(),
            module: module
                .split("::")
                .filter(|word| !word.is_empty())
                .map(String::from)
                .collect(),
            file: syn::parse_file(text).unwrap(),
            lines: 1,
        })
        .collect();
    check("x", &sources).iter().map(Finding::to_string).collect()
}

#[test]
fn one_way_is_fine() {
    let files = [
        ("", "mod a; mod b;"),
        ("a", "use crate::b::B;"),
        ("b", "pub struct B;"),
    ];
    assert_eq!(check_crate(&files), [""; 0]);
}

#[test]
fn two_files_that_use_each_other_are_found_once() {
    let files = [
        ("", "mod a; mod b;"),
        ("a", "use crate::{b::B, c};"),
        ("b", "fn f(_: super::a::A) {}"),
    ];
    let found = check_crate(&files);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("modules a and b use each other"));
}

#[test]
fn a_facade_is_followed_to_what_it_shows() {
    // `b` takes A from the façade; it is `a` that has it, and `a` uses `b`.
    let files = [
        ("", "mod v;"),
        ("v", "mod a; mod b; pub use a::A;"),
        ("v::a", "use super::b::B; pub struct A;"),
        ("v::b", "use crate::v::A; pub struct B;"),
    ];
    let found = check_crate(&files);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("v::a and v::b"));
}

#[test]
fn a_facade_alone_is_no_arrow() {
    let files = [
        ("", "mod v;"),
        ("v", "mod a; pub use a::A; pub struct E;"),
        ("v::a", "use super::E; pub struct A;"),
    ];
    assert_eq!(check_crate(&files), [""; 0]);
}

#[test]
fn a_parent_that_uses_its_child_and_back_is_found() {
    let files = [
        ("", "mod v;"),
        ("v", "mod a; use a::A; pub struct E(A);"),
        ("v::a", "use super::E; pub struct A;"),
    ];
    let found = check_crate(&files);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("modules v and v::a use each other"));
}

#[test]
fn a_path_in_an_expression_counts() {
    let files = [
        ("", "mod a; mod b;"),
        ("a", "fn f() { crate::b::g() }"),
        ("b", "pub fn g() { crate::a::f() }"),
    ];
    assert_eq!(check_crate(&files).len(), 1);
}

#[test]
fn folders_that_use_each_other_through_different_files_are_found() {
    let files = [
        ("", "mod a; mod b;"),
        ("a", "mod one; mod two;"),
        ("a::one", "use crate::b::one::X;"),
        ("a::two", "pub struct Y;"),
        ("b", "mod one; mod two;"),
        ("b::one", "pub struct X;"),
        ("b::two", "use crate::a::two::Y;"),
    ];
    let found = check_crate(&files);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("taken whole"));
}

#[test]
fn tests_may_look_both_ways() {
    let files = [
        ("", "mod a; mod b;"),
        ("a", "use crate::b::B;"),
        ("b", "#[cfg(test)] mod t { use crate::a::A; }"),
    ];
    assert_eq!(check_crate(&files), [""; 0]);
}

#[test]
fn a_visibility_is_no_use() {
    let files = [
        ("", "mod v;"),
        ("v", "mod a; fn f() { a::g() }"),
        ("v::a", "pub(super) fn g() {}"),
    ];
    assert_eq!(check_crate(&files), [""; 0]);
}
