//! What the policy in force was made of, beside what there is now: lists that lost most of their entries, drives that moved.

use crate::device::Control;
use crate::error::ControlError;
use crate::program::app_id;
use serde::Serialize;
use sluice_host::Host;
use sluice_policy::image::{Source, SourceKind};
use sluice_policy::model::program;
use sluice_policy::{Image, StableBytes};
use std::fmt;

/// Whether a list may have less than half of the entries that it has in the policy in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shrinking {
    /// It may not: the file was cut short, or the server that it came from had a bad day.
    Refused,
    /// It is meant so.
    Accepted,
}

/// A list with less than half of the entries that it has in the policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Shrunk {
    /// Its name.
    pub list: String,
    /// How many entries it has.
    pub entries: u64,
    /// How many it has in the policy in force.
    pub in_force: u64,
}

impl fmt::Display for Shrunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "list `{}` has {} entries, and {} in the policy in force", self.list, self.entries, self.in_force)
    }
}

/// A drive that is on another device, or an interface that has another LUID, than in the policy in force: what rules say of
/// programs there, or of the interface, matches nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moved {
    /// A drive or an interface.
    pub kind: SourceKind,
    /// The drive, `C:`, or the interface's alias.
    pub name: String,
    /// The device, or the LUID, that the policy has.
    pub was: String,
    /// The one that it has now; none when there is no such drive or interface.
    pub is: Option<String>,
}

impl fmt::Display for Moved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, name, was, is } = self;
        let what = if *kind == SourceKind::Drive { "drive" } else { "interface" };
        write!(f, "{what} {name} was {was} when the policy was loaded, and ")?;
        match is {
            Some(is) => write!(f, "is {is} now"),
            None => f.write_str("is not there now"),
        }
    }
}

/// The policy in force, if there is one.
///
/// # Errors
/// The driver cannot be asked, or has what this program's own validator refuses.
pub(crate) fn in_force(host: &dyn Host) -> Result<Option<Image<Vec<u8>>>, ControlError> {
    let Some(bytes) = Control::open(host)?.0.policy()? else { return Ok(None) };
    Image::validate(bytes)
        .map(Some)
        .map_err(|error| ControlError::Answer { request: "the policy", what: error.to_string() })
}

/// The lists that shrank. One that is not in both policies was taken out or put in by whoever wrote them.
pub(crate) fn shrunk<B: StableBytes, C: StableBytes>(in_force: &Image<B>, new: &Image<C>) -> Vec<Shrunk> {
    let counts =
        |source: &Source<'_>| (source.kind == SourceKind::List).then(|| source.value.parse::<u64>().ok()).flatten();
    let old: Vec<(&str, u64)> = in_force.sources().filter_map(|one| Some((one.name, counts(&one)?))).collect();
    let pairs = new.sources().filter_map(|one| {
        let (_, before) = *old.iter().find(|(name, _)| *name == one.name)?;
        Some((one.name, counts(&one)?, before))
    });
    let shrunk = pairs.filter(|(_, now, before)| *now < before.div_ceil(2));
    shrunk.map(|(name, entries, in_force)| Shrunk { list: name.to_owned(), entries, in_force }).collect()
}

