//! Carries the packets of one machine: those from the wire and those that drivers inject.

use super::engine::EngineClassifier;
use super::mailbox::{Mailbox, Request, Slot, stream_data, stream_of};
use super::verdicts::Verdicts;
use crate::cpu::{self, Bugcheck};
use crate::fwpkclnt::inject::{Injection, InjectionPath};
use crate::machine::Machine;
use filter_engine::flow::Flow;
use nt_abi::Irql;
use nt_abi::NtStatus;
use nt_abi::PacketBuffer;
use nt_abi::fwp::consts;
use shim::flow::Endpoints;
use shim::layer::Direction;
use shim::rewrite;
use shim::stack::{Config, Decision, Stack, Verdict};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// The two sides between which packets are carried.
pub trait Wire {
    /// Hands a packet to this machine's programs.
    fn deliver(&mut self, packet: &[u8]);
    /// Sends a packet to the other side.
    fn transmit(&mut self, packet: &[u8]);
    /// Whether a packet that leaves arrives at this machine instead of the other side.
    fn comes_back(&self, _: &[u8]) -> bool {
        false
    }
}

/// A wire without ends: for captures.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoWire;

impl Wire for NoWire {
    fn deliver(&mut self, _: &[u8]) {}
    fn transmit(&mut self, _: &[u8]) {}
}

/// The surroundings of a packet.
pub struct Around<'a> {
    /// Who owns local endpoints.
    pub endpoints: &'a mut dyn Endpoints,
    /// Where packets go.
    pub wire: &'a mut dyn Wire,
    /// Where verdicts are recorded.
    pub verdicts: &'a mut Verdicts,
    /// The time, by any clock that does not go back.
    pub now: Duration,
}

impl std::fmt::Debug for Around<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Around").field("now", &self.now).finish_non_exhaustive()
    }
}

type Stacked = Stack<Arc<Flow>>;

/// The network stack of a machine, under its filter engine. A machine has one at a time.
///
/// None of its methods may be called from inside [`cpu::enter`].
#[derive(Debug)]
pub struct Carrier {
    machine: Arc<Machine>,
    stack: Stack<Arc<Flow>>,
    classifier: EngineClassifier,
    mailbox: Arc<Mailbox>,
    /// What the stack or a driver sent to this machine itself, and what is still to arrive.
    returning: VecDeque<PacketBuffer>,
}

impl Carrier {
    /// Gives `machine` a stack. `wake` is called, from any thread and at any IRQL, when a driver has made a request:
    /// call [`Carrier::serve`] soon after.
    #[must_use]
    pub fn new(machine: &Arc<Machine>, config: Config, wake: impl Fn() + Send + Sync + 'static) -> Self {
        let mailbox = Mailbox::new(Box::new(wake));
        machine.wfp.set_stack(Box::new(Slot(mailbox.clone())));
        let classifier = EngineClassifier::with(machine.clone(), mailbox.clone());
        let returning = VecDeque::new();
        Self { machine: machine.clone(), stack: Stack::new(config), classifier, mailbox, returning }
    }

    /// The stack, for inspection.
    #[must_use]
    pub fn stack(&self) -> &Stack<Arc<Flow>> {
        &self.stack
    }

    /// Carries a packet that travels in `direction`, and sends what its verdict produces. Do not reuse the buffer for
    /// another packet while a driver keeps it ([`PacketBuffer::is_kept`]).
    ///
    /// Requests that drivers make meanwhile wait for [`Carrier::serve`].
    ///
    /// # Errors
    /// The bugcheck that stopped the machine.
    pub fn carry(
        &mut self,
        buffer: &mut PacketBuffer,
        direction: Direction,
        around: &mut Around<'_>,
    ) -> Result<Decision, Bugcheck> {
        if direction == Direction::Outbound {
            return self.carry_out(buffer, false, around);
        }
        let decision = self.arrive(buffer, around)?;
        self.settle(around)?;
        Ok(decision)
    }

    /// Carries a packet from this machine to itself; returns the decision of the last end that it reached.
    ///
    /// # Errors
    /// As [`Self::carry`].
    pub fn carry_within(&mut self, buffer: &mut PacketBuffer, around: &mut Around<'_>) -> Result<Decision, Bugcheck> {
        self.carry_out(buffer, true, around)
    }

