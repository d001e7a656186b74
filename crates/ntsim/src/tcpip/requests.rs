//! Bind and connect requests, as the redirect layers show them and as callouts change them.

use core::ptr::null_mut;
use nt_abi::fwp::RedirectRequest;
use nt_abi::fwp::consts::{AF_INET, AF_INET6};
use nt_abi::fwp::{FwpsBindRequest0, FwpsConnectRequest0, SockaddrStorage};
use shim::classifier::Redirect;
use shim::flow::FlowKey;
use shim::layer::Layer;
use std::net::{IpAddr, SocketAddr};

/// The layer data of a redirect layer; `None` at any other layer.
pub(super) fn of(layer: Layer, key: &FlowKey) -> Option<RedirectRequest> {
    let local = SocketAddr::new(key.local(), key.local_port);
    let remote = SocketAddr::new(key.remote(), key.remote_port);
    match layer {
        Layer::AleConnectRedirect => Some(RedirectRequest::Connect(FwpsConnectRequest0 {
            local_address_and_port: storage(local),
            remote_address_and_port: storage(remote),
            port_reservation_token: 0,
            local_redirect_target_pid: 0,
            previous_version: null_mut(),
            modifier_filter_id: 0,
            local_redirect_handle: null_mut(),
            local_redirect_context: null_mut(),
            local_redirect_context_size: 0,
        })),
        Layer::AleBindRedirect => Some(RedirectRequest::Bind(FwpsBindRequest0 {
            local_address_and_port: storage(local),
            port_reservation_token: 0,
            previous_version: null_mut(),
            modifier_filter_id: 0,
        })),
        _ => None,
    }
}

/// The endpoints in layer data that callouts have changed; `None` when they are not addresses.
pub(super) fn read(request: &RedirectRequest) -> Option<Redirect> {
    match request {
        RedirectRequest::Connect(connect) => Some(Redirect {
            local: address(&connect.local_address_and_port)?,
            remote: Some(address(&connect.remote_address_and_port)?),
        }),
        RedirectRequest::Bind(bind) => Some(Redirect { local: address(&bind.local_address_and_port)?, remote: None }),
    }
}

/// `SOCKADDR_IN` or `SOCKADDR_IN6` (ws2def.h, ws2ipdef.h): the family in host byte order, the port in network byte
/// order, then the address, which in IPv6 follows the flow label.
fn storage(address: SocketAddr) -> SockaddrStorage {
    let mut bytes = [0; 128];
    bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(v4) => {
            bytes[..2].copy_from_slice(&AF_INET.to_le_bytes());
            bytes[4..8].copy_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            bytes[..2].copy_from_slice(&AF_INET6.to_le_bytes());
            bytes[8..24].copy_from_slice(&v6.octets());
        }
    }
    SockaddrStorage(bytes)
}

fn address(SockaddrStorage(bytes): &SockaddrStorage) -> Option<SocketAddr> {
    let port = u16::from_be_bytes([bytes[2], bytes[3]]);
    let ip = match u16::from_le_bytes([bytes[0], bytes[1]]) {
        AF_INET => IpAddr::from(*bytes[4..].first_chunk::<4>()?),
        AF_INET6 => IpAddr::from(*bytes[8..].first_chunk::<16>()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_way_there_and_back() {
        for text in ["10.77.0.2:40000", "[2001:db8::10]:443"] {
            let socket: SocketAddr = text.parse().unwrap();
            assert_eq!(address(&storage(socket)), Some(socket));
        }
        assert_eq!(address(&SockaddrStorage([0; 128])), None, "AF_UNSPEC");
        let v4 = storage("10.77.0.2:443".parse().unwrap());
        assert_eq!(v4.0[..8], [2, 0, 0x01, 0xbb, 10, 77, 0, 2]);
    }
}
