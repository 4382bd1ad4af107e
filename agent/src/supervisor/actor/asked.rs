//! What a VM is asked to do: each command becomes an event, and is answered when its intent is on the disk.

use super::{Actor, Command, CommandError, Event, Life, Reply, State, Step, advance};
use crate::clock::now_ms;

impl Actor {
    pub(super) async fn command(&mut self, command: Command, reply: Reply) {
        let word = self.record.state_word();
        let (runs, active) = match self.record.life.state {
            State::Starting | State::Running | State::Stopping { .. } => (true, true),
            State::BackOff { .. } => (false, true),
            State::Created | State::Exited { .. } | State::Failed(_) => (false, false),
        };
        let event = match command {
            Command::Start if runs => {
                let _ = reply.send(Err(CommandError::Active(word)));
                return;
            }
            Command::Remove { force: false } if active => {
                let _ = reply.send(Err(CommandError::Active(word)));
                return;
            }
            Command::Pause | Command::Resume => {
                self.stand_still(command == Command::Pause);
                self.show();
                let _ = reply.send(Ok(()));
                return;
            }
            Command::Start => Event::Start,
            Command::Stop { grace_ms } => Event::Stop { grace_ms },
            Command::Kill => Event::Kill,
            Command::Reclaim { within_ms } => Event::Reclaim { within_ms },
            Command::Remove { .. } => return self.remove_on_request(reply).await,
        };
        let admission = match (command == Command::Start).then(|| self.room()).transpose() {
            Ok(admission) => admission,
            Err(error) => {
                let _ = reply.send(Err(CommandError::Admission(error)));
                return;
            }
        };
        let (life, steps) = advance(&self.record.life, &event, now_ms(), &self.context.config.backoff);
        if let Err(error) = self.record_life(life) {
            let _ = reply.send(Err(CommandError::Store(error)));
            return;
        }
        if let Some(admission) = admission {
            admission.commit();
        }
        self.show();
        let _ = reply.send(Ok(()));
        self.carry_out(steps).await;
    }

    /// From now on the VM is one that is removed when it rests, whatever happens to this agent.
    async fn remove_on_request(&mut self, reply: Reply) {
        let doomed = Life {
            auto_remove: true,
            ..self.record.life.clone()
        };
        let (life, mut steps) = advance(&doomed, &Event::Kill, now_ms(), &self.context.config.backoff);
        if let Err(error) = self.record_life(life) {
            let _ = reply.send(Err(CommandError::Store(error)));
            return;
        }
        self.removers.push(reply);
        let rests = matches!(
            self.record.life.state,
            State::Created | State::Exited { .. } | State::Failed(_)
        );
        if rests && !steps.contains(&Step::Remove) {
            steps.push(Step::Remove);
        }
        self.carry_out(steps).await;
    }
}
