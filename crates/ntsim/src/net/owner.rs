//! Finding the process behind a local endpoint, through /proc.
//!
//! The kernel's socket tables (`/proc/thread-self/net/*`, those of the calling thread's network namespace) say which
//! socket, by inode number, has an endpoint; the descriptors in `/proc/PID/fd` say who holds it.

use super::namespace::Namespace;
use crate::host::nt_path;
use procfs::net::{TcpNetEntries, UdpNetEntries};
use procfs::process::{FDTarget, Process, all_processes};
use procfs::{FromReadSI, current_system_info};
use shim::flow::{Endpoints, FlowKey, Owner};
use shim::packet::protocol;
use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

/// A row of a socket table.
struct Socket {
    local: SocketAddr,
    remote: SocketAddr,
    inode: u64,
}

impl Socket {
    /// Whether it has no other side.
    const fn waits(&self) -> bool {
        self.remote.port() == 0
    }
}

/// The processes of a network namespace. To be used on a thread inside that namespace.
#[derive(Debug)]
pub struct Processes {
    namespace: u64,
}

impl Processes {
    /// Those of `namespace`.
    #[must_use]
    pub const fn of(namespace: &Namespace) -> Self {
        Self { namespace: namespace.inode() }
    }

    /// Whether a process is inside the namespace, as far as its first thread shows.
    fn contains(&self, process: &Process) -> bool {
        let link = format!("/proc/{}/ns/net", process.pid);
        std::fs::metadata(link).is_ok_and(|metadata| metadata.ino() == self.namespace)
    }

    /// The process that holds a socket. When several do (a server and its workers), the one with the lowest number.
    fn holder(&self, inode: u64) -> Option<Process> {
        let is_it = |target: &FDTarget| matches!(target, FDTarget::Socket(socket) if *socket == inode);
        let holds =
            |process: &Process| process.fd().is_ok_and(|mut fds| fds.any(|fd| fd.is_ok_and(|fd| is_it(&fd.target))));
        let all: Vec<Process> = all_processes().into_iter().flatten().flatten().collect();
        // Reading descriptors is slow, and the holder is nearly always inside.
        let (inside, outside): (Vec<_>, Vec<_>) = all.into_iter().partition(|process| self.contains(process));
        let first = |processes: Vec<Process>| processes.into_iter().filter(holds).min_by_key(|process| process.pid);
        first(inside).or_else(|| first(outside))
    }
}

impl Endpoints for Processes {
    fn owner(&mut self, key: &FlowKey) -> Option<Arc<Owner>> {
        let inode = sockets(key.protocol).into_iter().filter_map(|s| rank(&s, key).map(|r| (r, s.inode))).max()?.1;
        let process = self.holder(inode)?;
        Some(Arc::new(Owner { pid: process.pid as u32, uid: process.uid().ok(), app_id: app_id(&process)? }))
    }

    fn is_local(&self, address: IpAddr) -> bool {
        super::is_client(address)
    }

    fn is_open(&mut self, key: &FlowKey) -> bool {
        sockets(key.protocol).iter().any(|socket| rank(socket, key).is_some())
    }

    fn waiting(&mut self, key: &FlowKey) -> Option<SocketAddr> {
        let fits = |socket: Socket| rank(&socket, key).map(|rank| (rank, socket.local));
        let (_, local) =
            sockets(key.protocol).into_iter().filter(Socket::waits).filter_map(fits).max_by_key(|found| found.0)?;
        // A socket of IPv6 that takes IPv4 too is bound twice, once in each family.
        let address = match (local.ip().to_canonical(), key.local()) {
            (IpAddr::V6(every), IpAddr::V4(_)) if every.is_unspecified() => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            (address, _) => address,
        };
        Some(SocketAddr::new(address, local.port()))
    }

    fn is_waiting(&mut self, protocol: u8, local: SocketAddr) -> bool {
        sockets(protocol).iter().filter(|socket| socket.waits()).any(|socket| {
            let address = socket.local.ip().to_canonical();
            let same = address == local.ip() || address.is_unspecified() && local.ip().is_unspecified();
            same && socket.local.port() == local.port()
        })
    }

