//! `firewall`.

use api::Status;

pub(crate) fn page(status: &Status) -> String {
    let firewall = &status.firewall;
    let mut text = match firewall.rules.is_empty() {
        true => format!("Node {} has no table of ours.\n", status.node),
        false => format!("Node {}, nftables table inet margay:\n", status.node),
    };
    for rule in &firewall.rules {
        text += &format!("  - {rule}\n");
    }
    if firewall.healed > 0 {
        text += &format!(
            "Written anew since somebody else had changed it: {} times.\n",
            firewall.healed
        );
    }
    if let Some(error) = &firewall.error {
        text += &format!("Refused by the kernel: {error}\n");
    }
    text
}
