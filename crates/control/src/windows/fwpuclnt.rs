//! The functions we call in fwpuclnt.dll, the client of the Base Filtering Engine. It is not a KnownDLL.

use super::library::system_library;
use std::ffi::c_void;
use windows_sys::Win32::Foundation::HANDLE;
use windows_sys::Win32::NetworkManagement::WindowsFilteringPlatform as wfp;
use windows_sys::Win32::Security::PSECURITY_DESCRIPTOR;
use windows_sys::Win32::System::Rpc::SEC_WINNT_AUTH_IDENTITY_W;
use windows_sys::core::{GUID, PCWSTR};

system_library! { "fwpuclnt.dll";
    fn FwpmEngineOpen0(
        server: PCWSTR, service: u32, identity: *const SEC_WINNT_AUTH_IDENTITY_W, session: *const wfp::FWPM_SESSION0,
        engine: *mut HANDLE,
    ) -> u32, or |code| code;
    fn FwpmEngineClose0(engine: HANDLE) -> u32, or |code| code;
    fn FwpmTransactionBegin0(engine: HANDLE, flags: u32) -> u32, or |code| code;
    fn FwpmTransactionCommit0(engine: HANDLE) -> u32, or |code| code;
    fn FwpmTransactionAbort0(engine: HANDLE) -> u32, or |code| code;
    fn FwpmProviderAdd0(engine: HANDLE, provider: *const wfp::FWPM_PROVIDER0, sd: PSECURITY_DESCRIPTOR) -> u32,
        or |code| code;
    fn FwpmSubLayerAdd0(engine: HANDLE, sublayer: *const wfp::FWPM_SUBLAYER0, sd: PSECURITY_DESCRIPTOR) -> u32,
        or |code| code;
    fn FwpmCalloutAdd0(
        engine: HANDLE, callout: *const wfp::FWPM_CALLOUT0, sd: PSECURITY_DESCRIPTOR, id: *mut u32,
    ) -> u32, or |code| code;
    fn FwpmFilterAdd0(
        engine: HANDLE, filter: *const wfp::FWPM_FILTER0, sd: PSECURITY_DESCRIPTOR, id: *mut u64,
    ) -> u32, or |code| code;
    fn FwpmProviderDeleteByKey0(engine: HANDLE, key: *const GUID) -> u32, or |code| code;
    fn FwpmSubLayerDeleteByKey0(engine: HANDLE, key: *const GUID) -> u32, or |code| code;
    fn FwpmCalloutDeleteByKey0(engine: HANDLE, key: *const GUID) -> u32, or |code| code;
    fn FwpmFilterDeleteByKey0(engine: HANDLE, key: *const GUID) -> u32, or |code| code;
    fn FwpmProviderGetByKey0(engine: HANDLE, key: *const GUID, provider: *mut *mut wfp::FWPM_PROVIDER0) -> u32,
        or |code| code;
    fn FwpmSubLayerGetByKey0(engine: HANDLE, key: *const GUID, sublayer: *mut *mut wfp::FWPM_SUBLAYER0) -> u32,
        or |code| code;
    fn FwpmCalloutGetByKey0(engine: HANDLE, key: *const GUID, callout: *mut *mut wfp::FWPM_CALLOUT0) -> u32,
        or |code| code;
    fn FwpmFilterCreateEnumHandle0(
        engine: HANDLE, template: *const wfp::FWPM_FILTER_ENUM_TEMPLATE0, enumeration: *mut HANDLE,
    ) -> u32, or |code| code;
    fn FwpmFilterEnum0(
        engine: HANDLE, enumeration: HANDLE, wanted: u32, entries: *mut *mut *mut wfp::FWPM_FILTER0, count: *mut u32,
    ) -> u32, or |code| code;
    fn FwpmFilterDestroyEnumHandle0(engine: HANDLE, enumeration: HANDLE) -> u32, or |code| code;
    fn FwpmProviderCreateEnumHandle0(
        engine: HANDLE, template: *const wfp::FWPM_PROVIDER_ENUM_TEMPLATE0, enumeration: *mut HANDLE,
    ) -> u32, or |code| code;
    fn FwpmProviderEnum0(
        engine: HANDLE, enumeration: HANDLE, wanted: u32, entries: *mut *mut *mut wfp::FWPM_PROVIDER0, count: *mut u32,
    ) -> u32, or |code| code;
    fn FwpmProviderDestroyEnumHandle0(engine: HANDLE, enumeration: HANDLE) -> u32, or |code| code;
    fn FwpmSubLayerCreateEnumHandle0(
        engine: HANDLE, template: *const wfp::FWPM_SUBLAYER_ENUM_TEMPLATE0, enumeration: *mut HANDLE,
    ) -> u32, or |code| code;
    fn FwpmSubLayerEnum0(
        engine: HANDLE, enumeration: HANDLE, wanted: u32, entries: *mut *mut *mut wfp::FWPM_SUBLAYER0, count: *mut u32,
    ) -> u32, or |code| code;
    fn FwpmSubLayerDestroyEnumHandle0(engine: HANDLE, enumeration: HANDLE) -> u32, or |code| code;
    fn FwpmCalloutCreateEnumHandle0(
        engine: HANDLE, template: *const wfp::FWPM_CALLOUT_ENUM_TEMPLATE0, enumeration: *mut HANDLE,
    ) -> u32, or |code| code;
    fn FwpmCalloutEnum0(
        engine: HANDLE, enumeration: HANDLE, wanted: u32, entries: *mut *mut *mut wfp::FWPM_CALLOUT0, count: *mut u32,
    ) -> u32, or |code| code;
    fn FwpmCalloutDestroyEnumHandle0(engine: HANDLE, enumeration: HANDLE) -> u32, or |code| code;
    fn FwpmLayerCreateEnumHandle0(
        engine: HANDLE, template: *const wfp::FWPM_LAYER_ENUM_TEMPLATE0, enumeration: *mut HANDLE,
    ) -> u32, or |code| code;
    fn FwpmLayerEnum0(
        engine: HANDLE, enumeration: HANDLE, wanted: u32, entries: *mut *mut *mut wfp::FWPM_LAYER0, count: *mut u32,
    ) -> u32, or |code| code;
    fn FwpmLayerDestroyEnumHandle0(engine: HANDLE, enumeration: HANDLE) -> u32, or |code| code;
    fn FwpmNetEventCreateEnumHandle0(
        engine: HANDLE, template: *const wfp::FWPM_NET_EVENT_ENUM_TEMPLATE0, enumeration: *mut HANDLE,
    ) -> u32, or |code| code;
    fn FwpmNetEventEnum2(
        engine: HANDLE, enumeration: HANDLE, wanted: u32, entries: *mut *mut *mut wfp::FWPM_NET_EVENT2, count: *mut u32,
    ) -> u32, or |code| code;
    fn FwpmNetEventDestroyEnumHandle0(engine: HANDLE, enumeration: HANDLE) -> u32, or |code| code;
    fn FwpmEngineGetOption0(
        engine: HANDLE, option: wfp::FWPM_ENGINE_OPTION, value: *mut *mut wfp::FWP_VALUE0,
    ) -> u32, or |code| code;
    fn FwpmFreeMemory0(memory: *mut *mut c_void) -> (), or |_| ();
    fn FwpmGetAppIdFromFileName0(file: PCWSTR, app_id: *mut *mut wfp::FWP_BYTE_BLOB) -> u32, or |code| code;
}
