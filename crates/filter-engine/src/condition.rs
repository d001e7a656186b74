//! Filter conditions: which comparisons are allowed, and the comparison itself.
//!
//! The rules are those of `FWP_MATCH_TYPE` (fwptypes.h, sdk-api documentation) with two notes. `FWP_MATCH_PREFIX` and
//! `NOT_PREFIX` compare the *end* of the value: the documentation itself calls the name misleading. And
//! `FWP_MATCH_NOT_EQUAL` is documented for sortable types only, while the default policy of live machines uses it with
//! SIDs (ALE_PACKAGE_ID other than S-1-0-0); it is allowed here wherever `FWP_MATCH_EQUAL` is, except for security
//! descriptors.

use crate::error::{BfeError, BfeResult, FWP_INVALID_NET_MASK};
use crate::layers::{Field, FieldType};
use crate::security::SecurityDescriptor;
use crate::token::Token;
use nt_abi::NtStatus;
use nt_abi::fwp::consts;
use nt_abi::fwp::value::Read;
use sluice_host::{self as host, Guid, MatchType};

/// `FWP_CONDITION_VALUE0`, and `FWP_VALUE0` as its single-valued part.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are those of FWP_DATA_TYPE")]
pub enum ConditionValue {
    Empty,
    Uint8(u8),
    Uint16(u16),
    Uint32(u32),
    Uint64(u64),
    Int8(i8),
    Int16(i16),
    Int32(i32),
    Int64(i64),
    Float(f32),
    Double(f64),
    ByteArray16([u8; 16]),
    ByteArray6([u8; 6]),
    ByteBlob(Vec<u8>),
    /// In binary form.
    Sid(Vec<u8>),
    /// Self-relative.
    SecurityDescriptor(Vec<u8>),
    /// Without the terminating NUL.
    UnicodeString(Vec<u16>),
    /// Host order.
    V4AddrMask {
        addr: u32,
        mask: u32,
    },
    V6AddrMask {
        addr: [u8; 16],
        prefix_length: u8,
    },
    Range {
        low: Box<ConditionValue>,
        high: Box<ConditionValue>,
    },
}

impl ConditionValue {
    /// The `FWP_DATA_TYPE`.
    #[must_use]
    pub fn data_type(&self) -> u32 {
        match self {
            Self::Empty => consts::FWP_EMPTY,
            Self::Uint8(_) => consts::FWP_UINT8,
            Self::Uint16(_) => consts::FWP_UINT16,
            Self::Uint32(_) => consts::FWP_UINT32,
            Self::Uint64(_) => consts::FWP_UINT64,
            Self::Int8(_) => consts::FWP_INT8,
            Self::Int16(_) => consts::FWP_INT16,
            Self::Int32(_) => consts::FWP_INT32,
            Self::Int64(_) => consts::FWP_INT64,
            Self::Float(_) => consts::FWP_FLOAT,
            Self::Double(_) => consts::FWP_DOUBLE,
            Self::ByteArray16(_) => consts::FWP_BYTE_ARRAY16_TYPE,
            Self::ByteArray6(_) => consts::FWP_BYTE_ARRAY6_TYPE,
            Self::ByteBlob(_) => consts::FWP_BYTE_BLOB_TYPE,
            Self::Sid(_) => consts::FWP_SID,
            Self::SecurityDescriptor(_) => consts::FWP_SECURITY_DESCRIPTOR_TYPE,
            Self::UnicodeString(_) => consts::FWP_UNICODE_STRING_TYPE,
            Self::V4AddrMask { .. } => consts::FWP_V4_ADDR_MASK,
            Self::V6AddrMask { .. } => consts::FWP_V6_ADDR_MASK,
            Self::Range { .. } => consts::FWP_RANGE_TYPE,
        }
    }

    /// Unsigned integers as one number.
    fn unsigned(&self) -> Option<u64> {
        match *self {
            Self::Uint8(v) => Some(v.into()),
            Self::Uint16(v) => Some(v.into()),
            Self::Uint32(v) => Some(v.into()),
            Self::Uint64(v) => Some(v),
            _ => None,
        }
    }

