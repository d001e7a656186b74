//! The values of a classify call: one per field of the layer, in the driver's representation.

use super::{FwpByteBlob, FwpValue0, ValueUnion, consts};
use crate::words::Words;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// One incoming value: an `FWP_VALUE0` whose pointer, if it has one, lives for `'a`.
///
/// Addresses of IPv4 and ports are numbers in host order; addresses of IPv6 are sixteen bytes in network order.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Value<'a>(FwpValue0, PhantomData<&'a ()>);

impl<'a> Value<'a> {
    /// `FWP_EMPTY`: the field has no value.
    pub const EMPTY: Value<'static> = Value(FwpValue0::EMPTY, PhantomData);

    /// `FWP_UINT8`.
    #[must_use]
    pub const fn u8(value: u8) -> Self {
        // The whole union is written, so that its unused bytes are defined.
        Self::number(consts::FWP_UINT8, value as u64)
    }

    /// `FWP_UINT16`.
    #[must_use]
    pub const fn u16(value: u16) -> Self {
        Self::number(consts::FWP_UINT16, value as u64)
    }

    /// `FWP_UINT32`.
    #[must_use]
    pub const fn u32(value: u32) -> Self {
        Self::number(consts::FWP_UINT32, value as u64)
    }

    const fn number(kind: u32, raw: u64) -> Self {
        Self(FwpValue0 { kind, value: ValueUnion { raw } }, PhantomData)
    }

    /// `FWP_UINT64`: by reference, as Windows has it.
    #[must_use]
    pub const fn u64(value: &'a u64) -> Self {
        Self(FwpValue0 { kind: consts::FWP_UINT64, value: ValueUnion { uint64: value } }, PhantomData)
    }

    /// `FWP_BYTE_ARRAY16_TYPE`.
    #[must_use]
    pub const fn bytes16(value: &'a [u8; 16]) -> Self {
        let value = ValueUnion { byte_array16: value };
        Self(FwpValue0 { kind: consts::FWP_BYTE_ARRAY16_TYPE, value }, PhantomData)
    }

    /// `FWP_BYTE_BLOB_TYPE`.
    #[must_use]
    pub fn blob(value: &'a Blob) -> Self {
        Self(FwpValue0 { kind: consts::FWP_BYTE_BLOB_TYPE, value: ValueUnion { byte_blob: &value.raw } }, PhantomData)
    }

    /// The structure handed to a driver.
    #[must_use]
    pub const fn raw(&self) -> &FwpValue0 {
        &self.0
    }

    /// Reads the value.
    #[must_use]
    pub fn read(&self) -> Read<'a> {
        let FwpValue0 { kind, value } = self.0;
        // SAFETY: `kind` was set together with the union by one of the constructors above or by `Incoming`, so the
        // member read is the one written; the pointers are to what `'a` borrows.
        unsafe {
            match kind {
                consts::FWP_UINT8 => Read::Unsigned(kind, u64::from(value.uint8)),
                consts::FWP_UINT16 => Read::Unsigned(kind, u64::from(value.uint16)),
                consts::FWP_UINT32 => Read::Unsigned(kind, u64::from(value.uint32)),
                consts::FWP_UINT64 => Read::Unsigned(kind, *value.uint64),
                consts::FWP_INT8 => Read::Signed(kind, i64::from(value.int8)),
                consts::FWP_INT16 => Read::Signed(kind, i64::from(value.int16)),
                consts::FWP_INT32 => Read::Signed(kind, i64::from(value.int32)),
                consts::FWP_INT64 => Read::Signed(kind, *value.int64),
                consts::FWP_FLOAT => Read::Float(kind, f64::from(value.float32)),
                consts::FWP_DOUBLE => Read::Float(kind, *value.double64),
                consts::FWP_BYTE_ARRAY16_TYPE => Read::Bytes16(&*value.byte_array16),
                consts::FWP_BYTE_ARRAY6_TYPE => Read::Bytes6(&*value.byte_array6),
                consts::FWP_BYTE_BLOB_TYPE
                | consts::FWP_TOKEN_ACCESS_INFORMATION_TYPE
                | consts::FWP_SECURITY_DESCRIPTOR_TYPE => Read::Bytes(kind, blob_bytes(value.byte_blob)),
                consts::FWP_SID => Read::Bytes(kind, sid_bytes(value.sid)),
                consts::FWP_UNICODE_STRING_TYPE => Read::Text(wide(value.unicode_string)),
                _ => Read::Empty,
            }
        }
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.read().fmt(f)
    }
}

