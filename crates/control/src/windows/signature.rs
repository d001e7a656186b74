//! A driver's signature: in the file, or in a catalog that names it.
//!
//! The general policy for signed code checks that file and signature belong together and that this machine trusts the
//! signer. Windows' kernel requires more: a signer whose certificate Microsoft issued for drivers, which shows in the
//! certificate's purposes. The kernel itself decides in the end, when the driver is loaded.

use super::library::system_library;
use super::{last_error, wide};
use sluice_host::system::{Signature, Trust};
use sluice_host::{HostError, HostResult, code};
use std::ffi::{CStr, c_void};
use std::fs::File;
use std::os::windows::io::AsRawHandle;
use std::ptr::{null, null_mut};
use windows_sys::Win32::Foundation::{
    CRYPT_E_FILE_ERROR, ERROR_CALL_NOT_IMPLEMENTED, ERROR_FILE_NOT_FOUND, HANDLE, TRUST_E_BAD_DIGEST,
    TRUST_E_NOSIGNATURE, TRUST_E_PROVIDER_UNKNOWN, TRUST_E_SUBJECT_FORM_UNKNOWN,
};
use windows_sys::Win32::Security::Cryptography::Catalog::CATALOG_INFO;
use windows_sys::Win32::Security::Cryptography::{
    CERT_CONTEXT, CERT_NAME_SIMPLE_DISPLAY_TYPE, CTL_USAGE, szOID_ATTEST_WHQL_CRYPTO, szOID_WHQL_CRYPTO,
};
use windows_sys::Win32::Security::WinTrust::{
    CRYPT_PROVIDER_CERT, DRIVER_ACTION_VERIFY, WINTRUST_ACTION_GENERIC_VERIFY_V2, WINTRUST_CATALOG_INFO, WINTRUST_DATA,
    WINTRUST_DATA_0, WINTRUST_DATA_UNION_CHOICE, WINTRUST_FILE_INFO, WTD_CACHE_ONLY_URL_RETRIEVAL, WTD_CHOICE_CATALOG,
    WTD_CHOICE_FILE, WTD_REVOKE_NONE, WTD_STATEACTION_CLOSE, WTD_STATEACTION_VERIFY, WTD_UI_NONE,
};
use windows_sys::core::{BOOL, GUID, PCWSTR, PWSTR};

system_library! { "wintrust.dll";
    fn WinVerifyTrust(window: HANDLE, action: *mut GUID, data: *mut c_void) -> i32,
        or |_| TRUST_E_PROVIDER_UNKNOWN;
    fn WTHelperProvDataFromStateData(state: HANDLE) -> *mut c_void, or |_| null_mut();
    fn WTHelperGetProvSignerFromChain(data: *mut c_void, signer: u32, counter: BOOL, index: u32) -> *mut c_void,
        or |_| null_mut();
    fn WTHelperGetProvCertFromChain(signer: *mut c_void, index: u32) -> *mut CRYPT_PROVIDER_CERT, or |_| null_mut();
    fn CryptCATAdminAcquireContext2(
        admin: *mut isize, subsystem: *const GUID, algorithm: PCWSTR, policy: *const c_void, flags: u32,
    ) -> BOOL, or |_| 0;
    fn CryptCATAdminCalcHashFromFileHandle2(
        admin: isize, file: HANDLE, length: *mut u32, hash: *mut u8, flags: u32,
    ) -> BOOL, or |_| 0;
    fn CryptCATAdminEnumCatalogFromHash(
        admin: isize, hash: *const u8, length: u32, flags: u32, previous: *mut isize,
    ) -> isize, or |_| 0;
    fn CryptCATCatalogInfoFromContext(catalog: isize, info: *mut CATALOG_INFO, flags: u32) -> BOOL, or |_| 0;
    fn CryptCATAdminReleaseCatalogContext(admin: isize, catalog: isize, flags: u32) -> BOOL, or |_| 0;
    fn CryptCATAdminReleaseContext(admin: isize, flags: u32) -> BOOL, or |_| 0;
}

system_library! { "crypt32.dll";
    fn CertGetNameStringW(
        certificate: *const CERT_CONTEXT, kind: u32, flags: u32, parameter: *const c_void, name: PWSTR, length: u32,
    ) -> u32, or |_| 0;
    fn CertGetEnhancedKeyUsage(
        certificate: *const CERT_CONTEXT, flags: u32, usage: *mut CTL_USAGE, length: *mut u32,
    ) -> BOOL, or |_| 0;
}

/// The longest hash of a catalog's member: SHA-512.
const MAX_HASH: usize = 64;

