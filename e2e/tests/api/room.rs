//! A namespace of its own for a test, with the operator's identity as the chart makes it, and brokers that are real.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use takhin_e2e::kubernetes::{Audit, ControlPlane, Entry, Kube, Operator, pods, text};
use takhin_e2e::{Broker, Kind, tools};

/// For everything that should come soon, on a machine that is busy with other things.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// A namespace in which pods have to be as restricted as Kubernetes knows it.
pub(crate) struct Room<'a> {
    plane: &'a ControlPlane,
    /// The namespace: also the name of the release, and so of the operator's account and roles.
    pub(crate) name: String,
    /// All namespaces that its operators look after.
    watched: String,
    kubeconfig: PathBuf,
    audit: Audit,
}

/// A room whose test waits while another one has the control plane, and the operator in it.
pub(crate) struct Aside {
    /// Of the control plane that it is on.
    folder: PathBuf,
    name: String,
    watched: String,
    kubeconfig: PathBuf,
    audit: Audit,
    operator: Operator,
}

/// The prefix of the users that operators in rooms are.
pub(crate) const USERS: &str = "system:serviceaccount:room-";

impl<'a> Room<'a> {
    /// Makes the namespace, and what the chart has of account, roles and bindings.
    pub(crate) fn new(plane: &'a ControlPlane, name: &str) -> Result<Self> {
        Self::with(plane, name, &[])
    }

    /// The same, with further namespaces that its operators look after.
    pub(crate) fn with(plane: &'a ControlPlane, name: &str, more: &[&str]) -> Result<Self> {
        let name = format!("room-{name}");
        namespace(plane.kube(), &name)?;
        for more in more {
            namespace(plane.kube(), more)?;
        }
        let watched = [&[name.as_str()], more].concat().join(",");
        let audit = plane.audit().from_now()?;
        let chart = chart()?;
        let rendered = plane.helm(&[
            "template",
            &name,
            &chart,
            "--namespace",
            &name,
            "--set",
            &format!("watchNamespaces={{{watched}}}"),
            "--show-only",
            "templates/rbac.yaml",
            "--show-only",
            "templates/serviceaccount.yaml",
        ])?;
        let file = plane.folder().join(format!("{name}.yaml"));
        fs::write(&file, rendered)?;
        plane.kubectl(&["apply", "--server-side", "-f", &file.to_string_lossy()])?;
        let kubeconfig = plane.service_account(&name, &name)?;
        Ok(Self {
            plane,
            name,
            watched,
            kubeconfig,
            audit,
        })
    }

    /// Leaves the control plane to another test.
    pub(crate) fn set_aside(self, operator: Operator) -> Aside {
        Aside {
            folder: self.plane.folder().to_owned(),
            name: self.name,
            watched: self.watched,
            kubeconfig: self.kubeconfig,
            audit: self.audit,
            operator,
        }
    }

    /// Goes on with it, if the control plane is still the same.
    pub(crate) fn take_up(plane: &'a ControlPlane, aside: Aside) -> Option<(Self, Operator)> {
        let room = Self {
            plane,
            name: aside.name,
            watched: aside.watched,
            kubeconfig: aside.kubeconfig,
            audit: aside.audit,
        };
        (plane.folder() == aside.folder).then_some((room, aside.operator))
    }

    /// The API, as the administrator.
    pub(crate) fn kube(&self) -> &Kube {
        self.plane.kube()
    }

    /// The control plane that it is in.
    pub(crate) fn plane(&self) -> &ControlPlane {
        self.plane
    }

    /// Starts an operator that looks after these namespaces only.
    pub(crate) fn operator(&self, name: &str, arguments: &[&str]) -> Result<Operator> {
        let mut all = vec![
            "--watch-namespaces",
            &self.watched,
            "--lease-namespace",
            &self.name,
        ];
        all.extend(arguments);
        let name = format!("{}-{name}", self.name);
        Operator::start(&self.kubeconfig, self.plane.folder(), &name, &all)
    }

    /// Starts one with a token of its own, so that the audit log tells it from the others.
    pub(crate) fn told_apart(&self, name: &str) -> Result<Operator> {
        let kubeconfig = self.plane.service_account(&self.name, &self.name)?;
        Operator::start(
            &kubeconfig,
            self.plane.folder(),
            &format!("{}-{name}", self.name),
            &[
                "--watch-namespaces",
                &self.watched,
                "--lease-namespace",
                &self.name,
            ],
        )
    }

    /// Starts one that works alone, and waits until it knows all resources.
    pub(crate) fn lone_operator(&self) -> Result<Operator> {
        let mut operator = self.operator("operator", &["--no-leader-election"])?;
        operator.ready()?;
        Ok(operator)
    }

    /// What operators in here have asked since `audit`.
    pub(crate) fn asked(&self, audit: &Audit) -> Result<Vec<Entry>> {
        audit.of_user(&format!("system:serviceaccount:{0}:{0}", self.name))
    }

