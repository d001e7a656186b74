//! What is known of traffic at a layer, and whether a filter's conditions hold with that.

use crate::condition::{self, Condition, ConditionValue, FlagRule, Test};
use crate::layers::Layer;
use crate::token::Token;
use nt_abi::fwp::consts;
use nt_abi::fwp::value::{Blob, Read};

/// A field's value, as far as it is known.
enum Fact {
    Unknown,
    Empty,
    Value(ConditionValue),
    Token(Blob),
    /// The bits of a number that are known.
    Bits {
        data_type: u32,
        value: u64,
        known: u64,
    },
}

/// What is known of traffic at a layer. At first nothing is.
pub struct Facts<'a> {
    layer: &'a Layer,
    facts: Vec<Fact>,
}

impl std::fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Facts").field("layer", &self.layer.name).finish_non_exhaustive()
    }
}

/// Whether the conditions of a filter hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Matching {
    /// All hold.
    Yes,
    /// They do not: the first of the alternatives on the field that fails.
    No {
        /// The condition's index.
        condition: usize,
    },
    /// That depends on what is not known: the first condition on each field that decides it.
    Unknown {
        /// The conditions' indices.
        conditions: Vec<usize>,
    },
}

/// An answer in three values.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holds {
    Yes,
    No,
    Unknown,
}

impl<'a> Facts<'a> {
    /// Nothing is known.
    #[must_use]
    pub fn new(layer: &'a Layer) -> Self {
        Self { layer, facts: layer.fields.iter().map(|_| Fact::Unknown).collect() }
    }

    /// The layer.
    #[must_use]
    pub fn layer(&self) -> &'a Layer {
        self.layer
    }

    fn put(&mut self, field: &str, fact: Fact) {
        if let Some(index) = self.layer.field_index(field) {
            self.facts[index] = fact;
        }
    }

    /// Says the value of a field, by its condition's name after `FWPM_CONDITION_`. A layer without the field takes no
    /// notice.
    pub fn set(&mut self, field: &str, value: ConditionValue) {
        self.put(field, Fact::Value(value));
    }

    /// Says that a field has no value.
    pub fn set_empty(&mut self, field: &str) {
        self.put(field, Fact::Empty);
    }

    /// Says the token of a field of type FWP_TOKEN_ACCESS_INFORMATION_TYPE.
    pub fn set_token(&mut self, field: &str, token: &Token) {
        self.put(field, Fact::Token(token.to_blob()));
    }

    /// Says the bits `known` of a flags field.
    pub fn set_bits(&mut self, field: &str, value: u32, known: u32) {
        let (value, known) = (value.into(), known.into());
        self.put(field, Fact::Bits { data_type: consts::FWP_UINT32, value, known });
    }

    /// Whether a filter's conditions hold. `None` stands for a condition that cannot be understood.
    #[must_use]
    pub fn matching<'c>(&self, conditions: impl IntoIterator<Item = Option<&'c Condition>>) -> Matching {
        let conditions: Vec<Option<&Condition>> = conditions.into_iter().collect();
        let mut unknown = Vec::new();
        let mut rest = conditions.as_slice();
        while let Some(first) = rest.first() {
            let start = conditions.len() - rest.len();
            // As the engine has it: consecutive conditions on one field are alternatives.
            let run = match first {
                None => 1,
                Some(one) => {
                    rest.iter().take_while(|other| other.is_some_and(|other| other.field == one.field)).count()
                }
            };
            let (group, others) = rest.split_at(run);
            rest = others;
            let any = group.iter().map(|one| one.map_or(Holds::Unknown, |one| self.holds(one)));
            match any.fold(Holds::No, Holds::or) {
                Holds::Yes => {}
                Holds::No => return Matching::No { condition: start },
                Holds::Unknown => unknown.push(start),
            }
        }
        if unknown.is_empty() { Matching::Yes } else { Matching::Unknown { conditions: unknown } }
    }

    fn holds(&self, condition: &Condition) -> Holds {
        // A field or a comparison that this table of layers does not know.
        let Some(index) = self.layer.field_by_key(condition.field) else { return Holds::Unknown };
        let Ok(test) = condition::compile(&self.layer.fields[index], condition.match_type, &condition.value) else {
            return Holds::Unknown;
        };
        match &self.facts[index] {
            Fact::Unknown => Holds::Unknown,
            Fact::Empty => test.passes(Read::Empty).into(),
            Fact::Value(value) => test.passes(read(value)).into(),
            Fact::Token(blob) => {
                test.passes(Read::Bytes(consts::FWP_TOKEN_ACCESS_INFORMATION_TYPE, blob.bytes())).into()
            }
            Fact::Bits { data_type, value, known } => bits(&test, *data_type, *value, *known),
        }
    }
}

impl Holds {
    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Yes, _) | (_, Self::Yes) => Self::Yes,
            (Self::No, Self::No) => Self::No,
            _ => Self::Unknown,
        }
    }
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// A test of a number of which not every bit is known.
fn bits(test: &Test, data_type: u32, value: u64, known: u64) -> Holds {
    match test {
        Test::Flags { data_type: asked, mask, rule } if *asked == data_type => {
            let (set, unset, open) = (mask & known & value, mask & known & !value, mask & !known);
            match rule {
                FlagRule::All if unset != 0 => Holds::No,
                FlagRule::Any if set != 0 => Holds::Yes,
                FlagRule::None if set != 0 => Holds::No,
                _ if open != 0 => Holds::Unknown,
                FlagRule::All | FlagRule::None => Holds::Yes,
                FlagRule::Any => Holds::No,
            }
        }
        // Any other comparison needs the whole number.
        _ if known == u64::from(u32::MAX) => test.passes(Read::Unsigned(data_type, value)).into(),
        _ => Holds::Unknown,
    }
}

