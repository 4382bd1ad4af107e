//! The API's bytes: HTTP, resource, JSON, and what a machine makes of it. Whatever comes, it is answered in one line, a
//! refusal changes nothing, and what was taken down can be written and read again.
#![no_main]

use std::path::PathBuf;

use secovia_vmm::api::http::{self, HEAD_MAX, Parsed};
use secovia_vmm::api::{Clerk, Effect, Hands, Model, Reply, Request, RequestCounts, route};
use secovia_vmm::mmds::SharedMmds;
use secovia_vmm_api::VmSpec;

/// The longest body, small enough to be passed.
const LIMIT: usize = 2048;
/// The host's memory, as the machine is told.
const HOST: u64 = 8 << 30;

/// Paths become one of these: the fuzzer must not open what it happens to name.
const PATHS: [&str; 4] = ["/dev/null", "/proc/self/exe", "/nowhere/secovia", ""];

fn tame(path: &mut PathBuf) {
    let sum = path.as_os_str().len();
    *path = PATHS[sum % PATHS.len()].into();
}

/// Does everything, or, every third time, nothing.
struct Moods(u32);

impl Hands for Moods {
    fn act(&mut self, effect: Effect, _: &RequestCounts) -> Result<Option<String>, String> {
        self.0 += 1;
        match (self.0 % 3, effect) {
            (0, _) => Err("not now".into()),
            (_, Effect::BalloonStatistics) => Ok(Some("{}".into())),
            _ => Ok(None),
        }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut clerk = Clerk::new(Model::new("fuzz".into(), VmSpec::default(), HOST, true), SharedMmds::new(1000).expect("random numbers"));
    let mut hands = Moods(0);
    let mut rest = data;
    loop {
        let (head, body) = match http::parse(rest, LIMIT) {
            Ok(Parsed::Whole { head, body }) => (head, body),
            Ok(Parsed::Partial { .. }) => return assert!(rest.len() < HEAD_MAX + LIMIT),
            Err(error) => return assert!(!error.to_string().is_empty()),
        };
        assert!(body.len() <= LIMIT && body.start > 0);
        let end = body.end;
        let before = clerk.spec().clone();
        let reply = match route(head.method, &head.path, &rest[body]) {
            Ok(mut request) => {
                match &mut request {
                    Request::PutBootSource(source) => {
                        tame(&mut source.kernel_image_path);
                        source.initrd_path.iter_mut().for_each(tame);
                    }
                    Request::PutDrive(drive) => {
                        drive.path_on_host.iter_mut().chain(&mut drive.socket).for_each(tame);
                    }
                    Request::PutPmem(pmem) => tame(&mut pmem.path_on_host),
                    Request::PutVsock(vsock) => tame(&mut vsock.uds_path),
                    _ => {}
                }
                clerk.serve(request, &mut hands)
            }
            Err(refusal) => Reply::Refused(refusal.to_string()),
        };
        match reply {
            Reply::Refused(message) | Reply::TooLarge(message) => {
                assert!(!message.is_empty());
                assert_eq!(clerk.spec(), &before);
            }
            Reply::Json(text) => drop(serde_json::from_str::<serde_json::Value>(&text).expect("JSON")),
            Reply::Done | Reply::Text(_) | Reply::Open(..) => {}
        }
        let text = serde_json::to_vec(clerk.spec()).expect("a specification can be written");
        let again: VmSpec = serde_json::from_slice(&text).expect("what was written can be read");
        assert_eq!(&again, clerk.spec());
        rest = &rest[end..];
    }
});
