//! What stream callouts may ask for.

use super::rig::*;
use super::talk::Talk;
use core::ptr::null_mut;
use filter_engine::layers::LayerId;
use nt_abi::NtStatus;
use nt_abi::fwp::consts::{
    FWPS_INJECTION_TYPE_STREAM, FWPS_STREAM_ACTION_ALLOW_CONNECTION as ALLOW, FWPS_STREAM_ACTION_DEFER as DEFER,
    FWPS_STREAM_ACTION_DROP_CONNECTION as DROP, FWPS_STREAM_ACTION_NEED_MORE_DATA as NEED_MORE,
};
use nt_abi::fwp::{FwpsStreamCalloutIoPacket0, FwpsStreamData0};
use nt_abi::{NetBufferList, PacketBuffer};
use parking_lot::Mutex;
use shim::layer::Direction::{self, Inbound, Outbound};
use shim::stack::Verdict;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(super) const SEND: u32 = 0x1_0000;
pub(super) const RECEIVE: u32 = 0x1;
pub(super) const DISCONNECT: u32 = 0x8_0004; // in either direction

/// The arguments of a stream callout.
pub(crate) struct Shown<'a, 'b> {
    pub(crate) call: &'a mut Call<'b>,
    /// The data.
    pub(crate) data: Vec<u8>,
    pub(crate) flags: u32,
    pub(crate) flow: u64,
}

impl Shown<'_, '_> {
    fn io(&mut self) -> &mut FwpsStreamCalloutIoPacket0 {
        // SAFETY: the layer data of the stream layers.
        unsafe { &mut *self.call.layer_data.cast() }
    }

    pub(crate) fn direction(&self) -> Direction {
        if self.flags & 0xffff == 0 { Outbound } else { Inbound }
    }

    pub(super) fn asks(&mut self, action: u32) {
        self.io().stream_action = action;
    }

    pub(crate) fn needs(&mut self, more: u32) {
        self.io().count_bytes_required = more;
        self.asks(NEED_MORE);
    }

    /// Decides about the first bytes only.
    pub(crate) fn decides(&mut self, count: usize, permit: bool) {
        self.io().count_bytes_enforced = count;
        if permit { self.call.permit() } else { self.call.block() }
    }
}

/// Calls `play` at STREAM; returns the callout's id.
pub(super) fn at_stream(rig: &mut Rig, v6: bool, play: impl Fn(&mut Shown<'_, '_>) + Send + Sync + 'static) -> u32 {
    rig.callout(LayerId(if v6 { 22 } else { 20 }), shown(play))
}

