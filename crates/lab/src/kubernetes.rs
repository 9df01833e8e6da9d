//! A Kubernetes control plane: the real etcd and kube-apiserver in a namespace, with RBAC in force.
//!
//! The programs are those of `KUBEBUILDER_ASSETS` where that is set, else those that `cargo xtask test` has built from the
//! Go module `tests/kubernetes` into the cache.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use serde_json::Value;

use crate::process::{Process, Program};
use crate::{Namespace, wait};

/// The module that says which release is used.
const MODULE: &str = include_str!("../../../tests/kubernetes/go.mod");
/// What the release's programs are called.
const PROGRAMS: [&str; 3] = ["etcd", "kube-apiserver", "kubectl"];
/// The API server's port.
pub const PORT: u16 = 6443;
/// How long a control plane may take to be there: with other work on few cores it is slow.
const START: Duration = Duration::from_secs(240);
/// What the audit log has: who asked for what, as soon as it is asked, and of service accounts alone.
const AUDIT: &str = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules:\n- {level: Metadata, userGroups: ['system:serviceaccounts']}\n- {level: None}\n";
/// The token of an administrator.
const ADMIN: &str = "margay-lab-administrator";

/// The release of Kubernetes that is used, `v1.…`.
#[must_use]
pub fn release() -> &'static str {
    let words = MODULE.lines().map(str::split_whitespace);
    let mut found = words.filter_map(|mut words| {
        words.find(|word| *word == "k8s.io/kubernetes")?;
        words.next()
    });
    found.next().unwrap_or_default()
}

/// Where a program of the control plane is.
fn program(name: &str) -> Option<PathBuf> {
    let folder = match std::env::var_os("KUBEBUILDER_ASSETS") {
        Some(assets) => PathBuf::from(assets),
        None => {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
            let cache = cache.or_else(home)?;
            cache.join("margay/kubernetes").join(release())
        }
    };
    Some(folder.join(name)).filter(|path| path.is_file())
}

/// Why there can be no control plane here.
#[must_use]
pub fn missing() -> Option<String> {
    let missing = PROGRAMS.into_iter().find(|name| program(name).is_none())?;
    let release = release();
    Some(format!(
        "{missing} {release} not built: cargo xtask test builds it, with Go"
    ))
}

/// etcd and the API server. They end with this value.
#[derive(Debug)]
pub struct ControlPlane {
    namespace: Namespace,
    address: Ipv4Addr,
    folder: PathBuf,
    kubectl: PathBuf,
    etcd: Process,
    /// The API server: to stop, to freeze, to start again.
    pub apiserver: Process,
}

impl ControlPlane {
    /// Starts both in `namespace` and waits until the API server is ready. It listens on every address of the namespace;
    /// `address` is the one that others are told.
    ///
    /// # Errors
    /// When a program is missing or is not ready in time.
    pub fn start(namespace: &Namespace, address: Ipv4Addr, folder: PathBuf) -> Result<Self> {
        let program = |name: &str| {
            let path = program(name);
            path.with_context(|| missing().unwrap_or_default())
        };
        fs::create_dir_all(&folder)?;
        write_credentials(&folder, address)?;
        fs::write(folder.join("audit.yaml"), AUDIT)?;
        let etcd = Process::spawn(
            "etcd",
            namespace,
            etcd(program("etcd")?, &folder),
            folder.join("etcd.log"),
        )?;
        let apiserver = Process::spawn(
            "kube-apiserver",
            namespace,
            apiserver(program("kube-apiserver")?, &folder, address),
            folder.join("apiserver.log"),
        )?;
        let mut plane = Self {
            namespace: namespace.clone(),
            address,
            kubectl: program("kubectl")?,
            folder,
            etcd,
            apiserver,
        };
        plane.write_kubeconfig("admin", ADMIN, "default")?;
        plane.wait_ready()?;
        Ok(plane)
    }

    /// Waits until the API server says that it is ready.
    ///
    /// # Errors
    /// When it isn't in time, or has ended.
    pub fn wait_ready(&mut self) -> Result<()> {
        wait::until("the API server", START, || {
            self.etcd.check()?;
            self.apiserver.check()?;
            let ready = self.kubectl(&["get", "--raw", "/readyz"])?;
            // The namespace is made a moment after that, and with it what a service account needs.
            self.kubectl(&["get", "namespace", "kube-system"])?;
            if ready != "ok" {
                bail!("{ready}");
            }
            Ok(())
        })
    }

    /// The ends of the logs, for a failure's report.
    #[must_use]
    pub fn logs(&self) -> String {
        let logs = [&self.etcd, &self.apiserver].map(Process::log);
        logs.map(|log| format!("--- {}\n{}\n", log.display(), crate::process::tail(log, 15)))
            .concat()
    }

