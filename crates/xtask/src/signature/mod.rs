//! Reads the signature of an image, computes the image's hashes independently and compares.
//!
//! Whether the signature was made with the certificate's key, and whether anybody trusts the key, is not checked here:
//! osslsigncode and Windows do that.

pub(crate) mod asn1;
mod hashes;

use cms::{cert::CertificateChoices, content_info::ContentInfo, signed_data::SignedData};
use der::{
    Any, Decode, Encode,
    asn1::{ObjectIdentifier, OctetString, SetOfVec},
};
use sha2::{Digest, Sha256};
use x509_cert::attr::Attribute;

pub use hashes::Hash;

use asn1::{IndirectData, Link, PeImageData};
use hashes::Layout;

/// id-messageDigest.
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");

/// Why an image's signature does not match it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not an image.
    #[error("{0}")]
    Image(String),
    /// The signature cannot be read.
    #[error("the signature cannot be read: {0}")]
    Form(String),
    /// It lacks what this project's signatures have.
    #[error("the signature has no {0}")]
    Lacks(&'static str),
    /// The file was changed after it was signed.
    #[error("the signature belongs to another image: {0} differs")]
    Differs(String),
}

impl From<der::Error> for SignatureError {
    fn from(error: der::Error) -> Self {
        Self::Form(error.to_string())
    }
}

/// A signature whose hashes match its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// SHA-256 of the image.
    pub image_hash: Hash,
    /// Pages that have a hash.
    pub pages: usize,
    /// Subject of the first certificate, in the form of RFC 4514.
    pub signer: String,
}

/// Reads the signature of an image and compares its hashes with those of the file; `None` if it has no signature.
///
/// # Errors
/// When the signature cannot be read, lacks SHA-256 or page hashes, or belongs to another image.
pub fn verify(image: &[u8]) -> Result<Option<Signature>, SignatureError> {
    let layout = Layout::of(image)?;
    let Some(certificate) = layout.certificate()? else { return Ok(None) };
    let signed = signed_data(certificate)?;
    let indirect: IndirectData = content(&signed, asn1::INDIRECT_DATA)?.decode_as()?;
    if indirect.data.kind != asn1::PE_IMAGE_DATA {
        return Err(SignatureError::Lacks("hash of an image"));
    }
    if indirect.digest.algorithm.oid != asn1::SHA256 {
        return Err(SignatureError::Lacks("SHA-256 hash"));
    }
    let image_hash = layout.image_hash::<Sha256>();
    if indirect.digest.digest.as_bytes() != image_hash {
        return Err(SignatureError::Differs("the hash of the image".into()));
    }
    let pages = layout.page_hashes();
    compare_pages(&page_hashes(&indirect)?, &pages)?;
    let certificates = signed.certificates.as_ref().and_then(|certificates| certificates.0.get(0));
    let Some(CertificateChoices::Certificate(first)) = certificates else {
        return Err(SignatureError::Lacks("certificate"));
    };
    Ok(Some(Signature {
        image_hash: image_hash.try_into().map_err(|_| SignatureError::Lacks("SHA-256 hash"))?,
        pages: pages.len() - 1,
        signer: first.tbs_certificate.subject.to_string(),
    }))
}

/// The hash of an image without its signature, as catalogs and signatures name it.
///
/// # Errors
/// When the bytes are not an image.
pub fn image_hash<D: Digest>(image: &[u8]) -> Result<Vec<u8>, SignatureError> {
    Ok(Layout::of(image)?.image_hash::<D>())
}

/// The SignedData of a PKCS #7 message, which zeros may follow.
pub(crate) fn signed_data(message: &[u8]) -> Result<SignedData, SignatureError> {
    let mut reader = der::SliceReader::new(message)?;
    let content = ContentInfo::decode(&mut reader)?;
    Ok(content.content.decode_as()?)
}

/// The content of a message, of the given kind, whose hash is in the attributes that its signer signed.
pub(crate) fn content(signed: &SignedData, kind: ObjectIdentifier) -> Result<&Any, SignatureError> {
    let content = signed.encap_content_info.econtent.as_ref();
    let content = content.filter(|_| signed.encap_content_info.econtent_type == kind);
    let content = content.ok_or(SignatureError::Lacks("content of the expected kind"))?;
    let signer = signed.signer_infos.0.get(0).ok_or(SignatureError::Lacks("signer"))?;
    let attributes = signer.signed_attrs.as_ref().ok_or(SignatureError::Lacks("signed attributes"))?;
    let digest = attributes.iter().find(|attribute| attribute.oid == MESSAGE_DIGEST);
    let digest = digest.and_then(|digest| digest.values.get(0)).ok_or(SignatureError::Lacks("message digest"))?;
    if digest.value() == &Sha256::digest(content.value())[..] {
        Ok(content)
    } else {
        Err(SignatureError::Differs("the hash of its content".into()))
    }
}

/// The page hashes that a signature carries, in its own form: offset and hash, one after the other.
fn page_hashes(indirect: &IndirectData) -> Result<Vec<u8>, SignatureError> {
    const LACKS: SignatureError = SignatureError::Lacks("page hashes");
    let image: PeImageData = indirect.data.value.decode_as()?;
    let Link::Moniker(object) = image.file else { return Err(LACKS) };
    let attributes = SetOfVec::<Attribute>::from_der(object.data.as_bytes())?;
    let hashes = attributes.iter().find(|attribute| attribute.oid == asn1::PAGE_HASHES_V2).ok_or(LACKS)?;
    let hashes = OctetString::from_der(&hashes.values.get(0).ok_or(LACKS)?.to_der()?)?;
    Ok(hashes.into_bytes())
}

fn compare_pages(carried: &[u8], computed: &[(u32, Hash)]) -> Result<(), SignatureError> {
    let (carried, rest) = carried.as_chunks::<36>();
    if carried.len() != computed.len() || !rest.is_empty() {
        return Err(SignatureError::Differs("the number of pages".into()));
    }
    for (carried, (offset, hash)) in carried.iter().zip(computed) {
        if carried[..4] != offset.to_le_bytes() || carried[4..] != hash[..] {
            return Err(SignatureError::Differs(format!("the page at {offset:#x}")));
        }
    }
    Ok(())
}
