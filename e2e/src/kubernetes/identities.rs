//! Who may ask the API server: tokens, keys and kubeconfigs.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use serde_json::json;

/// Name under which the API server's own certificate is good, wherever it listens.
const SERVER_NAME: &str = "kubernetes.default.svc";

/// Users with a token of their own, with their groups.
const USERS: &[(&str, &str, &str)] = &[
    ("admin", "e2e-admin", "system:masters"),
    ("controller-manager", "system:kube-controller-manager", ""),
    ("scheduler", "system:kube-scheduler", ""),
    ("proxy", "system:kube-proxy", ""),
    // It only looks.
    ("dns", "e2e-dns", "system:masters"),
];

/// The files of one control plane.
#[derive(Debug)]
pub(super) struct Identities {
    folder: PathBuf,
    server: String,
    tokens: Vec<(String, String)>,
}

impl Identities {
    /// Makes tokens and keys in `folder` for an API server at `server`, and for the kubelets of `nodes`.
    pub(super) fn make(folder: &Path, server: &str, nodes: &[String]) -> Result<Self> {
        let mut tokens = Vec::new();
        let mut table = String::new();
        let users = USERS
            .iter()
            .map(|(name, user, group)| ((*name).to_owned(), (*user).to_owned(), *group));
        let nodes = nodes
            .iter()
            .map(|node| (node.clone(), format!("system:node:{node}"), "system:nodes"));
        for (name, user, group) in users.chain(nodes) {
            let token = secret()?;
            writeln!(table, "{token},{user},{user},{group}")?;
            tokens.push((name, token));
        }
        fs::write(folder.join("tokens.csv"), table)?;
        let [private, public] = signing_key()?;
        fs::write(folder.join("service-accounts.key"), private)?;
        fs::write(folder.join("service-accounts.pub"), public)?;
        Ok(Self {
            folder: folder.to_owned(),
            server: server.to_owned(),
            tokens,
        })
    }

    /// The kubeconfig of one of [`USERS`], or of a node.
    pub(super) fn kubeconfig(&self, name: &str) -> Result<PathBuf> {
        let found = self.tokens.iter().find(|(of, _)| *of == name);
        let (_, token) = found.ok_or_else(|| anyhow!("nobody is called {name}"))?;
        self.write(name, token, "default")
    }

    /// A kubeconfig for whoever has `token`.
    pub(super) fn write(&self, name: &str, token: &str, namespace: &str) -> Result<PathBuf> {
        let cluster = json!({
            "server": self.server,
            "certificate-authority": self.folder.join("certs/apiserver.crt"),
            "tls-server-name": SERVER_NAME,
        });
        let context = json!({ "cluster": "test", "user": name, "namespace": namespace });
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": cluster }],
            "users": [{ "name": name, "user": { "token": token } }],
            "contexts": [{ "name": "test", "context": context }],
            "current-context": "test",
        });
        let path = self.folder.join(format!("{name}.kubeconfig"));
        // JSON is YAML.
        fs::write(&path, config.to_string())?;
        Ok(path)
    }
}

fn secret() -> Result<String> {
    let mut bytes = [0; 16];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| anyhow!("no random bytes"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What comes before the point of a public key on the curve P-256 in its DER form (RFC 5480).
const P256_PUBLIC: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// What the API server signs the tokens of service accounts with and knows them by: private and public key as PEM.
fn signing_key() -> Result<[String; 2]> {
    let random = SystemRandom::new();
    let failed = || anyhow!("no key for service accounts");
    let private =
        EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).map_err(|_| failed())?;
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, private.as_ref(), &random);
    let pair = pair.map_err(|_| failed())?;
    let public = [&P256_PUBLIC, pair.public_key().as_ref()].concat();
    Ok([pem("PRIVATE KEY", private.as_ref()), pem("PUBLIC KEY", &public)])
}

fn pem(label: &str, der: &[u8]) -> String {
    format!(
        "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
        STANDARD.encode(der)
    )
}
