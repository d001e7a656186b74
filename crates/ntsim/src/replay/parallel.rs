//! Several processors at once: the packets of a capture are spread over several stacks.
//!
//! A packet's addresses choose its worker, so that a flow stays with one worker and in order, fragments included. What
//! spans workers is lost: an ICMP error of a router on the path does not find the flow that it is about, and nothing
//! that a driver injects or completes later is carried. Events have the time of the last packet of any worker.

use super::capture::{self, CaptureError};
use super::link;
use super::{Addresses, Options, PassedOver, ReplayError, Way, way};
use crate::cpu::{self, Bugcheck};
use crate::machine::Machine;
use crate::tcpip::engine::EngineClassifier;
use crate::tcpip::verdicts::Verdicts;
use filter_engine::flow::Flow;
use filter_engine::netevent::FileTime;
use nt_abi::Irql;
use nt_abi::PacketBuffer;
use shim::layer::Direction;
use shim::stack::{Config, Stack};
use std::io::Read;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, UNIX_EPOCH};

/// Bytes handed to a worker at once.
const BATCH: usize = 256 << 10;
/// Batches that may wait for a worker.
const WAITING: usize = 4;

/// A packet in a batch.
struct Entry {
    bytes: Range<usize>,
    direction: Option<Direction>,
    to_group: bool,
    time: Duration,
}

