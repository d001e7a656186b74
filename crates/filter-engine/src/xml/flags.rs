//! Flag sets by name.

use nt_abi::fwp::consts::*;

macro_rules! table {
    ($name:ident: $($flag:ident),* $(,)?) => {
        pub(super) const $name: &[(u32, &str)] = &[$(($flag, stringify!($flag))),*];
    };
}

table!(NET_EVENT:
    FWPM_NET_EVENT_FLAG_IP_PROTOCOL_SET, FWPM_NET_EVENT_FLAG_LOCAL_ADDR_SET, FWPM_NET_EVENT_FLAG_REMOTE_ADDR_SET,
    FWPM_NET_EVENT_FLAG_LOCAL_PORT_SET, FWPM_NET_EVENT_FLAG_REMOTE_PORT_SET, FWPM_NET_EVENT_FLAG_APP_ID_SET,
    FWPM_NET_EVENT_FLAG_USER_ID_SET, FWPM_NET_EVENT_FLAG_SCOPE_ID_SET, FWPM_NET_EVENT_FLAG_IP_VERSION_SET,
    FWPM_NET_EVENT_FLAG_REAUTH_REASON_SET, FWPM_NET_EVENT_FLAG_PACKAGE_ID_SET,
);
table!(FILTER:
    FWPM_FILTER_FLAG_PERSISTENT, FWPM_FILTER_FLAG_BOOTTIME, FWPM_FILTER_FLAG_HAS_PROVIDER_CONTEXT,
    FWPM_FILTER_FLAG_CLEAR_ACTION_RIGHT, FWPM_FILTER_FLAG_PERMIT_IF_CALLOUT_UNREGISTERED, FWPM_FILTER_FLAG_DISABLED,
    FWPM_FILTER_FLAG_INDEXED, FWPM_FILTER_FLAG_HAS_SECURITY_REALM_PROVIDER_CONTEXT,
    FWPM_FILTER_FLAG_SYSTEMOS_ONLY, FWPM_FILTER_FLAG_GAMEOS_ONLY, FWPM_FILTER_FLAG_SILENT_MODE,
    FWPM_FILTER_FLAG_IPSEC_NO_ACQUIRE_INITIATE,
);
table!(PROVIDER: FWPM_PROVIDER_FLAG_PERSISTENT, FWPM_PROVIDER_FLAG_DISABLED);
table!(SUBLAYER: FWPM_SUBLAYER_FLAG_PERSISTENT);
table!(PROVIDER_CONTEXT: FWPM_PROVIDER_CONTEXT_FLAG_PERSISTENT, FWPM_PROVIDER_CONTEXT_FLAG_DOWNLEVEL);
table!(CALLOUT:
    FWP_CALLOUT_FLAG_CONDITIONAL_ON_FLOW, FWP_CALLOUT_FLAG_ALLOW_OFFLOAD, FWP_CALLOUT_FLAG_ENABLE_COMMIT_ADD_NOTIFY,
    FWP_CALLOUT_FLAG_ALLOW_MID_STREAM_INSPECTION, FWP_CALLOUT_FLAG_ALLOW_RECLASSIFY, FWP_CALLOUT_FLAG_ALLOW_RSC,
    FWP_CALLOUT_FLAG_ALLOW_L2_BATCH_CLASSIFY, FWP_CALLOUT_FLAG_ALLOW_USO, FWP_CALLOUT_FLAG_ALLOW_URO,
    FWPM_CALLOUT_FLAG_PERSISTENT, FWPM_CALLOUT_FLAG_USES_PROVIDER_CONTEXT, FWPM_CALLOUT_FLAG_REGISTERED,
);
table!(LAYER:
    FWPM_LAYER_FLAG_KERNEL, FWPM_LAYER_FLAG_BUILTIN, FWPM_LAYER_FLAG_CLASSIFY_MOSTLY, FWPM_LAYER_FLAG_BUFFERED,
);
table!(SESSION: FWPM_SESSION_FLAG_DYNAMIC);

/// Whose flags they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the objects")]
pub enum FlagsOf {
    Filter,
    Provider,
    Sublayer,
    Callout,
    Layer,
}

/// The names of an object's flags, by ascending bit; the bits without a name together, in hexadecimal.
#[must_use]
pub fn flag_names(of: FlagsOf, set: u32) -> Vec<String> {
    let names = match of {
        FlagsOf::Filter => FILTER,
        FlagsOf::Provider => PROVIDER,
        FlagsOf::Sublayer => SUBLAYER,
        FlagsOf::Callout => CALLOUT,
        FlagsOf::Layer => LAYER,
    };
    spell(set, names)
}

/// The names of the flags in `set`, by ascending bit; the bits without a name together, in hexadecimal.
pub(super) fn spell(set: u32, names: &[(u32, &str)]) -> Vec<String> {
    let mut rest = set;
    let mut spelt = Vec::new();
    for (flag, name) in names.iter().filter(|(flag, _)| set & flag != 0) {
        spelt.push((*name).to_owned());
        rest &= !flag;
    }
    if rest != 0 {
        spelt.push(format!("{rest:08X}"));
    }
    spelt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn named_bits_come_by_name_and_the_rest_as_a_number() {
        let set = FWPM_FILTER_FLAG_INDEXED | FWPM_FILTER_FLAG_PERSISTENT | 0xFF00_0000;
        assert_eq!(spell(set, FILTER), ["FWPM_FILTER_FLAG_PERSISTENT", "FWPM_FILTER_FLAG_INDEXED", "FF000000"]);
        assert!(spell(0, FILTER).is_empty());
    }
}
