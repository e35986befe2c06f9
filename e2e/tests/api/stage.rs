//! The list of tests, and the control plane that they share.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Result;
use libtest_mimic::{Arguments, Conclusion, Trial};
use takhin_e2e::kubernetes::ControlPlane;
use takhin_e2e::tools;

use crate::rights;

/// All tests, in the order in which they run.
#[derive(Debug, Default)]
pub(crate) struct Suites {
    shared: Arc<Mutex<Option<ControlPlane>>>,
    trials: Vec<Trial>,
}

impl Suites {
    /// Adds a test, which gets the shared control plane. A test that fails takes it with it: the next one finds a fresh
    /// one.
    pub(crate) fn add(&mut self, name: &str, test: fn(&ControlPlane) -> Result<()>) {
        let shared = Arc::clone(&self.shared);
        self.trials.push(Trial::test(name.to_owned(), move || {
            let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
            let begun = Instant::now();
            let result = with_plane(&mut shared, test);
            eprintln!("        {:.1} s", begun.elapsed().as_secs_f64());
            result.map_err(|error| {
                let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
                causes.join("\n").into()
            })
        }));
    }

    pub(crate) fn run(self, arguments: &Arguments) -> Conclusion {
        let conclusion = libtest_mimic::run(arguments, self.trials);
        // Statics and `exit` run no destructors: the control plane ends here.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).take();
        conclusion
    }
}

fn with_plane(shared: &mut Option<ControlPlane>, test: fn(&ControlPlane) -> Result<()>) -> Result<()> {
    let mut plane = match shared.take() {
        Some(plane) => plane,
        None => {
            let plane = ControlPlane::start()?;
            install_kinds(&plane)?;
            plane
        }
    };
    let done = test(&plane);
    rights::remember(&plane)?;
    done?;
    plane.check()?;
    *shared = Some(plane);
    Ok(())
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