    fn signed(&self) -> Option<i64> {
        match *self {
            Self::Int8(v) => Some(v.into()),
            Self::Int16(v) => Some(v.into()),
            Self::Int32(v) => Some(v.into()),
            Self::Int64(v) => Some(v),
            _ => None,
        }
    }
}

impl From<&host::ConditionValue> for ConditionValue {
    fn from(value: &host::ConditionValue) -> Self {
        use host::ConditionValue as H;
        match value {
            H::Empty => Self::Empty,
            H::Uint8(v) => Self::Uint8(*v),
            H::Uint16(v) => Self::Uint16(*v),
            H::Uint32(v) => Self::Uint32(*v),
            H::Uint64(v) => Self::Uint64(*v),
            H::ByteArray16(v) => Self::ByteArray16(*v),
            H::ByteBlob(v) => Self::ByteBlob(v.clone()),
            H::Sid(v) => Self::Sid(v.clone()),
            H::SecurityDescriptor(v) => Self::SecurityDescriptor(v.clone()),
            H::V4AddrMask { addr, mask } => Self::V4AddrMask { addr: *addr, mask: *mask },
            H::V6AddrMask { addr, prefix_length } => Self::V6AddrMask { addr: *addr, prefix_length: *prefix_length },
            H::Range { low, high } => {
                Self::Range { low: Box::new(low.as_ref().into()), high: Box::new(high.as_ref().into()) }
            }
        }
    }
}

/// `FWPM_FILTER_CONDITION0`.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// fieldKey.
    pub field: Guid,
    /// matchType.
    pub match_type: MatchType,
    /// conditionValue.
    pub value: ConditionValue,
}

/// Every `FWP_MATCH_TYPE`.
pub fn match_types() -> impl Iterator<Item = MatchType> {
    (0..).map_while(match_type)
}

/// `FWP_MATCH_TYPE` from its number.
#[must_use]
pub fn match_type(number: u32) -> Option<MatchType> {
    MatchType::from_number(number)
}

