//! A compiled filter: its conditions as tests, its action with its callout, and the FWPS_FILTER that a driver sees.

use crate::bfe::{ProviderContext, Stored};
use crate::callout::CalloutSlot;
use crate::condition::{self, Condition, Test};
use crate::error::{BfeError, BfeResult};
use crate::layers::Layer;
use crate::marshal;
use nt_abi::NtStatus;
use nt_abi::fwp::arena::{Arena, Rooted};
use nt_abi::fwp::value::Value;
use nt_abi::fwp::{FwpsAction0, FwpsFilter0, FwpsFilterCondition0, consts};
use std::fmt;
use std::sync::Arc;

/// What a matching filter does.
#[derive(Debug)]
pub(crate) enum Action {
    Permit,
    Block,
    Callout { slot: Arc<CalloutSlot>, inspection: bool },
}

/// One field's tests; one of them must pass.
#[derive(Debug)]
struct Group {
    field: usize,
    tests: Box<[Test]>,
}

/// What a filter is compiled from.
pub(crate) struct FilterParts<'a> {
    pub(crate) id: u64,
    pub(crate) layer: &'a Layer,
    pub(crate) sublayer_weight: u16,
    /// The effective weight.
    pub(crate) weight: u64,
    /// `FWPM_FILTER_FLAG_*`.
    pub(crate) flags: u32,
    pub(crate) conditions: &'a [Condition],
    /// `FWP_ACTION_*`.
    pub(crate) action: u32,
    /// The callout, for a callout action.
    pub(crate) callout: Option<Arc<CalloutSlot>>,
    /// rawContext, or the provider context's id.
    pub(crate) context: u64,
    /// The provider context, which drivers get as a structure.
    pub(crate) provider_context: Option<&'a Stored<ProviderContext>>,
}

/// A compiled filter.
pub struct CompiledFilter {
    groups: Box<[Group]>,
    pub(crate) action: Action,
    /// Drivers read it in classifyFn and may write its `context` in notifyFn, before the filter is in any snapshot; the
    /// engine itself never reads that member.
    fwps: Rooted<FwpsFilter0>,
    id: u64,
    weight: u64,
    context: u64,
    pub(crate) flags: u16,
}

impl fmt::Debug for CompiledFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledFilter")
            .field("id", &self.id)
            .field("weight", &self.weight)
            .field("action", &self.action)
            .finish_non_exhaustive()
    }
}

