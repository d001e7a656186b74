//! Arbitration, as "Filter Arbitration" (win32 documentation) describes it:
//!
//! - within a sublayer the matching filters are evaluated from the heaviest to the lightest, until one permits or
//!   blocks;
//! - every sublayer is evaluated, from the heaviest to the lightest, even after one has blocked;
//! - the engine carries the current action and the right to change it (`FWPS_RIGHT_ACTION_WRITE`). A permit or a block
//!   that leaves the right is soft: a lighter sublayer may override it. One that clears it is hard: a hard block is
//!   final, and a hard permit yields only to a veto, a block that a callout returns without the right.
//! - a filter's permit is soft and its block hard; a callout decides by leaving or clearing the right.
//!   `FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT` makes a filter's permit hard.
//!
//! Where the sources disagree: the same page says of the basic policy that a block "stops the evaluation", and also
//! that all sublayers are evaluated. The net events of a live machine (windows-itpro-docs, "Troubleshooting UWP App
//! Connectivity Issues") list a lighter sublayer's permit after the heavier one's final block, so all are. And one
//! sentence of the page describes CLEAR_ACTION_RIGHT the wrong way round ("if this flag is cleared, then the action
//! type is hard"), against its own table and FWPM_FILTER0.

use crate::callout::{CalloutSlot, ClassifyCall, Registration};
use crate::classify::{Classify, LayerData};
use crate::filter::{Action, CompiledFilter};
use crate::snapshot::{LayerFilters, SublayerFilters};
use nt_abi::fwp::{FwpsClassifyOut0, FwpsIncomingValues0, RedirectRequest, consts};
use sluice_host::Guid;
use smallvec::SmallVec;

/// The verdict on the traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// The traffic passes.
    #[default]
    Permit,
    /// The traffic is dropped.
    Block,
}

/// A filter that decided for its sublayer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminatingFilter {
    /// filterId.
    pub filter_id: u64,
    /// Its sublayer.
    pub sublayer: Guid,
    /// Its verdict.
    pub verdict: Verdict,
    /// The callout that decided; 0 when the filter itself did.
    pub callout_id: u32,
}

/// What a stream callout asked for besides its verdict (`FWPS_STREAM_ACTION_TYPE`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of FWPS_STREAM_ACTION_TYPE")]
pub enum StreamAction {
    #[default]
    None,
    NeedMoreData,
    DropConnection,
    Defer,
    AllowConnection,
}

/// The result of a classify call at a stream layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamOutcome {
    /// The action asked for; any except `None` ended the evaluation.
    pub action: StreamAction,
    /// countBytesRequired, with `NeedMoreData`.
    pub bytes_required: u32,
    /// countBytesEnforced: how many of the leading bytes the verdict is about; 0 means all of them.
    pub bytes_enforced: usize,
    /// The callout that asked for it, or that enforced a part; 0 when none did.
    pub callout_id: u32,
}

/// The result of a classify call.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The verdict on the traffic.
    pub verdict: Verdict,
    /// Whether any filter decided; otherwise the verdict is the permit of a layer without filters.
    pub decided: bool,
    /// The last decision cleared the right to change it.
    pub hard: bool,
    /// A callout blocked in spite of a hard permit.
    pub vetoed: bool,
    /// `FWPS_CLASSIFY_OUT_FLAG_ABSORB` with a block: drop silently, without an event.
    pub absorb: bool,
    /// The filter whose decision is in force; 0 when none decided.
    pub filter_id: u64,
    /// The filters that decided for their sublayers, in order; at most sixteen are remembered.
    pub terminating: SmallVec<[TerminatingFilter; 2]>,
    /// At the stream layers.
    pub stream: Option<StreamOutcome>,
    /// A callout pended the request (FwpsPendClassify0): its decision comes later, through the stack.
    pub pended: bool,
    /// The layer data as callouts changed it, at the redirect layers.
    pub redirect: Option<Box<RedirectRequest>>,
    /// How often a callout wrote an action without the right, other than a veto.
    pub rights_violations: u32,
}

/// How many deciding filters an outcome remembers.
const MOST_REMEMBERED: usize = 16;

/// Whether a decision replaces the one in force.
pub(crate) enum Replaces {
    /// The one in force is hard.
    No,
    Yes,
    /// It does although it is hard, because a callout blocks over a permit.
    Veto,
}

/// Whether `verdict`, a filter's or a `callout`'s, replaces the decision in force: its verdict, and whether it is hard.
#[inline]
pub(crate) fn replaces(in_force: Option<(Verdict, bool)>, verdict: Verdict, callout: bool) -> Replaces {
    match in_force {
        Some((Verdict::Permit, true)) if callout && verdict == Verdict::Block => Replaces::Veto,
        Some((_, true)) => Replaces::No,
        _ => Replaces::Yes,
    }
}

/// The answer of one filter.
enum Said {
    Nothing,
    Decided {
        verdict: Verdict,
        hard: bool,
        by_callout: u32,
        flags: u32,
    },
    /// A stream callout asked for something that ends the evaluation.
    Stop,
}

