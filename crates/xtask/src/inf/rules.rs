//! What InfVerif requires of the INF of a primitive driver (one without a device), as Microsoft states it in "INF
//! Validation Errors and Warnings", "Creating a new primitive driver" and "Driver package isolation". The numbers are
//! InfVerif's.
//!
//! InfVerif runs on Windows only. These are the rules on those pages that can apply to a file such as ours; a directive
//! that they do not mention is refused, so that no line goes unchecked.

use std::fmt;

use super::{Architecture, Inf, Section};

/// A rule that the file breaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// InfVerif's number for it; 0 where the pages state the rule without a number.
    pub number: u16,
    /// What is wrong, and where.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.number {
            0 => f.write_str(&self.what),
            number => write!(f, "{number}: {}", self.what),
        }
    }
}

/// The driver store: files stay there, and run from there.
const DRIVER_STORE: &str = "13";

/// Every rule that a file for `architecture` and Windows from `oldest_build` on breaks.
#[must_use]
pub fn broken(inf: &Inf, architecture: Architecture, oldest_build: u32) -> Vec<Broken> {
    let mut check = Check { inf, used: vec!["Version".into(), "Strings".into()], broken: Vec::new() };
    check.version();
    check.tokens();
    let decoration = format!(".NT{}.10.0...{oldest_build}", architecture.decoration());
    check.entry_points(&decoration);
    check.sources();
    for section in inf.sections() {
        if !check.used.iter().any(|used| used.eq_ignore_ascii_case(&section.name)) {
            check.say(2083, format!("section [{}] is not referenced", section.name));
        }
    }
    check.broken
}

struct Check<'a> {
    inf: &'a Inf,
    /// Sections that something refers to.
    used: Vec<String>,
    broken: Vec<Broken>,
}

impl<'a> Check<'a> {
    fn say(&mut self, number: u16, what: impl Into<String>) {
        self.broken.push(Broken { number, what: what.into() });
    }

