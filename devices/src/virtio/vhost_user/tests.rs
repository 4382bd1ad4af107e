use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use virtio_bindings::virtio_ring::VIRTIO_RING_F_EVENT_IDX;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use super::wire::HEADER;
use super::*;
use crate::testing::{FakeDriver, TempPath, queue_base};
use crate::virtio::mmio::offset;
use crate::virtio::transport::{TRANSPORT_FEATURES, Transport};

const OFFERED: u64 = TRANSPORT_FEATURES | wire::F_PROTOCOL_FEATURES | 0x6a46;
const PROTOCOL: u64 = wire::P_CONFIG | wire::P_REPLY_ACK;

/// What a backend does with a request.
enum Answer {
    /// What it should.
    Right,
    /// This payload.
    Payload(Vec<u8>),
    /// These bytes, whatever they are.
    Bytes(Vec<u8>),
    /// Nothing.
    Nothing,
    /// It closes the connection.
    End,
}

/// What a backend was told: request, payload, and the descriptor that came along.
type Told = (u32, Vec<u8>, Option<File>);

/// A backend in a thread, which answers as `answer` says and passes on what it was told.
struct Backend {
    socket: TempPath,
    told: Receiver<Told>,
    thread: JoinHandle<()>,
}

impl Backend {
    fn new(answer: impl Fn(u32) -> Answer + Send + 'static) -> Self {
        let socket = TempPath::new("vhost-user");
        let listener = UnixListener::bind(socket.as_path()).unwrap();
        let (sender, told) = mpsc::channel();
        let thread = thread::spawn(move || serve(&listener.accept().unwrap().0, &answer, &sender));
        Self { socket, told, thread }
    }

    fn right() -> Self {
        Self::new(|_| Answer::Right)
    }

    fn open(&self) -> Result<VhostUserBlock, VhostUserError> {
        VhostUserBlock::open(&VhostUserConfig {
            id: "d".into(),
            socket: self.socket.as_path().into(),
            cache: Cache::Writeback,
        })
    }

    fn driver(&self) -> (FakeDriver, VhostUserHandle) {
        let device = self.open().unwrap();
        let handle = device.handle();
        let file = TempPath::new("memory");
        let memory = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(file.as_path())
            .unwrap();
        (FakeDriver::with_file(Box::new(device), memory), handle)
    }

    /// The next message of this kind.
    fn wait(&self, request: Request) -> Told {
        loop {
            let told = self
                .told
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("no {request:?}"));
            if told.0 == request as u32 {
                return told;
            }
        }
    }
}

fn serve(mut stream: &UnixStream, answer: &dyn Fn(u32) -> Answer, told: &Sender<Told>) {
    loop {
        let mut header = [0; HEADER];
        let Ok((HEADER, file)) = stream.recv_with_fd(&mut header) else {
            return;
        };
        let field = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().unwrap());
        let (request, flags) = (field(0), field(4));
        let mut payload = vec![0; field(8) as usize];
        stream.read_exact(&mut payload).unwrap();
        let right = match request {
            1 => Some(OFFERED.to_le_bytes().to_vec()),
            15 => Some(PROTOCOL.to_le_bytes().to_vec()),
            11 => Some(numbers32(&[0, 7])),
            24 => {
                let mut space = payload.clone();
                space[12] = 16;
                Some(space)
            }
            _ if flags & 8 != 0 => Some(vec![0; 8]),
            _ => None,
        };
        let _ = told.send((request, payload, file));
        let payload = match answer(request) {
            Answer::Right => right,
            Answer::Payload(payload) => Some(payload),
            Answer::Bytes(bytes) => {
                stream.write_all(&bytes).unwrap();
                None
            }
            Answer::Nothing => None,
            Answer::End => return,
        };
        if let Some(payload) = payload {
            let mut message = numbers32(&[request, 5, payload.len() as u32]);
            message.extend(payload);
            // Whoever asked may be gone.
            let _ = stream.write_all(&message);
        }
    }
}

/// Starts a device that cannot be given its queue.
fn start_in_vain(driver: &mut FakeDriver) {
    driver.write(offset::STATUS, 0);
    assert!(driver.negotiate(OFFERED & TRANSPORT_FEATURES));
    driver.set_up_queue(0);
    driver.write(offset::STATUS, 15);
    assert_eq!(driver.read(offset::STATUS), 15 | 64, "DEVICE_NEEDS_RESET");
}

