use super::*;

#[test]
fn code_for_tests_is_left_out_and_not_counted() {
    let text = "fn product() {}\n\n#[cfg(test)]\nmod tests {\n    fn test() {}\n}\n";
    let (file, lines) = parse(text).unwrap();
    assert_eq!(file.items.len(), 1);
    assert_eq!(lines, 2);
}

#[test]
fn a_condition_that_only_mentions_tests_is_production() {
    let text = "#[cfg(not(test))]\nfn product() {}\n#[cfg(feature = \"test\")]\nfn other() {}\n";
    let (file, _) = parse(text).unwrap();
    assert_eq!(file.items.len(), 2);
}

#[test]
fn modules_are_found_beside_and_inside() {
    let folder = std::env::temp_dir().join(format!("secovia-rules-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("src/a")).unwrap();
    std::fs::create_dir_all(folder.join("src/b")).unwrap();
    for (name, text) in [
        ("src/lib.rs", "mod a; mod b; #[cfg(test)] mod tests;"),
        ("src/a.rs", "mod inner;"),
        ("src/a/inner.rs", ""),
        ("src/b/mod.rs", ""),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
    let sources = read_crate(&folder, &folder.join("src/lib.rs")).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let mut found: Vec<_> = sources
        .iter()
        .map(|source| (source.module.join("::"), source.path.display().to_string()))
        .collect();
    found.sort();
    let expected = [
        ("", "src/lib.rs"),
        ("a", "src/a.rs"),
        ("a::inner", "src/a/inner.rs"),
        ("b", "src/b/mod.rs"),
    ];
    assert_eq!(
        found,
        expected.map(|(module, path)| (module.to_string(), path.to_string()))
    );
}
