//! Carries packets between the two sides, through the simulated machine.

use super::owner::Processes;
use super::tun::Tun;
use crate::cpu::{self, Bugcheck};
use crate::irql::Irql;
use crate::machine::Machine;
use crate::ndis::PacketBuffer;
use crate::shim::engine::EngineClassifier;
use crate::shim::layer::Direction;
use crate::shim::stack::{Config, Stack, Verdict};
use crate::shim::verdicts::Verdicts;
use crate::wfp::flow::Flow;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

/// Longest packet: the largest MTU an interface can have.
const PACKET: usize = 65_536;
/// Packets read from one side before the other gets its turn.
const BATCH: usize = 64;

/// The middle of the network: everything between the client side and the server side passes here.
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
    /// The bugcheck that stopped the machine.
    pub(super) fn run(mut self, stop: &OwnedFd) -> Result<Verdicts, Bugcheck> {
        let started = Instant::now();
        let mut stack = Stack::new(Config { pick_up: false });
        let mut classifier = EngineClassifier::new(self.machine.clone());
        let mut buffer = PacketBuffer::new(PACKET);
        loop {
            let mut ready = [
                PollFd::new(&self.client, PollFlags::IN),
                PollFd::new(&self.server, PollFlags::IN),
                PollFd::new(stop, PollFlags::IN),
            ];
            // Once a second even when nothing travels, so that idle flows end in time.
            let second = Timespec { tv_sec: 1, tv_nsec: 0 };
            if let Err(error) = poll(&mut ready, Some(&second)) {
                tracing::warn!(%error, "poll");
            }
            if !ready[2].revents().is_empty() {
                break;
            }
            let from_client = !ready[0].revents().is_empty();
            let from_server = !ready[1].revents().is_empty();
            for (is_ready, direction) in [(from_client, Direction::Outbound), (from_server, Direction::Inbound)] {
                for _ in 0..if is_ready { BATCH } else { 0 } {
                    if !self.carry(&mut stack, &mut classifier, &mut buffer, direction, started)? {
                        break;
                    }
                }
            }
            if !from_client && !from_server {
                let now = started.elapsed();
                cpu::enter(&self.machine, Irql::PASSIVE, || classifier.packet(|c| stack.expire(c, now)))?;
            }
        }
        cpu::enter(&self.machine, Irql::PASSIVE, || classifier.packet(|c| stack.finish(c)))?;
        Ok(self.verdicts)
    }

    /// Carries one packet; `false` when there is none.
    fn carry(
        &mut self,
        stack: &mut Stack<Arc<Flow>>,
        classifier: &mut EngineClassifier,
        buffer: &mut PacketBuffer,
        direction: Direction,
        started: Instant,
    ) -> Result<bool, Bugcheck> {
        if buffer.is_kept() {
            *buffer = PacketBuffer::new(PACKET);
        }
        let (from, to) = match direction {
            Direction::Outbound => (&self.client, &self.server),
            Direction::Inbound => (&self.server, &self.client),
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
        let now = started.elapsed();
        let processes = &mut self.processes;
        let decision = cpu::enter(&self.machine, Irql::PASSIVE, || {
            classifier.packet(|classifier| stack.process(classifier, processes, buffer, direction, now))
        })?;
        if decision.verdict == Verdict::Forward {
            for earlier in &stack.output.earlier {
                send(to, earlier.bytes());
            }
            send(to, buffer.bytes());
        }
        send(&self.client, &stack.output.to_local);
        send(&self.server, &stack.output.to_remote);
        self.verdicts.note(stack, buffer.bytes(), direction, &decision, now);
        Ok(true)
    }
}

/// What the kernel will not take is lost, as on any network.
fn send(to: &Tun, packet: &[u8]) {
    if packet.is_empty() {
        return;
    }
    if let Err(error) = to.write(packet) {
        tracing::debug!(%error, "writing to a TUN device");
    }
}
