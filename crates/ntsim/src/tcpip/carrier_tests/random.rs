//! Random answers over random segments, compared with a naive model.

use super::rig::*;
use super::streams::{DISCONNECT, RECEIVE, SEND, Shown, at_stream};
use super::talk::Talk;
use core::ptr::null_mut;
use nt_abi::NtStatus;
use nt_abi::fwp::consts::FWPS_STREAM_ACTION_DEFER as DEFER;
use parking_lot::Mutex;
use proptest::prelude::*;
use shim::layer::Direction::{Inbound, Outbound};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// What the callout of the property test does with stream data.
#[derive(Clone, Copy, Debug)]
enum Act {
    Permit,
    Block,
    /// Decides about so many thousandths of the data.
    Part(u32, bool),
    NeedMore(u32),
    Defer,
    /// Injects so many bytes, then decides.
    Put(u8, bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => Just(Act::Permit),
        2 => Just(Act::Block),
        3 => (1u32..1000, any::<bool>()).prop_map(|(part, permit)| Act::Part(part, permit)),
        2 => (1u32..3000).prop_map(Act::NeedMore),
        1 => Just(Act::Defer),
        2 => (1u8..50, any::<bool>()).prop_map(|(count, permit)| Act::Put(count, permit)),
    ];
    proptest::collection::vec(act, 0..40)
}

/// One direction, as the callout follows it.
#[derive(Default)]
struct Follow {
    /// How many bytes of the host's stream were decided about.
    position: usize,
    /// What must arrive.
    expected: Vec<u8>,
    deferred: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever callouts answer, wherever segments begin, and with segments lost on both sides of the machine: the
    /// bytes that arrive are those of the naive model, each once and in order.
    #[test]
    fn what_arrives_is_what_was_decided(
        acts in acts(),
        sizes in proptest::collection::vec(1usize..1460, 1..60),
        says in (0usize..20_000, 0usize..20_000),
        lossy in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let text = |count: usize, base: usize| (0..count).map(|i| ((i * 31 + i / 251 + base) % 256) as u8).collect::<Vec<_>>();
        let said = [text(says.0, 1), text(says.1, 7)];
        let mut rig = Rig::new();
        let injector = Injector::stream(&rig);
        let follows: Arc<[Mutex<Follow>; 2]> = Arc::default();
        let (flow, id) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU32::new(0)));
        let (whole, followed, by) = (said.clone(), follows.clone(), injector.clone());
        let (kept, own) = (flow.clone(), id.clone());
        let next = AtomicU32::new(0);
        let callout = at_stream(&mut rig, false, move |shown| {
            kept.store(shown.flow, Ordering::Relaxed);
            if shown.data.is_empty() {
                return;
            }
            let direction = shown.direction();
            let mut follow = followed[direction as usize].lock();
            let (there, at) = (shown.data.len(), follow.position);
            assert_eq!(shown.data, whole[direction as usize][at..at + there], "shown in order");
            let last = shown.flags & DISCONNECT != 0;
            let number = next.fetch_add(1, Ordering::Relaxed) as usize;
            let act = if last { Act::Permit } else { acts.get(number).copied().unwrap_or(Act::Permit) };
            let mut decide = |count: usize, permit: bool, shown: &mut Shown<'_, '_>| {
                shown.decides(if count == there { 0 } else { count }, permit);
                follow.position += count;
                if permit {
                    follow.expected.extend_from_slice(&shown.data[..count]);
                }
            };
            match act {
                Act::Permit => decide(there, true, shown),
                Act::Block => decide(there, false, shown),
                Act::Part(part, permit) => decide((there * part as usize / 1000).max(1), permit, shown),
                Act::NeedMore(more) => shown.needs(more),
                Act::Defer if direction == Inbound => {
                    shown.asks(DEFER);
                    follow.deferred = true;
                }
                Act::Defer => decide(there, true, shown),
                Act::Put(count, permit) => {
                    decide(there, permit, shown);
                    let data = vec![b'!'; usize::from(count)];
                    let flags = if direction == Outbound { SEND } else { RECEIVE };
                    by.put(shown.flow, own.load(Ordering::Relaxed), flags, null_mut(), &data);
                    follow.expected.extend_from_slice(&data);
                }
            }
        });
        id.store(callout, Ordering::Relaxed);
        let mut talk = Talk::new(rig, false);
        let mut random = seed | 1;
        let mut draw = move |of: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % of
        };
        let mut dice = draw;
        if lossy {
            talk.loses = Box::new(move || dice(10) == 0);
        }
        (talk.client.says, talk.server.says) = (said[0].clone(), said[1].clone());
        (talk.client.ends, talk.server.ends) = (true, true);
        let go_on = import!(FwpsStreamContinue0(u64, u32, u16, u32) -> NtStatus);
        for round in 0..4000 {
            if talk.client.ended && talk.server.ended && talk.rig.machine.wfp.engine.flows.is_empty() {
                break;
            }
            for direction in [Outbound, Inbound] {
                let size = sizes[draw(sizes.len() as u64) as usize];
                talk.step(direction, size);
            }
            if round % 3 == 2 && std::mem::take(&mut follows[1].lock().deferred) {
                // SAFETY: the call takes numbers only.
                talk.rig.run(|| unsafe { go_on(flow.load(Ordering::Relaxed), callout, 20, RECEIVE) });
                talk.rig.serve();
                talk.settle();
            }
            if round % 10 == 9 {
                talk.rig.now += Duration::from_millis(250);
                talk.rig.tick();
                talk.settle();
                talk.client.again();
                talk.server.again();
            }
        }
        let (heard_by_server, heard_by_client) = (&talk.server.heard, &talk.client.heard);
        prop_assert_eq!(heard_by_server, &follows[0].lock().expected);
        prop_assert_eq!(heard_by_client, &follows[1].lock().expected);
        prop_assert!(talk.server.ended && talk.client.ended);
        prop_assert_eq!(talk.rig.machine.wfp.engine.flows.len(), 0);
        prop_assert_eq!([follows[0].lock().position, follows[1].lock().position], [says.0, says.1]);
    }
}