#[test]
fn the_backend_is_given_the_queue_and_called_and_calls() {
    let backend = Backend::right();
    let (mut driver, _) = backend.driver();
    driver.start();
    let (_, features, _) = backend.wait(Request::SetFeatures);
    let features = u64::from_le_bytes(features.try_into().unwrap());
    assert_eq!(features & !OFFERED, 0, "nothing that it did not offer");
    assert_ne!(features & wire::F_PROTOCOL_FEATURES, 0);
    let (_, table, memory) = backend.wait(Request::SetMemTable);
    let length = memory.unwrap().metadata().unwrap().len();
    let mut expected = numbers32(&[1, 0]);
    expected.extend(numbers64(&[0, length, 0, 0]));
    assert_eq!(table, expected);
    let (_, addresses, _) = backend.wait(Request::SetVringAddr);
    assert_eq!(addresses[8..16], queue_base(0).to_le_bytes(), "the guest's own");
    let mut call = backend.wait(Request::SetVringCall).2.unwrap();
    let mut kick = backend.wait(Request::SetVringKick).2.unwrap();
    backend.wait(Request::SetVringEnable);

    driver.notify(0);
    let mut count = [0; 8];
    kick.read_exact(&mut count).unwrap();
    assert_eq!(
        u64::from_ne_bytes(count),
        2,
        "one for what there was, one for the notice"
    );

    let before = driver.interrupt.count();
    call.write_all(&1_u64.to_ne_bytes()).unwrap();
    driver.transport.handle_host();
    assert_eq!(driver.interrupt.count(), before + 1);
}

#[test]
fn a_ring_that_a_backend_cannot_do_is_not_offered() {
    let features = OFFERED & !(1 << VIRTIO_RING_F_EVENT_IDX);
    let backend = Backend::new(move |request| match request {
        1 => Answer::Payload(features.to_le_bytes().to_vec()),
        _ => Answer::Right,
    });
    let (mut driver, _) = backend.driver();
    assert_eq!(driver.offered() & !features, 0);
}

#[test]
fn the_configuration_space_is_the_backends_and_read_anew_when_asked() {
    let backend = Backend::right();
    let (mut driver, handle) = backend.driver();
    driver.start();
    assert_eq!(driver.read(offset::CONFIG), 16);
    backend.wait(Request::GetConfig);
    driver.transport.handle_host();
    assert!(backend.told.try_iter().all(|told| told.0 != 24), "unasked");
    handle.refresh();
    driver.transport.handle_host();
    backend.wait(Request::GetConfig);
    assert_eq!(handle.counters(), VhostUserCounters::default());
}

#[test]
fn before_a_pause_the_backend_stops_and_goes_on_where_it_stopped() {
    let backend = Backend::right();
    let (mut driver, _) = backend.driver();
    driver.start();
    backend.wait(Request::SetVringEnable);
    assert!(driver.transport.settle(PATIENCE));
    backend.wait(Request::GetVringBase);
    assert!(driver.transport.settle(PATIENCE), "again");
    driver.transport.handle_host();
    assert_eq!(backend.wait(Request::SetVringBase).1, numbers32(&[0, 7]));
    backend.wait(Request::SetVringEnable);
}

/// A flush that takes its time is no reason to give a disk up: the pause is tried again.
#[test]
fn a_backend_that_is_slow_to_stop_keeps_its_disk() {
    let backend = Backend::new(|request| {
        if request == 11 {
            thread::sleep(Duration::from_secs(3));
        }
        Answer::Right
    });
    let (mut driver, handle) = backend.driver();
    driver.start();
    assert!(!driver.transport.settle(Duration::from_millis(10)));
    // The machine goes on meanwhile, and the backend when it has answered.
    driver.transport.handle_host();
    driver.notify(0);
    assert!(driver.transport.settle(PATIENCE));
    driver.transport.handle_host();
    backend.wait(Request::GetVringBase);
    assert_eq!(backend.wait(Request::SetVringBase).1, numbers32(&[0, 7]));
    backend.wait(Request::SetVringEnable);

    // The other way: the answer comes while nobody waits for it.
    assert!(!driver.transport.settle(Duration::from_millis(10)));
    thread::sleep(Duration::from_secs(4));
    driver.transport.handle_host();
    backend.wait(Request::SetVringBase);
    assert_eq!(driver.transport.counters().needs_reset, 0);
    assert_eq!(handle.counters(), VhostUserCounters::default());
}

