//! The table of events. The driver writes them (`driver/src/etw.rs`), and docs/events.md lists them.

use super::{EventType, Field, Kind, keyword, level};

macro_rules! events {
    ($($(#[$doc:meta])* $event:ident: $level:ident, $keyword:ident, $fields:expr;)*) => {
        /// An event; its value is its place in [`EVENTS`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(usize)]
        pub enum TraceEvent {
            $($(#[$doc])* $event,)*
        }

        /// Every event.
        pub const EVENTS: &[EventType] = &[$(EventType {
            name: stringify!($event),
            level: level::$level,
            keyword: keyword::$keyword,
            fields: &$fields,
        },)*];

        /// The metadata of every event.
        pub const METADATA: [&[u8]; EVENTS.len()] = [$({
            const EVENT: &EventType = &EVENTS[TraceEvent::$event as usize];
            &EVENT.metadata::<{ EVENT.metadata_bytes() }>()
        },)*];
    };
}

const fn field(name: &'static str, kind: Kind, about: &'static str) -> Field {
    Field { name, kind, about }
}

/// How many fields [`TraceEvent::Decision`] has.
pub const DECISION_FIELDS: usize = 14;

const GENERATION: Field = field("Generation", Kind::U32, "the generation of the policy in force, 0 without one");

events! {
    /// The driver was loaded.
    DriverStarted: INFORMATION, DRIVER, [
        field("Protocol", Kind::U32, "the version of its protocol with the command"),
        field("KeptPolicy", Kind::Word, "what became of the kept policy: `none`, `restored`, `refused`, `unreadable`, `later`"),
        GENERATION,
    ];
    /// The driver could not start, and is unloaded.
    DriverFailed: ERROR, ERROR, [field("Status", Kind::Status, "why")];
    /// The driver is unloaded; it decides nothing any more.
    DriverStopped: INFORMATION, DRIVER, [GENERATION];
    /// A policy was put in force.
    PolicyLoaded: INFORMATION, POLICY, [
        GENERATION,
        field("Rules", Kind::U32, "how many rules it has"),
        field("Bytes", Kind::U64, "the size of its image"),
    ];
    /// A policy was refused; nothing has changed.
    PolicyRefused: WARNING, POLICY, [
        GENERATION,
        field("Bytes", Kind::U64, "the size of the image that was refused"),
        field("Reason", Kind::Text, "what is wrong with it"),
    ];
    /// When the driver was loaded, or when the disk could be read, the kept policy was not put in force.
    KeptPolicyNotRestored: ERROR, ERROR, [
        field("KeptPolicy", Kind::Word, "`refused`: it is damaged; `unreadable`: it could not be read, or nothing asks about it"),
        field("Status", Kind::Status, "of reading it; 0 with `refused`"),
    ];
    /// Windows does not ask again about the connections that are older than the policy.
    ReauthorizationRefused: ERROR, ERROR, [
        field("Status", Kind::Status, "what the Base Filtering Engine answered"),
        GENERATION,
    ];
    /// Flows could not be tracked; written at most once a second.
    FlowsUntracked: WARNING, ERROR, [
        field("Status", Kind::Status, "why the last one was not: 0xc0000044 (STATUS_QUOTA_EXCEEDED) is a limit on flows"),
        field("Flows", Kind::U64, "how many there have been since the last event"),
        field("ProcessId", Kind::Process, "whose the last one is"),
    ];
    /// A decision on a connection or packet.
    Decision: VERBOSE, DECISION, [
        field("Verdict", Kind::Word, "`permit` or `block`"),
        field("Rule", Kind::U32, "the rule's index; 4294967295 is the default, 4294967294 what no default decides"),
        GENERATION,
        field("Direction", Kind::Word, "`outbound`, `inbound`, `forward`, `listen` or `bind`"),
        field("Protocol", Kind::U8, "IANA's number"),
        field("Local", Kind::Address, "address and port here, or of a forwarded packet's source; with ICMP the port is the type"),
        field("Remote", Kind::Address, "address and port there; with ICMP the port is the code"),
        field("ProcessId", Kind::Process, "the process, 0 where the layer does not report it"),
        field("Application", Kind::Path, "its NT path, or the path's end"),
        field("Name", Kind::Text, "the name that the content asked for, empty where there is none"),
        field("Layer", Kind::U16, "the run-time id of the layer (FWPS_LAYER_*)"),
        field("Filter", Kind::U64, "the WFP filter that called the callout"),
        field("Flow", Kind::U64, "the flow's handle, 0 where there is none yet"),
        field("Flags", Kind::Hex16, "as in the events that `sluice events` reads"),
    ];
}

const _: () = assert!(EVENTS[TraceEvent::Decision as usize].fields.len() == DECISION_FIELDS);