    /// What `kubectl` prints.
    ///
    /// # Errors
    /// When it fails: with what it says.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.client(&self.admin())
            .args(arguments)
            .stdout(&self.namespace)
    }

    /// [`kubectl`](Self::kubectl), its answer as JSON.
    ///
    /// # Errors
    /// When it fails, or answers something else.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get"], arguments, &["-o", "json"]].concat())?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Makes objects what `yaml` says, as `kubectl apply --server-side` does.
    ///
    /// # Errors
    /// When the API server refuses one: with its words.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        let arguments = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
        self.feed(&arguments, yaml)
    }

    /// [`kubectl`](Self::kubectl) with something on standard input.
    ///
    /// # Errors
    /// When it fails: with what it says.
    pub fn feed(&self, arguments: &[&str], input: &str) -> Result<()> {
        let program = self.client(&self.admin()).args(arguments);
        let output = program.output_with(&self.namespace, input.as_bytes())?;
        if !output.status.success() {
            bail!(
                "kubectl {}: {}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    /// What a service account has asked for so far, by the API server's audit log: verb and resource, as in `watch nodes`.
    ///
    /// # Errors
    /// When there is no log.
    pub fn requests(&self, namespace: &str, name: &str) -> Result<BTreeSet<String>> {
        let user = format!("system:serviceaccount:{namespace}:{name}");
        let log = fs::read_to_string(self.folder.join("audit.log"))?;
        // The last line may be half written.
        let events = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let of_user = events.filter(|event: &Value| event["user"]["username"] == user.as_str());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(of_user
            .map(|event| {
                let (verb, resource) = (&event["verb"], &event["objectRef"]["resource"]);
                format!("{} {}", text(verb), text(resource))
            })
            .collect())
    }

    /// `kubectl` as somebody else.
    #[must_use]
    pub fn client(&self, kubeconfig: &Path) -> Program {
        Program::new(&self.kubectl)
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .arg("--request-timeout=20s")
            .env("HOME", &self.folder)
    }

    /// Where `kubectl` is.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.kubectl
    }

    /// The kubeconfig of the administrator.
    #[must_use]
    pub fn admin(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    /// A kubeconfig for a service account that there is, with a token that the API server gave for it.
    ///
    /// # Errors
    /// When there is no such account.
    pub fn service_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.kubectl(&["-n", namespace, "create", "token", name, "--duration=2h"])?;
        self.write_kubeconfig(name, token.trim(), namespace)
    }

    /// Writes what a kubelet puts into a pod's volume for its service account: `token`, `ca.crt` and `namespace`.
    ///
    /// # Errors
    /// When there is no such account, or the folder can't be written.
    pub fn project(&self, namespace: &str, name: &str, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder)?;
        let token = self.kubectl(&["-n", namespace, "create", "token", name, "--duration=2h"])?;
        write_secret(&folder.join("token"), token.trim())?;
        fs::copy(self.folder.join("ca.crt"), folder.join("ca.crt"))?;
        Ok(fs::write(folder.join("namespace"), namespace)?)
    }

    fn write_kubeconfig(&self, user: &str, token: &str, namespace: &str) -> Result<PathBuf> {
        let path = self.folder.join(format!("{user}.kubeconfig"));
        let (server, ca) = (self.address, self.folder.join("ca.crt"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: lab\nclusters:\n- name: lab\n  cluster:\n    server: https://{server}:{PORT}\n    \
             certificate-authority: {}\nusers:\n- name: {user}\n  user:\n    token: {token}\ncontexts:\n- name: lab\n  \
             context: {{cluster: lab, user: {user}, namespace: {namespace}}}\n",
            ca.display()
        );
        write_secret(&path, &text)?;
        Ok(path)
    }
}

fn etcd(path: PathBuf, folder: &Path) -> Program {
    Program::new(path)
        .arg("--data-dir")
        .arg(folder.join("etcd"))
        .args(["--listen-client-urls", "http://127.0.0.1:2379"])
        .args(["--advertise-client-urls", "http://127.0.0.1:2379"])
        .args(["--listen-peer-urls", "http://127.0.0.1:2380"])
        // A lab's data may go with the machine.
        .arg("--unsafe-no-fsync")
}

fn apiserver(path: PathBuf, folder: &Path, address: Ipv4Addr) -> Program {
    let file = |option: &str, name: &str| format!("--{option}={}", folder.join(name).display());
    Program::new(path)
        .arg("--etcd-servers=http://127.0.0.1:2379")
        .arg(format!("--advertise-address={address}"))
        .arg(format!("--secure-port={PORT}"))
        .arg(file("tls-cert-file", "server.crt"))
        .arg(file("tls-private-key-file", "server.key"))
        .arg(file("token-auth-file", "tokens.csv"))
        .arg(file("service-account-key-file", "accounts.pub"))
        .arg(file("service-account-signing-key-file", "accounts.key"))
        .arg("--service-account-issuer=https://kubernetes.default.svc")
        .arg("--service-cluster-ip-range=10.96.0.0/16")
        .arg("--authorization-mode=RBAC")
        // Pods are made by tests, without the controller that would give each namespace its account.
        .arg("--disable-admission-plugins=ServiceAccount")
        .arg("--allow-privileged=true")
        .arg("--watch-cache=true")
        .arg(file("audit-policy-file", "audit.yaml"))
        .arg(file("audit-log-path", "audit.log"))
        .arg("--shutdown-delay-duration=0s")
}

/// A certificate authority, the server's certificate, a key for service accounts' tokens, and the administrator's token.
fn write_credentials(folder: &Path, address: Ipv4Addr) -> Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    fs::write(folder.join("ca.crt"), authority.pem())?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    for address in [address, Ipv4Addr::LOCALHOST] {
        params
            .subject_alt_names
            .push(SanType::IpAddress(address.into()));
    }
    fs::write(
        folder.join("server.crt"),
        params.signed_by(&key, &authority)?.pem(),
    )?;
    write_secret(&folder.join("server.key"), &key.serialize_pem())?;
    let accounts = KeyPair::generate()?;
    write_secret(&folder.join("accounts.key"), &accounts.serialize_pem())?;
    fs::write(folder.join("accounts.pub"), accounts.public_key_pem())?;
    let tokens = format!("{ADMIN},admin,admin,system:masters\n");
    write_secret(&folder.join("tokens.csv"), &tokens)
}

fn write_secret(path: &Path, text: &str) -> Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    Ok(file.write_all(text.as_bytes())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_module_names_a_release() {
        let (release, rest) = release().split_at(3);
        assert_eq!(release, "v1.");
        assert!(rest.split('.').all(|part| part.parse::<u8>().is_ok()));
    }
}
