//! The steps of a plan, carried out.

use std::collections::BTreeMap;

use secovia_agent_api::client::{Client as Agent, ClientError};
use secovia_agent_api::{ErrorCode, StopRequest, VmCreate};

use k8s_openapi::api::core::v1::Pod;

use super::error::Failure;
use super::images::Images;
use super::region::Region;
use crate::pod::plan::Step;
use crate::pod::status::End;
use crate::pod::{Facts, Identity, Machine, Trouble, container_name, needs, translate};

/// The word for a Pod that asks for what this node does not do.
const NOT_SUPPORTED: &str = "NotSupported";

/// Carries steps out.
#[derive(Clone)]
pub(super) struct Worker {
    pub(super) agent: Agent,
    pub(super) region: Region,
    pub(super) images: Images,
}

impl Worker {
    /// One step; `pod` as it was when the plan was made, where there is one.
    pub(super) async fn carry_out(
        &self,
        identity: &Identity,
        pod: Option<&Pod>,
        step: Step,
        facts: &Facts,
    ) -> Result<(), Failure> {
        match (step, pod) {
            (Step::Create, Some(pod)) => self.create(identity, pod, facts).await,
            (Step::Create, None) => Ok(()),
            (Step::Start { vm }, _) => done(self.agent.start_vm(&vm).await),
            (Step::Stop { vm, grace_s }, pod) => {
                if pod.is_some() {
                    let message = format!("ending microVM {vm}: {grace_s} s from SIGTERM to SIGKILL");
                    self.region.note_soon(identity, "Killing", &message);
                }
                done(self.agent.stop_vm(&vm, &StopRequest { grace_s }).await)
            }
            (Step::Remove { vm }, _) => done(self.agent.delete_vm(&vm, false).await),
            (Step::Report(status), pod) => {
                let version = pod.and_then(|pod| pod.metadata.resource_version.as_deref());
                self.region.report(identity, version, &status).await
            }
            (Step::Forget, _) => self.region.forget(identity).await,
        }
    }

    async fn create(&self, identity: &Identity, pod: &Pod, facts: &Facts) -> Result<(), Failure> {
        let sources = self.region.sources(&identity.namespace, &needs(pod)).await?;
        let mut machine = match translate(pod, &sources, facts) {
            Ok(machine) => machine,
            Err(trouble @ Trouble::Refused(_)) => {
                return Err(Failure::Ended(End::because(NOT_SUPPORTED, trouble.to_string())));
            }
            Err(trouble @ Trouble::Missing(_)) => {
                return Err(Failure::held("CreateContainerConfigError", trouble.to_string()));
            }
        };
        let found = self.images.find(identity, &machine).await?;
        let message = if found.is_new {
            format!(
                "Successfully pulled image \"{}\" as {}",
                machine.create.image, found.name
            )
        } else {
            format!(
                "Container image \"{}\" already present on machine",
                machine.create.image
            )
        };
        self.region.note_soon(identity, "Pulled", &message);
        machine.create.image = found.name;
        self.find_more(identity, &mut machine).await?;
        let vm = match self.agent.create_vm(&machine.create).await {
            Ok(vm) => vm,
            // It was made by a try whose answer was lost, and is adopted as soon as it is seen.
            Err(error) if error.code() == Some(ErrorCode::NameTaken) => {
                let name = machine.create.name.unwrap_or_default();
                return match self.agent.vm(&name).await {
                    Ok(vm) if Identity::of_vm(&vm).as_ref() == Some(identity) => Ok(()),
                    _ => Err(Failure::agent(&error)),
                };
            }
            Err(error) => return Err(Failure::agent(&error)),
        };
        let container = container_name(&vm).unwrap_or_default();
        let message = format!(
            "Created container {container}: microVM {} ({}) of image {}",
            vm.name, vm.id, vm.image
        );
        self.region.note_soon(identity, "Created", &message);
        Ok(())
    }
}

impl Worker {
    /// The images of further containers, and all of them under the names that the agent has them by.
    async fn find_more(&self, identity: &Identity, machine: &mut Machine) -> Result<(), Failure> {
        let create = &machine.create;
        let Some(first) = create.containers.first() else {
            return Ok(());
        };
        let mut names = BTreeMap::from([(first.image.clone(), create.image.clone())]);
        for (image, pull) in &machine.more {
            if names.contains_key(image) {
                continue;
            }
            let one = Machine {
                create: VmCreate::new(image.clone()),
                pull: *pull,
                more: Vec::new(),
                pull_secrets: machine.pull_secrets.clone(),
            };
            let found = self.images.find(identity, &one).await?;
            if found.is_new {
                let message = format!("Successfully pulled image \"{image}\" as {}", found.name);
                self.region.note_soon(identity, "Pulled", &message);
            }
            names.insert(image.clone(), found.name);
        }
        let create = &mut machine.create;
        for container in create.init_containers.iter_mut().chain(&mut create.containers) {
            if let Some(name) = names.get(&container.image) {
                container.image = name.clone();
            }
        }
        Ok(())
    }
}

/// What is gone needs nothing done to it.
fn done<T>(answer: Result<T, ClientError>) -> Result<(), Failure> {
    match answer {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(ErrorCode::VmNotFound) => Ok(()),
        Err(error) => Err(Failure::agent(&error)),
    }
}
