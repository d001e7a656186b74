//! Every match type against every data type, through the arena's `FWP_VALUE0`, as a driver would see it too.

use crate::condition::{ConditionValue, Test, compile};
use crate::explain::facts::read;
use crate::layers::{Field, FieldKind, FieldType};
use crate::security::tests::descriptor;
use crate::{security::Sid, token::Token};
use ConditionValue as C;
use MatchType as M;
use nt_abi::NtStatus;
use nt_abi::fwp::consts::FWP_TOKEN_ACCESS_INFORMATION_TYPE;
use nt_abi::fwp::value::{Blob, Read};
use sluice_host::{Guid, MatchType};

const ALL: [MatchType; 13] = [
    M::Equal,
    M::Greater,
    M::Less,
    M::GreaterOrEqual,
    M::LessOrEqual,
    M::Range,
    M::FlagsAllSet,
    M::FlagsAnySet,
    M::FlagsNoneSet,
    M::EqualCaseInsensitive,
    M::NotEqual,
    M::Prefix,
    M::NotPrefix,
];

fn field(data_type: FieldType) -> Field {
    Field { name: "A_FIELD", key: Guid(1), data_type, kind: FieldKind::RawData }
}

fn passes(test: &Test, value: &C) -> bool {
    test.passes(read(value))
}

fn range(low: C, high: C) -> C {
    C::Range { low: Box::new(low), high: Box::new(high) }
}

fn text(s: &str) -> C {
    C::UnicodeString(s.encode_utf16().collect())
}

/// For each type: the type, a small, a middle and a large value, and the match types it supports.
fn types() -> Vec<(FieldType, [C; 3], &'static [MatchType])> {
    const SORTABLE: &[MatchType] =
        &[M::Equal, M::Greater, M::Less, M::GreaterOrEqual, M::LessOrEqual, M::Range, M::NotEqual];
    const UNSIGNED: &[MatchType] = &[
        M::Equal,
        M::Greater,
        M::Less,
        M::GreaterOrEqual,
        M::LessOrEqual,
        M::Range,
        M::NotEqual,
        M::FlagsAllSet,
        M::FlagsAnySet,
        M::FlagsNoneSet,
    ];
    const BLOB: &[MatchType] = &[
        M::Equal,
        M::Greater,
        M::Less,
        M::GreaterOrEqual,
        M::LessOrEqual,
        M::Range,
        M::NotEqual,
        M::Prefix,
        M::NotPrefix,
    ];
    const TEXT: &[MatchType] = &[
        M::Equal,
        M::Greater,
        M::Less,
        M::GreaterOrEqual,
        M::LessOrEqual,
        M::Range,
        M::NotEqual,
        M::Prefix,
        M::NotPrefix,
        M::EqualCaseInsensitive,
    ];
    const EQUALITY: &[MatchType] = &[M::Equal, M::NotEqual];
    let bytes16 = |last| {
        let mut bytes = [0; 16];
        bytes[15] = last;
        C::ByteArray16(bytes)
    };
    let sid = |n| C::Sid(Sid::new(5, &[n]).bytes().to_vec());
    vec![
        (FieldType::Uint8, [C::Uint8(0), C::Uint8(7), C::Uint8(u8::MAX)], UNSIGNED),
        (FieldType::Uint16, [C::Uint16(0), C::Uint16(7), C::Uint16(u16::MAX)], UNSIGNED),
        (FieldType::Uint32, [C::Uint32(0), C::Uint32(7), C::Uint32(u32::MAX)], UNSIGNED),
        (FieldType::Uint64, [C::Uint64(0), C::Uint64(7), C::Uint64(u64::MAX)], UNSIGNED),
        (FieldType::Int8, [C::Int8(i8::MIN), C::Int8(-1), C::Int8(i8::MAX)], SORTABLE),
        (FieldType::Int16, [C::Int16(i16::MIN), C::Int16(-1), C::Int16(i16::MAX)], SORTABLE),
        (FieldType::Int32, [C::Int32(i32::MIN), C::Int32(-1), C::Int32(i32::MAX)], SORTABLE),
        (FieldType::Int64, [C::Int64(i64::MIN), C::Int64(-1), C::Int64(i64::MAX)], SORTABLE),
        (FieldType::Float, [C::Float(-1.5), C::Float(0.0), C::Float(2.5)], EQUALITY),
        (FieldType::Double, [C::Double(-1.5), C::Double(0.0), C::Double(2.5)], EQUALITY),
        (FieldType::ByteArray16, [bytes16(0), bytes16(7), C::ByteArray16([0xFF; 16])], SORTABLE),
        (FieldType::ByteArray6, [C::ByteArray6([0; 6]), C::ByteArray6([7; 6]), C::ByteArray6([9; 6])], EQUALITY),
        (FieldType::ByteBlob, [C::ByteBlob(vec![]), C::ByteBlob(vec![7]), C::ByteBlob(vec![7, 0])], BLOB),
        (FieldType::Sid, [sid(1), sid(2), sid(3)], EQUALITY),
        (FieldType::UnicodeString, [text("A"), text("a"), text("aa")], TEXT),
    ]
}

