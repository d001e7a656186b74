//! Stream data: what one side of a TCP connection sent, in order.
//!
//! Sources: the documentation of FWPS_STREAM_CALLOUT_IO_PACKET0 and FWPS_STREAM_DATA0, and "Stream Inspection": every
//! callout that decides sets an action whatever was there before, and FWPS_RIGHT_ACTION_WRITE means nothing at this
//! layer.

use wfp_sys::{
    FWP_ACTION_BLOCK, FWP_ACTION_NONE, FWP_ACTION_PERMIT, FWPS_CLASSIFY_OUT_FLAG_BUFFER_LIMIT_REACHED,
    FWPS_CLASSIFY_OUT_FLAG_NO_MORE_DATA, FWPS_CLASSIFY_OUT0, FWPS_STREAM_ACTION_TYPE, FWPS_STREAM_ACTION_TYPE_,
    FWPS_STREAM_CALLOUT_IO_PACKET0, FWPS_STREAM_DATA0, FWPS_STREAM_FLAG_RECEIVE, FWPS_STREAM_FLAG_RECEIVE_ABORT,
    FWPS_STREAM_FLAG_RECEIVE_DISCONNECT, FWPS_STREAM_FLAG_RECEIVE_EXPEDITED, FWPS_STREAM_FLAG_SEND_ABORT,
    FWPS_STREAM_FLAG_SEND_DISCONNECT, FWPS_STREAM_FLAG_SEND_EXPEDITED,
};

use super::bytes::Place;

/// The direction of stream data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamDirection {
    /// Received.
    Inbound,
    /// Sent.
    Outbound,
}

/// A piece of a stream, borrowed for the duration of a classify at a stream layer, and used at its IRQL <=
/// DISPATCH_LEVEL.
pub struct Stream<'a> {
    packet: &'a mut FWPS_STREAM_CALLOUT_IO_PACKET0,
    data: &'a FWPS_STREAM_DATA0,
    out: &'a mut FWPS_CLASSIFY_OUT0,
}

impl<'a> Stream<'a> {
    pub(super) fn new(packet: &'a mut FWPS_STREAM_CALLOUT_IO_PACKET0, out: &'a mut FWPS_CLASSIFY_OUT0) -> Option<Self> {
        // SAFETY: streamData is null or points to a structure that lives as long as the call.
        let data = unsafe { packet.streamData.as_ref() }?;
        Some(Self { packet, data, out })
    }

    /// Its direction.
    #[must_use]
    pub const fn direction(&self) -> StreamDirection {
        if self.data.flags & (FWPS_STREAM_FLAG_RECEIVE | FWPS_STREAM_FLAG_RECEIVE_EXPEDITED) != 0 {
            StreamDirection::Inbound
        } else {
            StreamDirection::Outbound
        }
    }

    /// How many bytes; zero for a bare FIN or RST. After [`Stream::want_more`] those that were shown before are among
    /// them.
    #[must_use]
    pub const fn length(&self) -> usize {
        self.data.dataLength as usize
    }

    /// Whether some of the bytes that came before were not shown, because another callout kept them back, or are out of
    /// the order of the stream: urgent data.
    #[must_use]
    pub const fn is_out_of_order(&self) -> bool {
        const EXPEDITED: u32 = FWPS_STREAM_FLAG_RECEIVE_EXPEDITED | FWPS_STREAM_FLAG_SEND_EXPEDITED;
        self.packet.missedBytes != 0 || self.data.flags & EXPEDITED != 0
    }

    /// Whether no more bytes can be asked for: the side that sends has ended, or no more can be kept back.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        const ENDS: u32 = FWPS_STREAM_FLAG_RECEIVE_DISCONNECT
            | FWPS_STREAM_FLAG_RECEIVE_ABORT
            | FWPS_STREAM_FLAG_SEND_DISCONNECT
            | FWPS_STREAM_FLAG_SEND_ABORT;
        const FULL: u32 = FWPS_CLASSIFY_OUT_FLAG_BUFFER_LIMIT_REACHED | FWPS_CLASSIFY_OUT_FLAG_NO_MORE_DATA;
        self.data.flags & ENDS != 0 || self.out.flags & FULL != 0
    }

    /// Gives `visit` copies of the bytes from the one at `skip` on, in order, until it returns false. False when the
    /// chain has less than it says, or its pages cannot be mapped for want of memory.
    #[must_use]
    pub fn read(&self, skip: usize, visit: impl FnMut(&[u8]) -> bool) -> bool {
        let start = &self.data.dataOffset;
        // SAFETY: the engine lends the chain, and the place in it, for the time of the call.
        let place = unsafe {
            Place::at(
                start.netBufferList.cast_const().cast(),
                start.netBuffer.cast_const().cast(),
                start.mdl.cast_const(),
                start.mdlOffset as usize,
            )
        };
        place.is_some_and(|place| place.copy_pieces(skip, self.length(), visit))
    }

    /// Lets all of it pass.
    pub fn pass(&mut self) {
        self.say(FWP_ACTION_PERMIT, FWPS_STREAM_ACTION_TYPE_::FWPS_STREAM_ACTION_NONE, 0);
    }

    /// Keeps all of it back until there is at least one byte more, then it is shown again. Not for [`Stream::is_last`].
    pub fn want_more(&mut self) {
        self.say(FWP_ACTION_NONE, FWPS_STREAM_ACTION_TYPE_::FWPS_STREAM_ACTION_NEED_MORE_DATA, 1);
    }

    /// Drops the connection, and what was kept back. The engine then ignores the callout's action; it complies only when
    /// the filter's action is FWP_ACTION_CALLOUT_UNKNOWN.
    pub fn drop_connection(&mut self) {
        self.say(FWP_ACTION_BLOCK, FWPS_STREAM_ACTION_TYPE_::FWPS_STREAM_ACTION_DROP_CONNECTION, 0);
    }

    fn say(&mut self, action: u32, stream: FWPS_STREAM_ACTION_TYPE, required: u32) {
        self.out.actionType = action;
        self.packet.streamAction = stream;
        self.packet.countBytesRequired = required;
        // All of it.
        self.packet.countBytesEnforced = 0;
    }
}