    fn retain_closed(&mut self, flows: &mut Vec<FlowKey>) {
        let sockets = sockets(protocol::UDP);
        flows.retain(|key| !sockets.iter().any(|socket| rank(socket, key).is_some()));
    }
}

/// The ALE_APP_ID of a process.
fn app_id(process: &Process) -> Option<Arc<str>> {
    let path = process.exe().ok()?;
    // The kernel appends this to the path of a program whose file was removed or replaced.
    let text = path.as_os_str().to_string_lossy();
    let path = text.strip_suffix(" (deleted)").map_or(path.as_path(), |kept| Path::new(OsStr::new(kept)));
    Some(nt_path(path).into())
}

/// Ends every process inside a namespace except this one.
pub(super) fn end_all_inside(namespace: &Namespace) {
    use rustix::process::{Pid, Signal, getpid, kill_process};
    let processes = Processes::of(namespace);
    for process in all_processes().into_iter().flatten().flatten().filter(|process| processes.contains(process)) {
        if let Some(pid) = Pid::from_raw(process.pid).filter(|pid| *pid != getpid()) {
            let _ = kill_process(pid, Signal::KILL); // it may have ended by now
        }
    }
}

/// How many sockets, listening or bound, the processes that descend from `ancestors` hold in the calling thread's
/// namespace.
#[must_use]
pub fn bound_sockets(ancestors: &[u32]) -> usize {
    let Ok(processes) = all_processes() else { return 0 };
    let processes: Vec<(i32, i32, Process)> = processes
        .flatten()
        .filter_map(|process| process.stat().ok().map(|stat| (stat.pid, stat.ppid, process)))
        .collect();
    let mut family: Vec<i32> = ancestors.iter().map(|pid| *pid as i32).collect();
    // A parent may come after its children in the list, so repeat until a pass adds none.
    loop {
        let before = family.len();
        for (pid, parent, _) in &processes {
            if family.contains(parent) && !family.contains(pid) {
                family.push(*pid);
            }
        }
        if family.len() == before {
            break;
        }
    }
    let bound: Vec<u64> = [protocol::TCP, protocol::UDP]
        .into_iter()
        .flat_map(sockets)
        .filter(|socket| socket.local.port() != 0 && socket.waits())
        .map(|socket| socket.inode)
        .collect();
    let members = processes.iter().filter(|(pid, ..)| family.contains(pid));
    members
        .filter_map(|(.., process)| process.fd().ok())
        .flat_map(|fds| fds.flatten())
        .filter(|fd| matches!(fd.target, FDTarget::Socket(inode) if bound.contains(&inode)))
        .count()
}

/// The sockets of a protocol, both IP versions: an IPv6 socket may carry IPv4.
fn sockets(number: u8) -> Vec<Socket> {
    let tables: &[&str] = match number {
        protocol::TCP => &["tcp", "tcp6"],
        protocol::UDP => &["udp", "udp6"],
        protocol::ICMP => &["icmp", "raw"],
        protocol::ICMPV6 => &["icmp6", "raw6"],
        _ => &["raw", "raw6"],
    };
    let mut all = Vec::new();
    for table in tables {
        let path = format!("/proc/thread-self/net/{table}");
        // A table that is missing (no IPv6) or has an unreadable row counts as empty.
        if number == protocol::TCP {
            let entries = TcpNetEntries::from_file(path, current_system_info()).map(|entries| entries.0);
            all.extend(entries.into_iter().flatten().map(|e| Socket {
                local: e.local_address,
                remote: e.remote_address,
                inode: e.inode,
            }));
        } else {
            let entries = UdpNetEntries::from_file(path, current_system_info()).map(|entries| entries.0);
            all.extend(entries.into_iter().flatten().map(|e| Socket {
                local: e.local_address,
                remote: e.remote_address,
                inode: e.inode,
            }));
        }
    }
    all
}