    /// The log of all requests, from now on.
    pub(crate) fn audit(&self) -> Result<Audit> {
        self.audit.from_now()
    }

    /// An object of ours in this namespace.
    pub(crate) fn ours(&self, kind: &str, name: &str, spec: Value) -> Value {
        json!({
            "apiVersion": "takhin.io/v1alpha1",
            "kind": kind,
            "metadata": { "name": name, "namespace": self.name },
            "spec": spec,
        })
    }

    /// A cluster of one broker without a volume.
    pub(crate) fn small_cluster(&self, name: &str) -> Result<()> {
        let spec = json!({ "replicas": 1, "storage": { "type": "Ephemeral" } });
        self.kube()
            .apply(&self.ours("TakhinCluster", name, spec))
            .map(drop)
    }

    /// A topic of a cluster.
    pub(crate) fn topic(&self, name: &str, cluster: &str, mut spec: Value) -> Result<()> {
        spec["clusterRef"] = json!({ "name": cluster });
        self.kube().apply(&self.ours("Topic", name, spec)).map(drop)
    }

    /// An object in this namespace that has to be there soon.
    pub(crate) fn soon(&self, kind: &str, name: &str) -> Result<Value> {
        self.wait(kind, name, "to be there", |object| {
            (!object.is_null()).then(|| object.clone())
        })
    }

    /// Waits for something in an object of this namespace.
    pub(crate) fn wait<T>(
        &self,
        kind: &str,
        name: &str,
        what: &str,
        probe: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T> {
        self.kube().wait((kind, &self.name, name), what, SOON, probe)
    }

    /// Waits until a condition is so: status and reason.
    pub(crate) fn condition(
        &self,
        kind: &str,
        name: &str,
        condition: &str,
        is: (&str, &str),
    ) -> Result<String> {
        let what = format!("{condition}={}, {}", is.0, is.1);
        self.wait(kind, name, &what, |object| {
            let (status, reason, message) = takhin_e2e::kubernetes::condition(object, condition)?;
            ((status, reason) == is).then(|| message.to_owned())
        })
    }

    /// Starts a real broker, and says that the only pod of the cluster is it.
    pub(crate) fn broker(&self, cluster: &str) -> Result<Broker> {
        let pod = format!("{cluster}-0");
        self.soon("Pod", &pod)?;
        let secret = self.soon("Secret", &format!("{cluster}-admin-token"))?;
        let token = STANDARD.decode(text(&secret, "/data/token"))?;
        let file = self.plane.folder().join(format!("{}-{cluster}.token", self.name));
        fs::write(&file, token)?;
        let address = address();
        let mut broker = Broker::new(Kind::Takhin)?;
        broker.place(address);
        let kafka = broker.address();
        broker
            .identify(0, kafka)
            .set("admin.token_file", &file.to_string_lossy());
        broker.start()?;
        pods::runs(self.kube(), &self.name, &pod, &address.to_string(), true)?;
        self.condition("TakhinCluster", cluster, "Ready", ("True", "Serving"))?;
        Ok(broker)
    }

    /// Fails on anything that operators in here were not allowed to do; the namespace goes.
    pub(crate) fn leave(self) -> Result<()> {
        let forbidden: Vec<Entry> = self
            .asked(&self.audit)?
            .into_iter()
            .filter(|entry| entry.is_forbidden)
            .collect();
        ensure!(forbidden.is_empty(), "not allowed: {forbidden:#?}");
        self.kube().delete("Namespace", "", &self.name)
    }
}

/// A namespace in which pods have to be as restricted as Kubernetes knows it.
pub(crate) fn namespace(kube: &Kube, name: &str) -> Result<()> {
    let labels = json!({ "pod-security.kubernetes.io/enforce": "restricted" });
    kube.apply(&json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": name, "labels": labels },
    }))?;
    // Its account comes a moment later; pods are refused without.
    kube.wait(
        ("ServiceAccount", name, "default"),
        "to be there",
        SOON,
        |found| (!found.is_null()).then_some(()),
    )
}

/// The chart's folder.
pub(crate) fn chart() -> Result<String> {
    Ok(tools::checkout()?
        .join("charts/takhin-operator")
        .to_string_lossy()
        .into_owned())
}

/// A loopback address that no other broker has, here or in a suite that runs beside.
fn address() -> IpAddr {
    static GIVEN: AtomicU8 = AtomicU8::new(1);
    let [low, high, ..] = std::process::id().to_le_bytes();
    IpAddr::from([127, 100 + high % 100, low, GIVEN.fetch_add(1, Ordering::Relaxed)])
}

/// The file of an object's owner reference that is its controller: kind and name.
pub(crate) fn controller(object: &Value) -> Result<(String, String)> {
    let all = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array)
        .context("no owner")?;
    let found = all
        .iter()
        .find(|owner| owner["controller"] == true)
        .context("no controller")?;
    Ok((text(found, "/kind").to_owned(), text(found, "/name").to_owned()))
}
