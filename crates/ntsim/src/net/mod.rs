//! Two real networks with the simulated machine between them.
//!
//! The client side is what the simulated machine's programs see: a namespace with one interface and a default route.
//! The server side answers for whole ranges of addresses. Both interfaces are TUN devices of this process, and the
//! client side's loopback interface leads through a third. So every packet between the sides, and every packet between
//! programs of the client side, passes through [`crate::tcpip`] and the driver.

mod error;
pub mod link;
mod loopback;
pub mod namespace;
pub mod owner;
mod pump;
#[cfg(test)]
mod tests;
pub mod tun;

pub use error::NetError;
pub use link::Prefix;

use crate::cpu::Bugcheck;
use crate::machine::Machine;
use crate::tcpip::verdicts::Verdicts;
use link::{Links, sysctl};
use namespace::Namespace;
use pump::{Pump, Tuns};
use rustix::event::{EventfdFlags, eventfd};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tun::Tun;

/// The client side's addresses.
pub const CLIENT: [Prefix; 2] = [
    Prefix { address: IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)), length: 24 },
    Prefix { address: IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2)), length: 64 },
];
/// The server side's own addresses.
pub const SERVER: [Prefix; 2] = [
    Prefix { address: IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), length: 24 },
    Prefix { address: IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1)), length: 64 },
];
/// The ranges the server side always answers for: those set aside for documentation (RFC 5737, RFC 3849).
pub const ANSWERED: [Prefix; 4] = [
    Prefix { address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 0)), length: 24 },
    Prefix { address: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 0)), length: 24 },
    Prefix { address: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 0)), length: 24 },
    Prefix { address: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0)), length: 32 },
];

/// Whether an address is one of the client side's.
fn is_client(address: IpAddr) -> bool {
    address.is_loopback() || CLIENT.iter().any(|client| client.address == address)
}

/// How long servers may take to start listening.
const SERVERS_READY: Duration = Duration::from_secs(10);
/// How long servers may take to end when asked.
const SERVERS_END: Duration = Duration::from_secs(2);

/// The two sides, before packets pass.
#[derive(Debug)]
pub struct Network {
    client: Namespace,
    server: Namespace,
    client_tun: Tun,
    /// The client side's loopback interface, where the kernel can lead it here.
    loopback: Option<Tun>,
    server_tun: Tun,
}

impl Network {
    /// Makes both sides. The server side also answers for `answered`.
    ///
    /// # Errors
    /// [`NetError`], in particular where namespaces or TUN devices are not allowed.
    pub fn new(answered: &[Prefix]) -> Result<Self, NetError> {
        let (client, (client_tun, loopback)) = Namespace::create(client_side)?;
        let (server, server_tun) = Namespace::create(|| server_side(answered))?;
        let loopback =
            loopback.inspect_err(|error| tracing::warn!("the driver does not see loopback traffic: {error}"));
        Ok(Self { client, server, client_tun, loopback: loopback.ok(), server_tun })
    }

    /// The client side's namespace.
    #[must_use]
    pub const fn client(&self) -> &Namespace {
        &self.client
    }

    /// The server side's namespace.
    #[must_use]
    pub const fn server(&self) -> &Namespace {
        &self.server
    }

    /// Starts a program on the client side, in the foreground.
    ///
    /// # Errors
    /// [`NetError::Spawn`].
    pub fn spawn_client(&self, command: &mut Command) -> Result<Child, NetError> {
        spawn(self.client.contain(command))
    }

    /// Starts servers, each a shell command line, on the server side, and waits until each listens.
    ///
    /// # Errors
    /// [`NetError::Spawn`], and [`NetError::ServerEnded`] when one ends instead.
    pub fn spawn_servers(&self, lines: &[String]) -> Result<Servers, NetError> {
        let mut servers = Servers { children: Vec::new() };
        for line in lines {
            let mut command = Command::new("/bin/sh");
            // Its own process group, so that all of it can be ended, and Ctrl-C is the client's alone.
            command.arg("-c").arg(line).stdin(std::process::Stdio::null()).process_group(0);
            servers.children.push((line.clone(), spawn(self.server.contain(&mut command))?));
        }
        servers.await_ready(&self.server)?;
        Ok(servers)
    }

    /// Lets packets pass, through `machine`.
    ///
    /// # Errors
    /// When the carrying thread cannot be set up.
    pub fn start(&self, machine: Arc<Machine>, verdicts: Verdicts) -> Result<Running, NetError> {
        let again = |tun: &Tun| tun.share().map_err(NetError::system("share a TUN device"));
        let loopback = self.loopback.as_ref().map(again).transpose()?;
        let tuns = Tuns { client: again(&self.client_tun)?, loopback, server: again(&self.server_tun)? };
        let pump = Pump { machine, tuns, processes: owner::Processes::of(&self.client), verdicts };
        let stop = eventfd(0, EventfdFlags::CLOEXEC)
            .map_err(|error| NetError::System { what: "make an eventfd", source: error.into() })?;
        let stop = Arc::new(stop);
        let namespace = self.client.clone();
        let thread_stop = stop.clone();
        let run = move || {
            namespace.join().map_err(NetError::system("enter the client's namespace"))?;
            pump.run(&thread_stop).map_err(NetError::system("make an eventfd"))
        };
        let thread = std::thread::Builder::new()
            .name("wire".to_owned())
            .spawn(run)
            .map_err(NetError::system("start the thread that carries packets"))?;
        Ok(Running { stop, thread })
    }
}

