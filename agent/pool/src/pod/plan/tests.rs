use proptest::prelude::*;
use secovia_agent_api::VmRun;

use super::*;
use crate::pod::status::time;
use crate::pod::tests::{pod, uid, vm};

fn scene(now_ms: u64) -> Scene {
    Scene {
        host_ip: "192.0.2.7".parse().unwrap(),
        evicting: false,
        now_ms,
        tick_ms: now_ms,
    }
}

/// What is done about these, without reports of what goes on.
fn steps(pods: &[Pod], vms: &[Vm], memory: Option<Memory>, scene: &Scene) -> Vec<Step> {
    let memories = memory.map(|memory| (uid(1), memory)).into_iter().collect();
    let tasks = plan(pods, vms, &memories, scene).tasks;
    let mut steps: Vec<Step> = tasks.into_iter().flat_map(|task| task.steps).collect();
    steps.retain(|step| !matches!(step, Step::Report(_)));
    steps
}

fn id(number: u32) -> String {
    format!("{number:016x}")
}

fn stop(number: u32, grace_s: u32) -> Step {
    Step::Stop {
        vm: id(number),
        grace_s,
    }
}

fn deleted(mut pod: Pod, grace_s: i64) -> Pod {
    pod.metadata.deletion_timestamp = Some(time(1_000));
    pod.metadata.deletion_grace_period_seconds = Some(grace_s);
    pod
}

#[test]
fn what_is_wanted_is_made_once_and_then_left_alone() {
    let pods = [pod(1, "Always")];
    let now = scene(10_000);
    assert_eq!(steps(&pods, &[], None, &now), [Step::Create]);
    let flying = Memory {
        flight: Some(Flight::Other),
        ..Memory::default()
    };
    assert_eq!(steps(&pods, &[], Some(flying), &now), []);
    let states = [
        VmState::Starting,
        VmState::Running,
        VmState::Stopping,
        VmState::BackOff {
            until_ms: 1,
            reason: String::new(),
        },
    ];
    for state in states {
        assert_eq!(
            steps(&pods, &[vm(1, 1, state.clone())], None, &now),
            [],
            "{state:?}"
        );
    }
}

#[test]
fn a_failed_try_is_made_again_when_its_time_has_come() {
    let pods = [pod(1, "Always")];
    let memory = Memory {
        not_before_ms: 10_500,
        ..Memory::default()
    };
    assert_eq!(steps(&pods, &[], Some(memory.clone()), &scene(10_000)), []);
    let memories = [(uid(1), memory.clone())].into();
    assert_eq!(plan(&pods, &[], &memories, &scene(10_000)).wake_ms, Some(10_500));
    assert_eq!(steps(&pods, &[], Some(memory), &scene(10_500)), [Step::Create]);
}

#[test]
fn a_deletion_has_the_grace_that_was_given_and_a_second_one_may_shorten_it() {
    let running = [vm(1, 1, VmState::Running)];
    let now = scene(10_000);
    let pods = [deleted(pod(1, "Always"), 42)];
    assert_eq!(steps(&pods, &running, None, &now), [stop(1, 42)]);
    let stopping = |grace_s| {
        Some(Memory {
            flight: Some(Flight::Stopping { grace_s }),
            ..Memory::default()
        })
    };
    assert_eq!(steps(&pods, &running, stopping(42), &now), []);
    let sooner = [deleted(pod(1, "Always"), 3)];
    assert_eq!(steps(&sooner, &running, stopping(42), &now), [stop(1, 3)]);
    assert_eq!(steps(&sooner, &running, stopping(1), &now), []);
}

#[test]
fn what_is_deleted_is_reported_removed_and_forgotten_in_this_order() {
    let pods = [deleted(pod(1, "Always"), 5)];
    let tasks = plan(
        &pods,
        &[vm(1, 1, VmState::Exited { code: 0 })],
        &BTreeMap::new(),
        &scene(1),
    )
    .tasks;
    let [Task { steps, .. }] = tasks.as_slice() else {
        panic!("{tasks:?}");
    };
    let [Step::Report(report), Step::Remove { vm }, Step::Forget] = steps.as_slice() else {
        panic!("{steps:?}");
    };
    assert_eq!(
        (report.phase.as_deref(), vm.as_str()),
        (Some("Succeeded"), id(1).as_str())
    );
    assert_eq!(self::steps(&pods, &[], None, &scene(1)), [Step::Forget]);
}

#[test]
fn what_lost_its_pod_is_stopped_with_its_own_grace_and_strangers_are_not_touched() {
    let mut stranger = vm(3, 3, VmState::Running);
    stranger.labels.clear();
    let vms = [
        vm(1, 1, VmState::Running),
        vm(2, 2, VmState::Exited { code: 1 }),
        stranger,
    ];
    let removed = Step::Remove { vm: id(2) };
    assert_eq!(steps(&[], &vms, None, &scene(1)), [stop(1, 11), removed]);
}

