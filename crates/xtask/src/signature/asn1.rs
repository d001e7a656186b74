//! The structures of "Windows Authenticode Portable Executable Signature Format" (Microsoft, 2008), as far as the
//! signatures and catalogs of this project use them.

use der::{
    Any, Choice, Sequence,
    asn1::{BitString, ObjectIdentifier, OctetString},
};
use x509_cert::spki::AlgorithmIdentifierOwned;

/// SPC_INDIRECT_DATA_OBJID: the content of a signature, and a member's attribute in a catalog.
pub(crate) const INDIRECT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.4");
/// SPC_PE_IMAGE_DATA_OBJID: what was hashed is an image.
pub(crate) const PE_IMAGE_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.15");
/// SPC_PE_IMAGE_PAGE_HASHES_V2_OBJID: page hashes by SHA-256.
pub(crate) const PAGE_HASHES_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.3.2");
/// id-sha256.
pub(crate) const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");

/// SpcIndirectDataContent: the hash of a file.
#[derive(Debug, Clone, Sequence)]
pub(crate) struct IndirectData {
    pub(crate) data: TypedValue,
    pub(crate) digest: DigestInfo,
}

/// SpcAttributeTypeAndOptionalValue.
#[derive(Debug, Clone, Sequence)]
pub(crate) struct TypedValue {
    pub(crate) kind: ObjectIdentifier,
    pub(crate) value: Any,
}

/// DigestInfo of PKCS #7.
#[derive(Debug, Clone, Sequence)]
pub(crate) struct DigestInfo {
    pub(crate) algorithm: AlgorithmIdentifierOwned,
    pub(crate) digest: OctetString,
}

/// SpcPeImageData.
#[derive(Debug, Clone, Sequence)]
pub(crate) struct PeImageData {
    pub(crate) flags: BitString,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    pub(crate) file: Link,
}

/// SpcLink, without its URL.
#[derive(Debug, Clone, Choice)]
pub(crate) enum Link {
    /// Here: page hashes.
    #[asn1(context_specific = "1", tag_mode = "IMPLICIT", constructed = "true")]
    Moniker(Serialized),
    /// Here: an obsolete name.
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", constructed = "true")]
    File(Any),
}

/// SpcSerializedObject.
#[derive(Debug, Clone, Sequence)]
pub(crate) struct Serialized {
    pub(crate) class: OctetString,
    pub(crate) data: OctetString,
}
