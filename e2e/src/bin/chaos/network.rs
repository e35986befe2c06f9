//! One network namespace for each broker, joined by a bridge in the one of this process, where the clients live.
//!
//! Everything hangs on processes that die with this one: nothing is left behind, however it ends.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use takhin_e2e::process::{self, Running};
use takhin_e2e::wait;

const LIMIT: Duration = Duration::from_secs(20);
/// Set in the process that is inside.
const INSIDE: &str = "TAKHIN_CHAOS_INSIDE";
/// Where other brokers reach a broker.
pub(crate) const RPC_PORT: u16 = 33145;
/// Where clients reach it.
pub(crate) const KAFKA_PORT: u16 = 9092;

/// Runs this program again in namespaces of its own for network and mounts, unless that has been done.
///
/// # Errors
/// When the kernel or the user may not make namespaces. Returns in the process that is inside only.
pub(crate) fn enter() -> Result<()> {
    if std::env::var_os(INSIDE).is_some() {
        return ip(&["link", "set", "lo", "up"]);
    }
    let own = ["--net", "--mount", "--propagation", "private"];
    process::run(Command::new("unshare").args(own).arg("true"), LIMIT).context(
        "no namespaces for network and mounts can be made here: this needs root and a kernel that has them",
    )?;
    let error = Command::new("unshare")
        .args(own)
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(error).context("unshare")
}

/// The machines of the brokers.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) hosts: Vec<Host>,
}

impl Network {
    /// `count` hosts that reach each other and are reached from here.
    pub(crate) fn new(count: u8) -> Result<Self> {
        ip(&["link", "add", "bridge", "type", "bridge"])?;
        // From here on it is removed when this is dropped.
        let mut network = Self { hosts: Vec::new() };
        ip(&["address", "add", "10.99.0.254/24", "dev", "bridge"])?;
        ip(&["link", "set", "bridge", "up"])?;
        for n in 1..=count {
            network.hosts.push(Host::new(n)?);
        }
        Ok(network)
    }

    /// Everybody reaches everybody. Returns how many packets the rules have met that there were.
    pub(crate) fn heal(&self) -> Result<u64> {
        let mut met = 0;
        for host in &self.hosts {
            met += host.met()?;
            host.filter(&[])?;
        }
        Ok(met)
    }

    /// The same after rules that traffic must have met: a fault that hits nothing shows nothing.
    pub(crate) fn heal_from_faults(&self) -> Result<()> {
        let met = self.heal()?;
        ensure!(met > 0, "the rules of the packet filter have met no packet");
        Ok(())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // A namespace ends some time after the last process in it has, and would keep the names from the next seed.
        for host in &self.hosts {
            let _ = ip(&["link", "del", &host.outside()]);
        }
        self.hosts.clear();
        let _ = ip(&["link", "del", "bridge"]);
    }
}

/// What the packet filter of a host does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule {
    /// Nothing comes in from there.
    Deaf(Ipv4Addr),
    /// That many packets in a hundred do not come in, wherever they are from.
    Loss(u64),
    /// Connections to or from this port are reset.
    Reset(u16),
    /// New connections to the first port go to the second one.
    Redirect(u16, u16),
}

/// The machine of a broker.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) ip: Ipv4Addr,
    holder: Running,
}

