//! Serves requests on the main thread: weighs each, has it done, and takes down what was done.

use std::collections::BTreeMap;

use secovia_vmm_api::{InstanceState, VmSpec};

use super::model::{Effect, Metadata, Model, Plan};
use super::reply::{Refusal, Reply};
use super::request::Request;
use crate::mmds::{MmdsError, SharedMmds};

/// Whoever brings effects about. Called on the main thread.
pub trait Hands {
    /// Does it all, or says in one line why nothing was done; the answer, where there is more to say than that it is done.
    /// `counts` is for what tells of requests.
    fn act(&mut self, effect: Effect, counts: &RequestCounts) -> Result<Option<String>, String>;
}

/// How often each request was made, and how often refused: by group and name.
pub type RequestCounts = BTreeMap<(&'static str, &'static str), (u64, u64)>;

/// The clerk, with the machine as it was asked for.
#[derive(Debug)]
pub struct Clerk {
    model: Model,
    mmds: SharedMmds,
    counts: RequestCounts,
}

impl Clerk {
    /// Begins with `model`; what requests say of metadata goes to `mmds`.
    pub fn new(model: Model, mmds: SharedMmds) -> Self {
        Self {
            model,
            mmds,
            counts: RequestCounts::new(),
        }
    }

    /// What was said about the machine.
    pub fn spec(&self) -> &VmSpec {
        &self.model.spec
    }

    /// The machine is the one of this specification, and has been started.
    pub fn begin_with(&mut self, spec: VmSpec) {
        self.model.spec = spec;
        self.model.state = InstanceState::Running;
    }

    /// How often each request was made, and how often refused.
    pub fn counts(&self) -> &RequestCounts {
        &self.counts
    }

    /// Serves one request.
    pub fn serve(&mut self, request: Request, hands: &mut impl Hands) -> Reply {
        let metric = request.metric();
        let count = self.counts.entry(metric).or_default();
        count.0 = count.0.wrapping_add(1);
        let served = self.model.plan(request).and_then(|plan| {
            let Plan { effect, next, reply } = plan;
            let told = match effect {
                Effect::None => None,
                Effect::Metadata(metadata) => self.metadata(metadata)?,
                effect => hands.act(effect, &self.counts).map_err(Refusal::Failed)?,
            };
            if let Some(next) = next {
                self.model = next;
            }
            Ok(match (told, reply) {
                (Some(text), Reply::Text(_)) => Reply::Text(text),
                (Some(text), _) => Reply::Json(text),
                (None, reply) => reply,
            })
        });
        served.unwrap_or_else(|refusal| {
            let count = self.counts.entry(metric).or_default();
            count.1 = count.1.wrapping_add(1);
            log::debug!("API: refused: {refusal}");
            match refusal {
                Refusal::Metadata(MmdsError::Size { .. }) => Reply::TooLarge(refusal.to_string()),
                refusal => Reply::Refused(refusal.to_string()),
            }
        })
    }

    fn metadata(&self, metadata: Metadata) -> Result<Option<String>, Refusal> {
        let mut mmds = self.mmds.lock();
        match metadata {
            Metadata::Tell => return Ok(Some(mmds.text())),
            Metadata::Put(data) => mmds.put(data)?,
            Metadata::Patch(patch) => mmds.patch(&patch)?,
        }
        Ok(None)
    }
}