/// The state of one evaluation of a layer.
pub(crate) struct Arbiter<'c> {
    classify: &'c Classify<'c>,
    fixed: FwpsIncomingValues0,
    out: &'c mut Outcome,
}

impl<'c> Arbiter<'c> {
    /// `out` is a new outcome, which gets the result.
    pub(crate) fn new(classify: &'c Classify<'c>, stream: bool, out: &'c mut Outcome) -> Self {
        let fixed = FwpsIncomingValues0 {
            layer_id: classify.layer.0,
            value_count: classify.values.len() as u32,
            incoming_value: classify.values.as_ptr().cast(),
        };
        out.stream = stream.then(StreamOutcome::default);
        Self { classify, fixed, out }
    }

    pub(crate) fn run(self, layer: &LayerFilters) {
        self.run_through(&layer.sublayers);
    }

    /// Evaluates the sublayers after the one that contains the callout `injector`; all when none contains it.
    pub(crate) fn run_below(self, layer: &LayerFilters, injector: u32) {
        let is =
            |filter: &CompiledFilter| matches!(&filter.action, Action::Callout { slot, .. } if slot.id() == injector);
        let own = layer.sublayers.iter().rposition(|sublayer| sublayer.filters.iter().any(|filter| is(filter)));
        self.run_through(&layer.sublayers[own.map_or(0, |own| own + 1)..]);
    }

    fn run_through(mut self, sublayers: &[SublayerFilters]) {
        for sublayer in sublayers {
            if !self.sublayer(sublayer) {
                break;
            }
        }
        if let Some(request) = self.classify.request {
            (self.out.pended, self.out.redirect) = request.outcome();
        }
    }

    /// Evaluates one sublayer; false when the evaluation ends here.
    fn sublayer(&mut self, sublayer: &SublayerFilters) -> bool {
        for filter in &sublayer.filters {
            if !filter.matches(self.classify.values) {
                continue;
            }
            match self.ask(filter) {
                Said::Nothing => {}
                Said::Decided { verdict, hard, by_callout, flags } => {
                    self.decide(sublayer.key, filter, verdict, hard, by_callout, flags);
                    return true;
                }
                Said::Stop => return false,
            }
        }
        true
    }

    fn decide(
        &mut self,
        sublayer: Guid,
        filter: &CompiledFilter,
        verdict: Verdict,
        hard: bool,
        callout: u32,
        flags: u32,
    ) {
        let out = &mut *self.out;
        if out.terminating.len() < MOST_REMEMBERED {
            let decision = TerminatingFilter { filter_id: filter.id(), sublayer, verdict, callout_id: callout };
            out.terminating.push(decision);
        }
        let veto = match replaces(out.decided.then_some((out.verdict, out.hard)), verdict, callout != 0) {
            Replaces::No => return,
            Replaces::Yes => false,
            Replaces::Veto => true,
        };
        out.vetoed |= veto;
        out.decided = true;
        out.verdict = verdict;
        out.hard = hard || veto;
        out.filter_id = filter.id();
        out.absorb = verdict == Verdict::Block && flags & consts::FWPS_CLASSIFY_OUT_FLAG_ABSORB != 0;
    }

    fn ask(&mut self, filter: &CompiledFilter) -> Said {
        let clears = filter.flags & consts::FWPS_FILTER_FLAG_CLEAR_ACTION_RIGHT != 0;
        match &filter.action {
            Action::Permit => Said::Decided { verdict: Verdict::Permit, hard: clears, by_callout: 0, flags: 0 },
            Action::Block => Said::Decided { verdict: Verdict::Block, hard: true, by_callout: 0, flags: 0 },
            Action::Callout { slot, inspection } => {
                let said = slot.enter(|registration| self.call(filter, slot, registration, *inspection));
                said.unwrap_or_else(|| unregistered(filter, *inspection, clears))
            }
        }
    }

    /// Calls classifyFn and reads its answer.
    fn call(
        &mut self,
        filter: &CompiledFilter,
        slot: &CalloutSlot,
        registration: &Registration,
        inspection: bool,
    ) -> Said {
        let flow = self.classify.flow;
        let lease = flow.and_then(|flow| flow.enter(self.classify.layer, slot.id()));
        if lease.is_none() && registration.conditional_on_flow() {
            return Said::Nothing;
        }
        if self.out.stream.is_some() {
            if flow.is_some_and(|flow| flow.is_allowed(slot.id())) {
                return Said::Nothing;
            }
            self.reset_stream();
        }
        // A callout without the right sees the decision it may veto; one with it starts without a decision.
        let may_write = !(self.out.decided && self.out.hard);
        let current = match self.out.verdict {
            _ if may_write => consts::FWP_ACTION_CONTINUE,
            Verdict::Permit => consts::FWP_ACTION_PERMIT,
            Verdict::Block => consts::FWP_ACTION_BLOCK,
        };
        let mut out = FwpsClassifyOut0 {
            action_type: current,
            filter_id: filter.id(),
            rights: if may_write { consts::FWPS_RIGHT_ACTION_WRITE } else { 0 },
            ..FwpsClassifyOut0::default()
        };
        let flow_context = lease.map_or(0, |lease| lease.value);
        let call = ClassifyCall { classify: self.classify, fixed: &self.fixed, filter, flow_context };
        registration.functions.classify(&call, &mut out);
        if let (Some(flow), Some(lease)) = (flow, lease)
            && let Some(deletion) = flow.leave(lease)
        {
            deletion.run();
        }
        if self.out.stream.is_some() {
            match self.read_stream(slot, &out, inspection) {
                AskedOfStream::Nothing => {}
                AskedOfStream::Stop => return Said::Stop,
                AskedOfStream::PassOn => return Said::Nothing,
            }
        }
        if inspection {
            return Said::Nothing;
        }
        self.read(may_write, current, &out, slot.id())
    }

