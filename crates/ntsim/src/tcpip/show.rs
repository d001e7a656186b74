//! Layer data, for the length of a classify call.

use crate::cpu;
use core::cell::Cell;
use core::ptr::null_mut;
use filter_engine::{LayerData, Outcome};
use nt_abi::fwp::{FwpsStreamCalloutIoPacket0, FwpsStreamData0, FwpsStreamDataOffset0};
use nt_abi::{NetBufferList, PacketBuffer};

/// Shows a packet, and checks that the callouts leave it as they found it.
pub(super) fn with_list(
    buffer: &mut PacketBuffer,
    start: usize,
    offset: usize,
    end: usize,
    ask: impl FnOnce(*mut NetBufferList) -> Outcome,
) -> Outcome {
    let list = buffer.list(start, offset, end);
    let before = buffer.data_offset();
    let outcome = ask(list);
    let after = buffer.data_offset();
    if after != before {
        cpu::bugcheck(
            cpu::code::DRIVER_VERIFIER_DETECTED_VIOLATION,
            [list.addr() as u64, u64::from(before), u64::from(after), 0],
            format!(
                "a callout moved the data start of a NET_BUFFER from {before} to {after} and did not move it back \
                 before it returned"
            ),
        );
    }
    outcome
}

/// Shows stream data.
pub(super) fn with_stream(
    data: Option<(&mut PacketBuffer, std::ops::Range<usize>)>,
    flags: u32,
    ask: impl FnOnce(LayerData<'_>) -> Outcome,
) -> Outcome {
    let mut stream = FwpsStreamData0 {
        flags,
        data_offset: FwpsStreamDataOffset0 {
            net_buffer_list: null_mut(),
            net_buffer: null_mut(),
            mdl: null_mut(),
            mdl_offset: 0,
            net_buffer_offset: 0,
            stream_data_offset: 0,
        },
        data_length: 0,
        net_buffer_list_chain: null_mut(),
    };
    if let Some((buffer, range)) = data {
        // A callout cannot reach a header at this layer.
        let list = buffer.list(range.start, range.start, range.end);
        // SAFETY: `buffer.list` has just set the list, its net buffer and its MDL up; the buffer stays borrowed until
        // the callouts have returned.
        let (net_buffer, mdl) = unsafe { ((*list).first_net_buffer, (*(*list).first_net_buffer).mdl_chain) };
        stream.data_length = range.len();
        stream.net_buffer_list_chain = list.cast();
        stream.data_offset.net_buffer_list = list.cast();
        stream.data_offset.net_buffer = net_buffer.cast();
        stream.data_offset.mdl = mdl.cast();
    }
    let io = Cell::new(FwpsStreamCalloutIoPacket0 {
        stream_data: &raw mut stream,
        missed_bytes: 0,
        count_bytes_required: 0,
        count_bytes_enforced: 0,
        stream_action: 0,
    });
    ask(LayerData::Stream(&io, stream.data_length))
}