/// How well a socket fits a flow: connected, then bound to an address, then bound to a port; `None` when it does not.
fn rank(socket: &Socket, key: &FlowKey) -> Option<u8> {
    let is_icmp = matches!(key.protocol, protocol::ICMP | protocol::ICMPV6);
    let port = match key.protocol {
        // A ping socket's port is the identifier, a raw socket's the protocol.
        _ if is_icmp => key.icmp_id(),
        protocol::TCP | protocol::UDP => key.local_port,
        number => u16::from(number),
    };
    let raw = is_icmp && socket.local.port() == u16::from(key.protocol);
    if socket.local.port() != port && !raw {
        return None;
    }
    let is = |address: SocketAddr, wanted: IpAddr| address.ip().to_canonical() == wanted;
    let any = |address: SocketAddr| address.ip().to_canonical().is_unspecified();
    let local = if is(socket.local, key.local()) {
        2
    } else if any(socket.local) {
        0
    } else {
        return None;
    };
    let remote = if is(socket.remote, key.remote()) && (is_icmp || socket.remote.port() == key.remote_port) {
        4
    } else if any(socket.remote) {
        0
    } else {
        return None;
    };
    Some(local + remote + u8::from(!raw))
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;
    use shim::layer::Direction;
    use shim::packet::Packet;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    fn here() -> Processes {
        let namespace = std::fs::metadata("/proc/self/ns/net").expect("a network namespace").ino();
        Processes { namespace }
    }

    fn key(build: impl FnOnce(&mut Vec<u8>)) -> FlowKey {
        let mut bytes = Vec::new();
        build(&mut bytes);
        FlowKey::of(&Packet::parse(&bytes).unwrap(), Direction::Outbound)
    }

    #[test]
    fn this_process_is_found_behind_its_connection() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let server = listener.local_addr().unwrap().port();
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).unwrap();
        let client = stream.local_addr().unwrap().port();
        let local = [127, 0, 0, 1];
        let key = key(|b| PacketBuilder::ipv4(local, local, 9).tcp(client, server, 1, 1).write(b, &[]).unwrap());
        let owner = here().owner(&key).expect("found");
        assert_eq!(owner.pid, std::process::id());
        assert_eq!(*owner.app_id, *nt_path(&std::env::current_exe().unwrap()));
        assert_eq!(owner.uid, Some(rustix::process::getuid().as_raw()));
    }

    #[test]
    fn an_unconnected_socket_is_found_by_its_port() {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = socket.local_addr().unwrap().port();
        let one = key(|b| PacketBuilder::ipv4([10, 9, 8, 7], [1, 1, 1, 1], 9).udp(port, 53).write(b, &[]).unwrap());
        assert_eq!(here().owner(&one).expect("found").pid, std::process::id());
        drop(socket);
        assert_eq!(here().owner(&one), None, "the socket is closed");
    }

    #[test]
    fn a_better_fit_wins() {
        let key = key(|b| PacketBuilder::ipv4([10, 0, 0, 1], [1, 1, 1, 1], 9).udp(5000, 53).write(b, &[]).unwrap());
        let socket = |local: &str, remote: &str| Socket {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
            inode: 1,
        };
        let connected = rank(&socket("10.0.0.1:5000", "1.1.1.1:53"), &key);
        let bound = rank(&socket("10.0.0.1:5000", "0.0.0.0:0"), &key);
        let wildcard = rank(&socket("[::]:5000", "[::]:0"), &key);
        assert!(connected > bound && bound > wildcard && wildcard.is_some());
        assert_eq!(rank(&socket("10.0.0.1:5000", "1.1.1.1:54"), &key), None);
        assert_eq!(rank(&socket("10.0.0.1:5001", "0.0.0.0:0"), &key), None);
        assert_eq!(rank(&socket("[::ffff:10.0.0.1]:5000", "[::ffff:1.1.1.1]:53"), &key), connected);
    }
}