#[test]
fn an_eviction_is_announced_carried_out_and_then_final() {
    let mut pod = pod(1, "Always");
    let evicting = Scene {
        evicting: true,
        ..scene(10_000)
    };
    let running = [vm(1, 1, VmState::Running)];
    let tasks = plan(std::slice::from_ref(&pod), &running, &BTreeMap::new(), &evicting).tasks;
    let [report, stopping] = tasks.as_slice() else {
        panic!("{tasks:?}");
    };
    assert_eq!(stopping.steps, [stop(1, 11)]);
    let [Step::Report(status)] = report.steps.as_slice() else {
        panic!("{report:?}");
    };
    assert_eq!(status.phase.as_deref(), Some("Running"));
    pod.status = Some((**status).clone());
    // It is carried out even where the owner gave the machine back meanwhile, and by another run of the pool.
    let rests = [vm(1, 1, VmState::Exited { code: 0 })];
    let tasks = plan(
        std::slice::from_ref(&pod),
        &rests,
        &BTreeMap::new(),
        &scene(20_000),
    )
    .tasks;
    let [Step::Report(status)] = tasks[0].steps.as_slice() else {
        panic!("{tasks:?}");
    };
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("Evicted"))
    );
    pod.status = Some((**status).clone());
    let later = scene(30_000);
    assert_eq!(
        plan(std::slice::from_ref(&pod), &rests, &BTreeMap::new(), &later).tasks,
        []
    );
    // Ports of the host's are its successor's.
    let mut rests = rests;
    rests[0].network.as_mut().unwrap().publish = vec!["8080:80".parse().unwrap()];
    assert_eq!(steps(&[pod], &rests, None, &later), [Step::Remove { vm: id(1) }]);
}

#[test]
fn a_pod_that_had_its_time_is_ended() {
    let mut pod = pod(1, "Never");
    pod.spec.as_mut().unwrap().active_deadline_seconds = Some(60);
    let mut running = vm(1, 1, VmState::Running);
    let first = plan(
        std::slice::from_ref(&pod),
        std::slice::from_ref(&running),
        &BTreeMap::new(),
        &scene(10_000),
    );
    let [Step::Report(status)] = first.tasks[0].steps.as_slice() else {
        panic!("{first:?}");
    };
    pod.status = Some((**status).clone());
    let again = plan(
        std::slice::from_ref(&pod),
        std::slice::from_ref(&running),
        &BTreeMap::new(),
        &scene(69_999),
    );
    assert_eq!((again.tasks, again.wake_ms), (vec![], Some(70_000)));
    assert_eq!(
        steps(
            std::slice::from_ref(&pod),
            std::slice::from_ref(&running),
            None,
            &scene(70_000)
        ),
        [stop(1, 11)]
    );
    running.state = VmState::Exited { code: 143 };
    running.ended_at_ms = Some(71_000);
    let last = plan(
        std::slice::from_ref(&pod),
        std::slice::from_ref(&running),
        &BTreeMap::new(),
        &scene(72_000),
    );
    let [Step::Report(status)] = last.tasks[0].steps.as_slice() else {
        panic!("{last:?}");
    };
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
}

/// A world of Pods and microVMs, to which anything may happen.
#[derive(Debug, Default)]
struct World {
    pods: Vec<Pod>,
    vms: Vec<Vm>,
    memories: BTreeMap<String, Memory>,
    now_ms: u64,
    evicting: bool,
    made: u32,
    /// Statuses that were final once.
    ended: BTreeMap<String, String>,
}

#[derive(Debug, Clone)]
enum Happening {
    Bound {
        policy: usize,
    },
    Deleted {
        which: usize,
        grace_s: i64,
    },
    /// Deleted by force, or moved, while nobody looked.
    Vanished {
        which: usize,
    },
    Runs {
        which: usize,
    },
    Ends {
        which: usize,
        code: i32,
    },
    /// The node's operator stops or removes one.
    Stopped {
        which: usize,
    },
    Removed {
        which: usize,
    },
    Evicting(bool),
    /// The agent refuses the next creation of this Pod's.
    Refused {
        which: usize,
    },
    /// The pool's process starts anew.
    Restarted,
    /// The plan is carried out: so many steps of it.
    Planned {
        steps: usize,
    },
}