/// One compiled comparison; an interval test wherever possible.
#[derive(Clone, Debug)]
pub(crate) enum Test {
    Unsigned { data_type: u32, low: u64, high: u64, inside: bool },
    Flags { data_type: u32, mask: u64, rule: FlagRule },
    Signed { data_type: u32, low: i64, high: i64, inside: bool },
    Float { data_type: u32, value: f64, inside: bool },
    Bytes16 { low: u128, high: u128, inside: bool },
    Bytes6 { value: [u8; 6], inside: bool },
    Bytes { data_type: u32, order: Order<u8>, inside: bool },
    Text { order: Order<u16>, inside: bool },
    TextIgnoringCase(Vec<u16>),
    Access(SecurityDescriptor),
    Never,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum FlagRule {
    All,
    Any,
    None,
}

/// How strings of bytes or of UTF-16 units are compared.
#[derive(Clone, Debug)]
pub(crate) enum Order<T> {
    Between(Option<Vec<T>>, Option<Vec<T>>),
    Beyond(Vec<T>, std::cmp::Ordering),
    Suffix(Vec<T>),
}

impl Test {
    /// Whether `value` passes. A field without a value passes no test, not even `FWP_MATCH_NOT_EQUAL`.
    #[inline]
    pub(crate) fn passes(&self, value: Read<'_>) -> bool {
        match (self, value) {
            (Self::Unsigned { data_type, low, high, inside }, Read::Unsigned(kind, v)) => {
                kind == *data_type && (*low <= v && v <= *high) == *inside
            }
            (Self::Flags { data_type, mask, rule }, Read::Unsigned(kind, v)) => {
                kind == *data_type
                    && match rule {
                        FlagRule::All => v & mask == *mask,
                        FlagRule::Any => v & mask != 0,
                        FlagRule::None => v & mask == 0,
                    }
            }
            (Self::Bytes16 { low, high, inside }, Read::Bytes16(v)) => {
                let v = u128::from_be_bytes(*v);
                (*low <= v && v <= *high) == *inside
            }
            (Self::Bytes { data_type, order, inside }, Read::Bytes(kind, v)) => {
                kind == *data_type && order.holds(v) == *inside
            }
            (Self::Signed { data_type, low, high, inside }, Read::Signed(kind, v)) => {
                kind == *data_type && (*low <= v && v <= *high) == *inside
            }
            (Self::Float { data_type, value, inside }, Read::Float(kind, v)) => {
                kind == *data_type && (*value == v) == *inside
            }
            (Self::Bytes6 { value, inside }, Read::Bytes6(v)) => (value == v) == *inside,
            (Self::Text { order, inside }, Read::Text(v)) => order.holds(v) == *inside,
            (Self::TextIgnoringCase(other), Read::Text(v)) => {
                v.len() == other.len() && v.iter().zip(other).all(|(a, b)| upcase(*a) == upcase(*b))
            }
            (Self::Access(descriptor), Read::Bytes(consts::FWP_TOKEN_ACCESS_INFORMATION_TYPE, token)) => {
                Token::view(token).is_some_and(|token| descriptor.grants_match(&token))
            }
            _ => false,
        }
    }
}

impl<T: Ord + Clone> Order<T> {
    /// The order of a match; `None` when strings do not support it.
    fn of(match_type: MatchType, low: &[T], high: &[T]) -> Option<Result<Self, NtStatus>> {
        use MatchType as M;
        let end = |end: &[T]| Some(end.to_vec());
        Some(Ok(match match_type {
            M::Equal | M::NotEqual => Self::Between(end(low), end(low)),
            M::Range if low > high => return Some(Err(NtStatus::FWP_INVALID_RANGE)),
            M::Range => Self::Between(end(low), end(high)),
            M::GreaterOrEqual => Self::Between(end(low), None),
            M::LessOrEqual => Self::Between(None, end(low)),
            M::Greater => Self::Beyond(low.to_vec(), std::cmp::Ordering::Greater),
            M::Less => Self::Beyond(low.to_vec(), std::cmp::Ordering::Less),
            M::Prefix | M::NotPrefix => Self::Suffix(low.to_vec()),
            _ => return None,
        }))
    }

    fn holds(&self, value: &[T]) -> bool {
        match self {
            Self::Between(low, high) => {
                low.as_ref().is_none_or(|low| low.as_slice() <= value)
                    && high.as_ref().is_none_or(|high| value <= high.as_slice())
            }
            Self::Beyond(bound, side) => value.cmp(bound.as_slice()) == *side,
            Self::Suffix(end) => value.ends_with(end),
        }
    }
}

/// Upper case of one UTF-16 unit, where that is one unit again (as `RtlUpcaseUnicodeChar` does).
fn upcase(unit: u16) -> u16 {
    let Some(c) = char::from_u32(u32::from(unit)) else { return unit };
    let mut upper = c.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(one), None) => u16::try_from(u32::from(one)).unwrap_or(unit),
        _ => unit,
    }
}