#[test]
fn a_backend_that_goes_away_takes_the_disk_and_nothing_else() {
    let backend = Backend::new(|request| match request {
        18 => Answer::End,
        _ => Answer::Right,
    });
    let (mut driver, handle) = backend.driver();
    start_in_vain(&mut driver);
    assert_eq!(driver.transport.counters().needs_reset, 1);
    assert_eq!(handle.counters().activate_fails, 1);
    backend.thread.join().unwrap();
    driver.notify(0);
    driver.transport.handle_host();
    assert!(driver.transport.settle(PATIENCE));
    // A driver that tries again is told the same.
    start_in_vain(&mut driver);
    assert_eq!(driver.transport.counters().needs_reset, 2);
}

#[test]
fn a_backend_that_ends_while_it_has_the_queue_is_noticed() {
    let asked = std::cell::Cell::new(0);
    let backend = Backend::new(move |request| match request {
        // The second time.
        24 if asked.replace(asked.get() + 1) == 1 => Answer::End,
        _ => Answer::Right,
    });
    let (mut driver, handle) = backend.driver();
    driver.start();
    handle.refresh();
    driver.transport.handle_host();
    let expected = VhostUserCounters {
        config_fails: 1,
        lost: 1,
        ..VhostUserCounters::default()
    };
    assert_eq!(handle.counters(), expected);
    assert_eq!(driver.transport.counters().needs_reset, 1);

    let backend = Backend::new(|request| match request {
        11 => Answer::End,
        _ => Answer::Right,
    });
    let (mut driver, _) = backend.driver();
    driver.start();
    assert!(driver.transport.settle(PATIENCE), "nobody writes any more");
    start_in_vain(&mut driver);
    assert_eq!(driver.transport.counters().needs_reset, 1);
}

#[test]
fn answers_are_checked() {
    let wrong = |at: u32, bytes: Vec<u32>| {
        let backend = Backend::new(move |request| match request {
            _ if request == at => Answer::Bytes(numbers32(&bytes)),
            _ => Answer::Right,
        });
        backend.open().err().map(|error| error.to_string())
    };
    for (at, bytes, fault) in [
        (1, vec![2, 5, 8, 0, 0], "GetFeatures: it answers another request"),
        (1, vec![1, 1, 8, 0, 0], "GetFeatures: it speaks another version"),
        (1, vec![1, 6, 8, 0, 0], "GetFeatures: it speaks another version"),
        (1, vec![1, 5, 9, 0, 0, 0], "GetFeatures: it answers with 9 bytes"),
        (1, vec![1, 5, u32::MAX], "GetFeatures: it answers with 4294967295"),
        (1, vec![1, 5, 8, 0, 0], "it has no virtio 1.0"),
        (1, vec![1, 5, 8, 0, 1], "it has no protocol features"),
        (15, vec![15, 5, 8, 8, 0], "it has no configuration space"),
        (24, vec![24, 5, 0], "GetConfig: it answers with 0 bytes"),
    ] {
        let error = wrong(at, bytes).expect(fault);
        assert!(error.contains(fault), "{error}");
    }
    let refusing = Backend::new(|request| match request {
        5 => Answer::Payload(vec![1, 0, 0, 0, 0, 0, 0, 0]),
        _ => Answer::Right,
    });
    let (mut driver, handle) = refusing.driver();
    start_in_vain(&mut driver);
    assert_eq!(handle.counters().activate_fails, 1);
}

#[test]
fn a_backend_that_does_not_answer_is_given_up_in_time() {
    let backend = Backend::new(|request| match request {
        15 => Answer::Nothing,
        _ => Answer::Right,
    });
    let begin = Instant::now();
    let error = backend.open().err().unwrap().to_string();
    assert!(
        error.contains("GetProtocolFeatures: no answer in time"),
        "{error}"
    );
    let took = begin.elapsed();
    assert!(took >= PATIENCE && took < PATIENCE * 2, "{took:?}");
}

#[test]
fn where_nobody_listens_the_error_says_what_to_do() {
    let socket = TempPath::new("nobody");
    let config = VhostUserConfig {
        id: "d".into(),
        socket: socket.as_path().into(),
        cache: Cache::Unsafe,
    };
    let error = VhostUserBlock::open(&config).err().unwrap().to_string();
    assert!(
        error.contains("start the vhost-user-block backend first"),
        "{error}"
    );
}
