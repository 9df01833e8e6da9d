//! The API's values as tables and pages.

pub(crate) mod bgp_routes;
pub(crate) mod endpoints;
pub(crate) mod firewall;
pub(crate) mod peers;
pub(crate) mod routes;
pub(crate) mod status;
#[cfg(test)]
mod tests;
pub(crate) mod tunnels;

/// Lines of a page: what, and its value. What has no value is left out.
#[derive(Debug, Default)]
struct Page {
    lines: Vec<(&'static str, String)>,
}

impl Page {
    fn line(&mut self, what: &'static str, value: impl Into<String>) {
        let value = value.into();
        if !value.is_empty() {
            self.lines.push((what, value));
        }
    }

    fn render(&self) -> String {
        let width = self
            .lines
            .iter()
            .map(|(what, _)| what.len())
            .max()
            .unwrap_or(0);
        self.lines
            .iter()
            .map(|(what, value)| format!("  {what:width$}  {value}\n"))
            .collect()
    }
}