impl CompiledFilter {
    /// Checks the conditions against the layer's fields and compiles the filter.
    ///
    /// Consecutive conditions on one field are alternatives (FWPM_FILTER0: "evaluated using the OR operator", since
    /// Windows 7); all groups must hold. Conditions on one field that are not consecutive form separate groups.
    ///
    /// # Errors
    /// `FWP_CONDITION_NOT_FOUND` for a field the layer lacks, and the errors of [`condition::compile`].
    pub(crate) fn new(parts: FilterParts<'_>) -> BfeResult<Self> {
        let mut arena = Arena::default();
        let mut groups: Vec<(usize, Vec<Test>)> = Vec::new();
        let mut run_time = Vec::with_capacity(parts.conditions.len());
        for condition in parts.conditions {
            let index = parts.layer.field_by_key(condition.field).ok_or_else(|| {
                let named = crate::names::Named(condition.field);
                BfeError::new(
                    NtStatus::FWP_CONDITION_NOT_FOUND,
                    format!("FWPM_LAYER_{} has no field {named}", parts.layer.name),
                )
            })?;
            let test = condition::compile(&parts.layer.fields[index], condition.match_type, &condition.value)?;
            match groups.last_mut() {
                Some((field, tests)) if *field == index => tests.push(test),
                _ => groups.push((index, vec![test])),
            }
            run_time.push(FwpsFilterCondition0 {
                field_id: index as u16,
                reserved: 0,
                match_type: condition.match_type as u32,
                condition_value: condition.value.put(&mut arena),
            });
        }
        let mut flags = run_time_flags(parts.flags);
        if groups.iter().any(|(_, tests)| tests.len() > 1) {
            flags |= consts::FWPS_FILTER_FLAG_OR_CONDITIONS;
        }
        let filter_condition =
            if run_time.is_empty() { core::ptr::null() } else { arena.put_slice(&run_time).cast_const() };
        let fwps = FwpsFilter0 {
            filter_id: parts.id,
            weight: arena.uint64(parts.weight),
            sub_layer_weight: parts.sublayer_weight,
            flags,
            num_filter_conditions: run_time.len() as u32,
            filter_condition,
            action: FwpsAction0 { kind: parts.action, callout_id: parts.callout.as_ref().map_or(0, |slot| slot.id()) },
            context: parts.context,
            provider_context: parts.provider_context.map_or(core::ptr::null(), |stored| {
                let raw = marshal::provider_context(&mut arena, stored);
                arena.put(raw).cast_const().cast()
            }),
        };
        let fwps = Rooted::new(arena, fwps);
        let action = match (parts.action, parts.callout) {
            (consts::FWP_ACTION_PERMIT, _) => Action::Permit,
            (consts::FWP_ACTION_BLOCK, _) => Action::Block,
            (action, Some(slot)) => {
                Action::Callout { slot, inspection: action == consts::FWP_ACTION_CALLOUT_INSPECTION }
            }
            (action, None) => {
                let what = format!("action {action:#x} without a callout");
                return Err(BfeError::new(NtStatus::FWP_INVALID_ACTION_TYPE, what));
            }
        };
        let groups = groups.into_iter().map(|(field, tests)| Group { field, tests: tests.into() }).collect();
        Ok(Self { groups, action, fwps, id: parts.id, weight: parts.weight, context: parts.context, flags })
    }

    /// Whether every condition holds. A missing value counts as empty.
    #[inline]
    pub(crate) fn matches(&self, values: &[Value<'_>]) -> bool {
        self.groups.iter().all(|group| {
            let value = values.get(group.field).map_or(nt_abi::fwp::value::Read::Empty, Value::read);
            group.tests.iter().any(|test| test.passes(value))
        })
    }

    /// filterId.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// rawContext, or the provider context's id. A driver's notifyFn may have written another to [`Self::fwps`].
    #[must_use]
    pub fn context(&self) -> u64 {
        self.context
    }

    /// The effective weight.
    pub(crate) fn weight(&self) -> u64 {
        self.weight
    }

    /// The callout the action names.
    pub(crate) fn callout(&self) -> Option<&Arc<CalloutSlot>> {
        match &self.action {
            Action::Callout { slot, .. } => Some(slot),
            _ => None,
        }
    }

    /// The structure a driver sees; it lives as long as the filter.
    #[must_use]
    pub fn fwps(&self) -> *mut FwpsFilter0 {
        self.fwps.as_ptr()
    }
}

/// `FWPM_FILTER_FLAG_*` as `FWPS_FILTER_FLAG_*`.
fn run_time_flags(flags: u32) -> u16 {
    [
        (consts::FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT, consts::FWPS_FILTER_FLAG_CLEAR_ACTION_RIGHT),
        (
            consts::FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED,
            consts::FWPS_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED,
        ),
        (
            consts::FWPM_FILTER_FLAG_HAS_SECURITY_REALM_PROVIDER_CONTEXT,
            consts::FWPS_FILTER_FLAG_HAS_SECURITY_REALM_PROVIDER_CONTEXT,
        ),
        (consts::FWPM_FILTER_FLAG_SILENT_MODE, consts::FWPS_FILTER_FLAG_SILENT_MODE),
        (consts::FWPM_FILTER_FLAG_IPSEC_NO_ACQUIRE_INITIATE, consts::FWPS_FILTER_FLAG_IPSEC_NO_ACQUIRE_INITIATE),
    ]
    .into_iter()
    .filter(|(managed, _)| flags & managed != 0)
    .fold(0, |set, (_, run_time)| set | run_time)
}