/// Sets the client side up, in the calling thread's namespace: its interface, and loopback.
fn client_side() -> Result<(Tun, Result<Tun, NetError>), NetError> {
    let (tun, mut links, index) = side("client0", &CLIENT)?;
    for address in CLIENT {
        links.add_default_route(index, address.address)?;
    }
    Ok((tun, loopback::open(&mut links)))
}

/// Sets the server side up, in the calling thread's namespace.
fn server_side(answered: &[Prefix]) -> Result<Tun, NetError> {
    let (tun, mut links, _) = side("server0", &SERVER)?;
    let loopback = links.up("lo")?;
    for range in ANSWERED.iter().chain(answered) {
        links.answer_for(loopback, *range)?;
    }
    // Programs may bind the addresses that are answered for.
    sysctl("net.ipv6.ip_nonlocal_bind", "1");
    // A packet to any other address gets an ICMP unreachable at once, as from a router.
    sysctl("net.ipv4.ip_forward", "1");
    sysctl("net.ipv6.conf.all.forwarding", "1");
    sysctl("net.ipv4.icmp_ratelimit", "0");
    sysctl("net.ipv6.icmp.ratelimit", "0");
    Ok(tun)
}

impl Drop for Network {
    /// Ends the processes that programs left running on either side: nothing can reach them any more.
    fn drop(&mut self) {
        for namespace in [&self.client, &self.server] {
            owner::end_all_inside(namespace);
        }
    }
}

/// The parts that both sides have in common.
fn side(interface: &str, addresses: &[Prefix]) -> Result<(Tun, Links, u32), NetError> {
    let tun = Tun::open(interface)?;
    // Only what programs send crosses the wire: no router solicitations, no link-local address.
    sysctl("net.ipv6.conf.all.disable_ipv6", "0");
    sysctl(&format!("net.ipv6.conf.{interface}.disable_ipv6"), "0");
    sysctl(&format!("net.ipv6.conf.{interface}.addr_gen_mode"), "1");
    sysctl(&format!("net.ipv6.conf.{interface}.router_solicitations"), "0");
    // Programs need no privilege to serve low ports or to ping.
    sysctl("net.ipv4.ip_unprivileged_port_start", "0");
    sysctl("net.ipv4.ping_group_range", "0 2147483647");
    let mut links = Links::open()?;
    links.up("lo")?;
    let index = links.up(interface)?;
    for address in addresses {
        links.add_address(index, *address)?;
    }
    Ok((tun, links, index))
}

fn spawn(command: &mut Command) -> Result<Child, NetError> {
    command.spawn().map_err(|source| NetError::Spawn { program: command.get_program().into(), source })
}

/// The servers of the server side. Dropping them ends them.
#[derive(Debug)]
pub struct Servers {
    children: Vec<(String, Child)>,
}

impl Servers {
    fn await_ready(&mut self, namespace: &Namespace) -> Result<(), NetError> {
        let deadline = Instant::now() + SERVERS_READY;
        let pids: Vec<u32> = self.children.iter().map(|(_, child)| child.id()).collect();
        loop {
            for (command, child) in &mut self.children {
                if let Ok(Some(status)) = child.try_wait() {
                    return Err(NetError::ServerEnded { command: command.clone(), status });
                }
            }
            let inside = namespace.clone();
            let pids = pids.clone();
            let listening = std::thread::spawn(move || {
                inside.join().is_ok() && pids.iter().all(|pid| owner::bound_sockets(&[*pid]) > 0)
            });
            if listening.join().unwrap_or(false) {
                return Ok(());
            }
            if Instant::now() > deadline {
                tracing::warn!("a server is not listening after {} seconds; going on", SERVERS_READY.as_secs());
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        use rustix::process::{Pid, Signal, kill_process_group};
        for signal in [Signal::TERM, Signal::KILL] {
            for (_, child) in &self.children {
                if let Some(group) = Pid::from_raw(child.id() as i32) {
                    let _ = kill_process_group(group, signal); // it may have ended already
                }
            }
            let deadline = Instant::now() + SERVERS_END;
            self.children.retain_mut(|(_, child)| {
                while Instant::now() < deadline {
                    if !matches!(child.try_wait(), Ok(None)) {
                        return false;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                true
            });
        }
    }
}

/// A network that carries packets until [`Running::stop`].
#[derive(Debug)]
pub struct Running {
    stop: Arc<OwnedFd>,
    thread: JoinHandle<Result<Result<Verdicts, Bugcheck>, NetError>>,
}

impl Running {
    /// Whether the thread that carries packets has ended by itself: the machine has stopped.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Takes the machine off the network.
    ///
    /// # Errors
    /// [`NetError`] when the wire could not be set up. The inner error is the bugcheck that stopped the machine.
    pub fn stop(self) -> Result<Result<Verdicts, Bugcheck>, NetError> {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes()); // fails only when the counter is full: signalled
        match self.thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}