/// A value read from its `FWP_VALUE0`; the number with it is its `FWP_DATA_TYPE`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Read<'a> {
    /// No value, or one of a type no layer carries.
    Empty,
    /// `FWP_UINT8` to `FWP_UINT64`.
    Unsigned(u32, u64),
    /// `FWP_INT8` to `FWP_INT64`.
    Signed(u32, i64),
    /// `FWP_FLOAT`, `FWP_DOUBLE`.
    Float(u32, f64),
    /// `FWP_BYTE_ARRAY16_TYPE`.
    Bytes16(&'a [u8; 16]),
    /// `FWP_BYTE_ARRAY6_TYPE`.
    Bytes6(&'a [u8; 6]),
    /// A blob, SID, token or security descriptor.
    Bytes(u32, &'a [u8]),
    /// `FWP_UNICODE_STRING_TYPE`, without the terminating NUL.
    Text(&'a [u16]),
}

/// The bytes of a blob.
///
/// # Safety
/// `blob` is null or points to a blob whose data is readable for `'a`.
pub unsafe fn blob_bytes<'a>(blob: *const FwpByteBlob) -> &'a [u8] {
    // SAFETY: the caller's promise; a null data pointer is not followed.
    unsafe {
        match blob.as_ref() {
            Some(blob) if !blob.data.is_null() => core::slice::from_raw_parts(blob.data, blob.size as usize),
            _ => &[],
        }
    }
}

/// The bytes of a SID: eight and four for each sub-authority.
///
/// # Safety
/// `sid` is null or points to a SID that is readable for `'a`.
pub unsafe fn sid_bytes<'a>(sid: *const u8) -> &'a [u8] {
    if sid.is_null() {
        return &[];
    }
    // SAFETY: the caller's promise; the second byte of a SID counts its sub-authorities.
    unsafe { core::slice::from_raw_parts(sid, 8 + 4 * usize::from(*sid.add(1))) }
}

/// A NUL-terminated string, without the NUL.
///
/// # Safety
/// `text` is null or points to a NUL-terminated string that is readable for `'a`.
pub unsafe fn wide<'a>(text: *const u16) -> &'a [u16] {
    if text.is_null() {
        return &[];
    }
    let mut len = 0;
    // SAFETY: the caller's promise: every unit up to the NUL is readable, and none after it is read.
    unsafe {
        while *text.add(len) != 0 {
            len += 1;
        }
        core::slice::from_raw_parts(text, len)
    }
}

/// Bytes behind an `FWP_BYTE_BLOB`.
pub struct Blob {
    raw: FwpByteBlob,
    /// In words, so that structures in it are aligned as a driver expects.
    _data: Words,
}

// SAFETY: `raw.data` points into the words, which are never written after the blob is made.
unsafe impl Send for Blob {}
// SAFETY: as above.
unsafe impl Sync for Blob {}

impl Blob {
    /// A blob of these bytes.
    ///
    /// # Panics
    /// When they are more than 4 GiB.
    #[must_use]
    pub fn new(bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        Self::build(bytes.len(), |data, _| data.copy_from_slice(bytes))
    }

    /// A blob of `size` bytes that `fill` writes; it also gets their address, which does not change.
    ///
    /// # Panics
    /// When they are more than 4 GiB.
    #[must_use]
    pub fn build(size: usize, fill: impl FnOnce(&mut [u8], usize)) -> Self {
        let words = Words::for_bytes(size);
        let data = words.as_ptr();
        // SAFETY: the words are new, initialized and at least `size` bytes.
        fill(unsafe { core::slice::from_raw_parts_mut(data, size) }, data as usize);
        let size = u32::try_from(size).expect("a blob is shorter than 4 GiB");
        Self { raw: FwpByteBlob { size, data }, _data: words }
    }

    /// An application id as ALE_APP_ID carries it: the NT path in UTF-16 with a terminating NUL.
    #[must_use]
    pub fn app_id(path: &str) -> Self {
        Self::new(path.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect::<Vec<u8>>())
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `build` made `size` bytes there; they live as long as `self` and are not written any more.
        unsafe { core::slice::from_raw_parts(self.raw.data, self.raw.size as usize) }
    }

    /// The structure, for `processPath` in the metadata; it lives as long as the blob.
    #[must_use]
    pub fn raw(&self) -> *const FwpByteBlob {
        &self.raw
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.raw.size)
    }
}

/// What a value's slot keeps alive.
enum Kept {
    Nothing,
    Blob(#[allow(dead_code, reason = "held for what the slot points to")] Arc<Blob>),
    Sid(#[allow(dead_code, reason = "held for what the slot points to")] Arc<[u8]>),
}

/// The values of one layer, filled in again for every classify call without allocating.
///
/// A value that Windows passes by reference has sixteen bytes of storage here, so the caller need not keep it alive.
pub struct Incoming {
    values: Box<[FwpValue0]>,
    storage: Words,
    kept: Box<[Kept]>,
}

// SAFETY: the slots' pointers point into `storage` and into what `kept` holds, at addresses that do not change;
// `storage` is written only through `&mut self`, so shared references may be read from any thread.
unsafe impl Send for Incoming {}
// SAFETY: as above.
unsafe impl Sync for Incoming {}

impl Incoming {
    /// One empty value for each of a layer's `count` fields.
    #[must_use]
    pub fn new(count: usize) -> Self {
        Self {
            values: vec![FwpValue0::EMPTY; count].into(),
            storage: Words::for_bytes(16 * count),
            kept: (0..count).map(|_| Kept::Nothing).collect(),
        }
    }

    /// The values, by field index.
    #[must_use]
    pub fn values(&self) -> &[Value<'_>] {
        // SAFETY: `Value` is a transparent wrapper of `FwpValue0`; every pointer in the slots points to memory that
        // this borrow of `self` keeps alive and unwritten.
        unsafe { core::slice::from_raw_parts(self.values.as_ptr().cast(), self.values.len()) }
    }

    /// No value.
    pub fn empty(&mut self, index: usize) {
        self.values[index] = FwpValue0::EMPTY;
        self.kept[index] = Kept::Nothing;
    }

    /// `FWP_UINT8`.
    pub fn u8(&mut self, index: usize, value: u8) {
        self.values[index] = *Value::u8(value).raw();
    }

    /// `FWP_UINT16`: ports in host order.
    pub fn u16(&mut self, index: usize, value: u16) {
        self.values[index] = *Value::u16(value).raw();
    }

    /// `FWP_UINT32`: IPv4 addresses in host order.
    pub fn u32(&mut self, index: usize, value: u32) {
        self.values[index] = *Value::u32(value).raw();
    }

    /// Writes a value's sixteen bytes of storage; returns their address.
    fn store(&mut self, index: usize, words: [u64; 2]) -> *mut [u64; 2] {
        assert!(index < self.values.len(), "field {index} of {}", self.values.len());
        // SAFETY: the storage has sixteen bytes for each value, aligned to eight; `&mut self` makes this its only user.
        unsafe {
            let at = self.storage.as_ptr().cast::<[u64; 2]>().add(index);
            at.write(words);
            at
        }
    }

    /// `FWP_UINT64`.
    pub fn u64(&mut self, index: usize, value: u64) {
        let uint64 = self.store(index, [value, 0]).cast();
        self.values[index] = FwpValue0 { kind: consts::FWP_UINT64, value: ValueUnion { uint64 } };
    }

    /// `FWP_BYTE_ARRAY16_TYPE`: IPv6 addresses in network order.
    pub fn bytes16(&mut self, index: usize, value: [u8; 16]) {
        let (low, high) = value.split_at(8);
        let word = |bytes: &[u8]| u64::from_ne_bytes(bytes.try_into().expect("half of sixteen bytes"));
        let byte_array16 = self.store(index, [word(low), word(high)]).cast();
        self.values[index] = FwpValue0 { kind: consts::FWP_BYTE_ARRAY16_TYPE, value: ValueUnion { byte_array16 } };
    }

    /// `FWP_BYTE_BLOB_TYPE`.
    pub fn blob(&mut self, index: usize, value: Arc<Blob>) {
        self.values[index] =
            FwpValue0 { kind: consts::FWP_BYTE_BLOB_TYPE, value: ValueUnion { byte_blob: value.raw() } };
        self.kept[index] = Kept::Blob(value);
    }

    /// `FWP_TOKEN_ACCESS_INFORMATION_TYPE`, from the filter engine's tokens.
    pub fn token(&mut self, index: usize, value: Arc<Blob>) {
        let raw = ValueUnion { token_access_information: value.raw() };
        self.values[index] = FwpValue0 { kind: consts::FWP_TOKEN_ACCESS_INFORMATION_TYPE, value: raw };
        self.kept[index] = Kept::Blob(value);
    }

    /// `FWP_SID`, in binary form.
    pub fn sid(&mut self, index: usize, value: Arc<[u8]>) {
        self.values[index] = FwpValue0 { kind: consts::FWP_SID, value: ValueUnion { sid: value.as_ptr() } };
        self.kept[index] = Kept::Sid(value);
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.values()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_read_back_what_was_put_in() {
        let mut incoming = Incoming::new(34);
        assert!(incoming.values().iter().all(|v| v.read() == Read::Empty));
        let address: [u8; 16] = core::array::from_fn(|i| i as u8);
        incoming.blob(0, Arc::new(Blob::app_id("\\a")));
        incoming.bytes16(2, address);
        incoming.u16(4, 0xABCD);
        incoming.u64(11, u64::MAX - 1);
        incoming.sid(33, Arc::from([1u8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        let moved = incoming; // The pointers point into memory that does not move.
        let values = moved.values();
        assert_eq!(values[0].read(), Read::Bytes(consts::FWP_BYTE_BLOB_TYPE, &[b'\\', 0, b'a', 0, 0, 0]));
        assert_eq!(values[2].read(), Read::Bytes16(&address));
        assert_eq!(values[4].read(), Read::Unsigned(consts::FWP_UINT16, 0xABCD));
        assert_eq!(values[11].read(), Read::Unsigned(consts::FWP_UINT64, u64::MAX - 1));
        assert_eq!(values[33].read(), Read::Bytes(consts::FWP_SID, &[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
    }
}
