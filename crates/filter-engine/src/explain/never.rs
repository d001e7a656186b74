//! Conditions that no traffic can meet.

use super::facts::{Facts, Matching};
use crate::condition::{Condition, ConditionValue};
use crate::layers::Layer;
use sluice_host::MatchType;

/// The first condition of a field that no value can meet together with the filter's other conditions on that field.
/// `None` when there is none, or when that cannot be told: of flags, of text, and of what cannot be understood.
///
/// Every set that comparisons with numbers make begins and ends at one of their values or beside it, so it is enough to
/// try these.
#[must_use]
pub fn contradiction(layer: &Layer, conditions: &[Option<Condition>]) -> Option<usize> {
    let known: Vec<(usize, &Condition)> =
        conditions.iter().enumerate().filter_map(|(index, one)| Some((index, one.as_ref()?))).collect();
    known.iter().find_map(|(index, first)| {
        let earlier = known.iter().any(|(other, one)| other < index && one.field == first.field);
        let field = layer.fields.get(layer.field_by_key(first.field)?)?;
        if earlier || !known.iter().filter(|(_, one)| one.field == first.field).all(|(_, one)| is_ordered(one)) {
            return None;
        }
        // The others stay between them, as they separate groups of alternatives.
        let mut tried = false;
        let possible = known.iter().filter(|(_, one)| one.field == first.field).any(|(_, one)| {
            candidates(&one.value).into_iter().any(|value| {
                tried = true;
                let mut facts = Facts::new(layer);
                facts.set(field.name, value);
                // A condition on another field leaves it open, unless one on this field fails.
                match facts.matching(conditions.iter().map(Option::as_ref)) {
                    Matching::No { condition } => {
                        conditions.get(condition).and_then(Option::as_ref).is_none_or(|one| one.field != first.field)
                    }
                    Matching::Yes | Matching::Unknown { .. } => true,
                }
            })
        });
        (tried && !possible).then_some(*index)
    })
}

/// Whether a condition compares in an order whose ends [`candidates`] finds.
fn is_ordered(condition: &Condition) -> bool {
    use ConditionValue as C;
    use MatchType as M;
    let plain =
        |value: &C| matches!(value, C::Uint8(_) | C::Uint16(_) | C::Uint32(_) | C::Uint64(_) | C::ByteArray16(_));
    let value = match &condition.value {
        C::Range { low, high } => plain(low) && plain(high),
        C::V4AddrMask { .. } | C::V6AddrMask { .. } => true,
        C::Sid(_) => return matches!(condition.match_type, M::Equal),
        C::ByteBlob(_) => return matches!(condition.match_type, M::Equal),
        other => plain(other),
    };
    let ordered = [M::Equal, M::NotEqual, M::Greater, M::Less, M::GreaterOrEqual, M::LessOrEqual, M::Range];
    value && ordered.contains(&condition.match_type)
}

