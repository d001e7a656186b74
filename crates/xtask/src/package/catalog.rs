//! The catalog: a signed list of the hashes of sluice.sys and sluice.inf, without which Windows accepts no driver
//! package into its store.
//!
//! A catalog is a PKCS #7 message whose content is a certificate trust list (CTL). Its form is not documented as a
//! whole; the object identifiers are those of mscat.h and wintrust.h, and their places were read from catalogs made by
//! Inf2Cat: two entries for each file, by SHA-1 and by SHA-256, the latter with the hash as in a signature. On Windows,
//! Inf2Cat itself makes it.

use std::{fs, path::Path, process::Command};

use cms::{
    content_info::{CmsVersion, ContentInfo},
    signed_data::{EncapsulatedContentInfo, SignedData, SignerInfos},
};
use der::{
    Any, Decode, Encode, Sequence, Tag, TagNumber,
    asn1::{BitString, BmpString, ObjectIdentifier, OctetString, SetOfVec, UtcTime},
};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use x509_cert::{attr::Attribute, ext::Extension, spki::AlgorithmIdentifierOwned};

use super::{Inputs, PackageError, write};
use crate::{
    inf::Architecture,
    process,
    signature::{
        self,
        asn1::{DigestInfo, INDIRECT_DATA, IndirectData, Link, PE_IMAGE_DATA, PeImageData, SHA256, TypedValue},
    },
};

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
/// szOID_CTL
const TRUST_LIST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.10.1");
/// szOID_CATALOG_LIST
const CATALOG_LIST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.12.1.1");
/// szOID_CATALOG_LIST_MEMBER2: members are named by the bytes of their hashes.
const CATALOG_LIST_MEMBER2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.12.1.3");
/// CAT_NAMEVALUE_OBJID
const NAME_VALUE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.12.2.1");
/// CAT_MEMBERINFO2_OBJID
const MEMBER_INFO2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.12.2.3");
/// SPC_CAB_DATA_OBJID: the hashed file is of no known form.
const FLAT_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.311.2.1.25");

/// CRYPTCAT_ATTR_AUTHENTICATED, CRYPTCAT_ATTR_DATAASCII and CRYPTCAT_ATTR_NAMEASCII.
const AUTHENTICATED_TEXT: u32 = 0x1001_0001;
/// Windows NT 10.0, as written in members.
const OS_ATTRIBUTE: &str = "2:10.0";

/// CertificateTrustList of wincrypt.h, with the members that catalogs use.
#[derive(Debug, Clone, Sequence)]
pub(crate) struct TrustList {
    usage: Vec<ObjectIdentifier>,
    identifier: OctetString,
    this_update: UtcTime,
    algorithm: AlgorithmIdentifierOwned,
    members: Vec<Member>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT")]
    extensions: Vec<Extension>,
}

/// TrustedSubject.
#[derive(Debug, Clone, Sequence)]
struct Member {
    identifier: OctetString,
    attributes: SetOfVec<Attribute>,
}

/// CatalogNameValue.
#[derive(Debug, Clone, Sequence)]
struct NameValue {
    name: BmpString,
    flags: u32,
    value: OctetString,
}

/// Makes and signs `sluice.cat` for the files in `stage`.
pub(super) fn make(inputs: &Inputs<'_>, stage: &Path) -> Result<(), PackageError> {
    let signed = stage.join("sluice.cat");
    if cfg!(windows) {
        let systems = match inputs.architecture {
            Architecture::X64 => "10_VB_X64",
            Architecture::Arm64 => "10_VB_ARM64",
        };
        let driver = format!("/driver:{}", stage.display());
        process::run(Command::new("inf2cat").args([&driver, &format!("/os:{systems}"), "/uselocaltime"]))?;
        let unsigned = stage.join("unsigned.cat");
        fs::rename(&signed, &unsigned).map_err(PackageError::file(&signed))?;
        return inputs.signer.sign(&unsigned, &signed);
    }
    let read = |name: &str| {
        let path = stage.join(name);
        fs::read(&path).map_err(PackageError::file(&path))
    };
    let (driver, inf) = (read("sluice.sys")?, read("sluice.inf")?);
    let of_driver = |source| PackageError::Signature { file: "sluice.sys", source };
    let image = Hashes {
        sha1: signature::image_hash::<Sha1>(&driver).map_err(of_driver)?,
        sha256: signature::image_hash::<Sha256>(&driver).map_err(of_driver)?,
    };
    let flat = Hashes { sha1: Sha1::digest(&inf).to_vec(), sha256: Sha256::digest(&inf).to_vec() };
    let list = trust_list(inputs, &image, &flat).map_err(PackageError::Catalog)?;
    let unsigned = inputs.folder.join("unsigned.cat");
    write(&unsigned, &message(&list).map_err(PackageError::Catalog)?)?;
    inputs.signer.sign(&unsigned, &signed)
}

struct Hashes {
    sha1: Vec<u8>,
    sha256: Vec<u8>,
}