/// The drives and interfaces that are not as an image has them.
pub(crate) fn moved<B: StableBytes>(host: &dyn Host, image: &Image<B>) -> Vec<Moved> {
    let now = |source: &Source<'_>| match source.kind {
        SourceKind::List | SourceKind::Origin => None,
        SourceKind::Drive => {
            let device = app_id(host, &format!("{}\\", source.name)).ok();
            Some(device.map(|path| program::fold(path.trim_end_matches('\\'))))
        }
        SourceKind::Interface => Some(host.interface_luid(source.name).ok().map(|luid| format!("{luid:#x}"))),
    };
    let changed = image.sources().filter_map(|source| {
        let is = now(&source).filter(|is| is.as_deref() != Some(source.value))?;
        Some(Moved { kind: source.kind, name: source.name.to_owned(), was: source.value.to_owned(), is })
    });
    changed.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::policy::tests::{file, machine};
    use crate::{Loading, load, load_image, load_with, status};
    use sluice_policy::CompileOptions;

    const ACCEPTED: Loading = Loading { shrinking: Shrinking::Accepted, ..Loading::DEFAULT };

    fn listing(entries: &[&str]) -> tempfile::NamedTempFile {
        file(&format!("[list.bad]\nentries = {entries:?}\n[[rule]]\naction = \"block\"\nremote = \"@bad\"\n"))
    }

    const FIVE: [&str; 5] = ["192.0.2.1", "192.0.2.3", "192.0.2.5", "192.0.2.7", "192.0.2.9"];

    #[test]
    fn a_list_that_lost_more_than_half_is_not_loaded_unless_that_is_meant() {
        let memory = machine();
        load(&memory, listing(&FIVE).path()).unwrap();
        load(&memory, listing(&FIVE[..3]).path()).unwrap();
        load(&memory, listing(&FIVE).path()).unwrap();
        let error = load(&memory, listing(&FIVE[..2]).path()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "list `bad` has 2 entries, and 5 in the policy in force: less than half are left"
        );
        assert_eq!(error.kind(), Kind::Policy);
        assert!(error.advice().unwrap().contains("--accept-shrunk"));
        assert_eq!(memory.driver.lock().unwrap().policies.len(), 3, "the one in force stays");
        load_with(&memory, listing(&FIVE[..2]).path(), ACCEPTED).unwrap();
        // What is in force now has two.
        load(&memory, listing(&FIVE[..1]).path()).unwrap();
        // A list that is not there any more was taken out.
        load(&memory, file("").path()).unwrap();
        load(&memory, listing(&FIVE[..1]).path()).unwrap();
    }

    #[test]
    fn what_cannot_be_compared_is_not_loaded_unless_that_is_meant() {
        let memory = machine();
        load(&memory, listing(&FIVE).path()).unwrap();
        memory.driver.lock().unwrap().policies[0][40] ^= 1;
        let error = load(&memory, listing(&FIVE).path()).unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
        load_with(&memory, listing(&FIVE).path(), ACCEPTED).unwrap();
    }

    #[test]
    fn a_drive_that_moved_is_said() {
        let memory = machine();
        let text = "[[rule]]\naction = \"block\"\napplication = 'C:\\Tools\\a.exe'\n[[rule]]\naction = \"block\"\napplication = \
                    'Q:\\b.exe'\n";
        assert_eq!(load(&memory, file(text).path()).unwrap().moved, []);
        assert_eq!(status(&memory).unwrap().moved, []);
        let policy = crate::read_policy(file(text).path()).unwrap();
        let elsewhere = |path: &str| Ok(format!(r"\Device\HarddiskVolume{}{}", path.len(), &path[2..]));
        let options = CompileOptions { application: &elsewhere, key: [1; 16], at: None };
        load_image(&memory, &sluice_policy::compile(&policy, &options).unwrap()).unwrap();
        let at = |name: &str, was: &str, is: Option<&str>| Moved {
            kind: SourceKind::Drive,
            name: name.to_owned(),
            was: was.to_owned(),
            is: is.map(str::to_owned),
        };
        let moved = [
            at("C:", r"\device\harddiskvolume14", Some(r"\device\harddiskvolume1")),
            at("Q:", r"\device\harddiskvolume8", None),
        ];
        assert_eq!(status(&memory).unwrap().moved, moved);
        let said = moved.each_ref().map(ToString::to_string);
        assert!(said[0].ends_with(r"and is \device\harddiskvolume1 now"), "{}", said[0]);
        assert!(said[1].ends_with("and is not there now"), "{}", said[1]);
        // Loading says it once more, and mends it.
        assert_eq!(load(&memory, file(text).path()).unwrap().moved, moved);
        assert_eq!(status(&memory).unwrap().moved, []);
    }
    #[test]
    fn an_interface_is_named_by_its_alias_and_followed() {
        let memory = machine();
        let text = "[[rule]]\nname = \"x\"\naction = \"block\"\ninterface = [\"alias:Ethernet\", \"alias:Wi-Fi\"]\n";
        let report = load(&memory, file(text).path()).unwrap();
        assert_eq!(report.missing_interfaces, ["Wi-Fi"]);
        let said = "there is no interface `Wi-Fi` on this machine: the rule does not match it";
        assert_eq!(report.warnings[0].message, said);
        assert_eq!(status(&memory).unwrap().moved, []);
        let decides = |luid| {
            let driver = memory.driver.lock().unwrap();
            let image = Image::validate(driver.policies.last().unwrap().as_slice()).unwrap();
            let address = std::net::IpAddr::from([192, 0, 2, 1]);
            let flow = sluice_policy::Flow::new(sluice_policy::Direction::Outbound, 6, address, 50_000, address, 443);
            image.decide(&flow.with_loopback(false).with_interface(luid)).rule
        };
        let (ethernet, wireless) = (6 << 48 | 1, 71 << 48 | 1);
        assert_eq!((decides(ethernet), decides(wireless)), (Some(0), None));
        *memory.interfaces.borrow_mut() = vec![("Ethernet".to_owned(), 6 << 48 | 2), ("Wi-Fi".to_owned(), wireless)];
        let moved = &status(&memory).unwrap().moved[0];
        assert_eq!(
            moved.to_string(),
            "interface Ethernet was 0x6000000000001 when the policy was loaded, and is 0x6000000000002 now"
        );
        let report = load(&memory, file(text).path()).unwrap();
        assert_eq!((report.missing_interfaces, report.moved.len()), (Vec::new(), 1));
        assert_eq!((decides(ethernet), decides(ethernet + 1), decides(wireless)), (None, Some(0), Some(0)));
    }
}
