//! A Linux guest that reads the metadata service over its network interface, as a client of EC2's service does.

use std::fs;

use secovia_system_tests::network::{GUEST, HOST, TAP, with_tap};
use secovia_system_tests::{Bench, given};
use secovia_vmm_api::{Exit, MmdsConfigSpec, MmdsVersion, NetworkInterfaceSpec};
use sha2::{Digest, Sha256};

/// The service's address, which is not the usual one.
const SERVICE: &str = "169.254.170.2";

#[test]
fn a_guest_takes_a_token_and_reads_and_the_rest_of_the_network_is_as_it_was() {
    with_tap(|| {
        let mut bench = Bench::new(&given("SECOVIA_KERNEL"), "");
        bench.spec.network_interfaces = vec![NetworkInterfaceSpec {
            iface_id: "eth0".into(),
            host_dev_name: TAP.into(),
            guest_mac: Some("06:00:ac:10:00:02".into()),
            ..NetworkInterfaceSpec::default()
        }];
        bench.spec.mmds_config = Some(MmdsConfigSpec {
            version: MmdsVersion::V2,
            network_interfaces: vec!["eth0".into()],
            ipv4_address: Some(SERVICE.parse().expect("an address")),
            imds_compat: false,
        });
        let long = "0123456789".repeat(3000);
        let metadata = bench.folder().join("metadata.json");
        let text =
            format!(r#"{{"latest": {{"meta-data": {{"id": "i-77", "count": 3}}, "long": "{long}"}}}}"#);
        fs::write(&metadata, text).expect("write the metadata");
        bench.argument("--metadata");
        bench.argument(&metadata.display().to_string());
        bench.script(&format!(
            "ip addr add {GUEST}/24 dev eth0\n\
             ip link set eth0 up\n\
             ip route add {SERVICE} dev eth0\n\
             ask() {{ printf \"$1 HTTP/1.0\\r\\n$2\\r\\n\" | nc {SERVICE} 80; }}\n\
             echo report: untold $(ask 'GET /latest/meta-data/id' | head -n 1)\n\
             token=$(ask 'PUT /latest/api/token' 'X-metadata-token-ttl-seconds: 60\\r\\n' | tail -n 1)\n\
             echo report: token ${{#token}}\n\
             fetch() {{ wget -q -O - --header \"X-metadata-token: $token\" http://{SERVICE}$1; }}\n\
             echo report: id $(fetch /latest/meta-data/id)\n\
             echo report: names $(fetch /latest/)\n\
             echo report: long $(fetch /latest/long | sha256sum)\n\
             for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do fetch /latest/meta-data/id; done >/all\n\
             echo report: all $(wc -c </all)\n\
             echo report: $(ping -q -c 2 {HOST} | grep received)\n"
        ));
        let end = bench.start().end();
        end.assert_code(Exit::GuestShutdown.code());
        end.assert_line("report: untold HTTP/1.1 401 Unauthorized");
        end.assert_line("report: token 80");
        end.assert_line("report: id i-77");
        end.assert_line("report: names long meta-data/");
        let hash: String = Sha256::digest(&long)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        end.assert_line(&format!("report: long {hash} -"));
        end.assert_line("report: all 80");
        end.assert_line("report: 2 packets transmitted, 2 packets received, 0% packet loss");
    });
}

/// The commands that the README gives, at the usual address.
#[test]
fn curl_reads_it_with_a_token() {
    with_tap(|| {
        let mut bench = Bench::new(&given("SECOVIA_KERNEL"), "");
        bench.spec.network_interfaces = vec![NetworkInterfaceSpec {
            iface_id: "eth0".into(),
            host_dev_name: TAP.into(),
            ..NetworkInterfaceSpec::default()
        }];
        bench.spec.mmds_config = Some(MmdsConfigSpec {
            version: MmdsVersion::V2,
            network_interfaces: vec!["eth0".into()],
            ipv4_address: None,
            imds_compat: false,
        });
        let metadata = bench.folder().join("metadata.json");
        fs::write(
            &metadata,
            r#"{"latest": {"meta-data": {"id": "i-77", "count": 3}}}"#,
        )
        .expect("write the metadata");
        bench.argument("--metadata");
        bench.argument(&metadata.display().to_string());
        bench.add_tools(&["/usr/bin/curl".as_ref()]);
        let service = "http://169.254.169.254";
        bench.script(&format!(
            "ip addr add {GUEST}/24 dev eth0\n\
             ip link set eth0 up\n\
             ip route add 169.254.169.254 dev eth0\n\
             echo report: untold $(curl -s -o /dev/null -w '%{{http_code}}' {service}/latest/meta-data)\n\
             token=$(curl -s -X PUT -H 'X-metadata-token-ttl-seconds: 60' {service}/latest/api/token)\n\
             ask() {{ curl -s -H \"X-metadata-token: $token\" \"$@\"; }}\n\
             echo report: names $(ask {service}/latest/meta-data)\n\
             echo report: id $(ask {service}/latest/meta-data/id)\n\
             echo report: json $(ask -H 'Accept: application/json' {service}/latest/meta-data)\n\
             echo report: missing $(ask -o /dev/null -w '%{{http_code}}' {service}/latest/nothing)\n"
        ));
        let end = bench.start().end();
        end.assert_code(Exit::GuestShutdown.code());
        end.assert_line("report: untold 401");
        end.assert_line("report: names count id");
        end.assert_line("report: id i-77");
        end.assert_line(r#"report: json {"count":3,"id":"i-77"}"#);
        end.assert_line("report: missing 404");
    });
}
