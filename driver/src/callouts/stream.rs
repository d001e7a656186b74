//! STREAM: TCP data in order.

use kernel::wfp::{Answer, Callout, StreamDirection};
use sluice_protocol::status::Counter;

use super::{Request, verdict};
use crate::{
    SLUICE,
    flow::{FlowState, Standing},
};

/// STREAM.
pub(super) struct Stream;

impl Callout for Stream {
    type Flow = FlowState;

    /// Counts the data of a flow, and has a revoked connection dropped.
    fn classify(request: &mut Request<'_>) {
        request.answer(Answer::Continue);
        let Some(flow) = request.flow() else { return };
        let standing = verdict::standing(request, flow);
        let dispatch = request.dispatch();
        let Some(mut stream) = request.stream() else { return };
        let counter = match stream.direction() {
            StreamDirection::Inbound => Counter::StreamBytesIn,
            StreamDirection::Outbound => Counter::StreamBytesOut,
        };
        SLUICE.counters.add(dispatch, counter, stream.length());
        if standing == Standing::Revoked {
            stream.drop_connection();
        }
    }
}