    /// Carries a packet of a program of this machine, which comes back when it is `within` or the wire says so.
    fn carry_out(
        &mut self,
        buffer: &mut PacketBuffer,
        within: bool,
        around: &mut Around<'_>,
    ) -> Result<Decision, Bugcheck> {
        let Self { machine, stack, classifier, .. } = self;
        let Around { endpoints, wire, now, .. } = around;
        let returns = |packet: &[u8]| within || wire.comes_back(packet);
        let (sent, arrived) = cpu::enter(machine, Irql::PASSIVE, || {
            classifier.packet(|c| stack.send(c, *endpoints, buffer, returns, *now))
        })?;
        let (direction, decision) = around.verdicts.note_sent(&self.stack, buffer.bytes(), sent, arrived, around.now);
        self.send_on(buffer, direction, decision, around);
        self.settle(around)?;
        Ok(decision)
    }

    /// Carries a packet that comes to this machine.
    fn arrive(&mut self, buffer: &mut PacketBuffer, around: &mut Around<'_>) -> Result<Decision, Bugcheck> {
        let Self { machine, stack, classifier, .. } = self;
        let decision = cpu::enter(machine, Irql::PASSIVE, || {
            classifier.packet(|c| stack.process(c, around.endpoints, buffer, Direction::Inbound, around.now))
        })?;
        self.send_on(buffer, Direction::Inbound, decision, around);
        Ok(decision)
    }

    /// Carries the packets that come back, and completes the injections that were finished inside classify.
    fn settle(&mut self, around: &mut Around<'_>) -> Result<(), Bugcheck> {
        while let Some(mut buffer) = self.returning.pop_front() {
            self.arrive(&mut buffer, around)?;
        }
        self.give_back()
    }

    /// Passes on a packet of which neither end is this machine's.
    ///
    /// # Errors
    /// As [`Self::carry`].
    pub fn forward(&mut self, buffer: &mut PacketBuffer, around: &mut Around<'_>) -> Result<Decision, Bugcheck> {
        let Self { machine, stack, classifier, .. } = self;
        let decision = cpu::enter(machine, Irql::PASSIVE, || {
            classifier.packet(|c| stack.forward(c, around.endpoints, buffer, around.now))
        })?;
        self.send_on(buffer, Direction::Outbound, decision, around);
        self.give_back()?;
        Ok(decision)
    }

    /// Completes the injections that were finished inside classify.
    fn give_back(&mut self) -> Result<(), Bugcheck> {
        while let Some(injection) = self.classifier.take_done() {
            self.complete(injection, NtStatus::SUCCESS)?;
        }
        Ok(())
    }

    /// Sends a packet on, and what its verdict produces.
    fn send_on(&mut self, buffer: &PacketBuffer, direction: Direction, decision: Decision, around: &mut Around<'_>) {
        let Self { stack, returning, .. } = self;
        if decision.verdict == Verdict::Forward {
            for packet in stack.output.earlier.iter().chain([buffer]) {
                match direction {
                    Direction::Outbound => transmit(around.wire, returning, packet.bytes()),
                    Direction::Inbound => around.wire.deliver(&stack.turned_back(packet.bytes())),
                }
            }
        }
        self.send_output(around);
        around.verdicts.note(&self.stack, buffer.bytes(), direction, &decision, around.now);
    }

    /// Sends the stack's own packets.
    fn send_output(&mut self, around: &mut Around<'_>) {
        let Self { stack, returning, .. } = self;
        let output = &stack.output;
        for (direction, packet) in &output.relayed {
            match direction {
                Direction::Outbound => transmit(around.wire, returning, packet.bytes()),
                Direction::Inbound => around.wire.deliver(&stack.turned_back(packet.bytes())),
            }
        }
        if !output.to_local.is_empty() {
            around.wire.deliver(&stack.turned_back(&output.to_local));
        }
        if !output.to_remote.is_empty() {
            transmit(around.wire, returning, &output.to_remote);
        }
    }

