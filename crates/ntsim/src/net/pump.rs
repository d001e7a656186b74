//! Carries packets between the two sides, through the simulated machine.

use super::owner::Processes;
use super::tun::Tun;
use crate::cpu::Bugcheck;
use crate::machine::Machine;
use crate::tcpip::carrier::{Around, Carrier, Wire};
use crate::tcpip::verdicts::Verdicts;
use nt_abi::PacketBuffer;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use shim::layer::Direction;
use shim::stack::Config;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest packet: the largest MTU an interface can have.
const PACKET: usize = 65_536;
/// Packets read from one side before the other gets its turn, and requests of drivers served in one turn.
const BATCH: usize = 64;

/// The wire: everything between the client side and the server side passes here.
pub(super) struct Pump {
    pub(super) machine: Arc<Machine>,
    pub(super) client: Tun,
    pub(super) server: Tun,
    pub(super) processes: Processes,
    pub(super) verdicts: Verdicts,
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
            let mut ready = [
                PollFd::new(&self.client, PollFlags::IN),
                PollFd::new(&self.server, PollFlags::IN),
                PollFd::new(stop, PollFlags::IN),
                PollFd::new(asked, PollFlags::IN),
            ];
            // Wake up without traffic too, so that idle flows end in time and lost segments are sent again.
            let wait = if more { Duration::ZERO } else { patience };
            let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
            if let Err(error) = poll(&mut ready, Some(&wait)) {
                tracing::warn!(%error, "poll");
            }
            if !ready[2].revents().is_empty() {
                return Ok(());
            }
            let from_client = !ready[0].revents().is_empty();
            let from_server = !ready[1].revents().is_empty();
            if !ready[3].revents().is_empty() {
                let _ = rustix::io::read(asked, &mut [0; 8]); // requests are looked for below in any case
            }
            for (is_ready, direction) in [(from_client, Direction::Outbound), (from_server, Direction::Inbound)] {
                for _ in 0..if is_ready { BATCH } else { 0 } {
                    if !self.carry(carrier, &mut buffer, direction, started)? {
                        break;
                    }
                }
            }
            more = self.serve(carrier, started)?;
            if ticked.elapsed() >= patience || (!from_client && !from_server) {
                patience = self.tick(carrier, started)?;
                ticked = Instant::now();
            }
        }
    }

    /// Carries one packet; `false` when there is none.
    fn carry(
        &mut self,
        carrier: &mut Carrier,
        buffer: &mut PacketBuffer,
        direction: Direction,
        started: Instant,
    ) -> Result<bool, Bugcheck> {
        if buffer.is_kept() {
            *buffer = PacketBuffer::new(PACKET);
        }
        let from = match direction {
            Direction::Outbound => &self.client,
            Direction::Inbound => &self.server,
        };
        match from.read(buffer.storage_mut()) {
            Ok(len) => buffer.set_len(len),
            Err(error) => {
                if error.kind() != io::ErrorKind::WouldBlock {
                    tracing::debug!(%error, "reading from a TUN device");
                }
                return Ok(false);
            }
        }
        let Self { client, server, processes, verdicts, .. } = self;
        let wire = &mut Tuns { client, server };
        let mut around = Around { endpoints: processes, wire, verdicts, now: started.elapsed() };
        carrier.carry(buffer, direction, &mut around)?;
        Ok(true)
    }

    /// Runs the timers; returns how soon to call it again.
    fn tick(&mut self, carrier: &mut Carrier, started: Instant) -> Result<Duration, Bugcheck> {
        let Self { client, server, processes, verdicts, .. } = self;
        let wire = &mut Tuns { client, server };
        carrier.tick(&mut Around { endpoints: processes, wire, verdicts, now: started.elapsed() })
    }

    /// Serves requests of drivers; whether more are waiting.
    fn serve(&mut self, carrier: &mut Carrier, started: Instant) -> Result<bool, Bugcheck> {
        let Self { client, server, processes, verdicts, .. } = self;
        let wire = &mut Tuns { client, server };
        carrier.serve(BATCH, &mut Around { endpoints: processes, wire, verdicts, now: started.elapsed() })
    }
}

/// The two sides.
struct Tuns<'a> {
    client: &'a Tun,
    server: &'a Tun,
}

impl Wire for Tuns<'_> {
    fn deliver(&mut self, packet: &[u8]) {
        send(self.client, packet);
    }

    fn transmit(&mut self, packet: &[u8]) {
        send(self.server, packet);
    }
}

/// Sends a packet; one that the kernel does not take is lost, as on any network.
fn send(to: &Tun, packet: &[u8]) {
    if let Err(error) = to.write(packet) {
        tracing::debug!(%error, "writing to a TUN device");
    }
}
