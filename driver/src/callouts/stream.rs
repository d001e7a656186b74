//! STREAM: TCP data in order, of connections whose name may decide, or whose answers tell names. Nobody else's comes
//! here: the callout is conditional on the context that [`super::established`] gives these, and a connection that is
//! decided gives it back.

use kernel::wfp::{Answer, Callout, Flow, StreamDirection};
use sluice_policy::{Direction, Verdict};
use sluice_protocol::status::Counter;

use super::{Request, asks_for_names, let_go, verdict};
use crate::{
    SLUICE,
    flow::{FlowState, Standing},
    inspection::{
        dns,
        stream::{Found, Reader},
    },
};

/// STREAM.
pub(super) struct Stream;

impl Callout for Stream {
    type Flow = FlowState;

    /// What the client sends is kept back until its name is known; of a flow that only its name can permit, what the
    /// server sends is too. Then all of it passes, and this callout is not asked again; or the connection is dropped, and
    /// nothing of it has passed.
    fn classify(request: &mut Request<'_>) {
        let Some(flow) = request.flow() else {
            request.answer(Answer::Continue);
            return;
        };
        let standing = match verdict::standing(request, flow) {
            Standing::Awaited(without_name) => match look_at(request, flow, without_name) {
                Some(standing) => standing,
                None => return, // answered
            },
            standing => standing,
        };
        let teaches = dns::teaches(&flow.key()) && asks_for_names();
        let dispatch = request.dispatch();
        match (standing, request.stream()) {
            (Standing::Revoked, Some(mut stream)) => stream.drop_connection(),
            (_, Some(mut stream)) if teaches => {
                stream.pass();
                dns::observe(flow.content(), dispatch, &stream);
            }
            (_, stream) => {
                if let Some(mut stream) = stream {
                    stream.pass();
                }
                // What was not found until now is not looked for any more.
                flow.content().end(None);
                let_go(flow);
            }
        }
    }
}

/// Looks at the bytes of a flow whose name is not known; None when it is not known yet and the answer is given.
fn look_at(request: &mut Request<'_>, flow: &Flow<FlowState>, without_name: Verdict) -> Option<Standing> {
    let client = match flow.key().direction {
        Direction::Outbound => StreamDirection::Outbound,
        _ => StreamDirection::Inbound,
    };
    let Some(mut stream) = request.stream() else {
        request.answer(Answer::Continue);
        return None;
    };
    let of_client = stream.direction() == client;
    let mut reader = Reader::new();
    let found = if stream.length() == 0 || !of_client && without_name == Verdict::Permit {
        stream.pass();
        return None;
    } else if of_client {
        reader.look(flow.content(), &stream)
    } else {
        // Only its name can permit it, and where the server speaks first nobody asks for one.
        Found::All
    };
    match found {
        Found::NotYet => {
            stream.want_more();
            return None;
        }
        Found::All => {}
        Found::Unreadable => SLUICE.counters.add(request.dispatch(), Counter::NamesNotLookedFor, 1),
    }
    Some(if dns::teaches(&flow.key()) {
        verdict::decide_and_go_on(request, flow, reader.name())
    } else {
        verdict::decide_by_content(request, flow, reader.name())
    })
}
