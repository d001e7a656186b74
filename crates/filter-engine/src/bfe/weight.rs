//! Filter weights, given or automatic.
//!
//! "Filter Weight Assignment" (win32 documentation) only promises that the weight is in [0, 2^60) and follows from the
//! conditions; the computation on Windows is not published. Here the more specific filter weighs more: a filter's
//! weight is the number of bits its conditions fix, counted for the loosest alternative of each field, with the number
//! of fields above them.

use super::check::refuse;
use super::objects::Filter;
use crate::condition::{Condition, ConditionValue};
use crate::error::BfeResult;
use nt_abi::NtStatus;
use sluice_host::{MatchType, Weight};

/// The number of low-order bits that are computed.
const AUTO_WEIGHT_BITS: u32 = 60;

/// The weight by which a filter is sorted.
pub(super) fn effective(filter: &Filter) -> BfeResult<u64> {
    Ok(match filter.weight {
        Weight::Exact(weight) => weight,
        Weight::Auto => automatic(&filter.conditions),
        Weight::Range(range @ 0..=15) => u64::from(range) << 60 | automatic(&filter.conditions),
        Weight::Range(range) => {
            return refuse(NtStatus::FWP_INVALID_WEIGHT, format!("weight range {range}: must be 0 to 15"));
        }
    })
}

/// The 60-bit weight of a filter with these conditions.
fn automatic(conditions: &[Condition]) -> u64 {
    let mut fields = 0u64;
    let mut bits = 0u64;
    let mut rest = conditions;
    while let Some(first) = rest.first() {
        let run = rest.iter().take_while(|c| c.field == first.field).count();
        let (group, others) = rest.split_at(run);
        bits += u64::from(group.iter().map(specificity).min().unwrap_or(0));
        fields += 1;
        rest = others;
    }
    let weight = fields.min(0xFFFF) << 40 | bits.min((1 << 40) - 1);
    weight & ((1 << AUTO_WEIGHT_BITS) - 1)
}

/// How many bits of the field a condition fixes; every condition fixes at least one.
fn specificity(condition: &Condition) -> u32 {
    use ConditionValue as C;
    let width = |value: &C| match value {
        C::Uint8(_) | C::Int8(_) => 8,
        C::Uint16(_) | C::Int16(_) => 16,
        C::Uint32(_) | C::Int32(_) | C::Float(_) => 32,
        C::ByteArray6(_) => 48,
        C::Uint64(_) | C::Int64(_) | C::Double(_) => 64,
        _ => 128,
    };
    let span = |low: &C, high: &C| -> u32 {
        let number = |value: &C| match *value {
            C::Uint8(v) => Some(u128::from(v)),
            C::Uint16(v) => Some(u128::from(v)),
            C::Uint32(v) => Some(u128::from(v)),
            C::Uint64(v) => Some(u128::from(v)),
            C::ByteArray16(v) => Some(u128::from_be_bytes(v)),
            _ => None,
        };
        match (number(low), number(high)) {
            (Some(low), Some(high)) => 128 - (high.saturating_sub(low)).leading_zeros(),
            _ => width(low) / 2,
        }
    };
    let bits = match (condition.match_type, &condition.value) {
        (MatchType::NotEqual | MatchType::NotPrefix, _) => 1,
        (_, C::V4AddrMask { mask, .. }) => mask.count_ones(),
        (_, C::V6AddrMask { prefix_length, .. }) => u32::from(*prefix_length),
        (MatchType::Equal | MatchType::EqualCaseInsensitive | MatchType::Prefix, value) => width(value),
        (MatchType::Range, C::Range { low, high }) => width(low).saturating_sub(span(low, high)),
        (MatchType::FlagsAllSet | MatchType::FlagsNoneSet, value) => match value {
            C::Uint8(v) => v.count_ones(),
            C::Uint16(v) => v.count_ones(),
            C::Uint32(v) => v.count_ones(),
            C::Uint64(v) => v.count_ones(),
            _ => 1,
        },
        _ => 1,
    };
    bits.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_host::Guid;

    fn condition(field: u128, value: ConditionValue) -> Condition {
        let match_type =
            if matches!(value, ConditionValue::Range { .. }) { MatchType::Range } else { MatchType::Equal };
        Condition { field: Guid(field), match_type, value }
    }

    #[test]
    fn the_more_specific_filter_weighs_more() {
        let mask =
            |bits: u32| ConditionValue::V4AddrMask { addr: 0, mask: u32::MAX.checked_shl(32 - bits).unwrap_or(0) };
        let ports = |low: u16, high: u16| ConditionValue::Range {
            low: Box::new(ConditionValue::Uint16(low)),
            high: Box::new(ConditionValue::Uint16(high)),
        };
        let ascending: &[&[Condition]] = &[
            &[],
            &[condition(1, ports(0, 65535))],
            &[condition(1, mask(8))],
            &[condition(1, mask(24))],
            &[condition(1, mask(32))],
            &[condition(1, mask(32)), condition(2, ports(80, 90))],
            &[condition(1, mask(32)), condition(2, ConditionValue::Uint16(80))],
        ];
        let weights: Vec<u64> = ascending.iter().map(|c| automatic(c)).collect();
        assert!(weights.is_sorted_by(|a, b| a < b), "{weights:?}");
        assert!(weights.iter().all(|w| *w < 1 << 60));
        let loose = [condition(1, mask(32)), condition(1, mask(8))];
        assert_eq!(automatic(&loose), automatic(&[condition(1, mask(8))]), "an alternative counts as the loosest");
    }
}
