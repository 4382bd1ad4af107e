use super::*;

fn event(number: u64) -> AuditEvent {
    AuditEvent::Returned {
        vm: format!("{number:016x}"),
    }
}

fn open(dir: &Path) -> Journal {
    Journal::open(dir, 1_000, 7).unwrap()
}

#[test]
fn records_outlive_the_journal_and_are_turned_over() {
    let dir = tempfile::tempdir().unwrap();
    for number in 0..20 {
        let mut journal = open(dir.path());
        journal.append(number, event(number)).unwrap();
        assert_eq!(journal.verify().unwrap().broken, None);
    }
    let journal = open(dir.path());
    let records = journal.records(None).unwrap();
    let seqs: Vec<u64> = records.iter().map(|record| record.seq).collect();
    assert_eq!(seqs, (1..=20).collect::<Vec<_>>());
    assert!(older_files(dir.path()).unwrap().len() > 3);
    let last = journal.records(Some(2)).unwrap();
    assert_eq!(last, records[18..]);
    assert_eq!(journal.verify().unwrap().head, records[19].hash);
}

#[test]
fn the_space_is_bounded_and_the_rest_of_the_chain_still_holds() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    for number in 0..100 {
        journal.append(number, event(number)).unwrap();
    }
    let older = older_files(dir.path()).unwrap();
    assert_eq!(older.len(), OLDER);
    for path in &older {
        assert!(fs::metadata(path).unwrap().len() <= 1_000);
    }
    assert_eq!(journal.verify().unwrap().broken, None);
    assert!(journal.records(None).unwrap()[0].seq > 1);
    assert_eq!(open(dir.path()).verify().unwrap().records, 100);
}

#[test]
fn a_torn_line_goes_and_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).append(1, event(1)).unwrap();
    let path = dir.path().join(CURRENT);
    let whole = fs::read(&path).unwrap();
    for cut in 1..whole.len() {
        let mut torn = whole.clone();
        torn.extend_from_slice(&whole[..cut]);
        if cut == whole.len() {
            continue;
        }
        fs::write(&path, &torn).unwrap();
        let journal = open(dir.path());
        let records = journal.records(None).unwrap();
        assert_eq!(records.len(), 2, "{cut}");
        let expected = AuditEvent::TornLineRemoved { bytes: cut as u64 };
        assert_eq!((records[1].at_ms, &records[1].event), (7, &expected));
        assert_eq!(journal.verify().unwrap().broken, None);
    }
}

#[test]
fn what_was_tampered_with_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    for number in 0..10 {
        journal.append(number, event(number)).unwrap();
    }
    let older = older_files(dir.path()).unwrap();
    let good = fs::read_to_string(&older[1]).unwrap();
    fs::write(&older[1], good.replacen("\"at_ms\":", "\"at_ms\":1", 1)).unwrap();
    let broken = journal.verify().unwrap().broken.unwrap();
    assert_eq!(
        (broken.file.as_str(), broken.line),
        (older[1].to_str().unwrap(), 1)
    );
    fs::write(&older[1], good).unwrap();
    assert_eq!(journal.verify().unwrap().broken, None);

    // The last line cut off: the chain holds, but it is not all.
    let path = dir.path().join(CURRENT);
    let text = fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let shorter: String = lines[..lines.len() - 1]
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(&path, shorter).unwrap();
    let broken = journal.verify().unwrap().broken.unwrap();
    assert!(
        broken.problem.contains("is missing") && broken.line as usize == lines.len(),
        "{broken:?}"
    );

    fs::write(&path, "nonsense\n").unwrap();
    let error = Journal::open(dir.path(), 1_000, 7).unwrap_err().to_string();
    assert!(
        error.contains(CURRENT) && error.contains("move it out"),
        "{error}"
    );
}

#[test]
fn what_could_not_be_written_is_written_later() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.append(1, event(1)).unwrap();
    // A file that takes nothing, as on a full disk.
    journal.file = OpenOptions::new().write(true).open("/dev/full").unwrap();
    journal.append_or_keep(2, event(2));
    assert!(journal.append(3, event(3)).is_err());
    journal.append_or_keep(4, event(4));
    journal.file = open_for_append(&dir.path().join(CURRENT)).unwrap();
    journal.append(5, event(5)).unwrap();
    let times: Vec<u64> = journal
        .records(None)
        .unwrap()
        .iter()
        .map(|record| record.at_ms)
        .collect();
    assert_eq!(times, [1, 2, 4, 5]);
    assert_eq!(journal.verify().unwrap().broken, None);
}
