use super::*;

fn chain(count: u64) -> Vec<Vec<u8>> {
    let mut head = Head::default();
    (0..count)
        .map(|at_ms| {
            let event = AuditEvent::Returned {
                vm: format!("{at_ms:016x} \",\"hash\":\""),
            };
            let (line, next) = seal(&head, at_ms, &event).unwrap();
            head = next;
            line
        })
        .collect()
}

fn outcome(lines: &[Vec<u8>]) -> Result<u64, Broken> {
    match verify(lines.concat().as_slice(), None) {
        Ok(head) => Ok(head.map_or(0, |head| head.seq)),
        Err(VerifyError::Broken(broken)) => Err(broken),
        Err(VerifyError::Read(error)) => panic!("{error}"),
    }
}

#[test]
fn an_untouched_chain_holds() {
    assert_eq!(outcome(&[]), Ok(0));
    assert_eq!(outcome(&chain(20)), Ok(20));
    let lines = chain(20);
    assert_eq!(outcome(&lines[7..]), Ok(20), "older lines were turned over");
    let record: AuditRecord = serde_json::from_slice(&lines[1]).unwrap();
    assert_eq!((record.seq, record.at_ms), (2, 1));
}

#[test]
fn the_first_line_that_was_tampered_with_is_named() {
    let lines = chain(20);
    for at in 0..20 {
        for byte in 0..lines[at].len() {
            let mut changed = lines.clone();
            changed[at][byte] ^= 1;
            let broken = outcome(&changed).unwrap_err();
            assert_eq!(broken.line as usize, at + 1, "byte {byte}: {broken}");
        }
    }
    let mut removed = lines.clone();
    removed.remove(4);
    assert_eq!(outcome(&removed).unwrap_err().line, 5);
    let mut exchanged = lines.clone();
    exchanged.swap(8, 9);
    assert_eq!(outcome(&exchanged).unwrap_err().line, 9);
    let mut doubled = lines.clone();
    doubled.insert(3, lines[2].clone());
    assert_eq!(outcome(&doubled).unwrap_err().line, 4);
    // A line that was changed and sealed anew is right by itself; the next one does not follow it.
    let mut forged = lines.clone();
    let head = check(None, &lines[5][..lines[5].len() - 1]).unwrap();
    forged[6] = seal(&head, 99, &AuditEvent::Returned { vm: "other".into() })
        .unwrap()
        .0;
    let broken = outcome(&forged).unwrap_err();
    assert!(
        broken.line == 8 && broken.problem.contains("does not follow"),
        "{broken}"
    );
    let mut torn = lines;
    torn[19].pop();
    assert!(outcome(&torn).unwrap_err().problem.contains("no end"));
    assert!(
        outcome(&[vec![b'x'; 100_000]])
            .unwrap_err()
            .problem
            .contains("no end")
    );
}
