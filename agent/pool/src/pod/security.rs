//! Whom a workload runs as, and which fences Kubernetes wants around it.
//!
//! Fences between a container and its host's kernel (seccomp, AppArmor, capabilities, escalation) are there to keep it from
//! what it shares with others. Here it shares no kernel: the microVM is the stronger fence, so these are taken as met. What a
//! workload would notice itself is done, or refused.

use k8s_openapi::api::core::v1::{AppArmorProfile, PodSecurityContext, SeccompProfile, SecurityContext};

use super::refusal::{Judge, has_any};

/// `uid` or `uid:gid`, where the Pod names one; the image's user otherwise.
pub(super) fn user(
    pod: Option<&PodSecurityContext>,
    container: Option<&SecurityContext>,
    at: &str,
    judge: &mut Judge,
) -> Option<String> {
    let of_pod = pod.map(|pod| of_pod(pod, judge)).unwrap_or_default();
    let own = container
        .map(|own| of_container(own, at, judge))
        .unwrap_or_default();
    let uid = own.uid.or(of_pod.uid);
    let gid = own.gid.or(of_pod.gid);
    let at_pod = "spec.securityContext";
    let place = |is_own: bool| if is_own { at } else { at_pod };
    for (field, id, is_own) in [
        ("runAsUser", uid, own.uid.is_some()),
        ("runAsGroup", gid, own.gid.is_some()),
    ] {
        let is_id = id.is_none_or(|id| u32::try_from(id).is_ok_and(|id| id < u32::MAX));
        judge.refuse_if(
            !is_id,
            format!("{}.{field}", place(is_own)),
            "it is no number of a user or group",
        );
    }
    if own.non_root.or(of_pod.non_root) == Some(true) && uid.unwrap_or(0) == 0 {
        judge.refuse(
            format!("{}.runAsNonRoot", place(own.non_root.is_some())),
            "this node needs a runAsUser beside it that is not 0",
        );
    }
    match (uid, gid) {
        (None, None) => None,
        (Some(uid), None) => Some(uid.to_string()),
        (Some(uid), Some(gid)) => Some(format!("{uid}:{gid}")),
        (None, Some(_)) => {
            let field = format!("{}.runAsGroup", place(own.gid.is_some()));
            judge.refuse(field, "this node needs a runAsUser beside it");
            None
        }
    }
}

#[derive(Default)]
struct Ids {
    uid: Option<i64>,
    gid: Option<i64>,
    non_root: Option<bool>,
}

fn of_pod(context: &PodSecurityContext, judge: &mut Judge) -> Ids {
    let PodSecurityContext {
        app_armor_profile,
        fs_group,
        // Without volumes there is nothing that it changes.
        fs_group_change_policy: _,
        run_as_group,
        run_as_non_root,
        run_as_user,
        // Of volumes' labels; the guest has no SELinux.
        se_linux_change_policy: _,
        se_linux_options,
        seccomp_profile,
        supplemental_groups,
        // Of images' groups, which are looked up in the image already.
        supplemental_groups_policy: _,
        sysctls,
        windows_options,
    } = context;
    let at = |field: &str| format!("spec.securityContext.{field}");
    let one_user = "a workload has one user and one group here; leave it out";
    judge.refuse_if(fs_group.is_some(), at("fsGroup"), one_user);
    judge.refuse_if(has_any(supplemental_groups), at("supplementalGroups"), one_user);
    judge.refuse_if(
        has_any(sysctls),
        at("sysctls"),
        "settings of the guest's kernel are not changed; leave it out",
    );
    other_fences(se_linux_options.is_some(), windows_options.is_some(), at, judge);
    profiles(
        seccomp_profile.as_ref(),
        app_armor_profile.as_ref(),
        "spec.securityContext",
        judge,
    );
    Ids {
        uid: *run_as_user,
        gid: *run_as_group,
        non_root: *run_as_non_root,
    }
}

fn of_container(context: &SecurityContext, place: &str, judge: &mut Judge) -> Ids {
    let SecurityContext {
        // The microVM's fence stands whatever the workload becomes in its guest.
        allow_privilege_escalation: _,
        app_armor_profile,
        // What is dropped reaches nothing but the guest's own kernel; what is added, root has there already.
        capabilities: _,
        privileged,
        proc_mount,
        read_only_root_filesystem,
        run_as_group,
        run_as_non_root,
        run_as_user,
        se_linux_options,
        seccomp_profile,
        windows_options,
    } = context;
    let at = |field: &str| format!("{place}.{field}");
    judge.refuse_if(
        *privileged == Some(true),
        at("privileged"),
        "nothing of this host is handed to a Pod; leave it out",
    );
    judge.refuse_if(
        proc_mount.as_deref().is_some_and(|kind| kind != "Default"),
        at("procMount"),
        "only Default is done",
    );
    judge.refuse_if(
        *read_only_root_filesystem == Some(true),
        at("readOnlyRootFilesystem"),
        "the root file system has a writable layer always; leave it out",
    );
    other_fences(se_linux_options.is_some(), windows_options.is_some(), at, judge);
    profiles(seccomp_profile.as_ref(), app_armor_profile.as_ref(), place, judge);
    Ids {
        uid: *run_as_user,
        gid: *run_as_group,
        non_root: *run_as_non_root,
    }
}

/// What fences a workload on hosts of other kinds.
fn other_fences(se_linux: bool, windows: bool, at: impl Fn(&str) -> String, judge: &mut Judge) {
    judge.refuse_if(
        se_linux,
        at("seLinuxOptions"),
        "the guest has no SELinux; leave it out",
    );
    judge.refuse_if(windows, at("windowsOptions"), "this node runs Linux");
}

/// Profiles of the node's own are none that it has; all else the microVM meets.
fn profiles(
    seccomp: Option<&SeccompProfile>,
    app_armor: Option<&AppArmorProfile>,
    at: &str,
    judge: &mut Judge,
) {
    let own = "this node has no profiles of its own; use RuntimeDefault";
    let is_own = |kind: &String| kind == "Localhost";
    judge.refuse_if(
        seccomp.map(|profile| &profile.type_).is_some_and(is_own),
        format!("{at}.seccompProfile"),
        own,
    );
    judge.refuse_if(
        app_armor.map(|profile| &profile.type_).is_some_and(is_own),
        format!("{at}.appArmorProfile"),
        own,
    );
}