pub(super) fn signature(path: &str) -> HostResult<Signature> {
    const OPERATION: &str = "WinVerifyTrust";
    let file = File::open(path).map_err(|error| {
        let code = error.raw_os_error().map_or(code::ERROR_GEN_FAILURE, i32::cast_unsigned);
        HostError::with_message("CreateFileW", code, format!("{path}: {error}"))
    })?;
    let name = wide(OPERATION, path)?;
    let mut info = WINTRUST_FILE_INFO {
        cbStruct: size_of::<WINTRUST_FILE_INFO>() as u32,
        pcwszFilePath: name.as_ptr(),
        hFile: file.as_raw_handle(),
        ..Default::default()
    };
    let embedded = verify(WTD_CHOICE_FILE, WINTRUST_DATA_0 { pFile: &raw mut info });
    match embedded {
        Err(TRUST_E_NOSIGNATURE | TRUST_E_SUBJECT_FORM_UNKNOWN | TRUST_E_PROVIDER_UNKNOWN) => in_catalog(&file, &name),
        Err(CRYPT_E_FILE_ERROR) => Err(HostError::new(OPERATION, code::ERROR_INVALID_DATA)),
        Err(_) => Ok(Signature::Broken),
        Ok(signature) => Ok(signature),
    }
}

/// The signature of the catalog that has the file's hash.
fn in_catalog(file: &File, name: &[u16]) -> HostResult<Signature> {
    let Some(admin) = Admin::open()? else { return Ok(Signature::None) };
    let mut hash = [0; MAX_HASH];
    let mut length = MAX_HASH as u32;
    // SAFETY: the context and the file are open; the buffer is as long as said and outlives the call.
    let hashed = unsafe {
        CryptCATAdminCalcHashFromFileHandle2(admin.0, file.as_raw_handle(), &raw mut length, hash.as_mut_ptr(), 0)
    };
    if hashed == 0 {
        return Err(last_error("CryptCATAdminCalcHashFromFileHandle2"));
    }
    let hash = hash.get(..length as usize).unwrap_or(&hash);
    // SAFETY: the context is open; the hash is as long as said; a null predecessor asks for the first catalog.
    let catalog = unsafe { CryptCATAdminEnumCatalogFromHash(admin.0, hash.as_ptr(), length, 0, null_mut()) };
    if catalog == 0 {
        return Ok(Signature::None);
    }
    let catalog = Catalog { admin: &admin, handle: catalog };
    let mut info = CATALOG_INFO { cbStruct: size_of::<CATALOG_INFO>() as u32, ..Default::default() };
    // SAFETY: the catalog is open, and the structure says its own size and outlives the call.
    if unsafe { CryptCATCatalogInfoFromContext(catalog.handle, &raw mut info, 0) } == 0 {
        return Err(last_error("CryptCATCatalogInfoFromContext"));
    }
    // A member's tag is its hash in capital digits.
    let tag: String = hash.iter().map(|byte| format!("{byte:02X}")).collect();
    let tag = wide("WinVerifyTrust", &tag)?;
    let mut member = WINTRUST_CATALOG_INFO {
        cbStruct: size_of::<WINTRUST_CATALOG_INFO>() as u32,
        pcwszCatalogFilePath: info.wszCatalogFile.as_ptr(),
        pcwszMemberTag: tag.as_ptr(),
        pcwszMemberFilePath: name.as_ptr(),
        hMemberFile: file.as_raw_handle(),
        pbCalculatedFileHash: hash.as_ptr().cast_mut(),
        cbCalculatedFileHash: length,
        hCatAdmin: admin.0,
        ..Default::default()
    };
    Ok(verify(WTD_CHOICE_CATALOG, WINTRUST_DATA_0 { pCatalog: &raw mut member }).unwrap_or(Signature::Broken))
}

/// The general policy's verdict; `Err` with its code when the file has no valid signature.
///
/// `subject` points to what `choice` names, which lives until this returns.
fn verify(choice: WINTRUST_DATA_UNION_CHOICE, subject: WINTRUST_DATA_0) -> Result<Signature, i32> {
    let mut data = WINTRUST_DATA {
        cbStruct: size_of::<WINTRUST_DATA>() as u32,
        dwUIChoice: WTD_UI_NONE,
        fdwRevocationChecks: WTD_REVOKE_NONE,
        dwUnionChoice: choice,
        Anonymous: subject,
        dwStateAction: WTD_STATEACTION_VERIFY,
        // An installation does not wait for the network.
        dwProvFlags: WTD_CACHE_ONLY_URL_RETRIEVAL,
        ..Default::default()
    };
    let mut action = WINTRUST_ACTION_GENERIC_VERIFY_V2;
    // SAFETY: the structures say their own sizes, and they and what they point to outlive the call; no window.
    let result = unsafe { WinVerifyTrust(null_mut(), &raw mut action, (&raw mut data).cast()) };
    let certificate = certificate(data.hWVTStateData);
    let answer = match (result, certificate) {
        (TRUST_E_BAD_DIGEST, _) | (_, None) => Err(result),
        (0, Some(certificate)) => {
            let trust = if certificate.for_drivers { Trust::Microsoft } else { Trust::Machine };
            Ok(Signature::Signed { by: certificate.subject, trust })
        }
        (code, Some(certificate)) => {
            Ok(Signature::Signed { by: certificate.subject, trust: Trust::Nobody(code.cast_unsigned()) })
        }
    };
    data.dwStateAction = WTD_STATEACTION_CLOSE;
    // SAFETY: as above; this frees what the first call kept, and nothing of it is used afterwards.
    unsafe { WinVerifyTrust(null_mut(), &raw mut action, (&raw mut data).cast()) };
    answer
}