/// What a match says about the order of the value and the condition's value.
fn by_order(match_type: MatchType, order: std::cmp::Ordering) -> Option<bool> {
    Some(match match_type {
        M::Equal => order.is_eq(),
        M::NotEqual => order.is_ne(),
        M::Greater => order.is_gt(),
        M::GreaterOrEqual => order.is_ge(),
        M::Less => order.is_lt(),
        M::LessOrEqual => order.is_le(),
        _ => return None,
    })
}

#[test]
fn every_match_type_works_with_the_types_that_support_it_and_no_other() {
    for (data_type, values, supported) in types() {
        for match_type in ALL {
            for (i, against) in values.iter().enumerate() {
                let value = match match_type {
                    M::Range => range(against.clone(), against.clone()),
                    _ => against.clone(),
                };
                let test = compile(&field(data_type), match_type, &value);
                if !supported.contains(&match_type) {
                    let status = test.expect_err("not supported").status;
                    assert_eq!(status, NtStatus::FWP_MATCH_TYPE_MISMATCH, "{data_type:?} {match_type:?}");
                    continue;
                }
                let test = test.expect("supported");
                for (j, value) in values.iter().enumerate() {
                    let expected = match match_type {
                        M::Range => Some(i == j),
                        other => by_order(other, j.cmp(&i)),
                    };
                    if let Some(expected) = expected {
                        assert_eq!(passes(&test, value), expected, "{value:?} {match_type:?} {against:?}");
                    }
                }
                assert!(!passes(&test, &C::Empty), "nothing passes no test: {data_type:?} {match_type:?}");
            }
        }
        let [low, middle, high] = values;
        if supported.contains(&M::Range) {
            let inside = compile(&field(data_type), M::Range, &range(middle.clone(), high.clone())).expect("in order");
            assert_eq!([&low, &middle, &high].map(|v| passes(&inside, v)), [false, true, true], "{data_type:?}");
            let backwards = compile(&field(data_type), M::Range, &range(high, middle));
            assert_eq!(backwards.expect_err("backwards").status, NtStatus::FWP_INVALID_RANGE);
        }
    }
}

#[test]
fn a_value_of_another_type_cannot_be_compared() {
    for (data_type, _, _) in types() {
        for (other, [value, ..], _) in types() {
            let compiled = compile(&field(data_type), M::Equal, &value);
            match data_type == other {
                true => drop(compiled.expect("the same type")),
                false => assert_eq!(compiled.expect_err("another").status, NtStatus::FWP_TYPE_MISMATCH),
            }
        }
        // A single value where a range is due, and the other way round.
        let (_, [value, ..], _) = types().into_iter().find(|t| t.0 == data_type).expect("listed");
        let status = |m, v: &C| compile(&field(data_type), m, v).expect_err("wrong shape").status;
        assert_eq!(status(M::Range, &value), NtStatus::FWP_MATCH_TYPE_MISMATCH);
        assert_eq!(status(M::Equal, &range(value.clone(), value)), NtStatus::FWP_MATCH_TYPE_MISMATCH);
    }
}

#[test]
fn flags_are_all_any_or_none_set() {
    for (match_type, expected) in [
        (M::FlagsAllSet, [false, false, true, true]),
        (M::FlagsAnySet, [false, true, true, true]),
        (M::FlagsNoneSet, [true, false, false, false]),
    ] {
        let test = compile(&field(FieldType::Uint32), match_type, &C::Uint32(0b0110)).expect("unsigned");
        let values = [0b1001, 0b1010, 0b0110, 0b1111].map(|v| passes(&test, &C::Uint32(v)));
        assert_eq!(values, expected, "{match_type:?}");
    }
}

