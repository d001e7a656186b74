//! STREAM: TCP data in order.

use kernel::wfp::{Answer, StreamDirection};
use sluice_protocol::status::Counter;

use super::Request;
use crate::{SLUICE, flow::Standing};

/// Counts the data of a flow, and has a revoked connection dropped. IRQL <= DISPATCH_LEVEL.
pub(super) fn classify(request: &mut Request<'_>) {
    request.answer(Answer::Continue);
    let Some(flow) = request.flow() else { return };
    let standing = flow.standing(request);
    let Some(mut stream) = request.stream() else { return };
    let counter = match stream.direction() {
        StreamDirection::Inbound => Counter::StreamBytesIn,
        StreamDirection::Outbound => Counter::StreamBytesOut,
    };
    SLUICE.counters.add(counter, stream.length());
    if standing == Standing::Revoked {
        stream.drop_connection();
    }
}