/// A value as classify would read it.
pub(crate) fn read(value: &ConditionValue) -> Read<'_> {
    use ConditionValue as C;
    let kind = value.data_type();
    match value {
        C::Uint8(v) => Read::Unsigned(kind, (*v).into()),
        C::Uint16(v) => Read::Unsigned(kind, (*v).into()),
        C::Uint32(v) => Read::Unsigned(kind, (*v).into()),
        C::Uint64(v) => Read::Unsigned(kind, *v),
        C::Int8(v) => Read::Signed(kind, (*v).into()),
        C::Int16(v) => Read::Signed(kind, (*v).into()),
        C::Int32(v) => Read::Signed(kind, (*v).into()),
        C::Int64(v) => Read::Signed(kind, *v),
        C::Float(v) => Read::Float(kind, (*v).into()),
        C::Double(v) => Read::Float(kind, *v),
        C::ByteArray16(v) => Read::Bytes16(v),
        C::ByteArray6(v) => Read::Bytes6(v),
        C::ByteBlob(v) | C::Sid(v) | C::SecurityDescriptor(v) => Read::Bytes(kind, v),
        C::UnicodeString(v) => Read::Text(v),
        // No layer carries these.
        C::Empty | C::V4AddrMask { .. } | C::V6AddrMask { .. } | C::Range { .. } => Read::Empty,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{LayerTable, WindowsVersion, condition as key};
    use crate::security::{SecurityDescriptor, Sid};
    use sluice_host::MatchType;

    fn condition(field: &str, match_type: MatchType, value: ConditionValue) -> Condition {
        Condition { field: key(field).expect("a condition"), match_type, value }
    }

    fn layer() -> &'static Layer {
        LayerTable::of(WindowsVersion::Win24H2).by_name("ALE_AUTH_CONNECT_V4").expect("always there")
    }

    #[test]
    fn alternatives_on_one_field_and_all_fields() {
        let port = |port| condition("IP_REMOTE_PORT", MatchType::Equal, ConditionValue::Uint16(port));
        let tcp = condition("IP_PROTOCOL", MatchType::Equal, ConditionValue::Uint8(6));
        let mut facts = Facts::new(layer());
        let of = |facts: &Facts<'_>, all: &[Condition]| facts.matching(all.iter().map(Some));
        let all = [port(80), port(443), tcp.clone()];
        assert_eq!(of(&facts, &all), Matching::Unknown { conditions: vec![0, 2] });
        facts.set("IP_REMOTE_PORT", ConditionValue::Uint16(443));
        assert_eq!(of(&facts, &all), Matching::Unknown { conditions: vec![2] });
        facts.set("IP_PROTOCOL", ConditionValue::Uint8(17));
        assert_eq!(of(&facts, &all), Matching::No { condition: 2 });
        facts.set("IP_PROTOCOL", ConditionValue::Uint8(6));
        assert_eq!(of(&facts, &all), Matching::Yes);
        assert_eq!(facts.matching([Some(&tcp), None]), Matching::Unknown { conditions: vec![1] });
        assert_eq!(of(&facts, &[]), Matching::Yes);
        facts.set_empty("IP_REMOTE_PORT");
        assert_eq!(of(&facts, &all), Matching::No { condition: 0 });
    }

    #[test]
    fn a_token_is_asked_as_classify_asks_it() {
        let sd = SecurityDescriptor::from_sddl("D:(A;;CC;;;BA)").expect("good");
        let admins = [condition("ALE_USER_ID", MatchType::Equal, ConditionValue::SecurityDescriptor(sd))];
        let mut facts = Facts::new(layer());
        facts.set_token("ALE_USER_ID", &Token::local_system());
        assert_eq!(facts.matching(admins.iter().map(Some)), Matching::Yes);
        facts.set_token("ALE_USER_ID", &Token { sids: vec![Sid::new(5, &[32, 545])] });
        assert_eq!(facts.matching(admins.iter().map(Some)), Matching::No { condition: 0 });
    }

    #[test]
    fn bits_that_are_not_known_decide_only_where_they_are_asked() {
        let mut facts = Facts::new(layer());
        // Bit 0 is set, bit 1 is not, the others are open.
        facts.set_bits("FLAGS", 1, 3);
        let expect = |match_type, mask, matching| {
            let one = [condition("FLAGS", match_type, ConditionValue::Uint32(mask))];
            assert_eq!(facts.matching(one.iter().map(Some)), matching, "{match_type:?} {mask}");
        };
        let open = || Matching::Unknown { conditions: vec![0] };
        let no = || Matching::No { condition: 0 };
        expect(MatchType::FlagsAllSet, 1, Matching::Yes);
        expect(MatchType::FlagsAllSet, 3, no());
        expect(MatchType::FlagsAllSet, 5, open());
        expect(MatchType::FlagsAllSet, 6, no());
        expect(MatchType::FlagsAnySet, 5, Matching::Yes);
        expect(MatchType::FlagsAnySet, 6, open());
        expect(MatchType::FlagsAnySet, 2, no());
        expect(MatchType::FlagsNoneSet, 2, Matching::Yes);
        expect(MatchType::FlagsNoneSet, 5, no());
        expect(MatchType::FlagsNoneSet, 6, open());
        expect(MatchType::Equal, 1, open());
        facts.set_bits("FLAGS", 1, u32::MAX);
        let one = [condition("FLAGS", MatchType::Equal, ConditionValue::Uint32(1))];
        assert_eq!(facts.matching(one.iter().map(Some)), Matching::Yes);
    }
}
