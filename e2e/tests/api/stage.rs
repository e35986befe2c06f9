//! The control plane that the tests share, with the kinds on it.

use std::path::PathBuf;

use anyhow::Result;
use takhin_e2e::kubernetes::ControlPlane;
use takhin_e2e::{stage, tools};

use crate::rights;

/// All tests, in the order in which they run.
pub(crate) type Suites = stage::Suites<ControlPlane>;

/// The list for them.
pub(crate) fn suites() -> Suites {
    Suites::new(stage::Stage { set, judge })
}

fn set() -> Result<ControlPlane> {
    let plane = ControlPlane::start()?;
    install_kinds(&plane)?;
    Ok(plane)
}

fn judge(plane: &mut ControlPlane, done: Result<()>) -> Result<()> {
    rights::remember(plane)?;
    done?;
    plane.check()
}

/// The kinds, as `crds/` has them.
pub(crate) fn kinds() -> Result<Vec<PathBuf>> {
    let folder = tools::checkout()?.join("crds");
    let names = ["takhinclusters", "topics", "pikasources"];
    Ok(names.map(|name| folder.join(format!("{name}.yaml"))).into())
}

fn install_kinds(plane: &ControlPlane) -> Result<()> {
    for file in kinds()? {
        let file = file.to_string_lossy().into_owned();
        plane.kubectl(&["apply", "--server-side", "--validate=strict", "-f", &file])?;
    }
    plane.kubectl(&[
        "wait",
        "crd",
        "--all",
        "--for=condition=Established",
        "--timeout=60s",
    ])?;
    Ok(())
}