    /// Reads a callout's classifyOut.
    fn read(&mut self, may_write: bool, before: u32, out: &FwpsClassifyOut0, callout_id: u32) -> Said {
        let hard = out.rights & consts::FWPS_RIGHT_ACTION_WRITE == 0;
        let decided = |verdict| Said::Decided { verdict, hard, by_callout: callout_id, flags: out.flags };
        match out.action_type {
            consts::FWP_ACTION_PERMIT if may_write => decided(Verdict::Permit),
            consts::FWP_ACTION_BLOCK if may_write => decided(Verdict::Block),
            // The veto: the one action a callout without the right may write.
            consts::FWP_ACTION_BLOCK if before == consts::FWP_ACTION_PERMIT => decided(Verdict::Block),
            unchanged if !may_write && unchanged == before => Said::Nothing,
            _ if !may_write => {
                self.out.rights_violations += 1;
                Said::Nothing
            }
            // CONTINUE, NONE and NONE_NO_MATCH leave the decision to the next filter.
            _ => Said::Nothing,
        }
    }

    fn reset_stream(&mut self) {
        if let LayerData::Stream(cell, _) = self.classify.layer_data {
            let mut packet = cell.get();
            packet.stream_action = consts::FWPS_STREAM_ACTION_NONE;
            packet.count_bytes_required = 0;
            packet.count_bytes_enforced = 0;
            cell.set(packet);
        }
    }

    /// Reads what a stream callout asked for. The action that it returned counts only when it asked for nothing
    /// (FWPS_STREAM_CALLOUT_IO_PACKET0 documentation).
    fn read_stream(&mut self, slot: &CalloutSlot, out: &FwpsClassifyOut0, inspection: bool) -> AskedOfStream {
        let LayerData::Stream(packet, length) = self.classify.layer_data else { return AskedOfStream::Nothing };
        let packet = packet.get();
        let Some(stream) = &mut self.out.stream else { return AskedOfStream::Nothing };
        let action = match packet.stream_action {
            consts::FWPS_STREAM_ACTION_NEED_MORE_DATA => StreamAction::NeedMoreData,
            consts::FWPS_STREAM_ACTION_DROP_CONNECTION => StreamAction::DropConnection,
            consts::FWPS_STREAM_ACTION_DEFER => StreamAction::Defer,
            consts::FWPS_STREAM_ACTION_ALLOW_CONNECTION => StreamAction::AllowConnection,
            _ => StreamAction::None,
        };
        match action {
            StreamAction::None => {
                let part = (1..length).contains(&packet.count_bytes_enforced);
                let decides = matches!(out.action_type, consts::FWP_ACTION_PERMIT | consts::FWP_ACTION_BLOCK);
                // The shortest part that any callout decided about is what the verdict covers; the rest is indicated
                // again.
                let shorter = stream.bytes_enforced == 0 || packet.count_bytes_enforced < stream.bytes_enforced;
                if part && decides && !inspection && shorter {
                    stream.bytes_enforced = packet.count_bytes_enforced;
                    stream.callout_id = slot.id();
                }
                AskedOfStream::Nothing
            }
            // An inspecting callout cannot drop a connection (same page).
            StreamAction::DropConnection if inspection => AskedOfStream::PassOn,
            StreamAction::AllowConnection => {
                if let Some(flow) = self.classify.flow {
                    flow.allow(slot.id());
                }
                AskedOfStream::PassOn
            }
            _ => {
                stream.action = action;
                stream.bytes_required = packet.count_bytes_required;
                stream.bytes_enforced = 0;
                stream.callout_id = slot.id();
                AskedOfStream::Stop
            }
        }
    }
}

/// What a stream callout asked for besides its action.
enum AskedOfStream {
    Nothing,
    /// The evaluation ends here.
    Stop,
    /// The action that it returned does not count.
    PassOn,
}

/// A filter whose callout is not registered: TERMINATING and UNKNOWN act as a block, unless the filter has the permit
/// flag; INSPECTION is ignored (FwpsCalloutRegister1 documentation).
fn unregistered(filter: &CompiledFilter, inspection: bool, clears: bool) -> Said {
    if inspection {
        return Said::Nothing;
    }
    let permit = filter.flags & consts::FWPS_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED != 0;
    let (verdict, hard) = if permit { (Verdict::Permit, clears) } else { (Verdict::Block, true) };
    Said::Decided { verdict, hard, by_callout: 0, flags: 0 }
}