/// Where the set of values that a condition makes can begin and end, and what lies beside that.
fn candidates(value: &ConditionValue) -> Vec<ConditionValue> {
    use ConditionValue as C;
    let around = |low: u128, high: u128, most: u128, make: &dyn Fn(u128) -> C| -> Vec<C> {
        [0, low.wrapping_sub(1) & most, low, high, high.wrapping_add(1) & most, most].into_iter().map(make).collect()
    };
    match value {
        C::Uint8(v) => around((*v).into(), (*v).into(), u8::MAX.into(), &|v| C::Uint8(v as u8)),
        C::Uint16(v) => around((*v).into(), (*v).into(), u16::MAX.into(), &|v| C::Uint16(v as u16)),
        C::Uint32(v) => around((*v).into(), (*v).into(), u32::MAX.into(), &|v| C::Uint32(v as u32)),
        C::Uint64(v) => around((*v).into(), (*v).into(), u64::MAX.into(), &|v| C::Uint64(v as u64)),
        C::ByteArray16(v) => {
            let v = u128::from_be_bytes(*v);
            around(v, v, u128::MAX, &|v| C::ByteArray16(v.to_be_bytes()))
        }
        C::V4AddrMask { addr, mask } => {
            let (low, high) = (addr & mask, addr & mask | !mask);
            around(low.into(), high.into(), u32::MAX.into(), &|v| C::Uint32(v as u32))
        }
        C::V6AddrMask { addr, prefix_length } => {
            let host = u128::MAX.checked_shr((*prefix_length).into()).unwrap_or(0);
            let low = u128::from_be_bytes(*addr) & !host;
            around(low, low | host, u128::MAX, &|v| C::ByteArray16(v.to_be_bytes()))
        }
        C::Range { low, high } => candidates(low).into_iter().chain(candidates(high)).collect(),
        C::Sid(_) | C::ByteBlob(_) => vec![value.clone()],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{LayerTable, WindowsVersion, condition as key};
    use proptest::prelude::*;

    fn layer() -> &'static Layer {
        LayerTable::of(WindowsVersion::Win24H2).by_name("ALE_AUTH_CONNECT_V4").expect("always there")
    }

    fn on(field: &str, match_type: MatchType, value: ConditionValue) -> Option<Condition> {
        Some(Condition { field: key(field).expect("a condition"), match_type, value })
    }

    fn proto(v: u8) -> Option<Condition> {
        on("IP_PROTOCOL", MatchType::Equal, ConditionValue::Uint8(v))
    }

    fn port(match_type: MatchType, v: u16) -> Option<Condition> {
        on("IP_REMOTE_PORT", match_type, ConditionValue::Uint16(v))
    }

    #[test]
    fn alternatives_are_no_contradiction_and_separate_groups_can_be_one() {
        use MatchType as M;
        let of = |conditions: &[Option<Condition>]| contradiction(layer(), conditions);
        assert_eq!(of(&[proto(6), proto(17), port(M::Equal, 53)]), None);
        assert_eq!(of(&[proto(6), port(M::Equal, 53), proto(17)]), Some(0));
        assert_eq!(of(&[proto(6), port(M::Equal, 53), proto(6)]), None);
        assert_eq!(of(&[port(M::Greater, u16::MAX)]), Some(0));
        assert_eq!(of(&[port(M::Greater, 1023), proto(6), port(M::Less, 1025)]), None);
        assert_eq!(of(&[port(M::Greater, 1023), proto(6), port(M::Less, 1024)]), Some(0));
        let net = |addr, mask| on("IP_REMOTE_ADDRESS", M::Equal, ConditionValue::V4AddrMask { addr, mask });
        assert_eq!(of(&[net(0x0A00_0000, 0xFF00_0000), proto(6), net(0x0A01_0000, 0xFFFF_0000)]), None);
        assert_eq!(of(&[net(0x0A00_0000, 0xFF00_0000), proto(6), net(0x0B01_0000, 0xFFFF_0000)]), Some(0));
        assert_eq!(of(&[None, port(M::Equal, 1)]), None);
    }

    proptest! {
        /// What is called impossible is, for every value.
        #[test]
        fn no_value_meets_a_contradiction(plan in prop::collection::vec((0u8..7, any::<u8>(), any::<bool>()), 1..6)) {
            use MatchType as M;
            let kinds = [M::Equal, M::NotEqual, M::Greater, M::Less, M::GreaterOrEqual, M::LessOrEqual, M::Equal];
            let mut conditions = Vec::new();
            for (kind, value, apart) in plan {
                if apart {
                    conditions.push(port(M::Equal, 1));
                }
                conditions.push(on("IP_PROTOCOL", kinds[usize::from(kind)], ConditionValue::Uint8(value)));
            }
            let met = (0..=255).any(|value| {
                let mut facts = Facts::new(layer());
                facts.set("IP_PROTOCOL", ConditionValue::Uint8(value));
                facts.set("IP_REMOTE_PORT", ConditionValue::Uint16(1));
                facts.matching(conditions.iter().map(Option::as_ref)) == Matching::Yes
            });
            prop_assert_eq!(contradiction(layer(), &conditions).is_none(), met);
        }
    }
}