/// Checks a condition against its field and compiles it.
///
/// # Errors
/// `FWP_TYPE_MISMATCH` when the value cannot be compared with the field, `FWP_MATCH_TYPE_MISMATCH` when not with this
/// match type, `FWP_INVALID_RANGE` for a range that ends before it begins, `FWP_INVALID_NET_MASK` for a bad prefix or
/// mask.
pub(crate) fn compile(field: &Field, match_type: MatchType, value: &ConditionValue) -> BfeResult<Test> {
    use MatchType as M;
    let refuse = |status, why: &str| {
        Err(BfeError::new(status, format!("condition on {}: {why} ({match_type:?} {value:?})", field.name)))
    };
    let mismatch = |why| refuse(NtStatus::FWP_MATCH_TYPE_MISMATCH, why);
    let inside = !matches!(match_type, M::NotEqual | M::NotPrefix);

    if let Some(test) = special(field.data_type, match_type, value, inside) {
        return test.or_else(|(status, why)| refuse(status, why));
    }
    let (low, high) = match value {
        ConditionValue::Range { low, high } if match_type == M::Range => (low.as_ref(), high.as_ref()),
        ConditionValue::Range { .. } => return mismatch("a range needs FWP_MATCH_RANGE"),
        _ if match_type == M::Range => return mismatch("FWP_MATCH_RANGE needs a range"),
        single => (single, single),
    };
    for value in [low, high] {
        if value.data_type() != field.data_type as u32 {
            return refuse(NtStatus::FWP_TYPE_MISMATCH, "the field has another data type");
        }
    }
    let test = test(match_type, low, high, inside);
    match test {
        Some(Ok(test)) => Ok(test),
        Some(Err(status)) => refuse(status, "the range ends before it begins"),
        None => mismatch("the data type does not support this match"),
    }
}

/// The comparison with a value of another type than the field's, where there is one: an address with a mask or a
/// prefix, and a security descriptor.
fn special(
    field: FieldType,
    match_type: MatchType,
    value: &ConditionValue,
    inside: bool,
) -> Option<Result<Test, (NtStatus, &'static str)>> {
    let mismatch = |why| Some(Err((NtStatus::FWP_MATCH_TYPE_MISMATCH, why)));
    let is_equality = matches!(match_type, MatchType::Equal | MatchType::NotEqual);
    Some(Ok(match (field, value) {
        (FieldType::Uint32, ConditionValue::V4AddrMask { addr, mask }) => {
            if !is_equality {
                return mismatch("an address with a mask is equal or not");
            }
            if mask.leading_ones() + mask.trailing_zeros() < 32 {
                return Some(Err((FWP_INVALID_NET_MASK, "the mask is not contiguous")));
            }
            let low = u64::from(addr & mask);
            Test::Unsigned { data_type: consts::FWP_UINT32, low, high: low | u64::from(!mask), inside }
        }
        (FieldType::ByteArray16, ConditionValue::V6AddrMask { addr, prefix_length }) => {
            if !is_equality {
                return mismatch("an address with a prefix is equal or not");
            }
            let host = match prefix_length {
                0 => u128::MAX,
                1..=127 => u128::MAX >> prefix_length,
                128 => 0,
                _ => return Some(Err((FWP_INVALID_NET_MASK, "a prefix has at most 128 bits"))),
            };
            let low = u128::from_be_bytes(*addr) & !host;
            Test::Bytes16 { low, high: low | host, inside }
        }
        (FieldType::TokenAccessInformation, ConditionValue::SecurityDescriptor(bytes)) => {
            if match_type != MatchType::Equal {
                return mismatch("a security descriptor is matched with FWP_MATCH_EQUAL");
            }
            match SecurityDescriptor::parse(bytes) {
                Some(descriptor) => Test::Access(descriptor),
                None => return Some(Err((NtStatus::INVALID_PARAMETER, "the security descriptor is malformed"))),
            }
        }
        _ => return None,
    }))
}