/// A callout for the STREAM layer, with the data as a driver copies it.
pub(crate) fn shown(
    play: impl Fn(&mut Shown<'_, '_>) + Send + Sync + 'static,
) -> impl Fn(&mut Call<'_>) + Send + Sync + 'static {
    move |call| {
        let copy = import!(FwpsCopyStreamDataToBuffer0(*const FwpsStreamData0, *mut u8, usize, *mut usize));
        // SAFETY: the layer data of the stream layers.
        let stream = unsafe { &*(*call.layer_data.cast::<FwpsStreamCalloutIoPacket0>()).stream_data };
        let mut data = vec![0; stream.data_length];
        let mut copied = 0;
        // SAFETY: the buffer has that length.
        unsafe { copy(stream, data.as_mut_ptr(), data.len(), &raw mut copied) };
        assert_eq!(copied, data.len());
        let (flags, flow) = (stream.flags, call.metadata.flow_handle);
        play(&mut Shown { call, data, flags, flow });
    }
}

impl Injector {
    pub(super) fn stream(rig: &Rig) -> Arc<Self> {
        Self::new(rig, 0, FWPS_INJECTION_TYPE_STREAM)
    }

    /// Injects into a stream `list`, a clone of stream data, or when that is null, the driver's own `data`.
    pub(crate) fn put(&self, flow: u64, callout: u32, flags: u32, list: *mut NetBufferList, data: &[u8]) -> NtStatus {
        type Complete = unsafe extern "win64" fn(*mut core::ffi::c_void, *mut NetBufferList, u8);
        let inject = import!(
            FwpsStreamInjectAsync0(
                u64,
                u64,
                u32,
                u64,
                u32,
                u16,
                u32,
                *mut NetBufferList,
                usize,
                Complete,
                *mut core::ffi::c_void,
            ) -> NtStatus
        );
        let mut length = data.len();
        let (list, packet) = match list.is_null() {
            false => {
                // SAFETY: a live clone.
                length = unsafe { crate::ndis::data::to_vec((*list).first_net_buffer) }.len();
                (list, None)
            }
            true => {
                let mut packet = PacketBuffer::copy_of(data);
                (packet.list(0, 0, data.len()), Some(packet))
            }
        };
        let handle = self.handle;
        // SAFETY: the list lives until it is completed.
        self.with(list, packet, |list, f, c| unsafe {
            inject(handle, 0, 0, flow, callout, 20, flags, list, length, f, c)
        })
    }
}

#[test]
fn who_needs_more_data_gets_it_in_one_piece_and_nothing_passes_before() {
    for v6 in [false, true] {
        for direction in [Outbound, Inbound] {
            let mut rig = Rig::new();
            let seen: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
            let log = seen.clone();
            at_stream(&mut rig, v6, move |shown| {
                log.lock().push(shown.data.clone());
                if !shown.data.is_empty() && shown.data.len() < 10 {
                    shown.needs(10 - shown.data.len() as u32);
                }
            });
            let mut talk = Talk::new(rig, v6);
            for part in [&b"0123"[..], b"45", b"678"] {
                talk.say(direction, part);
            }
            assert!(talk.host(direction.reverse()).heard.is_empty());
            assert_eq!(talk.host(direction).acknowledged, 9, "the sender goes on");
            talk.say(direction, b"9AB");
            assert_eq!(talk.host(direction.reverse()).heard, b"0123456789AB");
            assert_eq!(*seen.lock(), [&b"0123"[..], b"0123456789AB"], "asked again when there is enough");
        }
    }
}

#[test]
fn what_is_still_wanted_at_the_end_is_shown_once_more_and_does_not_pass() {
    let mut rig = Rig::new();
    let flags: Arc<Mutex<Vec<u32>>> = Arc::default();
    let log = flags.clone();
    at_stream(&mut rig, false, move |shown| {
        log.lock().push(shown.flags);
        if !shown.data.is_empty() {
            shown.needs(1000);
        }
    });
    let mut talk = Talk::new(rig, false);
    talk.say(Outbound, b"half a message");
    talk.end(Outbound);
    assert_eq!((talk.server.heard.len(), talk.server.ended), (0, true));
    assert_eq!(*flags.lock(), [SEND, SEND | 0x8_0000, 0x8_0000]);
}

#[test]
fn a_part_is_blocked_and_the_rest_is_asked_about_again() {
    for direction in [Outbound, Inbound] {
        let mut rig = Rig::new();
        at_stream(&mut rig, false, |shown| match shown.data.iter().position(|&byte| byte == b'<') {
            Some(0) => {
                let end = shown.data.iter().position(|&byte| byte == b'>').map_or(shown.data.len(), |end| end + 1);
                shown.decides(end, false);
            }
            Some(start) => shown.decides(start, true),
            None => shown.call.permit(),
        });
        let mut talk = Talk::new(rig, false);
        talk.say(direction, b"no secrets. ");
        talk.say(direction, b"my <secret> is <very> dull");
        talk.say(direction, b", as they say");
        talk.end(direction);
        assert_eq!(
            String::from_utf8_lossy(&talk.host(direction.reverse()).heard),
            "no secrets. my  is  dull, as they say"
        );
        assert!(talk.host(direction.reverse()).ended);
        talk.say(direction.reverse(), b"I see");
        talk.end(direction.reverse());
        assert_eq!(talk.host(direction).heard, b"I see", "the other way is as it was");
        assert_eq!(talk.rig.machine.wfp.engine.flows.len(), 0, "the connection has ended");
    }
}

#[test]
fn a_deferred_stream_closes_the_window_and_goes_on_when_told() {
    let mut rig = Rig::new();
    let flow: Arc<AtomicU64> = Arc::default();
    let calls: Arc<AtomicU32> = Arc::default();
    let (kept, count) = (flow.clone(), calls.clone());
    let callout = at_stream(&mut rig, false, move |shown| {
        kept.store(shown.flow, Ordering::Relaxed);
        if shown.direction() == Inbound && count.fetch_add(1, Ordering::Relaxed) == 0 {
            shown.asks(DEFER);
        }
    });
    let mut talk = Talk::new(rig, false);
    talk.say(Inbound, b"later");
    assert!(talk.client.heard.is_empty());
    talk.server.says.extend_from_slice(b" or never");
    assert!(!talk.step(Inbound, 100), "the window is closed");
    talk.say(Outbound, b"meanwhile");
    assert_eq!(talk.server.heard, b"meanwhile");
    let go_on = import!(FwpsStreamContinue0(u64, u32, u16, u32) -> NtStatus);
    let continues = |callout| {
        // SAFETY: the call takes numbers only.
        talk.rig.run(|| unsafe { go_on(flow.load(Ordering::Relaxed), callout, 20, RECEIVE) })
    };
    assert_eq!(continues(callout + 77), NtStatus::SUCCESS);
    talk.rig.serve();
    talk.settle();
    assert!(talk.client.heard.is_empty(), "another flow or callout changes nothing");
    let flow = flow.load(Ordering::Relaxed);
    // SAFETY: the call takes numbers only.
    assert_eq!(talk.rig.run(|| unsafe { go_on(flow, callout, 20, RECEIVE) }), NtStatus::SUCCESS);
    talk.rig.serve();
    talk.settle();
    assert_eq!(talk.client.heard, b"later");
    assert!(talk.step(Inbound, 100), "the window is open again");
    assert_eq!(talk.client.heard, b"later or never");
}

#[test]
fn who_allows_the_connection_is_not_asked_again() {
    let mut rig = Rig::new();
    let calls: Arc<AtomicU32> = Arc::default();
    let count = calls.clone();
    at_stream(&mut rig, false, move |shown| {
        count.fetch_add(1, Ordering::Relaxed);
        shown.asks(ALLOW);
    });
    let mut talk = Talk::new(rig, false);
    talk.say(Outbound, b"a");
    talk.say(Inbound, b"b");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!((talk.server.heard, talk.client.heard), (b"a".to_vec(), b"b".to_vec()));
}

#[test]
fn a_connection_dropped_late_is_reset_with_the_numbers_each_host_knows() {
    let mut rig = Rig::new();
    at_stream(&mut rig, false, |shown| match &shown.data[..] {
        b"bad" => shown.call.block(),
        b"worse" => shown.asks(DROP),
        _ => {}
    });
    let mut talk = Talk::new(rig, false);
    talk.say(Outbound, b"good");
    talk.say(Outbound, b"bad");
    talk.say(Inbound, b"fine");
    talk.say(Outbound, b"worse");
    assert!(talk.client.reset && talk.server.reset);
    assert_eq!(talk.server.heard, b"good");
    assert_eq!(talk.rig.machine.wfp.engine.flows.len(), 0);
}

#[test]
fn a_reset_of_one_host_reaches_the_other() {
    let mut rig = Rig::new();
    at_stream(&mut rig, false, |shown| {
        if shown.data == b"bad" {
            shown.call.block()
        }
    });
    let mut talk = Talk::new(rig, false);
    talk.say(Outbound, b"bad");
    talk.rig.inward(&tcp(false, Inbound, "R", 4_294_967_201, 0, b""));
    talk.settle();
    assert!(talk.client.reset && !talk.server.reset);
    assert_eq!(talk.rig.machine.wfp.engine.flows.len(), 0);
}

#[test]
fn data_is_replaced_in_its_place() {
    for v6 in [false, true] {
        for direction in [Outbound, Inbound] {
            let mut rig = Rig::new();
            let injector = Injector::stream(&rig);
            let (by, id) = (injector.clone(), Arc::new(AtomicU32::new(0)));
            let own = id.clone();
            let callout = at_stream(&mut rig, v6, move |shown| {
                let secret = shown.data.windows(6).position(|window| window == b"secret");
                match secret {
                    Some(0) => {
                        let flags = if direction == Outbound { SEND } else { RECEIVE };
                        let own = own.load(Ordering::Relaxed);
                        let status = by.put(shown.flow, own, flags, null_mut(), b"perfectly open book");
                        assert_eq!(status, NtStatus::SUCCESS);
                        shown.decides(6, false);
                    }
                    Some(start) => shown.decides(start, true),
                    None => {}
                }
            });
            id.store(callout, Ordering::Relaxed);
            let mut talk = Talk::new(rig, v6);
            talk.say(direction, b"a secret is no secret");
            talk.say(direction, b"!");
            assert_eq!(talk.host(direction.reverse()).heard, b"a perfectly open book is no perfectly open book!");
            assert_eq!(talk.host(direction).acknowledged, 22);
            assert_eq!(*injector.done.lock(), [NtStatus::SUCCESS; 2]);
            injector.destroy(&talk.rig);
        }
    }
}

#[test]
fn what_is_cloned_and_blocked_can_be_put_back_from_outside() {
    let mut rig = Rig::new();
    let injector = Injector::stream(&rig);
    type Kept = Vec<(usize, u64, u32)>;
    let kept: Arc<Mutex<Kept>> = Arc::default();
    let keep = kept.clone();
    let callout = at_stream(&mut rig, false, move |shown| {
        let clone = import!(
            FwpsCloneStreamData0(
                *mut FwpsStreamData0,
                *mut core::ffi::c_void,
                *mut core::ffi::c_void,
                u32,
                *mut *mut NetBufferList,
            ) -> NtStatus
        );
        let (flags, mut list) = (shown.flags, null_mut());
        let stream = shown.io().stream_data;
        if !shown.data.is_empty() {
            // SAFETY: the stream data of this call.
            assert_eq!(unsafe { clone(stream, null_mut(), null_mut(), 0, &raw mut list) }, NtStatus::SUCCESS);
        }
        keep.lock().push((list.addr(), shown.flow, flags));
        shown.call.block();
    });
    let mut talk = Talk::new(rig, false);
    talk.say(Outbound, b"one ");
    talk.say(Inbound, b"uno");
    talk.say(Outbound, b"two");
    talk.end(Outbound);
    assert!(talk.server.heard.is_empty() && talk.client.heard.is_empty() && !talk.server.ended);
    for (list, flow, flags) in kept.lock().drain(..) {
        let list = list as *mut NetBufferList;
        if list.is_null() {
            assert_ne!(flags & DISCONNECT, 0);
            let status = talk.rig.run(|| injector.put(flow, callout, SEND | 0x8_0000, null_mut(), b"!"));
            assert_eq!(status, NtStatus::SUCCESS);
        } else {
            assert_eq!(talk.rig.run(|| injector.put(flow, callout, flags, list, b"")), NtStatus::SUCCESS);
        }
    }
    talk.rig.serve();
    talk.settle();
    assert_eq!((&talk.server.heard[..], &talk.client.heard[..]), (&b"one two!"[..], &b"uno"[..]));
    assert!(talk.server.ended, "the end that was withheld, and injected");
    assert_eq!(*injector.done.lock(), [NtStatus::SUCCESS; 4]);
}

#[test]
fn lighter_sublayers_see_what_is_injected_and_heavier_ones_do_not() {
    let mut rig = Rig::new();
    let injector = Injector::stream(&rig);
    let seen: [Arc<Mutex<Vec<u8>>>; 3] = Default::default();
    let [heavy, middle, light] = seen.clone();
    at_stream(&mut rig, false, move |shown| heavy.lock().extend_from_slice(&shown.data));
    let (by, id) = (injector.clone(), Arc::new(AtomicU32::new(0)));
    let own = id.clone();
    let callout = at_stream(&mut rig, false, move |shown| {
        middle.lock().extend_from_slice(&shown.data);
        by.put(shown.flow, own.load(Ordering::Relaxed), SEND, null_mut(), b"[injected]");
    });
    id.store(callout, Ordering::Relaxed);
    at_stream(&mut rig, false, move |shown| light.lock().extend_from_slice(&shown.data));
    let mut talk = Talk::new(rig, false);
    talk.say(Outbound, b"said");
    assert_eq!(talk.server.heard, b"said[injected]");
    let seen = seen.map(|bytes| String::from_utf8(bytes.lock().clone()).expect("ASCII"));
    assert_eq!(seen, ["said", "said", "said[injected]"]);
}

#[test]
fn what_is_put_in_while_an_injected_packet_passes_is_given_back() {
    let mut rig = Rig::new();
    let (streams, packets) = (Injector::stream(&rig), Injector::network(&rig, false));
    let by = streams.clone();
    at_stream(&mut rig, false, move |shown| {
        if shown.data == b"knock" {
            by.put(shown.flow, 0, RECEIVE, null_mut(), b" knock");
        }
    });
    let mut talk = Talk::new(rig, false);
    let segment = tcp(false, Inbound, "AP", 4_294_967_201, 101, b"knock");
    talk.server.says = b"knock".to_vec();
    talk.rig.run(|| assert_eq!(packets.inject(Inbound, &segment), NtStatus::SUCCESS));
    talk.rig.serve();
    assert_eq!(*streams.done.lock(), [NtStatus::SUCCESS]);
    talk.settle();
    assert_eq!(talk.client.heard, b"knock knock");
    streams.destroy(&talk.rig);
    packets.destroy(&talk.rig);
}

#[test]
fn a_stream_that_changes_after_the_other_way_has_ended_still_ends() {
    let mut rig = Rig::new();
    at_stream(&mut rig, false, |shown| {
        if shown.data == b"bad" {
            shown.call.block()
        }
    });
    let mut talk = Talk::new(rig, false);
    talk.say(Outbound, b"question");
    talk.end(Outbound);
    assert!(talk.server.ended);
    talk.say(Inbound, b"good ");
    talk.say(Inbound, b"bad");
    talk.say(Inbound, b"answer");
    talk.end(Inbound);
    assert_eq!((&talk.client.heard[..], talk.client.ended), (&b"good answer"[..], true));
    assert_eq!(talk.rig.machine.wfp.engine.flows.len(), 0);
}

#[test]
fn lighter_callouts_may_cut_block_and_answer_what_is_injected() {
    let mut rig = Rig::new();
    let injector = Injector::stream(&rig);
    let by = injector.clone();
    let id = Arc::new(AtomicU32::new(0));
    let own = id.clone();
    let callout = at_stream(&mut rig, false, move |shown| {
        for data in [&b"<one>"[..], b"<two>"] {
            by.put(shown.flow, own.load(Ordering::Relaxed), SEND, null_mut(), data);
        }
    });
    id.store(callout, Ordering::Relaxed);
    let (by, light) = (injector.clone(), Arc::new(AtomicU32::new(0)));
    let own = light.clone();
    let callout = at_stream(&mut rig, false, move |shown| match &shown.data[..] {
        b"<one>" => {
            by.put(shown.flow, own.load(Ordering::Relaxed), SEND, null_mut(), b"[more]");
            shown.decides(4, true);
        }
        b">" => shown.call.block(),
        _ => {}
    });
    light.store(callout, Ordering::Relaxed);
    let mut talk = Talk::new(rig, false);
    talk.say(Outbound, b"said");
    assert_eq!(String::from_utf8_lossy(&talk.server.heard), "said<one[more]<two>");
    assert_eq!(*injector.done.lock(), [NtStatus::SUCCESS; 3]);
}

#[test]
fn an_injection_into_a_stream_must_say_which_way() {
    let rig = Rig::new();
    let injector = Injector::stream(&rig);
    rig.run(|| {
        for flags in [0, 0x8_0000, 0x4, RECEIVE | 0x8_0000, SEND | 0x4] {
            assert_eq!(injector.put(1, 1, flags, null_mut(), b"x"), NtStatus::FWP_INVALID_PARAMETER, "{flags:#x}");
        }
    });
    injector.destroy(&rig);
}

#[test]
fn data_for_a_stream_that_is_not_there_comes_back() {
    let mut rig = Rig::new();
    let injector = Injector::stream(&rig);
    rig.run(|| assert_eq!(injector.put(12345, 1, SEND, null_mut(), b"x"), NtStatus::SUCCESS));
    rig.serve();
    assert_eq!(*injector.done.lock(), [NtStatus::NOT_FOUND]);
}

#[test]
fn relayed_segments_pass_the_layers_below() {
    let mut rig = Rig::new();
    at_stream(&mut rig, false, |shown| {
        if shown.data == b"bad" {
            shown.call.block()
        }
    });
    let lengths: Arc<Mutex<Vec<usize>>> = Arc::default();
    let log = lengths.clone();
    rig.callout(LayerId(16), move |call| {
        // SAFETY: a live list.
        let bytes = unsafe { crate::ndis::data::to_vec((*call.list()).first_net_buffer) };
        log.lock().push(bytes.len() - 20);
    });
    let mut talk = Talk::new(rig, false);
    talk.say(Outbound, b"bad");
    lengths.lock().clear();
    talk.say(Outbound, b"better");
    assert_eq!(*lengths.lock(), [6]);
    let syn = tcp(false, Outbound, "S", 900, 0, b"");
    assert_eq!(talk.rig.pass(Outbound, &syn).verdict, Verdict::Forward, "the same ports make a new connection");
}
