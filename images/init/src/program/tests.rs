use super::*;
use std::fs;

#[test]
fn the_first_executable_file_in_the_path_is_run() {
    let root = tempfile::tempdir().unwrap();
    let file = |name: &str, mode: u32| {
        let path = root.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let plain = file("a/tool", 0o644);
    let tool = file("b/tool", 0o755);
    file("c/tool", 0o755);
    let cwd = root.path();
    assert_eq!(find("tool", "none:a:b:c", cwd), Ok(tool.clone()));
    assert_eq!(
        find("tool", "a", cwd),
        Err(ProgramError::NotExecutable(plain.clone()))
    );
    assert_eq!(
        find("tool", "none", cwd),
        Err(ProgramError::NotFound("tool".into()))
    );
    assert_eq!(find("b/tool", "", cwd), Ok(tool));
    assert_eq!(
        find("./a/tool", "b", cwd),
        Err(ProgramError::NotExecutable(cwd.join("./a/tool")))
    );
    assert_eq!(
        find("/none/x", "b", cwd),
        Err(ProgramError::NotFound("/none/x".into()))
    );
    assert_eq!(find("", "b", cwd), Err(ProgramError::NotFound("".into())));
    assert_eq!(
        find("b", "", cwd),
        Err(ProgramError::NotExecutable(cwd.join("b"))),
        "a directory"
    );
}