    /// Serves at most `limit` requests of drivers (a callout that injects all it sees would never end); whether
    /// requests are left.
    ///
    /// # Errors
    /// The bugcheck that stopped the machine.
    pub fn serve(&mut self, limit: usize, around: &mut Around<'_>) -> Result<bool, Bugcheck> {
        for _ in 0..limit {
            match self.mailbox.take() {
                Some(Request::Inject(injection)) => self.inject(injection, around)?,
                Some(Request::CompleteOperation(token)) => {
                    self.go_on(around, |stack, c, endpoints, now| stack.complete_operation(c, endpoints, token, now))?;
                }
                Some(Request::CompleteClassify(token, settled)) => {
                    self.go_on(around, |stack, c, endpoints, now| {
                        stack.complete_classify(c, endpoints, token, settled, now)
                    })?;
                }
                Some(Request::ContinueStream { flow, callout_id }) => {
                    let Self { machine, stack, classifier, .. } = self;
                    let Around { endpoints, now, .. } = around;
                    cpu::enter(machine, Irql::PASSIVE, || {
                        classifier.packet(|c| stack.stream_continue(c, *endpoints, flow, callout_id, *now))
                    })?;
                    self.send_output(around);
                }
                None => return Ok(false),
            }
            self.settle(around)?;
        }
        Ok(!self.mailbox.is_empty())
    }

    /// Resumes what was pended.
    fn go_on(
        &mut self,
        around: &mut Around<'_>,
        f: impl FnOnce(
            &mut Stacked,
            &mut EngineClassifier,
            &mut dyn Endpoints,
            Duration,
        ) -> Option<(Decision, PacketBuffer)>,
    ) -> Result<(), Bugcheck> {
        let Self { machine, stack, classifier, .. } = self;
        let Around { endpoints, now, .. } = around;
        let resumed = cpu::enter(machine, Irql::PASSIVE, || classifier.packet(|c| f(stack, c, *endpoints, *now)))?;
        if let Some((decision, buffer)) = resumed {
            self.send_on(&buffer, Direction::Outbound, decision, around);
        }
        Ok(())
    }

    /// Carries what a driver injects, and gives it back.
    ///
    /// No document says which status an injection gets when its packet is blocked or is not valid; here they are
    /// `STATUS_DATA_NOT_ACCEPTED` and `STATUS_INVALID_PARAMETER`.
    fn inject(&mut self, injection: Box<Injection>, around: &mut Around<'_>) -> Result<(), Bugcheck> {
        let direction = match injection.path {
            InjectionPath::NetworkSend { .. } | InjectionPath::TransportSend { .. } => Direction::Outbound,
            InjectionPath::NetworkReceive { .. } | InjectionPath::TransportReceive { .. } => Direction::Inbound,
            InjectionPath::Stream { .. } => return self.inject_stream(injection, around),
            InjectionPath::Forward { .. } => {
                tracing::warn!(?injection, "the simulated machine does not forward");
                return self.complete(injection, NtStatus::NOT_SUPPORTED);
            }
        };
        // A driver may pass memory that is not its own; inside `enter` the fault is the driver's.
        let packets = cpu::enter(&self.machine, Irql::PASSIVE, || injection.packets())?;
        let mut status = if packets.is_empty() { NtStatus::INVALID_PARAMETER } else { NtStatus::SUCCESS };
        for data in packets {
            let Some(bytes) = self.packet_of(&injection, data) else {
                status = NtStatus::INVALID_PARAMETER;
                continue;
            };
            let mut buffer = PacketBuffer::copy_of(&bytes);
            let Self { machine, stack, classifier, .. } = self;
            let (mark, path) = (injection.mark().clone(), &injection.path);
            let Around { endpoints, now, .. } = around;
            let decision = cpu::enter(machine, Irql::PASSIVE, || {
                classifier.packet(|c| {
                    c.injected(mark, |c| match path {
                        InjectionPath::NetworkSend { .. } => stack.send_network(c, *endpoints, &mut buffer, *now),
                        InjectionPath::TransportSend { .. } => stack.send_transport(c, *endpoints, &mut buffer, *now),
                        InjectionPath::TransportReceive { .. } => {
                            stack.receive_transport(c, *endpoints, &mut buffer, *now)
                        }
                        _ => stack.process(c, *endpoints, &mut buffer, Direction::Inbound, *now),
                    })
                })
            })?;
            match decision.verdict {
                Verdict::Forward | Verdict::Hold | Verdict::Relayed => {}
                Verdict::Malformed(_) => status = NtStatus::INVALID_PARAMETER,
                Verdict::Drop | Verdict::Refuse | Verdict::Abort => status = NtStatus::DATA_NOT_ACCEPTED,
            }
            around.verdicts.totals.injected += 1;
            self.send_on(&buffer, direction, decision, around);
        }
        self.complete(injection, status)
    }

