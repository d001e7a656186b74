//! Drivers of other makers, as far as they come without their devices: what `ntsim load` says of them, whatever it is.
//!
//! The Windows wheel of pywintunx-pmd3 1.0.2 carries four: wintun.sys 0.14 (an NDIS miniport), WeTestUsbFilter.sys (KMDF,
//! WPP recorder), and WeTestUsbNcm.sys for two versions of Windows (KMDF with the class extension NetAdapterCx).

use crate::fetch::{self, Wheel};
use std::process::Command;

/// What `ntsim load --json` says of each driver, and its exit status.
fn reports() -> Option<Vec<(i32, serde_json::Value)>> {
    let wheel = Wheel {
        package: "pywintunx-pmd3",
        version: "1.0.2",
        target: &["--platform", "win_amd64", "--python-version", "311"],
        file: "pywintunx_pmd3.cp311-win_amd64.pyd",
        sha256: "3320656f257ae33b8cba1ef696734afbdd5a377ba4e8665d969f819907af8d81",
    };
    let program = wheel.fetch()?;
    let drivers = fetch::embedded(&std::fs::read(program).expect("it is readable"));
    assert_eq!(drivers.len(), 4, "the wheel carries four drivers");
    let folder = tempfile::tempdir().expect("a folder");
    let load = |(at, driver): (usize, Vec<u8>)| {
        let file = folder.path().join(format!("driver{at}.sys"));
        std::fs::write(&file, driver).expect("it is written");
        let output = Command::new(env!("CARGO_BIN_EXE_ntsim")).args(["load", "--json"]).arg(&file).output().unwrap();
        (output.status.code().expect("it exits"), serde_json::from_slice(&output.stdout).expect("a report"))
    };
    Some(drivers.into_iter().enumerate().map(load).collect())
}

#[test]
fn drivers_of_other_makers_load_as_far_as_the_machine_goes() {
    let Some(reports) = reports() else { return };
    let [(wintun, report), (filter, other), networks @ ..] = &reports[..] else { panic!("four drivers") };
    // Without an adapter it registers with NDIS and is unloaded again; what it would call for one is missing.
    assert_eq!((*wintun, &report["unloaded"]), (0, &true.into()), "{report:#}");
    let missing = report["missing_imports"].as_array().expect("a list");
    assert!(missing.iter().any(|name| name == "NDIS.SYS!NdisMSetMiniportAttributes"), "{report:#}");
    assert!(!missing.iter().any(|name| name == "NDIS.SYS!NdisMRegisterMiniportDriver"), "{report:#}");

    assert_eq!((*filter, &other["unloaded"]), (0, &true.into()), "{other:#}");
    assert_eq!(other["missing_imports"], serde_json::json!([]), "{other:#}");

    for (status, report) in networks {
        assert_eq!(*status, 70);
        let error = report["error"].as_str().unwrap_or_default();
        assert!(error.contains("the driver's entry point returned STATUS_OBJECT_NAME_NOT_FOUND"), "{report:#}");
        assert!(report["debug_output"].to_string().contains("class NetAdapterCx"), "its stub says why: {report:#}");
        assert!(!error.contains("leaving behind"), "{report:#}");
    }
}