#[derive(Default)]
struct Batch {
    /// The time of the capture's first packet, where every worker's clock begins.
    first: Duration,
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

struct Worker {
    machine: Arc<Machine>,
    stack: Stack<Arc<Flow>>,
    classifier: EngineClassifier,
    buffer: PacketBuffer,
    verdicts: Verdicts,
    first: Duration,
    now: Duration,
    passed_over: PassedOver,
}

/// Passes a capture through `options.processors` stacks at once.
pub(super) fn run(
    machine: &Arc<Machine>,
    input: impl Read + Send,
    options: &Options,
    verdicts: &mut Verdicts,
) -> Result<PassedOver, ReplayError> {
    thread::scope(|scope| {
        let mut workers = Vec::new();
        for _ in 0..options.processors {
            let (sender, receiver) = sync_channel(WAITING);
            workers.push((sender, scope.spawn(move || Worker::new(machine).run(&receiver, options))));
        }
        let mut passed_over = PassedOver::default();
        let senders: Vec<_> = workers.iter().map(|(sender, _)| sender.clone()).collect();
        let read = deal(input, senders, &mut passed_over);
        let mut stopped = None;
        for (sender, worker) in workers {
            drop(sender);
            match worker.join() {
                Ok(Ok((its_verdicts, reasons))) => {
                    verdicts.add(its_verdicts);
                    for (reason, count) in reasons.0 {
                        *passed_over.0.entry(reason).or_default() += count;
                    }
                }
                Ok(Err(bugcheck)) => stopped = Some(bugcheck),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        machine.wfp.engine.events.set_time(None);
        match stopped {
            Some(bugcheck) => Err(bugcheck.into()),
            None => read.map(|()| passed_over).map_err(Into::into),
        }
    })
}

/// Reads the capture and hands its packets to the workers.
fn deal(
    input: impl Read + Send,
    workers: Vec<SyncSender<Batch>>,
    passed_over: &mut PassedOver,
) -> Result<(), CaptureError> {
    let mut batches: Vec<Batch> = workers.iter().map(|_| Batch::default()).collect();
    let mut first = None;
    let read = capture::read(input, |frame| {
        let found = match link::find(frame.link, frame.bytes) {
            Ok(found) => found,
            Err(reason) => {
                passed_over.note(reason);
                return ControlFlow::Continue(());
            }
        };
        let first = *first.get_or_insert(frame.time);
        let worker = worker_of(found.packet, workers.len());
        let batch = &mut batches[worker];
        batch.first = first;
        let start = batch.bytes.len();
        batch.bytes.extend_from_slice(found.packet);
        link::fill_in_length(&mut batch.bytes[start..]);
        let direction = frame.direction.or(found.direction);
        let to_group = found.to_group;
        batch.entries.push(Entry { bytes: start..batch.bytes.len(), direction, to_group, time: frame.time });
        // A worker ends early only when the machine has stopped.
        if batch.bytes.len() >= BATCH && workers[worker].send(std::mem::take(batch)).is_err() {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    for (worker, batch) in workers.iter().zip(batches) {
        if !batch.entries.is_empty() {
            let _ = worker.send(batch); // as above
        }
    }
    read
}

/// The worker of a packet: a hash of its two addresses, the same both ways.
fn worker_of(packet: &[u8], workers: usize) -> usize {
    let addresses = match packet.first().map(|first| first >> 4) {
        Some(4) => packet.get(12..20),
        Some(6) => packet.get(8..40),
        _ => None,
    };
    let Some(addresses) = addresses else { return 0 };
    let (a, b) = addresses.split_at(addresses.len() / 2);
    let hash = |half: &[u8]| {
        half.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
    };
    // The upper bits are mixed best.
    ((hash(a).wrapping_add(hash(b)).wrapping_mul(0x9E37_79B9_7F4A_7C15)) >> 32) as usize % workers
}

impl Worker {
    /// A worker of this thread.
    fn new(machine: &Arc<Machine>) -> Self {
        Self {
            machine: machine.clone(),
            stack: Stack::new(Config { pick_up: true }),
            classifier: EngineClassifier::new(machine.clone()),
            buffer: PacketBuffer::new(65_536),
            verdicts: Verdicts::new(None),
            first: Duration::ZERO,
            now: Duration::ZERO,
            passed_over: PassedOver::default(),
        }
    }

    fn run(mut self, batches: &Receiver<Batch>, options: &Options) -> Result<(Verdicts, PassedOver), Bugcheck> {
        while let Ok(batch) = batches.recv() {
            self.first = batch.first;
            for entry in &batch.entries {
                self.pass(&batch.bytes[entry.bytes.clone()], entry, options)?;
            }
        }
        let Self { machine, stack, classifier, .. } = &mut self;
        cpu::enter(machine, Irql::PASSIVE, || classifier.packet(|c| stack.finish(c)))?;
        Ok((self.verdicts, self.passed_over))
    }

    fn pass(&mut self, packet: &[u8], entry: &Entry, options: &Options) -> Result<(), Bugcheck> {
        let Some(way) = way(&self.stack, packet, entry.direction, entry.to_group, options) else {
            self.passed_over.note(super::NOT_LOCAL);
            return Ok(());
        };
        self.now = self.now.max(entry.time.saturating_sub(self.first));
        self.machine.wfp.engine.events.set_time(Some(FileTime::from(UNIX_EPOCH + entry.time)));
        self.buffer.fill(packet);
        let Self { machine, stack, classifier, buffer, verdicts, now, .. } = self;
        let endpoints = &mut Addresses(&options.local);
        let (direction, decision) = match way {
            Way::Through(direction) => {
                let decision = cpu::enter(machine, Irql::PASSIVE, || {
                    classifier.packet(|c| stack.process(c, endpoints, buffer, direction, *now))
                })?;
                (direction, decision)
            }
            Way::Between => {
                let decision = cpu::enter(machine, Irql::PASSIVE, || {
                    classifier.packet(|c| stack.forward(c, endpoints, buffer, *now))
                })?;
                (Direction::Outbound, decision)
            }
            Way::Within => {
                let (sent, arrived) = cpu::enter(machine, Irql::PASSIVE, || {
                    classifier.packet(|c| stack.send(c, endpoints, buffer, |_| true, *now))
                })?;
                verdicts.note_sent(stack, packet, sent, arrived, *now)
            }
        };
        verdicts.note(stack, packet, direction, &decision, *now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_directions_and_every_fragment_share_a_worker() {
        let packet = |a: [u8; 4], b: [u8; 4]| {
            let mut packet = vec![0x45; 40];
            packet[12..16].copy_from_slice(&a);
            packet[16..20].copy_from_slice(&b);
            packet
        };
        let mut used = [false; 4];
        for n in 0..64 {
            let (us, them) = ([10, 0, 0, 2], [203, 0, 113, n]);
            let worker = worker_of(&packet(us, them), 4);
            assert_eq!(worker, worker_of(&packet(them, us), 4));
            used[worker] = true;
        }
        assert_eq!(used, [true; 4]);
        assert_eq!(worker_of(&[0x45], 4), 0, "an unreadable packet");
    }
}