    /// The section that `directive` names.
    fn referenced(&mut self, name: &str, directive: &str) -> Option<&'a Section> {
        self.used.push(name.to_owned());
        let section = self.inf.section(name);
        if section.is_none() {
            self.say(1203, format!("{directive} names section [{name}], which does not exist"));
        }
        section
    }

    fn version(&mut self) {
        let Some(version) = self.inf.section("Version") else { return self.say(0, "there is no [Version]") };
        let value =
            |key| version.first(key).map(|value| self.inf.expand(value).unwrap_or_default()).unwrap_or_default();
        let (signature, class_guid, provider) = (value("Signature"), value("ClassGuid"), value("Provider"));
        let (class, catalog, lockdown) = (value("Class"), value("CatalogFile"), value("PnpLockdown"));
        let driver_version = version.all("DriverVer").next().map(|line| line.values.clone()).unwrap_or_default();
        if !["$windows nt$", "$chicago$"].contains(&signature.to_ascii_lowercase().as_str()) {
            self.say(0, format!("Signature is {signature:?}"));
        }
        if class.is_empty() || class.len() > 32 || !is_guid(&class_guid) {
            self.say(0, format!("Class {class:?} and ClassGuid {class_guid:?} must both be filled in"));
        }
        if provider.is_empty() || provider.to_ascii_lowercase().contains("microsoft") {
            self.say(1204, format!("Provider is {provider:?}"));
        }
        if !catalog.ends_with(".cat") {
            self.say(1233, format!("CatalogFile is {catalog:?}"));
        }
        if lockdown != "1" {
            self.say(0, "PnpLockdown is not 1");
        }
        if !is_driver_version(&driver_version) {
            self.say(0, format!("DriverVer is {driver_version:?}, expected mm/dd/yyyy,w.x.y.z"));
        }
    }

    fn tokens(&mut self) {
        let lines = self.inf.sections().iter().flat_map(|section| &section.lines);
        let unknown: Vec<_> =
            lines.flat_map(|line| &line.values).filter_map(|value| self.inf.expand(value).err()).collect();
        for token in unknown {
            self.say(1235, format!("%{token}% is not defined in [Strings]"));
        }
    }

    /// The sections that Windows starts from.
    fn entry_points(&mut self, decoration: &str) {
        if self.inf.section("Manufacturer").is_some() {
            self.say(1212, "both [Manufacturer] and [DefaultInstall]");
        }
        let (install, uninstall) = (format!("DefaultInstall{decoration}"), format!("DefaultUninstall{decoration}"));
        for section in self.inf.sections() {
            let base = section.name.strip_suffix(".Services").unwrap_or(&section.name);
            let ours = [&install, &uninstall].iter().any(|name| name.eq_ignore_ascii_case(base));
            if base.to_ascii_lowercase().starts_with("default") && !ours {
                self.say(0, format!("[{base}] must be decorated {decoration}"));
            }
        }
        if let Some(section) = self.referenced(&install, "Windows") {
            self.directives(section, &["OptionDesc", "CopyFiles"]);
        }
        if let Some(services) = self.referenced(&format!("{install}.Services"), "Windows") {
            self.directives(services, &["AddService"]);
            for line in services.all("AddService") {
                self.service(&line.values);
            }
        }
        // Allowed only for older Windows, and decorated so that versions with primitive drivers skip it.
        if let Some(section) = self.inf.section(&uninstall) {
            self.used.extend([uninstall.clone(), format!("{uninstall}.Services")]);
            if section.first("LegacyUninstall") != Some("1") {
                self.say(0, format!("[{uninstall}] lacks LegacyUninstall = 1"));
            }
            self.directives(section, &["LegacyUninstall", "DelFiles"]);
            if let Some(services) = self.inf.section(&format!("{uninstall}.Services")) {
                self.directives(services, &["DelService"]);
            }
        }
    }

    fn directives(&mut self, section: &'a Section, known: &[&str]) {
        for line in &section.lines {
            let key = line.key.as_deref().unwrap_or_default();
            if !known.iter().any(|known| known.eq_ignore_ascii_case(key)) {
                self.say(1300, format!("[{}] has {key:?}, which these rules do not know", section.name));
            }
        }
        for line in section.all("CopyFiles").chain(section.all("DelFiles")) {
            for list in &line.values {
                self.file_list(list);
            }
        }
    }

    /// A section of files: each must have a source, and stay under its name in the driver store.
    fn file_list(&mut self, name: &str) {
        let Some(list) = self.referenced(name, "CopyFiles or DelFiles") else { return };
        let folder = self.inf.section("DestinationDirs").and_then(|folders| folders.all(name).next());
        if folder.is_none_or(|line| line.values != [DRIVER_STORE]) {
            self.say(1306, format!("[DestinationDirs] does not direct [{name}] to {DRIVER_STORE}, the driver store"));
        }
        for line in &list.lines {
            let (file, renamed) = (&line.values[0], line.values.get(1).is_some_and(|source| !source.is_empty()));
            if renamed {
                self.say(1100, format!("{file} is renamed when copied"));
            }
            if self.inf.section("SourceDisksFiles").and_then(|files| files.first(file)).is_none() {
                self.say(1230, format!("{file} is not in [SourceDisksFiles]"));
            }
        }
    }

    fn service(&mut self, values: &[String]) {
        let Some(name) = values.get(2) else { return self.say(1203, "AddService names no section") };
        let Some(section) = self.referenced(name, "AddService") else { return };
        let known =
            ["DisplayName", "Description", "ServiceType", "StartType", "ErrorControl", "ServiceBinary", "Dependencies"];
        self.directives(section, &known);
        for (key, allowed) in
            [("ServiceType", &["1"][..]), ("StartType", &["0", "1", "2", "3"]), ("ErrorControl", &["0", "1"])]
        {
            if !section.first(key).is_some_and(|value| allowed.contains(&value)) {
                self.say(0, format!("{key} of [{name}] is {:?}", section.first(key)));
            }
        }
        let binary = section.first("ServiceBinary").unwrap_or_default();
        let file = binary.strip_prefix(&format!(r"%{DRIVER_STORE}%\")).unwrap_or_default();
        if self.inf.section("SourceDisksFiles").and_then(|files| files.first(file)).is_none() {
            self.say(0, format!("ServiceBinary is {binary:?}, not a file of the package in the driver store"));
        }
    }

    /// Where the files come from.
    fn sources(&mut self) {
        self.used.push("DestinationDirs".into());
        let Some(files) = self.referenced("SourceDisksFiles", "Windows") else { return };
        let Some(disks) = self.referenced("SourceDisksNames", "Windows") else { return };
        for line in &files.lines {
            let file = line.key.as_deref().unwrap_or_default();
            if disks.first(&line.values[0]).is_none() {
                self.say(1230, format!("{file} is on disk {:?}, which [SourceDisksNames] lacks", line.values[0]));
            }
            if line.values.len() > 1 {
                self.say(1100, format!("{file} comes from another folder than it goes to"));
            }
        }
    }
}

fn is_guid(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')) else { return false };
    let groups: Vec<_> = inner.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.concat().bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_driver_version(values: &[String]) -> bool {
    let [date, version] = values else { return false };
    let date: Option<Vec<u16>> = date.split('/').map(|part| part.parse().ok()).collect();
    let version: Option<Vec<u16>> = version.split('.').map(|part| part.parse().ok()).collect();
    matches!(date.as_deref(), Some([1..=12, 1..=31, 2000..=9999])) && version.is_some_and(|parts| parts.len() == 4)
}

#[cfg(test)]
mod tests {
    use sluice_protocol::{OLDEST_WINDOWS_BUILD, SERVICE_DISPLAY_NAME, SERVICE_NAME};

    use super::*;
    use crate::inf::{Day, stamp};

    fn ours(architecture: Architecture) -> String {
        let source = include_str!("../../../../inf/sluice.inx");
        stamp(source, architecture, Day { year: 2026, month: 1, day: 2 }, "0.1.0").unwrap()
    }

    /// The rules broken by one change, whose pattern must match.
    fn after(from: &str, to: &str) -> Vec<Broken> {
        let text = ours(Architecture::X64);
        assert!(text.contains(from), "{from:?}");
        broken(&Inf::read(&text.replace(from, to)).unwrap(), Architecture::X64, OLDEST_WINDOWS_BUILD)
    }

    #[test]
    fn ours_breaks_none_and_says_what_the_command_says() {
        for architecture in [Architecture::X64, Architecture::Arm64] {
            let inf = Inf::read(&ours(architecture)).unwrap();
            assert_eq!(broken(&inf, architecture, OLDEST_WINDOWS_BUILD), []);
            let decoration = format!("DefaultInstall.NT{}.10.0...{OLDEST_WINDOWS_BUILD}", architecture.decoration());
            let services = inf.section(&format!("{decoration}.Services")).unwrap();
            assert_eq!(services.first("AddService"), Some(SERVICE_NAME));
            assert_eq!(inf.expand("%Name%").unwrap(), SERVICE_DISPLAY_NAME);
        }
    }

    #[test]
    fn every_rule_finds_what_breaks_it() {
        for (number, from, to) in [
            (0, "$WINDOWS NT$", "$NT$"),
            (0, "{57465043-", "{5746504-"),
            (0, "PnpLockdown = 1", "PnpLockdown = 0"),
            (0, "01/02/2026,0.1.0.0", "2026-01-02,0.1.0"),
            (0, "[DefaultInstall.NTamd64.10.0...19041]", "[DefaultInstall]"),
            (0, ".NTamd64.10.0...19041]", ".NTamd64.10.0...16299]"),
            (0, "LegacyUninstall = 1\r\n", ""),
            (0, r"%13%\sluice.sys", r"%12%\sluice.sys"),
            (0, "ServiceType   = 1", "ServiceType   = 2"),
            (1100, "[Sluice.DriverFiles]\r\nsluice.sys", "[Sluice.DriverFiles]\r\nsluice.sys,other.sys"),
            (1100, "sluice.sys = 1", "sluice.sys = 1,x64"),
            (1203, "CopyFiles  = Sluice.DriverFiles", "CopyFiles  = sluice.sys"),
            (1204, "Provider    = \"Sluicegate\"", "Provider    = \"Microsoft\""),
            (1212, "[SourceDisksNames]", "[Manufacturer]\r\n[SourceDisksNames]"),
            (1230, "sluice.sys = 1", "other.sys = 1"),
            (1230, "sluice.sys = 1", "sluice.sys = 2"),
            (1233, "CatalogFile = sluice.cat\r\n", ""),
            (1235, "%Description%", "%SystemRoot%"),
            (1300, "OptionDesc", "RegisterDlls"),
            (1306, "Sluice.DriverFiles = 13", "Sluice.DriverFiles = 12"),
            (2083, "[SourceDisksNames]", "[Other]\r\n[SourceDisksNames]"),
        ] {
            let broken = after(from, to);
            assert!(broken.iter().any(|rule| rule.number == number), "{from:?} to {to:?}: {broken:?}");
        }
    }
}