fn happening() -> impl Strategy<Value = Happening> {
    let which = 0..6_usize;
    prop_oneof![
        3 => (0..3_usize).prop_map(|policy| Happening::Bound { policy }),
        2 => (which.clone(), 0..50_i64).prop_map(|(which, grace_s)| Happening::Deleted { which, grace_s }),
        1 => which.clone().prop_map(|which| Happening::Vanished { which }),
        4 => which.clone().prop_map(|which| Happening::Runs { which }),
        3 => (which.clone(), prop_oneof![Just(0), Just(1)]).prop_map(|(which, code)| Happening::Ends { which, code }),
        1 => which.clone().prop_map(|which| Happening::Stopped { which }),
        1 => which.clone().prop_map(|which| Happening::Removed { which }),
        1 => any::<bool>().prop_map(Happening::Evicting),
        1 => which.prop_map(|which| Happening::Refused { which }),
        1 => Just(Happening::Restarted),
        8 => (0..8_usize).prop_map(|steps| Happening::Planned { steps }),
    ]
}

impl World {
    fn rest(&mut self, index: usize, code: i32) {
        let now_ms = self.now_ms;
        let vm = &mut self.vms[index];
        vm.last_run = Some(VmRun {
            started_at_ms: vm.started_at_ms,
            ended_at_ms: now_ms,
            code: Some(code),
            reason: None,
        });
        vm.ended_at_ms = Some(now_ms);
        vm.state = VmState::Exited { code };
    }

    fn happens(&mut self, what: Happening) {
        self.now_ms += 1_000;
        let (pods, vms) = (self.pods.len(), self.vms.len());
        match what {
            Happening::Bound { policy } => {
                self.made += 1;
                self.pods
                    .push(pod(self.made, ["Always", "OnFailure", "Never"][policy]));
            }
            Happening::Deleted { which, grace_s } if pods > 0 => {
                let pod = &mut self.pods[which % pods];
                *pod = deleted(pod.clone(), grace_s);
            }
            Happening::Vanished { which } if pods > 0 => drop(self.pods.remove(which % pods)),
            Happening::Runs { which } if vms > 0 => {
                let vm = &mut self.vms[which % vms];
                if matches!(vm.state, VmState::Starting | VmState::BackOff { .. }) {
                    vm.state = VmState::Running;
                }
            }
            Happening::Ends { which, code } if vms > 0 => {
                let index = which % vms;
                if self.vms[index].state == VmState::Running {
                    self.rest(index, code);
                    let again = match self.vms[index].restart {
                        RestartPolicy::Always => true,
                        RestartPolicy::OnFailure { .. } => code != 0,
                        RestartPolicy::No => false,
                    };
                    if again {
                        self.vms[index].state = VmState::BackOff {
                            until_ms: self.now_ms,
                            reason: "ended".into(),
                        };
                    }
                }
            }
            Happening::Stopped { which } if vms > 0 && self.vms[which % vms].state.is_active() => {
                self.rest(which % vms, 143);
            }
            Happening::Removed { which } if vms > 0 => drop(self.vms.remove(which % vms)),
            Happening::Evicting(evicting) => self.evicting = evicting,
            Happening::Refused { which } if pods > 0 => {
                let uid = self.pods[which % pods].metadata.uid.clone().unwrap();
                if !self
                    .vms
                    .iter()
                    .any(|vm| vm.labels.values().any(|value| *value == uid))
                {
                    let end = Some(End::because("OutOfmemory", "too little"));
                    self.memories.insert(
                        uid,
                        Memory {
                            end,
                            ..Memory::default()
                        },
                    );
                }
            }
            Happening::Restarted => self.memories.clear(),
            Happening::Planned { steps } => drop(self.carry_out(steps)),
            _ => {}
        }
    }

    /// Carries the first `most` steps of the plan out; gives how many there were.
    fn carry_out(&mut self, most: usize) -> usize {
        let scene = Scene {
            evicting: self.evicting,
            ..scene(self.now_ms)
        };
        let plan = plan(&self.pods, &self.vms, &self.memories, &scene);
        let all: Vec<(Identity, Step)> = plan
            .tasks
            .into_iter()
            .flat_map(|task| task.steps.into_iter().map(move |step| (task.pod.clone(), step)))
            .collect();
        let found = all.len();
        for (pod, step) in all.into_iter().take(most) {
            self.carry_out_step(&pod, step);
        }
        found
    }

