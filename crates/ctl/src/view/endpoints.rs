//! `endpoints`.

use api::Endpoints;

use crate::run::Style;
use crate::table::{Table, row};

/// What `crictl` shows of a container's id, and takes.
const SHORT_ID: usize = 13;

pub(crate) fn table(endpoints: &Endpoints, style: Style) -> String {
    if endpoints.endpoints.is_empty() {
        return format!("No pods are attached to node {}.\n", endpoints.node);
    }
    let mut header = vec!["NAMESPACE", "POD", "ADDRESS", "INTERFACE", "CONTAINER"];
    if style.wide {
        header.extend(["POD-INTERFACE", "MAC"]);
    }
    let mut table = Table::new(&header);
    for endpoint in &endpoints.endpoints {
        let addresses: Vec<String> = endpoint.addresses.iter().map(ToString::to_string).collect();
        let (namespace, name) = endpoint
            .pod
            .as_ref()
            .map_or(("", ""), |pod| (&pod.namespace, &pod.name));
        let id: String = if style.wide {
            endpoint.container_id.clone()
        } else {
            endpoint.container_id.chars().take(SHORT_ID).collect()
        };
        let mut row = row![
            namespace,
            name,
            addresses.join(","),
            &endpoint.host_ifname,
            id
        ];
        if style.wide {
            row.extend(row![&endpoint.ifname, &endpoint.mac]);
        }
        table.push(row);
    }
    table.render(style.colour)
}