#[test]
fn prefix_means_the_end() {
    let blob = |s: &str| C::ByteBlob(Blob::app_id(s).bytes().to_vec());
    for (match_type, expected) in [(M::Prefix, true), (M::NotPrefix, false)] {
        let test = compile(&field(FieldType::ByteBlob), match_type, &blob("curl.exe")).expect("a blob");
        assert_eq!(passes(&test, &blob(r"\device\harddiskvolume1\curl.exe")), expected);
        assert_eq!(passes(&test, &blob(r"curl.exe\other.exe")), !expected);
        let test = compile(&field(FieldType::UnicodeString), match_type, &text("z")).expect("a text");
        assert_eq!(passes(&test, &text("xyz")), expected);
        assert_eq!(passes(&test, &text("zyx")), !expected);
    }
}

#[test]
fn texts_can_be_compared_without_regard_to_case() {
    let test = compile(&field(FieldType::UnicodeString), M::EqualCaseInsensitive, &text("Grüße.EXE")).expect("a text");
    assert!(passes(&test, &text("grÜßE.exe")));
    assert!(!passes(&test, &text("grüsse.exe")));
}

#[test]
fn addresses_match_by_mask_and_prefix() {
    let v4 = |addr, mask| C::V4AddrMask { addr, mask };
    let test = |value, match_type| compile(&field(FieldType::Uint32), match_type, &value).expect("an address");
    for (mask, inside, outside) in
        [(0xFFFF_FF00, 0xC000_02FF, 0xC000_0300), (u32::MAX, 0xC000_0201, 0xC000_0202), (0x8000_0000, 0x8000_0000, 0)]
    {
        // The bits of the address beyond the mask do not count.
        assert!(passes(&test(v4(0xC000_0201, mask), M::Equal), &C::Uint32(inside)));
        assert!(!passes(&test(v4(0xC000_0201, mask), M::Equal), &C::Uint32(outside)));
        assert!(!passes(&test(v4(0xC000_0201, mask), M::NotEqual), &C::Uint32(inside)));
        assert!(passes(&test(v4(0xC000_0201, mask), M::NotEqual), &C::Uint32(outside)));
    }
    assert!(passes(&test(v4(0xC000_0201, 0), M::Equal), &C::Uint32(7)));
    let addr =
        |first: u8, last: u8| core::array::from_fn(|i| [first, 0, last][usize::from(i > 0) + usize::from(i == 15)]);
    let v6 = |prefix_length| C::V6AddrMask { addr: addr(0x20, 1), prefix_length };
    for (prefix, inside, outside) in [
        (128, addr(0x20, 1), addr(0x20, 2)),
        (127, addr(0x20, 0), addr(0x20, 2)),
        (8, addr(0x20, 9), addr(0x21, 1)),
        (3, addr(0x3F, 9), addr(0x40, 1)),
    ] {
        let test = compile(&field(FieldType::ByteArray16), M::Equal, &v6(prefix)).expect("an address");
        assert!(passes(&test, &C::ByteArray16(inside)), "/{prefix}");
        assert!(!passes(&test, &C::ByteArray16(outside)), "/{prefix}");
    }
    let everything = compile(&field(FieldType::ByteArray16), M::Equal, &v6(0)).expect("an address");
    assert!(passes(&everything, &C::ByteArray16([0xFF; 16])));
    let too_long = compile(&field(FieldType::ByteArray16), M::Equal, &v6(129)).expect_err("129 bits");
    assert_eq!(too_long.status, crate::error::FWP_INVALID_NET_MASK);
}

#[test]
fn a_security_descriptor_matches_whom_it_grants() {
    let (me, other) = (Sid::new(5, &[21, 7]), Sid::new(5, &[21, 8]));
    let token = Token { sids: vec![me.clone()] }.to_blob();
    for (sid, expected) in [(&me, true), (&other, false)] {
        let value = C::SecurityDescriptor(descriptor(&[(true, 1, sid)]));
        let test = compile(&field(FieldType::TokenAccessInformation), M::Equal, &value).expect("well formed");
        let value = Read::Bytes(FWP_TOKEN_ACCESS_INFORMATION_TYPE, token.bytes());
        assert_eq!(test.passes(value), expected);
    }
    let malformed = C::SecurityDescriptor(vec![1, 2, 3]);
    let refused = compile(&field(FieldType::TokenAccessInformation), M::Equal, &malformed).expect_err("malformed");
    assert_eq!(refused.status, NtStatus::INVALID_PARAMETER);
}
