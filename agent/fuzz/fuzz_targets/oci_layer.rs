//! Two layers on one another. The sums of headers are made right, so that what is behind them is reached. Whatever they
//! hold, the tree that they make keeps to its limits, and every file of it has a place in the image.
#![no_main]

use secovia_agent::images::erofs::Layout;
use secovia_agent::images::oci::{Budget, read_layer};
use secovia_agent::images::tree::Tree;
use tar::Header;

const MEMBERS: u64 = 200;
const BYTES: u64 = 1 << 20;

/// Corrects the sums of what may be headers.
fn with_sums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            let mut header = Header::from_byte_slice(block).clone();
            header.set_cksum();
            block.copy_from_slice(header.as_bytes());
        }
    }
    bytes
}

libfuzzer_sys::fuzz_target!(|layers: (&[u8], &[u8])| {
    let mut tree = Tree::new(MEMBERS as usize);
    let mut budget = Budget {
        bytes: BYTES,
        members: MEMBERS,
    };
    for (number, layer) in [layers.0, layers.1].into_iter().enumerate() {
        let left = budget;
        let read = read_layer(&with_sums(layer)[..], number, &mut tree, &mut budget);
        assert!(budget.bytes <= left.bytes && budget.members <= left.members);
        if read.is_err() {
            break;
        }
    }
    let layout = Layout::of(&tree);
    assert!(layout.nodes().len() <= tree.count());
    let out = tempfile::tempfile().expect("a file");
    layout
        .write_nodes(&tree, [0; 16], &out)
        .expect("room for the image");
    assert_eq!(out.metadata().expect("its size").len(), layout.size());
});
