//! The network interfaces of the simulated machine.

/// An interface, as layers tell of it.
#[derive(Debug)]
pub(super) struct Interface {
    /// Its alias.
    alias: &'static str,
    /// Its index.
    pub(super) index: u32,
    /// Its type (`IF_TYPE_*`, ipifcons.h).
    pub(super) kind: u32,
    /// Its NET_LUID.
    pub(super) luid: u64,
}

impl Interface {
    /// The one to the network: IF_TYPE_ETHERNET_CSMACD.
    pub(super) const NETWORK: Self = Self::new("Ethernet", 7, 6, 0x8000);
    /// The loopback pseudo-interface, whose addresses are those of 127.0.0.0/8 and `::1`: IF_TYPE_SOFTWARE_LOOPBACK, always
    /// with index 1 and the first LUID of its type (IP Helper, "GetUnicastIpAddressEntry": "the IPv4 loopback at interface
    /// index=1").
    pub(super) const LOOPBACK: Self = Self::new("Loopback Pseudo-Interface 1", 1, 24, 0);
    /// Both, by [`Self::place`].
    pub(super) const ALL: [&'static Self; 2] = [&Self::NETWORK, &Self::LOOPBACK];

    /// A NET_LUID has the type in the upper 16 bits, then a 24-bit index (ifdef.h).
    const fn new(alias: &'static str, index: u32, kind: u32, luid_index: u64) -> Self {
        Self { alias, index, kind, luid: (kind as u64) << 48 | luid_index << 24 }
    }

    /// The place in [`Self::ALL`] of the interface that has the local address of a packet: a loopback address, or another.
    /// Through which interface Windows hands over what a machine sends to its other addresses is not documented.
    pub(super) const fn place(of_loopback: bool) -> usize {
        of_loopback as usize
    }
}

/// The NET_LUID of the interface with this alias.
pub(crate) fn luid(alias: &str) -> Option<u64> {
    let named = |one: &&&Interface| one.alias.eq_ignore_ascii_case(alias);
    Interface::ALL.iter().find(named).map(|one| one.luid)
}

/// `TUNNEL_TYPE_NONE`.
pub(super) const TUNNEL_TYPE: u32 = 0;
/// The MTU of the network.
pub(super) const MTU: u32 = 1500;
/// The default compartment.
pub(super) const COMPARTMENT: u32 = 1;
/// The public profile (`FWPM_CONDITION_CURRENT_PROFILE_ID`: 1 public, 2 private, 3 domain).
pub(super) const PROFILE: u32 = 1;