/// The comparison of a field with a value of its own type. `None` when the type does not support it.
fn test(
    match_type: MatchType,
    low: &ConditionValue,
    high: &ConditionValue,
    inside: bool,
) -> Option<Result<Test, NtStatus>> {
    use MatchType as M;
    let data_type = low.data_type();
    if let (Some(a), Some(b)) = (low.unsigned(), high.unsigned()) {
        return unsigned(match_type, data_type, a, b, inside);
    }
    if let (Some(a), Some(b)) = (low.signed(), high.signed()) {
        let bounds = interval(match_type, a, b, a.checked_add(1), a.checked_sub(1), i64::MIN, i64::MAX)?;
        return Some(bounds.map(|bounds| match bounds {
            Some((low, high)) => Test::Signed { data_type, low, high, inside },
            None => Test::Never,
        }));
    }
    match (low, high) {
        (ConditionValue::ByteArray16(a), ConditionValue::ByteArray16(b)) => {
            let (a, b) = (u128::from_be_bytes(*a), u128::from_be_bytes(*b));
            let bounds = interval(match_type, a, b, a.checked_add(1), a.checked_sub(1), 0, u128::MAX)?;
            Some(bounds.map(|bounds| match bounds {
                Some((low, high)) => Test::Bytes16 { low, high, inside },
                None => Test::Never,
            }))
        }
        (ConditionValue::Float(a), ConditionValue::Float(_)) => float(match_type, data_type, (*a).into(), inside),
        (ConditionValue::Double(a), ConditionValue::Double(_)) => float(match_type, data_type, *a, inside),
        (ConditionValue::ByteArray6(value), ConditionValue::ByteArray6(_)) => {
            matches!(match_type, M::Equal | M::NotEqual).then_some(Ok(Test::Bytes6 { value: *value, inside }))
        }
        (ConditionValue::Sid(value), ConditionValue::Sid(_)) => {
            let order = Order::Between(Some(value.clone()), Some(value.clone()));
            matches!(match_type, M::Equal | M::NotEqual).then_some(Ok(Test::Bytes { data_type, order, inside }))
        }
        (ConditionValue::ByteBlob(a), ConditionValue::ByteBlob(b)) => {
            Some(Order::of(match_type, a, b)?.map(|order| Test::Bytes { data_type, order, inside }))
        }
        (ConditionValue::UnicodeString(a), ConditionValue::UnicodeString(_))
            if match_type == M::EqualCaseInsensitive =>
        {
            Some(Ok(Test::TextIgnoringCase(a.clone())))
        }
        (ConditionValue::UnicodeString(a), ConditionValue::UnicodeString(b)) => {
            Some(Order::of(match_type, a, b)?.map(|order| Test::Text { order, inside }))
        }
        _ => None,
    }
}

/// The comparison with unsigned numbers.
fn unsigned(match_type: MatchType, data_type: u32, a: u64, b: u64, inside: bool) -> Option<Result<Test, NtStatus>> {
    let flags = |rule| Some(Ok(Test::Flags { data_type, mask: a, rule }));
    match match_type {
        MatchType::FlagsAllSet => flags(FlagRule::All),
        MatchType::FlagsAnySet => flags(FlagRule::Any),
        MatchType::FlagsNoneSet => flags(FlagRule::None),
        other => {
            let bounds = interval(other, a, b, a.checked_add(1), a.checked_sub(1), 0, u64::MAX)?;
            Some(bounds.map(|bounds| match bounds {
                Some((low, high)) => Test::Unsigned { data_type, low, high, inside },
                None => Test::Never,
            }))
        }
    }
}

/// The closed interval of a match on a sortable number; `None` inside for an empty one.
#[allow(clippy::type_complexity, reason = "unsupported, refused, empty and an interval are four answers")]
fn interval<T: Ord + Copy>(
    match_type: MatchType,
    low: T,
    high: T,
    above: Option<T>,
    below: Option<T>,
    least: T,
    most: T,
) -> Option<Result<Option<(T, T)>, NtStatus>> {
    use MatchType as M;
    Some(Ok(match match_type {
        M::Equal | M::NotEqual => Some((low, low)),
        M::Greater => above.map(|above| (above, most)),
        M::GreaterOrEqual => Some((low, most)),
        M::Less => below.map(|below| (least, below)),
        M::LessOrEqual => Some((least, low)),
        M::Range if low <= high => Some((low, high)),
        M::Range => return Some(Err(NtStatus::FWP_INVALID_RANGE)),
        _ => return None,
    }))
}

/// Floats are not sortable; they are equal or not.
fn float(match_type: MatchType, data_type: u32, value: f64, inside: bool) -> Option<Result<Test, NtStatus>> {
    matches!(match_type, MatchType::Equal | MatchType::NotEqual).then_some(Ok(Test::Float { data_type, value, inside }))
}
