//! Writes the chart's CustomResourceDefinitions.

use std::path::Path;

use anyhow::Context as _;

fn main() -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../charts/margay/crds");
    std::fs::create_dir_all(&folder)?;
    for (file, definition) in crds::all() {
        let path = folder.join(file);
        std::fs::write(&path, crds::yaml(&definition)?)
            .with_context(|| format!("write {}", path.display()))?;
    }
    Ok(())
}