    /// Puts data into a stream, outside classify.
    fn inject_stream(&mut self, injection: Box<Injection>, around: &mut Around<'_>) -> Result<(), Bugcheck> {
        let mut status = NtStatus::NOT_FOUND;
        let data = cpu::enter(&self.machine, Irql::PASSIVE, || stream_data(&injection))?;
        if let (Some((flow, direction)), Some(data)) = (stream_of(&injection), data) {
            let Self { machine, stack, classifier, .. } = self;
            let Around { endpoints, now, .. } = around;
            let there = cpu::enter(machine, Irql::PASSIVE, || {
                classifier.packet(|c| stack.inject_stream(c, *endpoints, flow, direction, data, *now))
            })?;
            if there {
                status = NtStatus::SUCCESS;
                self.send_output(around);
            }
        }
        self.complete(injection, status)
    }

    /// The IP packet that was injected; `None` when it cannot be one.
    fn packet_of(&self, injection: &Injection, data: Vec<u8>) -> Option<Vec<u8>> {
        let packet = match &injection.path {
            // "sendArgs can be NULL only if the net buffer list contains an IP header."
            InjectionPath::TransportSend { header, remote: None, .. } => [header, &*data].concat(),
            InjectionPath::TransportSend { header, .. } if !header.is_empty() => [header, &*data].concat(),
            InjectionPath::TransportSend { endpoint, remote: Some(remote), .. } => {
                let key = self.stack.endpoint(*endpoint)?;
                rewrite::wrap(key.local(), *remote, key.protocol, &data)?
            }
            _ => data,
        };
        is_of_family(&packet, injection.family()).then_some(packet)
    }

    fn complete(&mut self, injection: Box<Injection>, status: NtStatus) -> Result<(), Bugcheck> {
        cpu::enter(&self.machine, Irql::PASSIVE, || {
            cpu::at_irql(Irql::DISPATCH, || injection.complete(status));
        })?;
        self.classifier.sweep();
        Ok(())
    }

    /// Runs the timers: ends flows that have been idle for too long and sends again what was not answered. Returns how
    /// soon to call it again.
    ///
    /// # Errors
    /// The bugcheck that stopped the machine.
    pub fn tick(&mut self, around: &mut Around<'_>) -> Result<Duration, Bugcheck> {
        let Self { machine, stack, classifier, .. } = self;
        let relays = cpu::enter(machine, Irql::PASSIVE, || {
            classifier.packet(|c| {
                stack.expire(c, around.now);
                stack.end_closed(c, around.endpoints, around.now);
                stack.retry(c, around.endpoints, around.now)
            })
        })?;
        self.send_output(around);
        self.settle(around)?;
        Ok(if relays { Duration::from_millis(50) } else { Duration::from_secs(1) })
    }

    /// Takes the machine off the network: injections are refused, waiting ones are completed, every flow ends.
    ///
    /// # Errors
    /// The bugcheck that stopped the machine.
    pub fn finish(mut self) -> Result<(), Bugcheck> {
        self.mailbox.close();
        while let Some(request) = self.mailbox.take() {
            if let Request::Inject(injection) = request {
                self.complete(injection, NtStatus::CANCELLED)?;
            }
        }
        self.give_back()?;
        let Self { machine, stack, classifier, .. } = &mut self;
        cpu::enter(machine, Irql::PASSIVE, || classifier.packet(|c| stack.finish(c)))?;
        self.classifier.sweep();
        Ok(())
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.mailbox.close();
    }
}

/// Sends a packet to the other side, or lets it come back.
fn transmit(wire: &mut dyn Wire, returning: &mut VecDeque<PacketBuffer>, packet: &[u8]) {
    if wire.comes_back(packet) {
        returning.push_back(PacketBuffer::copy_of(packet));
    } else {
        wire.transmit(packet);
    }
}

/// Whether a packet's version is that of its injection handle; a handle without a family takes either.
fn is_of_family(bytes: &[u8], family: u16) -> bool {
    match family {
        consts::AF_INET => bytes.first().is_some_and(|first| first >> 4 == 4),
        consts::AF_INET6 => bytes.first().is_some_and(|first| first >> 4 == 6),
        _ => true,
    }
}
