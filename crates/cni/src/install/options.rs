//! The command line of `install` and `uninstall`. By hand: a library would double the program, which starts for every pod.

use std::path::PathBuf;
use std::time::Duration;

use api::cni::DEFAULT_SOCKET;

/// What a person is told who asks, or gets it wrong.
pub(crate) const USAGE: &str = "\
usage: margay-cni install|uninstall [OPTIONS]

install puts the plugin, then its configuration where the container runtime looks for them; the configuration only once
margayd serves. uninstall takes them away in the other order.

  --bin-dir DIR           the runtime's plugins [/opt/cni/bin]
  --conf-dir DIR          the runtime's network configurations [/etc/cni/net.d]
  --conf-name FILE        name of ours; runtimes take the first in order of names [10-margay.conflist]
  --only binary|conflist  one of the two alone, as where something else starts margayd in between
  --socket PATH           where margayd listens for the plugin [/run/margay/cni.sock]
  --wait SECONDS          how long to wait for margayd [60]
  --network NAME          the network's name in the configuration [margay]
  --mtu OCTETS            MTU of pods [the uplink's]
  --agent-timeout SECONDS how long an ADD waits for margayd [30]
  --no-portmap            no hostPort: leave portmap out even where the plugin is there
  --stay                  do it, then wait for SIGTERM: for a container, which must not end. margayd is waited for as long
                          as it takes
";

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Install,
    Uninstall,
}

/// One of the two files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Binary,
    Conflist,
}

/// A command line that has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) task: Task,
    pub(crate) part: Option<Part>,
    pub(crate) bin_dir: PathBuf,
    pub(crate) conf_dir: PathBuf,
    pub(crate) conf_name: String,
    pub(crate) socket: PathBuf,
    pub(crate) wait: Duration,
    pub(crate) network: String,
    pub(crate) mtu: Option<u32>,
    pub(crate) agent_timeout: Option<u64>,
    pub(crate) portmap: bool,
    pub(crate) stay: bool,
}

impl Options {
    /// Reads the arguments after the program's name.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut arguments = arguments.into_iter();
        let task = match arguments.next().as_deref() {
            Some("install") => Task::Install,
            Some("uninstall") => Task::Uninstall,
            other => return Err(format!("unknown command {:?}", other.unwrap_or_default())),
        };
        let mut options = Self {
            task,
            part: None,
            bin_dir: "/opt/cni/bin".into(),
            conf_dir: "/etc/cni/net.d".into(),
            conf_name: "10-margay.conflist".into(),
            socket: DEFAULT_SOCKET.into(),
            wait: Duration::from_secs(60),
            network: "margay".into(),
            mtu: None,
            agent_timeout: None,
            portmap: true,
            stay: false,
        };
        while let Some(argument) = arguments.next() {
            // Both `--mtu 1400` and `--mtu=1400`.
            let (name, attached) = match argument.split_once('=') {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (argument, None),
            };
            if name == "--no-portmap" {
                options.portmap = false;
                continue;
            }
            if name == "--stay" {
                options.stay = true;
                continue;
            }
            let value = attached.or_else(|| arguments.next());
            options.set(&name, value)?;
        }
        Ok(options)
    }

    fn set(&mut self, name: &str, value: Option<String>) -> Result<(), String> {
        let value = value.filter(|value| !value.is_empty());
        let given = || value.clone().ok_or_else(|| format!("{name} needs a value"));
        let number = |limit: u64| {
            let value = given()?;
            let number = value.parse().ok().filter(|number| *number <= limit);
            number.ok_or_else(|| format!("{name} {value} is no number up to {limit}"))
        };
        match name {
            "--bin-dir" => self.bin_dir = given()?.into(),
            "--conf-dir" => self.conf_dir = given()?.into(),
            "--conf-name" => {
                let file = given()?;
                if file.contains('/') || !file.ends_with(".conflist") {
                    return Err(format!(
                        "{name} {file} is no file name that ends in .conflist"
                    ));
                }
                self.conf_name = file;
            }
            "--only" => {
                self.part = match given()?.as_str() {
                    "binary" => Some(Part::Binary),
                    "conflist" => Some(Part::Conflist),
                    other => return Err(format!("{name} {other} is neither binary nor conflist")),
                }
            }
            "--socket" => self.socket = given()?.into(),
            "--wait" => self.wait = Duration::from_secs(number(86_400)?),
            "--network" => {
                let network = given()?;
                if !crate::environment::is_identifier(&network) {
                    return Err(format!("{name} {network} is no network's name"));
                }
                self.network = network;
            }
            "--mtu" => self.mtu = u32::try_from(number(65_535)?).ok(),
            "--agent-timeout" => self.agent_timeout = Some(number(90)?),
            _ => return Err(format!("unknown option {name}")),
        }
        Ok(())
    }

    /// The plugin: the runtime looks for a program of the configuration's `type`.
    pub(crate) fn plugin(&self) -> PathBuf {
        self.bin_dir.join("margay")
    }

    pub(crate) fn conflist(&self) -> PathBuf {
        self.conf_dir.join(&self.conf_name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(ToOwned::to_owned))
    }

    #[test]
    fn defaults_and_options() {
        let options = parse("install").unwrap();
        assert_eq!(options.plugin(), PathBuf::from("/opt/cni/bin/margay"));
        assert_eq!(
            options.conflist(),
            PathBuf::from("/etc/cni/net.d/10-margay.conflist")
        );
        let options =
            parse("uninstall --bin-dir /b --conf-name=5.conflist --only conflist").unwrap();
        assert_eq!(options.task, Task::Uninstall);
        assert_eq!(options.part, Some(Part::Conflist));
        assert_eq!(options.conf_name, "5.conflist");
        let options = parse("install --mtu=1400 --wait 5 --no-portmap").unwrap();
        assert_eq!((options.mtu, options.portmap), (Some(1400), false));
        assert!(!options.stay && parse("install --stay").unwrap().stay);
        assert_eq!(options.wait, Duration::from_secs(5));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (line, wanted) in [
            ("frobnicate", "frobnicate"),
            ("install --bin-dir", "--bin-dir needs a value"),
            ("install --bindir /x", "unknown option --bindir"),
            ("install --only both", "neither"),
            ("install --conf-name a/b.conflist", "a/b.conflist"),
            ("install --conf-name x.conf", ".conflist"),
            ("install --mtu 70000", "70000 is no number up to 65535"),
            ("install --agent-timeout 91", "up to 90"),
            ("install --network -x", "no network's name"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(wanted), "{line}: {error}");
        }
        let options = USAGE
            .lines()
            .filter_map(|line| line.trim().strip_prefix("--"));
        for option in options.filter_map(|rest| rest.split(' ').next()) {
            let line = format!("install --{option}");
            assert!(
                !parse(&line).is_err_and(|error| error.contains("unknown")),
                "{line}"
            );
        }
    }
}
