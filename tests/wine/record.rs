//! What a Base Filtering Engine receives, in the words of `fwpuclnt.c`.

use std::{cell::RefCell, fmt::Write as _};

use sluice_host::{
    Callout, ConditionValue, Device, Engine, Filter, FilterAction, FilterEntry, Guid, Host, HostResult, Parameter,
    Provider, ServiceConfig, ServiceState, StartType, Sublayer, Weight,
    listing::{ListedEvent, Listing},
    system::{Signature, System},
};

/// A machine whose Base Filtering Engine's calls are written down.
pub(crate) struct Recorded<H> {
    pub(crate) host: H,
    pub(crate) record: RefCell<String>,
}

impl<H: Host> Recorded<H> {
    pub(crate) fn new(host: H) -> Self {
        Self { host, record: RefCell::default() }
    }
}

/// Methods that only pass on.
macro_rules! passed_on {
    ($($name:ident($($argument:ident: $kind:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($argument: $kind),*) -> HostResult<$result> { self.host.$name($($argument),*) })*
    };
}

impl<H: Host> Host for Recorded<H> {
    passed_on! {
        service_state(name: &str) -> ServiceState;
        service_driver(name: &str) -> Option<String>;
        set_service_driver(name: &str, driver: &str) -> ();
        service_start(name: &str) -> Option<StartType>;
        set_service_start(name: &str, start: StartType) -> ();
        service_parameter(name: &str, value: &str) -> Option<Parameter>;
        set_service_parameter(name: &str, value: &str, to: Option<&Parameter>) -> ();
        create_service(config: &ServiceConfig) -> ();
        start_service(name: &str) -> ();
        stop_service(name: &str) -> ();
        delete_service(name: &str) -> ();
        system() -> System;
        environment(name: &str) -> Option<String>;
        signature(path: &str) -> Signature;
        read_driver(file: &str) -> Option<Vec<u8>>;
        write_driver(file: &str, content: &[u8]) -> ();
        rename_driver(from: &str, to: &str) -> ();
        delete_driver(file: &str) -> ();
        delete_driver_at_restart(file: &str) -> ();
        open_device(path: &str) -> Box<dyn Device>;
        app_id(path: &str) -> String;
        interface_luid(alias: &str) -> u64;
    }

    fn open_engine(&self) -> HostResult<Box<dyn Engine + '_>> {
        Ok(Box::new(Session { engine: self.host.open_engine()?, record: &self.record }))
    }
}

struct Session<'r> {
    engine: Box<dyn Engine + 'r>,
    record: &'r RefCell<String>,
}

impl Session<'_> {
    fn say(&self, line: std::fmt::Arguments<'_>) {
        self.record.borrow_mut().write_fmt(line).expect("a string takes everything");
    }

    /// What could not be deleted because it is not there is not written down, here as there.
    fn delete(&self, function: &str, key: Guid, result: HostResult<()>) -> HostResult<()> {
        if result.is_ok() {
            self.say(format_args!("{function} key={key}\n"));
        }
        result
    }
}

