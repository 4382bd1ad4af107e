//! Probes: made by the microVM's own PID 1, so that a Pod's address is one that it asks itself.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use secovia_agent_api::Check;

use super::refusal::Judge;

/// A probe, every field of it decided; none where it is refused.
pub(super) fn probe(
    probe: Option<&Probe>,
    container: &Container,
    at: &str,
    judge: &mut Judge,
) -> Option<secovia_agent_api::Probe> {
    let Probe {
        exec,
        failure_threshold,
        grpc,
        http_get,
        initial_delay_seconds,
        period_seconds,
        success_threshold,
        tcp_socket,
        termination_grace_period_seconds,
        timeout_seconds,
    } = probe?;
    let field = |name: &str| format!("{at}.{name}");
    judge.refuse_if(grpc.is_some(), field("grpc"), "use exec, httpGet or tcpSocket");
    judge.refuse_if(
        termination_grace_period_seconds.is_some(),
        field("terminationGracePeriodSeconds"),
        "the Pod's is the only one here; leave it out",
    );
    let check = match (exec, http_get, tcp_socket) {
        (Some(exec), ..) => {
            let command = exec.command.clone().unwrap_or_default();
            let is_empty = command.first().is_none_or(String::is_empty);
            judge.refuse_if(is_empty, field("exec.command"), "it is empty; name a program");
            Some(Check::Exec { command })
        }
        (None, Some(get), _) => http(get, container, &field("httpGet"), judge),
        (None, None, Some(TCPSocketAction { host, port })) => {
            let at = field("tcpSocket");
            let host = address(host.as_deref(), &at, judge);
            let port = number(port, container, &at, judge);
            port.map(|port| Check::Tcp { host, port })
        }
        (None, None, None) => {
            judge.refuse_if(
                grpc.is_none(),
                at,
                "it asks nothing; use exec, httpGet or tcpSocket",
            );
            None
        }
    };
    let count = |given: &Option<i32>, usual: u32| match given {
        None | Some(0) => usual,
        Some(given) => u32::try_from(*given).unwrap_or(usual),
    };
    Some(secovia_agent_api::Probe {
        check: check?,
        initial_delay_s: count(initial_delay_seconds, 0),
        period_s: count(period_seconds, 10),
        timeout_s: count(timeout_seconds, 1),
        success: count(success_threshold, 1),
        failure: count(failure_threshold, 3),
    })
}

fn http(get: &HTTPGetAction, container: &Container, at: &str, judge: &mut Judge) -> Option<Check> {
    let HTTPGetAction {
        host,
        http_headers,
        path,
        port,
        scheme,
    } = get;
    judge.refuse_if(
        scheme
            .as_deref()
            .is_some_and(|scheme| !scheme.eq_ignore_ascii_case("HTTP")),
        format!("{at}.scheme"),
        "only HTTP is asked; use HTTP or tcpSocket",
    );
    let host = address(host.as_deref(), at, judge);
    let headers = http_headers.iter().flatten();
    let headers = headers.map(|header| (header.name.clone(), header.value.clone()));
    let port = number(port, container, at, judge)?;
    Some(Check::Http {
        host,
        port,
        path: path
            .clone()
            .filter(|path| !path.is_empty())
            .unwrap_or_else(|| "/".into()),
        headers: headers.collect(),
    })
}

fn address(host: Option<&str>, at: &str, judge: &mut Judge) -> Option<String> {
    let host = host.filter(|host| !host.is_empty())?;
    judge.refuse_if(
        host.parse::<IpAddr>().is_err(),
        format!("{at}.host"),
        "give an address, or leave it out for the Pod's own",
    );
    Some(host.into())
}

/// A port by its number, or by the name that the container gives it.
fn number(port: &IntOrString, container: &Container, at: &str, judge: &mut Judge) -> Option<u16> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports.find(|port| port.name.as_ref() == Some(name));
            named
                .map(|port| port.container_port)
                .or_else(|| name.parse().ok())
        }
    };
    let port = number
        .and_then(|number| u16::try_from(number).ok())
        .filter(|port| *port != 0);
    judge.refuse_if(
        port.is_none(),
        format!("{at}.port"),
        "it is neither 1 to 65535 nor a name among the container's ports",
    );
    port
}