/// A signing certificate.
struct Certificate {
    subject: Option<String>,
    /// Issued by Microsoft for drivers, if its chain is valid.
    for_drivers: bool,
}

/// The signer's certificate of a verification that is still open.
fn certificate(state: HANDLE) -> Option<Certificate> {
    if state.is_null() {
        return None;
    }
    // SAFETY: `state` is that of an open verification; each call takes what the one before it returned, null included,
    // and what they return lives until the verification is closed.
    let context = unsafe {
        let signer = WTHelperGetProvSignerFromChain(WTHelperProvDataFromStateData(state), 0, 0, 0);
        let certificate = if signer.is_null() { null_mut() } else { WTHelperGetProvCertFromChain(signer, 0) };
        certificate.as_ref()?.pCert
    };
    (!context.is_null()).then(|| Certificate { subject: subject(context), for_drivers: for_drivers(context) })
}

fn subject(context: *const CERT_CONTEXT) -> Option<String> {
    let mut name = [0; 256];
    // SAFETY: the certificate is open; the buffer is as long as said and outlives the call.
    let length = unsafe {
        CertGetNameStringW(
            context,
            CERT_NAME_SIMPLE_DISPLAY_TYPE,
            0,
            null(),
            name.as_mut_ptr(),
            name.len() as u32, // the name is cut to fit
        )
    };
    let length = (length as usize).checked_sub(1)?; // with its NUL
    name.get(..length).filter(|name| !name.is_empty()).map(String::from_utf16_lossy)
}

/// Whether driver signing is one of the certificate's purposes.
fn for_drivers(context: *const CERT_CONTEXT) -> bool {
    let mut length = 0;
    // SAFETY: the certificate is open; a null buffer asks for the length.
    if unsafe { CertGetEnhancedKeyUsage(context, 0, null_mut(), &raw mut length) } == 0 {
        return false;
    }
    let mut buffer = vec![0_u64; (length as usize).div_ceil(size_of::<u64>())];
    let usage = buffer.as_mut_ptr().cast::<CTL_USAGE>();
    if buffer.len() * size_of::<u64>() < size_of::<CTL_USAGE>() {
        return false;
    }
    // SAFETY: as above, with a buffer as long as said, aligned for pointers.
    if unsafe { CertGetEnhancedKeyUsage(context, 0, usage, &raw mut length) } == 0 {
        return false;
    }
    // SAFETY: the call filled the structure: this many pointers to NUL-terminated strings, all in the same buffer,
    // which lives until the end of this function. The two object identifiers are literals.
    unsafe {
        let usage = &*usage;
        if usage.cUsageIdentifier == 0 {
            return false;
        }
        let purposes = std::slice::from_raw_parts(usage.rgpszUsageIdentifier, usage.cUsageIdentifier as usize);
        let wanted = [szOID_WHQL_CRYPTO, szOID_ATTEST_WHQL_CRYPTO].map(|oid| CStr::from_ptr(oid.cast()));
        purposes.iter().any(|&purpose| wanted.contains(&CStr::from_ptr(purpose.cast())))
    }
}

/// The machine's driver catalogs.
struct Admin(isize);

impl Admin {
    /// `None` on a machine without catalogs.
    fn open() -> HostResult<Option<Self>> {
        const OPERATION: &str = "CryptCATAdminAcquireContext2";
        let algorithm = wide(OPERATION, "SHA256")?;
        let mut admin = 0;
        // SAFETY: the results and the NUL-terminated name outlive the call; no policy on hashes.
        let opened = unsafe {
            CryptCATAdminAcquireContext2(&raw mut admin, &DRIVER_ACTION_VERIFY, algorithm.as_ptr(), null(), 0)
        };
        match opened {
            0 => match last_error(OPERATION) {
                // The second comes from Wine, whose catalogs cannot be queried.
                error if matches!(error.code, ERROR_FILE_NOT_FOUND | ERROR_CALL_NOT_IMPLEMENTED) => Ok(None),
                error => Err(error),
            },
            _ => Ok(Some(Self(admin))),
        }
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        // SAFETY: from CryptCATAdminAcquireContext2, and released only here.
        unsafe { CryptCATAdminReleaseContext(self.0, 0) };
    }
}

/// An open catalog.
struct Catalog<'a> {
    admin: &'a Admin,
    handle: isize,
}

impl Drop for Catalog<'_> {
    fn drop(&mut self) {
        // SAFETY: from CryptCATAdminEnumCatalogFromHash on this context, which is still open, and released only here.
        unsafe { CryptCATAdminReleaseCatalogContext(self.admin.0, self.handle, 0) };
    }
}
