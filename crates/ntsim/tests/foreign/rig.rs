//! A machine with WinDivert in it, and two real networks around it with a web server, a DNS server and a tap on each
//! wire.

use crate::fetch;
use ntsim::{
    machine::Machine,
    net::{NetError, Network, Running, namespace::Namespace},
    tcpip::verdicts::Verdicts,
};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::{Command, Output},
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

/// Above what a busy machine may need.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// Long enough for a packet that should not come to come.
pub const QUIET: Duration = Duration::from_millis(300);

/// A machine on which WinDivert64.sys is loaded.
pub fn machine() -> Option<Arc<Machine>> {
    let driver = std::fs::read(fetch::windivert()?).expect("the driver is readable");
    let machine = Machine::new();
    machine.load_driver("WinDivert", &driver).unwrap_or_else(|error| panic!("{error}"));
    Some(machine)
}

/// Unloads the driver, and makes sure that it left nothing.
pub fn unload(machine: &Arc<Machine>) {
    let leaks = machine.unload_driver("WinDivert").unwrap_or_else(|error| panic!("{error}"));
    assert!(leaks.is_clean(), "the driver left behind: {leaks}");
}

/// The machine between two networks.
pub struct Rig {
    pub machine: Arc<Machine>,
    network: Network,
    running: Option<Running>,
}

impl Rig {
    /// `None` with a word where there is no driver or no network.
    pub fn new() -> Option<Self> {
        let machine = machine()?;
        let network = match Network::new(&[]) {
            Ok(network) => network,
            Err(error @ (NetError::Namespaces { .. } | NetError::Tun { .. })) => {
                fetch::skip(&error.to_string());
                return None;
            }
            Err(error) => panic!("{error}"),
        };
        serve(network.server());
        let running = network.start(machine.clone(), Verdicts::new(None)).expect("it starts");
        Some(Self { machine, network, running: Some(running) })
    }

    /// Runs a shell command on the client side.
    pub fn client(&self, command: &str) -> Client {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        // A client ends with the thread that starts it: this one, which waits for it.
        Client(self.network.spawn_client(&mut shell).expect("sh starts"))
    }

    /// Records what crosses the client's interface: what its programs send, and what reaches them.
    pub fn tap_client(&self) -> Tap {
        Tap::new(self.network.client())
    }

    /// Records what crosses the server's interface.
    pub fn tap_server(&self) -> Tap {
        Tap::new(self.network.server())
    }

    /// Takes the machine off the network and unloads the driver, which must have left nothing.
    pub fn end(mut self) {
        if let Some(running) = self.running.take() {
            running.stop().expect("the wire ends").unwrap_or_else(|bugcheck| panic!("{bugcheck}"));
        }
        unload(&self.machine);
    }
}

/// A program on the client side.
pub struct Client(std::process::Child);

impl Client {
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    pub fn output(self) -> Output {
        self.0.wait_with_output().expect("it ends")
    }

    /// What it printed, when it ended well.
    pub fn prints(self) -> String {
        let output = self.output();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// A web page or two.
pub const CURL: &str = "curl --silent --show-error --max-time 10 --noproxy '*' --globoff";
/// A question to the DNS server, answered with 192.0.2.77.
pub const DIG: &str = "dig +short +tries=1 +time=5";

/// Whether there is a dig here.
pub fn has_dig() -> bool {
    let found = Command::new("dig").arg("-v").output().is_ok();
    if !found {
        fetch::skip("there is no dig (package bind9-dnsutils)");
    }
    found
}

/// A web server on port 80 and a DNS server on port 53, on every address of the server side.
fn serve(namespace: &Namespace) {
    let (ready, is_ready) = mpsc::channel();
    let inside = namespace.clone();
    thread::spawn(move || {
        inside.join().expect("the namespace was made here");
        let web = TcpListener::bind("[::]:80").expect("port 80 is free here");
        let names =
            [UdpSocket::bind("0.0.0.0:53"), UdpSocket::bind(("fd77::1", 53))].map(|s| s.expect("port 53 is free"));
        ready.send(()).expect("the test waits");
        for socket in names {
            thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok((length, from)) = socket.recv_from(&mut bytes) {
                    let answer = dns_answer(&bytes[..length]);
                    let _ = socket.send_to(&answer, from);
                }
            });
        }
        for stream in web.incoming().flatten() {
            thread::spawn(move || {
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                let mut request = String::new();
                while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
                    request.push_str(&line);
                    line.clear();
                }
                let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
                let body = format!("this is {path}\n");
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
                let mut stream = reader.into_inner();
                let _ = stream.write_all(answer.as_bytes());
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read(&mut [0; 1]);
            });
        }
    });
    is_ready.recv().expect("the servers are ready");
}

/// The answer to a question for an A record: 192.0.2.77 (RFC 1035).
fn dns_answer(question: &[u8]) -> Vec<u8> {
    let end = question.iter().skip(12).position(|byte| *byte == 0).map_or(question.len(), |zero| 12 + zero + 5);
    let mut answer = question[..end.min(question.len())].to_vec();
    // A response, authoritative; one question, one answer, nothing else (dig adds an EDNS record that is not answered).
    answer[2..12].copy_from_slice(&[0x85, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
    answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
    answer
}

/// A packet socket on a side's interface: every packet that crosses it, as it is on the wire.
pub struct Tap(OwnedFd);

impl Tap {
    fn new(namespace: &Namespace) -> Self {
        const EVERYTHING: u16 = 3; // ETH_P_ALL
        let inside = namespace.clone();
        let open = move || {
            inside.join().expect("the namespace was made here");
            let protocol = i32::from(EVERYTHING.to_be());
            // SAFETY: a system call without pointers.
            let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol) };
            assert!(socket >= 0, "a packet socket: {}", std::io::Error::last_os_error());
            // SAFETY: a descriptor that was just made and belongs to nobody else.
            unsafe { OwnedFd::from_raw_fd(socket) }
        };
        Self(thread::spawn(open).join().expect("the tap opens"))
    }

    /// The next packet that `wanted` accepts, or `None` when none comes in time.
    pub fn next(&self, patience: Duration, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<u8>> {
        let deadline = Instant::now() + patience;
        let mut packet = vec![0; 65_536];
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).as_millis() as i32;
            let mut poll = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
            // SAFETY: one entry, which lives.
            if unsafe { libc::poll(&raw mut poll, 1, left) } <= 0 {
                return None;
            }
            // SAFETY: an integer made of zero bytes; the buffer and the address live during the call.
            let (length, from) = unsafe {
                let mut from: libc::sockaddr_ll = core::mem::zeroed();
                let mut size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
                let buffer = packet.as_mut_ptr().cast();
                let length =
                    libc::recvfrom(self.0.as_raw_fd(), buffer, packet.len(), 0, (&raw mut from).cast(), &raw mut size);
                (length, from)
            };
            // The loopback interface of the namespace is no wire.
            if length > 0 && from.sll_hatype != libc::ARPHRD_LOOPBACK && wanted(&packet[..length as usize]) {
                packet.truncate(length as usize);
                return Some(packet);
            }
            packet.resize(65_536, 0);
        }
    }

    /// Every packet until it has been quiet for a while that `wanted` accepts.
    pub fn rest(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
        core::iter::from_fn(|| self.next(QUIET, &wanted)).collect()
    }
}
