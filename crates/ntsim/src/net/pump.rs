//! Carries packets between the two sides, and from the client side to itself, through the simulated machine.

use super::is_client;
use super::owner::Processes;
use super::tun::Tun;
use crate::cpu::Bugcheck;
use crate::machine::Machine;
use crate::tcpip::carrier::{Around, Carrier, Wire};
use crate::tcpip::verdicts::Verdicts;
use nt_abi::PacketBuffer;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use shim::layer::Direction;
use shim::packet;
use shim::stack::Config;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest packet: the largest MTU an interface can have.
const PACKET: usize = 65_536;
/// Packets read from one side before the other gets its turn, and requests of drivers served in one turn.
const BATCH: usize = 64;

/// The wire: every packet of the client side passes here.
pub(super) struct Pump {
    pub(super) machine: Arc<Machine>,
    pub(super) tuns: Tuns,
    pub(super) processes: Processes,
    pub(super) verdicts: Verdicts,
}

/// Where packets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Client,
    Loopback,
    Server,
}

impl Pump {
    /// Carries packets until `stop` becomes readable. The calling thread must be inside the client's namespace.
    ///
    /// # Errors
    /// [`io::Error`] when no eventfd can be made. The inner error is the bugcheck that stopped the machine.
    pub(super) fn run(mut self, stop: &OwnedFd) -> io::Result<Result<Verdicts, Bugcheck>> {
        let asked = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let wake = {
            let asked = asked.clone();
            // Fails only when the counter is full, and then it is readable.
            move || {
                let _ = rustix::io::write(&*asked, &1u64.to_ne_bytes());
            }
        };
        let mut carrier = Carrier::new(&self.machine, Config { pick_up: false }, wake);
        Ok(self.carry_all(&mut carrier, &asked, stop).and_then(|()| carrier.finish()).map(|()| self.verdicts))
    }

    fn carry_all(&mut self, carrier: &mut Carrier, asked: &OwnedFd, stop: &OwnedFd) -> Result<(), Bugcheck> {
        let started = Instant::now();
        let mut buffer = PacketBuffer::new(PACKET);
        let (mut more, mut patience) = (false, Duration::from_secs(1));
        let mut ticked = started;
        loop {
            // Wake up without traffic too, so that idle flows end in time and lost segments are sent again.
            let wait = if more { Duration::ZERO } else { patience };
            let Some(ready) = self.wait(asked, stop, wait) else { return Ok(()) };
            for origin in &ready {
                for _ in 0..BATCH {
                    if !self.carry(carrier, &mut buffer, *origin, started)? {
                        break;
                    }
                }
            }
            more = self.serve(carrier, started)?;
            if ticked.elapsed() >= patience || ready.is_empty() {
                patience = self.tick(carrier, started)?;
                ticked = Instant::now();
            }
        }
    }

    /// Waits until there is something to do: which sides have packets. `None` when `stop` says to end.
    fn wait(&self, asked: &OwnedFd, stop: &OwnedFd, longest: Duration) -> Option<Vec<Origin>> {
        let sides: Vec<_> = [Origin::Client, Origin::Loopback, Origin::Server]
            .into_iter()
            .filter(|origin| self.tuns.get(*origin).is_some())
            .collect();
        let mut ready: Vec<_> = sides
            .iter()
            .filter_map(|origin| self.tuns.get(*origin))
            .map(|tun| PollFd::new(tun, PollFlags::IN))
            .collect();
        ready.extend([PollFd::new(stop, PollFlags::IN), PollFd::new(asked, PollFlags::IN)]);
        let longest = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: i64::from(longest.subsec_nanos()) };
        if let Err(error) = poll(&mut ready, Some(&longest)) {
            tracing::warn!(%error, "poll");
        }
        let is_ready = |at: usize| !ready[at].revents().is_empty();
        if is_ready(sides.len()) {
            return None;
        }
        if is_ready(sides.len() + 1) {
            let _ = rustix::io::read(asked, &mut [0; 8]); // requests are looked for in any case
        }
        Some(sides.iter().enumerate().filter(|(at, _)| is_ready(*at)).map(|(_, origin)| *origin).collect())
    }

    /// Carries one packet; `false` when there is none.
    fn carry(
        &mut self,
        carrier: &mut Carrier,
        buffer: &mut PacketBuffer,
        origin: Origin,
        started: Instant,
    ) -> Result<bool, Bugcheck> {
        if buffer.is_kept() {
            *buffer = PacketBuffer::new(PACKET);
        }
        let Some(from) = self.tuns.get(origin) else { return Ok(false) };
        match from.read(buffer.storage_mut()) {
            Ok(len) => buffer.set_len(len),
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    tracing::debug!(%error, "reading from a TUN device");
                }
                return Ok(false);
            }
        }
        let direction = match origin {
            Origin::Client | Origin::Loopback => Direction::Outbound,
            // From outside such a source is forged; Linux drops the packet too.
            Origin::Server if from_client(buffer.bytes()) => return Ok(true),
            Origin::Server => Direction::Inbound,
        };
        carrier.carry(buffer, direction, &mut self.around(started))?;
        Ok(true)
    }

    /// Runs the timers; returns how soon to call it again.
    fn tick(&mut self, carrier: &mut Carrier, started: Instant) -> Result<Duration, Bugcheck> {
        carrier.tick(&mut self.around(started))
    }

    /// Serves requests of drivers; whether more are waiting.
    fn serve(&mut self, carrier: &mut Carrier, started: Instant) -> Result<bool, Bugcheck> {
        carrier.serve(BATCH, &mut self.around(started))
    }

    fn around(&mut self, started: Instant) -> Around<'_> {
        let Self { tuns, processes, verdicts, .. } = self;
        Around { endpoints: processes, wire: tuns, verdicts, now: started.elapsed() }
    }
}

/// The two sides, and the client side's way to itself.
pub(super) struct Tuns {
    pub(super) client: Tun,
    pub(super) loopback: Option<Tun>,
    pub(super) server: Tun,
}

impl Tuns {
    const fn get(&self, origin: Origin) -> Option<&Tun> {
        match origin {
            Origin::Client => Some(&self.client),
            Origin::Loopback => self.loopback.as_ref(),
            Origin::Server => Some(&self.server),
        }
    }
}

impl Wire for Tuns {
    fn deliver(&mut self, packet: &[u8]) {
        let loopback = self.loopback.as_ref().filter(|_| from_client(packet));
        send(loopback.unwrap_or(&self.client), packet);
    }

    fn transmit(&mut self, packet: &[u8]) {
        send(&self.server, packet);
    }

    fn comes_back(&self, packet: &[u8]) -> bool {
        // Addresses of 127.0.0.0/8 and ::1 never leave a machine (RFC 1122 section 3.2.1.3, RFC 4291 section 2.5.3).
        let stays = |(source, destination): (IpAddr, IpAddr)| source.is_loopback() || is_client(destination);
        self.loopback.is_some() && packet::addresses(packet).is_some_and(stays)
    }
}

/// Whether a packet says that the client side sent it.
fn from_client(packet: &[u8]) -> bool {
    packet::addresses(packet).is_some_and(|(source, _)| is_client(source))
}

/// Sends a packet; one that the kernel does not take is lost, as on any network.
fn send(to: &Tun, packet: &[u8]) {
    if let Err(error) = to.write(packet) {
        tracing::debug!(%error, "writing to a TUN device");
    }
}