fn key(key: Option<Guid>) -> String {
    key.map_or("-".to_owned(), |key| key.to_string())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A value with the number of its FWP_DATA_TYPE.
fn value(value: &ConditionValue) -> String {
    match value {
        ConditionValue::Empty => "0:".to_owned(),
        ConditionValue::Uint8(number) => format!("1:{number}"),
        ConditionValue::Uint16(number) => format!("2:{number}"),
        ConditionValue::Uint32(number) => format!("3:{number}"),
        ConditionValue::Uint64(number) => format!("4:{number}"),
        ConditionValue::ByteArray16(bytes) => format!("11:{}", hex(bytes)),
        ConditionValue::ByteBlob(bytes) => format!("12:{}", hex(bytes)),
        ConditionValue::Sid(bytes) => format!("13:{}", hex(bytes)),
        ConditionValue::SecurityDescriptor(bytes) => format!("14:{}", hex(bytes)),
        ConditionValue::V4AddrMask { addr, mask } => format!("256:{addr}/{mask}"),
        ConditionValue::V6AddrMask { addr, prefix_length } => format!("257:{}/{prefix_length}", hex(addr)),
        ConditionValue::Range { low, high } => format!("258:{}..{}", self::value(low), self::value(high)),
    }
}

/// Flags as C's `%#x` has them.
fn flags(flags: u32) -> String {
    if flags == 0 { "0".to_owned() } else { format!("{flags:#x}") }
}

impl Engine for Session<'_> {
    fn begin(&mut self) -> HostResult<()> {
        self.say(format_args!("FwpmTransactionBegin0 flags=0\n"));
        self.engine.begin()
    }

    fn commit(&mut self) -> HostResult<()> {
        self.say(format_args!("FwpmTransactionCommit0\n"));
        self.engine.commit()
    }

    fn abort(&mut self) -> HostResult<()> {
        self.say(format_args!("FwpmTransactionAbort0\n"));
        self.engine.abort()
    }

    fn add_provider(&mut self, provider: &Provider) -> HostResult<()> {
        let Provider { key, name, description, persistent, service } = provider;
        let service = service.as_ref().map_or("-".to_owned(), |service| format!("[{service}]"));
        self.say(format_args!(
            "FwpmProviderAdd0 key={key} name=[{name}] description=[{description}] flags={} data=0 service={service} sd=0\n",
            flags(u32::from(*persistent))
        ));
        self.engine.add_provider(provider)
    }

    fn add_sublayer(&mut self, sublayer: &Sublayer) -> HostResult<()> {
        let Sublayer { key, name, description, persistent, provider, weight } = sublayer;
        self.say(format_args!(
            "FwpmSubLayerAdd0 key={key} name=[{name}] description=[{description}] flags={} data=0 provider={} \
             weight={weight} sd=0\n",
            flags(u32::from(*persistent)),
            self::key(*provider)
        ));
        self.engine.add_sublayer(sublayer)
    }

    fn add_callout(&mut self, callout: &Callout) -> HostResult<u32> {
        let Callout { key, name, description, persistent, provider, layer } = callout;
        // FWPM_CALLOUT_FLAG_PERSISTENT.
        self.say(format_args!(
            "FwpmCalloutAdd0 key={key} name=[{name}] description=[{description}] flags={} data=0 provider={} layer={layer} \
             sd=0\n",
            flags(u32::from(*persistent) << 16),
            self::key(*provider)
        ));
        self.engine.add_callout(callout)
    }

    fn add_filter(&mut self, filter: &Filter) -> HostResult<u64> {
        let Filter { name, description, provider, layer, sublayer, conditions, .. } = filter;
        let weight = match filter.weight {
            Weight::Auto => "0:".to_owned(),
            Weight::Range(range) => format!("1:{range}"),
            Weight::Exact(weight) => format!("4:{weight}"),
        };
        let action = match filter.action {
            FilterAction::Block => "0x1001".to_owned(),
            FilterAction::Permit => "0x1002".to_owned(),
            FilterAction::CalloutTerminating(callout) => format!("0x5003 callout={callout}"),
            FilterAction::CalloutInspection(callout) => format!("0x6004 callout={callout}"),
            FilterAction::CalloutUnknown(callout) => format!("0x4005 callout={callout}"),
        };
        self.say(format_args!(
            "FwpmFilterAdd0 key={} name=[{name}] description=[{description}] flags={} data=0 provider={} layer={layer} \
             sublayer={sublayer} weight={weight} action={action} sd=0\n",
            key(filter.key),
            flags(filter.flags),
            key(*provider)
        ));
        for one in conditions {
            let what = value(&one.value);
            self.say(format_args!("  field={} match={} value={what}\n", one.field, one.match_type as u32));
        }
        self.engine.add_filter(filter)
    }

    fn delete_provider(&mut self, key: Guid) -> HostResult<()> {
        let result = self.engine.delete_provider(key);
        self.delete("FwpmProviderDeleteByKey0", key, result)
    }

    fn delete_sublayer(&mut self, key: Guid) -> HostResult<()> {
        let result = self.engine.delete_sublayer(key);
        self.delete("FwpmSubLayerDeleteByKey0", key, result)
    }

    fn delete_callout(&mut self, key: Guid) -> HostResult<()> {
        let result = self.engine.delete_callout(key);
        self.delete("FwpmCalloutDeleteByKey0", key, result)
    }

    fn delete_filter(&mut self, key: Guid) -> HostResult<()> {
        let result = self.engine.delete_filter(key);
        self.delete("FwpmFilterDeleteByKey0", key, result)
    }

    fn provider(&mut self, key: Guid) -> HostResult<Option<Provider>> {
        self.engine.provider(key)
    }

    fn sublayer(&mut self, key: Guid) -> HostResult<Option<Sublayer>> {
        self.engine.sublayer(key)
    }

    fn callout(&mut self, key: Guid) -> HostResult<Option<Callout>> {
        self.engine.callout(key)
    }

    fn filters(&mut self, provider: Option<Guid>) -> HostResult<Vec<FilterEntry>> {
        self.engine.filters(provider)
    }

    fn boot_filters(&mut self, layer: Guid) -> HostResult<Vec<FilterEntry>> {
        self.engine.boot_filters(layer)
    }

    fn list(&mut self) -> HostResult<Listing> {
        self.engine.list()
    }

    fn net_events(&mut self) -> HostResult<Vec<ListedEvent>> {
        self.engine.net_events()
    }

    fn options(&mut self) -> HostResult<Vec<(u32, u32)>> {
        self.engine.options()
    }
}
