//! Stream data: what one side of a TCP connection sent, in order.

use wfp_sys::{
    FWPS_STREAM_ACTION_TYPE_, FWPS_STREAM_CALLOUT_IO_PACKET0, FWPS_STREAM_DATA0, FWPS_STREAM_FLAG_RECEIVE,
    FWPS_STREAM_FLAG_RECEIVE_EXPEDITED,
};

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
}

impl<'a> Stream<'a> {
    pub(super) fn new(packet: &'a mut FWPS_STREAM_CALLOUT_IO_PACKET0) -> Option<Self> {
        // SAFETY: streamData is null or points to a structure that lives as long as the call.
        let data = unsafe { packet.streamData.as_ref() }?;
        Some(Self { packet, data })
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

    /// How many bytes; zero for a bare FIN or RST.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.data.dataLength
    }

    /// Drops the connection. The engine then ignores the callout's action; it complies only when the filter's action is
    /// FWP_ACTION_CALLOUT_UNKNOWN (documentation of FWPS_STREAM_CALLOUT_IO_PACKET0).
    pub fn drop_connection(&mut self) {
        self.packet.streamAction = FWPS_STREAM_ACTION_TYPE_::FWPS_STREAM_ACTION_DROP_CONNECTION;
        self.packet.countBytesRequired = 0;
    }
}