    fn carry_out_step(&mut self, identity: &Identity, step: Step) {
        let number = u32::from_str_radix(&identity.uid[..8], 16).unwrap();
        let pod = self
            .pods
            .iter()
            .position(|pod| Identity::of(pod).as_ref() == Some(identity));
        let of_id = |vms: &[Vm], id: &str| vms.iter().position(|vm| vm.id == *id).unwrap();
        match step {
            Step::Create => {
                let pod = &self.pods[pod.expect("nothing is made for a Pod that is gone")];
                assert!(!has_ended(pod), "what ended is not begun again");
                assert!(
                    pod.metadata.deletion_timestamp.is_none(),
                    "nothing is made for a Pod that is deleted"
                );
                let live = self
                    .vms
                    .iter()
                    .any(|vm| Identity::of_vm(vm).as_ref() == Some(identity));
                assert!(!live, "there are never two");
                self.made += 1;
                let mut made = vm(number, 1_000 + self.made, VmState::Starting);
                made.restart = match pod.spec.as_ref().unwrap().restart_policy.as_deref() {
                    Some("Never") => RestartPolicy::No,
                    Some("OnFailure") => RestartPolicy::OnFailure { max_retries: None },
                    _ => RestartPolicy::Always,
                };
                self.vms.push(made);
            }
            Step::Start { vm } => {
                let index = of_id(&self.vms, &vm);
                assert!(!self.vms[index].state.is_active(), "what runs is not started");
                self.vms[index].state = VmState::Starting;
                self.vms[index].starts += 1;
            }
            Step::Stop { vm, grace_s } => {
                let index = of_id(&self.vms, &vm);
                let pod = pod.map(|pod| &self.pods[pod].metadata);
                let given = pod.and_then(|meta| meta.deletion_grace_period_seconds);
                assert_eq!(
                    i64::from(grace_s),
                    given.filter(|_| pod.is_some()).unwrap_or(11),
                    "exactly that grace"
                );
                self.rest(index, 143);
            }
            Step::Remove { vm } => {
                let index = of_id(&self.vms, &vm);
                assert!(!self.vms[index].state.is_active(), "what runs is not removed");
                self.vms.remove(index);
            }
            Step::Report(status) => {
                let Some(pod) = pod else {
                    panic!("a report of no Pod");
                };
                let uid = identity.uid.clone();
                let phase = status.phase.clone().unwrap();
                if let Some(ended) = self.ended.get(&uid) {
                    assert_eq!(*ended, phase, "what ended stays ended");
                }
                if ["Succeeded", "Failed"].contains(&phase.as_str()) {
                    self.ended.insert(uid, phase);
                }
                self.pods[pod].status = Some(*status);
            }
            Step::Forget => {
                let pod = pod.expect("nobody is forgotten twice");
                let lives = self
                    .vms
                    .iter()
                    .any(|vm| Identity::of_vm(vm).as_ref() == Some(identity));
                assert!(!lives, "nothing is left of it");
                self.pods.remove(pod);
            }
        }
    }

    fn settle(&mut self) {
        for _ in 0..8 {
            self.now_ms += 1_000;
            if self.carry_out(usize::MAX) == 0 {
                return;
            }
            for index in 0..self.vms.len() {
                self.happens(Happening::Runs { which: index });
            }
        }
        let scene = Scene {
            evicting: self.evicting,
            ..scene(self.now_ms)
        };
        panic!(
            "it never comes to rest: {:#?}",
            plan(&self.pods, &self.vms, &self.memories, &scene)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn whatever_happens_it_comes_to_what_is_wanted(happenings in prop::collection::vec(happening(), 0..40)) {
        let mut world = World { now_ms: 10_000, ..World::default() };
        for what in happenings {
            world.happens(what);
        }
        world.settle();
        for pod in &world.pods {
            prop_assert!(pod.metadata.deletion_timestamp.is_none(), "deleted Pods are forgotten");
            let uid = pod.metadata.uid.as_deref().unwrap();
            let theirs = world.vms.iter().filter(|vm| Identity::of_vm(vm).unwrap().uid == uid);
            let running = theirs.filter(|vm| vm.state.is_active()).count();
            let ended = has_ended(pod);
            prop_assert_eq!(running, usize::from(!ended), "a Pod runs once, or has ended");
            prop_assert!(ended || !world.evicting, "nothing stays where the owner wants the machine");
        }
        for vm in &world.vms {
            let uid = Identity::of_vm(vm).unwrap().uid;
            let is_wanted = world.pods.iter().any(|pod| pod.metadata.uid.as_deref() == Some(uid.as_str()));
            prop_assert!(is_wanted, "nothing stays without a Pod");
        }
    }
}

#[test]
fn a_clock_that_is_set_back_or_forth_holds_no_try_up() {
    let pod = pod(1, "Always");
    let memories = BTreeMap::from([(
        Identity::of(&pod).unwrap().uid,
        Memory {
            not_before_ms: 10_000,
            ..Memory::default()
        },
    )]);
    for now_ms in [0, 5_000, 1 << 40] {
        let at = |tick_ms| {
            let scene = Scene {
                tick_ms,
                ..scene(now_ms)
            };
            plan(std::slice::from_ref(&pod), &[], &memories, &scene)
        };
        let creates = |plan: &Plan| plan.tasks.iter().any(|task| task.steps == [Step::Create]);
        let early = at(9_000);
        assert!(!creates(&early));
        assert_eq!(early.wake_ms, Some(now_ms + 1_000));
        assert!(creates(&at(10_000)));
    }
}