impl Host {
    fn new(n: u8) -> Result<Self> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--net", "sleep", "infinity"]);
        command.stdin(Stdio::null());
        let host = Self {
            ip: Ipv4Addr::new(10, 99, 0, n),
            holder: Running::start(&mut command)?,
        };
        let pid = host.holder.pid();
        let own = fs::read_link("/proc/self/ns/net")?;
        wait::until("a network namespace", LIMIT, || {
            Ok(fs::read_link(format!("/proc/{pid}/ns/net"))? != own)
        })?;
        let (outside, pid) = (host.outside(), pid.to_string());
        let address = format!("{}/24", host.ip);
        ip(&[
            "link", "add", &outside, "type", "veth", "peer", "name", "eth0", "netns", &pid,
        ])?;
        ip(&["link", "set", &outside, "master", "bridge", "up"])?;
        for arguments in [
            &["address", "add", &address, "dev", "eth0"][..],
            &["link", "set", "eth0", "up"],
            &["link", "set", "lo", "up"],
        ] {
            process::run(host.command("ip").args(arguments), LIMIT)?;
        }
        Ok(host)
    }

    /// The end of its cable that is here.
    fn outside(&self) -> String {
        let [.., n] = self.ip.octets();
        format!("host{n}")
    }

    /// Words that put a command onto this host.
    pub(crate) fn words(&self) -> Vec<String> {
        let namespace = format!("--net=/proc/{}/ns/net", self.holder.pid());
        vec!["nsenter".to_owned(), namespace, "--".to_owned()]
    }

    /// A program on this host.
    pub(crate) fn command(&self, program: &str) -> Command {
        let words = self.words();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(program);
        command
    }

    /// Sets the packet filter to these rules and no others.
    pub(crate) fn filter(&self, rules: &[Rule]) -> Result<()> {
        use std::io::Write as _;
        let mut script = tempfile::tempfile()?;
        script.write_all(ruleset(rules).as_bytes())?;
        std::io::Seek::rewind(&mut script)?;
        let mut nft = self.command("nft");
        let output = process::run_with_input(nft.args(["-f", "-"]), script.into(), LIMIT)?;
        ensure!(output.status.success(), "nft: {}", output.stderr);
        Ok(())
    }

    /// Packets that the rules of this host have met since they were set.
    fn met(&self) -> Result<u64> {
        let mut nft = self.command("nft");
        let output = process::run(nft.args(["list", "ruleset"]), LIMIT)?;
        Ok(counted(&output.text()))
    }
}

/// The sum of all `counter packets N` in a listing of nft.
fn counted(listing: &str) -> u64 {
    let words: Vec<&str> = listing.split_whitespace().collect();
    let counters = words
        .windows(3)
        .filter(|words| words[..2] == ["counter", "packets"]);
    counters.filter_map(|words| words[2].parse::<u64>().ok()).sum()
}

/// The rules in the words of nft.
fn ruleset(rules: &[Rule]) -> String {
    let (mut input, mut nat) = (String::new(), String::new());
    for rule in rules {
        match rule {
            Rule::Deaf(from) => input.push_str(&format!("ip saddr {from} counter drop\n")),
            Rule::Loss(percent) => {
                input.push_str(&format!(
                    "iifname eth0 numgen random mod 100 < {percent} counter drop\n"
                ));
            }
            Rule::Reset(port) => {
                for end in ["dport", "sport"] {
                    // A reset that is itself refused would leave this end in the dark.
                    let rule =
                        format!("tcp {end} {port} tcp flags & rst != rst counter reject with tcp reset\n");
                    input.push_str(&rule);
                }
            }
            Rule::Redirect(from, to) => {
                nat.push_str(&format!("tcp dport {from} counter redirect to :{to}\n"))
            }
        }
    }
    format!(
        "flush ruleset\n\
         table inet chaos {{\n\
         chain input {{\ntype filter hook input priority 0\n{input}}}\n\
         chain nat {{\ntype nat hook prerouting priority dstnat\n{nat}}}\n\
         }}\n"
    )
}

fn ip(arguments: &[&str]) -> Result<()> {
    process::run(Command::new("ip").args(arguments), LIMIT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_that_rules_have_met_are_counted() {
        let listing = "table inet chaos {\n chain input {\n ip saddr 10.99.0.2 counter packets 7 bytes 420 drop\n\
                       ip saddr 10.99.0.3 counter packets 35 bytes 2100 drop\n }\n}\n";
        assert_eq!(counted(listing), 42);
        assert_eq!(counted("table inet chaos {\n chain input {\n }\n}\n"), 0);
    }
}