fn trust_list(inputs: &Inputs<'_>, image: &Hashes, flat: &Hashes) -> der::Result<TrustList> {
    let system = match inputs.architecture {
        Architecture::X64 => "_v100_X64",
        Architecture::Arm64 => "_v100_ARM64",
    };
    let mut members = vec![
        member("sluice.sys", &image.sha1, None)?,
        member("sluice.sys", &image.sha256, Some(image_data()?))?,
        member("sluice.inf", &flat.sha1, None)?,
        member("sluice.inf", &flat.sha256, Some(flat_data()?))?,
    ];
    members.sort_by(|one, other| one.identifier.as_bytes().cmp(other.identifier.as_bytes()));
    // Sixteen bytes unique to the catalog: the hash of what it lists.
    let own: Vec<_> = members.iter().flat_map(|member| member.identifier.as_bytes().to_vec()).collect();
    Ok(TrustList {
        usage: vec![CATALOG_LIST],
        identifier: OctetString::new(&Sha256::digest(own)[..16])?,
        this_update: UtcTime::from_unix_duration(inputs.time)?,
        algorithm: AlgorithmIdentifierOwned { oid: CATALOG_LIST_MEMBER2, parameters: Some(Any::null()) },
        members,
        extensions: vec![Extension {
            extn_id: NAME_VALUE,
            critical: false,
            extn_value: OctetString::new(name_value("OS", system)?.to_der()?)?,
        }],
    })
}

/// A file under one of its hashes; `data` says what was hashed.
fn member(file: &str, hash: &[u8], data: Option<TypedValue>) -> der::Result<Member> {
    let no_subject = Any::new(Tag::ContextSpecific { constructed: false, number: TagNumber::N2 }, [])?;
    let mut attributes = vec![
        attribute(MEMBER_INFO2, no_subject)?,
        attribute(NAME_VALUE, Any::encode_from(&name_value("OSAttr", OS_ATTRIBUTE)?)?)?,
        attribute(NAME_VALUE, Any::encode_from(&name_value("File", file)?)?)?,
    ];
    if let Some(data) = data {
        let algorithm = AlgorithmIdentifierOwned { oid: SHA256, parameters: Some(Any::null()) };
        let digest = DigestInfo { algorithm, digest: OctetString::new(hash)? };
        attributes.push(attribute(INDIRECT_DATA, Any::encode_from(&IndirectData { data, digest })?)?);
    }
    Ok(Member { identifier: OctetString::new(hash)?, attributes: SetOfVec::try_from(attributes)? })
}

fn attribute(oid: ObjectIdentifier, value: Any) -> der::Result<Attribute> {
    Ok(Attribute { oid, values: SetOfVec::try_from(vec![value])? })
}

fn name_value(name: &str, value: &str) -> der::Result<NameValue> {
    let utf16: Vec<u8> = value.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    Ok(NameValue { name: BmpString::from_utf8(name)?, flags: AUTHENTICATED_TEXT, value: OctetString::new(utf16)? })
}

/// SpcPeImageData as Inf2Cat writes it: an empty name for a file.
fn image_data() -> der::Result<TypedValue> {
    let file = Link::File(Any::new(Tag::ContextSpecific { constructed: false, number: TagNumber::N0 }, [])?);
    let data = PeImageData { flags: BitString::new(5, [0xa0])?, file };
    Ok(TypedValue { kind: PE_IMAGE_DATA, value: Any::encode_from(&data)? })
}

/// SpcLink with an empty name for a file.
fn flat_data() -> der::Result<TypedValue> {
    Ok(TypedValue { kind: FLAT_DATA, value: Any::from_der(&[0xa2, 2, 0x80, 0])? })
}

/// A message without signatures.
fn message(list: &TrustList) -> der::Result<Vec<u8>> {
    let content = SignedData {
        version: CmsVersion::V1,
        digest_algorithms: SetOfVec::new(),
        encap_content_info: EncapsulatedContentInfo {
            econtent_type: TRUST_LIST,
            econtent: Some(Any::encode_from(list)?),
        },
        certificates: None,
        crls: None,
        signer_infos: SignerInfos(SetOfVec::new()),
    };
    ContentInfo { content_type: SIGNED_DATA, content: Any::encode_from(&content)? }.to_der()
}

/// What a catalog lists: each member's hash, and the file's name if given.
///
/// # Errors
/// When it is not a catalog, or its signature does not match its content.
pub fn members(catalog: &[u8]) -> Result<Vec<(Vec<u8>, String)>, signature::SignatureError> {
    let signed = signature::signed_data(catalog)?;
    let list: TrustList = signature::content(&signed, TRUST_LIST)?.decode_as()?;
    list.members.iter().map(|member| Ok((member.identifier.as_bytes().to_vec(), file_name(member)?))).collect()
}

fn file_name(member: &Member) -> der::Result<String> {
    for attribute in member.attributes.iter().filter(|attribute| attribute.oid == NAME_VALUE) {
        for value in attribute.values.iter() {
            let value: NameValue = value.decode_as()?;
            if value.name.to_string() == "File" {
                let units: Vec<u16> =
                    value.value.as_bytes().as_chunks().0.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
                return Ok(String::from_utf16_lossy(&units).trim_end_matches('\0').to_owned());
            }
        }
    }
    Ok(String::new())
}
