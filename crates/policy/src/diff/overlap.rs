//! Whether two rules can match one flow, told in few instructions: policies of 10,000 rules have 100 million pairs.

use crate::{
    flow::Direction,
    model::{AddressSet, NumberSet, Rule},
};

/// A box around what a rule matches: each condition's lowest and highest value. What it leaves out of account
/// (programs, identities, names) can only make fewer rules overlap.
pub(crate) struct Extent {
    /// One bit for each direction.
    directions: u8,
    remote: Reach,
    local: Reach,
    remote_ports: (u64, u64),
    local_ports: (u64, u64),
    protocols: (u64, u64),
    interfaces: (u64, u64),
}

/// Addresses of each family, from the lowest to the highest; an empty range where there are none.
struct Reach {
    v4: (u32, u32),
    v6: (u128, u128),
}

impl Extent {
    pub(crate) fn of(rule: &Rule) -> Self {
        Self {
            directions: match rule.direction {
                Some(Direction::Outbound) => 1,
                Some(Direction::Inbound) => 2,
                None => 3,
                Some(Direction::Forward) => 4,
                Some(Direction::Listen) => 8,
                Some(Direction::Bind) => 16,
            },
            remote: Reach::of(rule.remote.as_deref()),
            local: Reach::of(rule.local.as_deref()),
            remote_ports: numbers(rule.remote_ports.as_ref()),
            local_ports: numbers(rule.local_ports.as_ref()),
            protocols: numbers(rule.protocols.as_ref()),
            interfaces: numbers(rule.interfaces.as_ref()),
        }
    }

    /// The same of a rule whose addresses do not count.
    pub(crate) fn anywhere(rule: &Rule) -> Self {
        Self { remote: Reach::of(None), local: Reach::of(None), ..Self::of(rule) }
    }

    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        // A flow has one family on both sides.
        let v4 = meet(self.remote.v4, other.remote.v4) && meet(self.local.v4, other.local.v4);
        (v4 || meet(self.remote.v6, other.remote.v6) && meet(self.local.v6, other.local.v6))
            && self.directions & other.directions != 0
            && meet(self.remote_ports, other.remote_ports)
            && meet(self.local_ports, other.local_ports)
            && meet(self.protocols, other.protocols)
            && meet(self.interfaces, other.interfaces)
    }
}

impl Reach {
    fn of(set: Option<&AddressSet>) -> Self {
        match set {
            None => Self { v4: (0, u32::MAX), v6: (0, u128::MAX) },
            Some(set) => Self { v4: around(set.v4.ranges(), (1, 0)), v6: around(set.v6.ranges(), (1, 0)) },
        }
    }
}

fn numbers(set: Option<&NumberSet>) -> (u64, u64) {
    set.map_or((0, u64::MAX), |set| around(set.ranges(), (1, 0)))
}

/// From the first to the last of ranges in order.
fn around<T: Copy>(ranges: &[(T, T)], none: (T, T)) -> (T, T) {
    match ranges {
        [] => none,
        [first, .., last] => (first.0, last.1),
        [only] => *only,
    }
}

/// Whether two ranges have something in common; one that is empty has not.
fn meet<T: Ord>(a: (T, T), b: (T, T)) -> bool {
    a.0.max(b.0) <= a.1.min(b.1)
}
