//! What the filter engine passes to a classify, and the answer.

use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    ops::{Deref, DerefMut},
    slice,
};

use wfp_sys::{
    FWP_ACTION_BLOCK, FWP_ACTION_CONTINUE, FWP_ACTION_PERMIT, FWP_DATA_TYPE_, FWP_VALUE0,
    FWPS_BUILTIN_LAYERS_ as Layers, FWPS_CLASSIFY_OUT_FLAG_ABSORB, FWPS_CLASSIFY_OUT0, FWPS_DISCARD_MODULE0_,
    FWPS_FILTER3, FWPS_INCOMING_METADATA_VALUES0, FWPS_INCOMING_VALUE0, FWPS_METADATA_FIELD_DISCARD_REASON,
    FWPS_METADATA_FIELD_FLOW_HANDLE, FWPS_METADATA_FIELD_PROCESS_ID, FWPS_METADATA_FIELD_TRANSPORT_HEADER_SIZE,
    FWPS_RIGHT_ACTION_WRITE, FWPS_STREAM_CALLOUT_IO_PACKET0, NET_BUFFER_LIST,
};

use crate::irql::AtDispatch;

use super::{
    Answer, Flow, Outcome, PacketList, Stream, Token,
    answer::{Action, State, apply},
    token,
};

/// One call of classifyFn, at the IRQL it came at: <= DISPATCH_LEVEL. Everything borrowed from it lives until the call
/// returns.
pub struct Call<'a, F: 'static> {
    pub(super) layer: u16,
    pub(super) values: &'a [FWPS_INCOMING_VALUE0],
    pub(super) metadata: &'a FWPS_INCOMING_METADATA_VALUES0,
    pub(super) layer_data: *mut core::ffi::c_void,
    pub(super) filter: &'a FWPS_FILTER3,
    pub(super) flow: Option<&'a Flow<F>>,
    pub(super) out: &'a mut FWPS_CLASSIFY_OUT0,
}

/// One call of classifyFn, at DISPATCH_LEVEL.
pub struct Classify<'a, F: 'static> {
    pub(super) call: Call<'a, F>,
    pub(super) dispatch: &'a AtDispatch,
}

impl<'a, F: 'static> Classify<'a, F> {
    /// Evidence that the call runs at DISPATCH_LEVEL.
    #[must_use]
    pub const fn dispatch(&self) -> &'a AtDispatch {
        self.dispatch
    }
}

impl<'a, F: 'static> Deref for Classify<'a, F> {
    type Target = Call<'a, F>;
    fn deref(&self) -> &Call<'a, F> {
        &self.call
    }
}

impl<F: 'static> DerefMut for Classify<'_, F> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.call
    }
}

impl<'a, F: 'static> Call<'a, F> {
    /// The run-time layer id.
    #[must_use]
    pub const fn layer(&self) -> u16 {
        self.layer
    }

    /// The run-time id of the filter that called the callout.
    #[must_use]
    pub const fn filter_id(&self) -> u64 {
        self.filter.filterId
    }

    /// The flow context that this driver associated with the flow for this callout.
    #[must_use]
    pub const fn flow(&self) -> Option<&'a Flow<F>> {
        self.flow
    }

    fn value(&self, field: u16) -> Option<&'a FWP_VALUE0> {
        self.values.get(usize::from(field)).map(|incoming| &incoming.value)
    }

    /// A field of type FWP_UINT8.
    #[must_use]
    pub fn u8(&self, field: u16) -> Option<u8> {
        let value = self.value(field).filter(|value| value.type_ == FWP_DATA_TYPE_::FWP_UINT8)?;
        // SAFETY: the type says that uint8 is the member in use.
        Some(unsafe { value.__bindgen_anon_1.uint8 })
    }

    /// A field of type FWP_UINT16.
    #[must_use]
    pub fn u16(&self, field: u16) -> Option<u16> {
        let value = self.value(field).filter(|value| value.type_ == FWP_DATA_TYPE_::FWP_UINT16)?;
        // SAFETY: the type says that uint16 is the member in use.
        Some(unsafe { value.__bindgen_anon_1.uint16 })
    }

    /// A field of type FWP_UINT32.
    #[must_use]
    pub fn u32(&self, field: u16) -> Option<u32> {
        let value = self.value(field).filter(|value| value.type_ == FWP_DATA_TYPE_::FWP_UINT32)?;
        // SAFETY: the type says that uint32 is the member in use.
        Some(unsafe { value.__bindgen_anon_1.uint32 })
    }

    /// An address field: FWP_UINT32 in host order, or FWP_BYTE_ARRAY16_TYPE in network order.
    #[must_use]
    pub fn address(&self, field: u16) -> Option<IpAddr> {
        if let Some(address) = self.u32(field) {
            return Some(Ipv4Addr::from(address).into());
        }
        let value = self.value(field)?;
        if value.type_ != FWP_DATA_TYPE_::FWP_BYTE_ARRAY16_TYPE {
            return None;
        }
        // SAFETY: the type says that byteArray16 is the member in use: null or a pointer to 16 bytes that live as long
        // as the call.
        let bytes = unsafe { value.__bindgen_anon_1.byteArray16.as_ref() }?;
        Some(Ipv6Addr::from(bytes.byteArray16).into())
    }

    /// A field of type FWP_BYTE_BLOB_TYPE.
    #[must_use]
    pub fn blob(&self, field: u16) -> Option<&'a [u8]> {
        let value = self.value(field)?;
        if value.type_ != FWP_DATA_TYPE_::FWP_BYTE_BLOB_TYPE {
            return None;
        }
        // SAFETY: the type says that byteBlob is the member in use: null or a pointer to a blob that lives as long as
        // the call.
        let blob = unsafe { value.__bindgen_anon_1.byteBlob.as_ref() }?;
        if blob.data.is_null() {
            return None;
        }
        // SAFETY: the blob describes that many bytes, which live as long as the call.
        Some(unsafe { slice::from_raw_parts(blob.data, blob.size as usize) })
    }

    /// A field of type FWP_UINT64.
    #[must_use]
    pub fn u64(&self, field: u16) -> Option<u64> {
        let value = self.value(field).filter(|value| value.type_ == FWP_DATA_TYPE_::FWP_UINT64)?;
        // SAFETY: the type says that uint64 is the member in use: null or a pointer to a number that lives as long as the
        // call.
        unsafe { value.__bindgen_anon_1.uint64.as_ref() }.copied()
    }

    /// The owner's token in a field of type FWP_TOKEN_ACCESS_INFORMATION_TYPE.
    #[must_use]
    pub fn token(&self, field: u16) -> Option<Token<'a>> {
        let value = self.value(field)?;
        if value.type_ != FWP_DATA_TYPE_::FWP_TOKEN_ACCESS_INFORMATION_TYPE {
            return None;
        }
        // SAFETY: the type says that tokenAccessInformation is the member in use: null or a pointer to a blob that lives
        // as long as the call.
        let blob = unsafe { value.__bindgen_anon_1.tokenAccessInformation.as_ref() }?;
        // SAFETY: the engine's blob, which lives as long as the call.
        unsafe { Token::of(blob) }
    }

    /// A field of type FWP_SID: a SID in its binary form.
    #[must_use]
    pub fn sid(&self, field: u16) -> Option<&'a [u8]> {
        let value = self.value(field)?;
        if value.type_ != FWP_DATA_TYPE_::FWP_SID {
            return None;
        }
        // SAFETY: the type says that sid is the member in use: null or a pointer to a SID that lives as long as the call.
        unsafe { token::sid(value.__bindgen_anon_1.sid.cast::<u8>()) }
    }

    const fn has(&self, metadata_field: u32) -> bool {
        self.metadata.currentMetadataValues & metadata_field != 0
    }

    /// The flow's handle, if the layer has one.
    #[must_use]
    pub fn flow_handle(&self) -> Option<u64> {
        self.has(FWPS_METADATA_FIELD_FLOW_HANDLE).then_some(self.metadata.flowHandle)
    }

    /// The process, if the layer reports it.
    #[must_use]
    pub fn process_id(&self) -> Option<u64> {
        self.has(FWPS_METADATA_FIELD_PROCESS_ID).then_some(self.metadata.processId)
    }

    /// Whether a filter is why the packet is discarded, at a layer of discarded packets.
    #[must_use]
    pub fn is_discarded_by_a_filter(&self) -> bool {
        self.has(FWPS_METADATA_FIELD_DISCARD_REASON)
            && self.metadata.discardMetadata.discardModule == FWPS_DISCARD_MODULE0_::FWPS_DISCARD_MODULE_GENERAL
    }

    /// The size of the transport header in bytes, if the layer reports it.
    #[must_use]
    pub fn transport_header_size(&self) -> Option<u32> {
        self.has(FWPS_METADATA_FIELD_TRANSPORT_HEADER_SIZE).then_some(self.metadata.transportHeaderSize)
    }

    /// The packets, at a transport or datagram layer, where packets are passed on and where ICMP errors are sent; None elsewhere.
    #[must_use]
    pub fn packets(&self) -> Option<PacketList<'a>> {
        let layer = self.layer;
        if !is_transport(layer) && !is_datagram(layer) && !is_forward(layer) && !is_icmp_error(layer) {
            return None;
        }
        // SAFETY: at these layers the layer data is a NET_BUFFER_LIST or null, lent for the time of the call; the layer
        // id comes from the engine.
        unsafe { self.layer_data.cast::<NET_BUFFER_LIST>().as_ref() }.map(PacketList::new)
    }

    /// The stream data, at a stream layer; None elsewhere.
    pub fn stream(&mut self) -> Option<Stream<'_>> {
        if !is_stream(self.layer) {
            return None;
        }
        // SAFETY: at these layers the layer data is a FWPS_STREAM_CALLOUT_IO_PACKET0, lent for the time of the call; the
        // layer id comes from the engine.
        let packet = unsafe { self.layer_data.cast::<FWPS_STREAM_CALLOUT_IO_PACKET0>().as_mut() }?;
        Stream::new(packet, self.out)
    }

    /// Writes the answer, as far as the rights allow.
    pub fn answer(&mut self, answer: Answer) -> Outcome {
        let before = State {
            action: match self.out.actionType {
                FWP_ACTION_PERMIT => Action::Permit,
                FWP_ACTION_BLOCK => Action::Block,
                FWP_ACTION_CONTINUE => Action::Continue,
                _ => Action::Undecided,
            },
            may_write: self.out.rights & FWPS_RIGHT_ACTION_WRITE != 0,
        };
        let (after, outcome) = apply(before, answer);
        if after.action != before.action {
            self.out.actionType = match after.action {
                Action::Permit => FWP_ACTION_PERMIT,
                Action::Block => FWP_ACTION_BLOCK,
                Action::Continue | Action::Undecided => FWP_ACTION_CONTINUE,
            };
        }
        if !after.may_write {
            self.out.rights &= !FWPS_RIGHT_ACTION_WRITE;
        }
        outcome
    }

    /// Drops blocked packets silently: without notice to their sender and without an entry in the event log or the net
    /// events (FWPS_CLASSIFY_OUT_FLAG_ABSORB). Only at the transport layers and that of discarded packets; elsewhere the
    /// flag means other things and nothing is done.
    pub fn absorb(&mut self) {
        if (is_transport(self.layer) || is_discard(self.layer)) && self.out.actionType == FWP_ACTION_BLOCK {
            self.out.flags |= FWPS_CLASSIFY_OUT_FLAG_ABSORB;
        }
    }
}

/// The transport layers, whose layer data is a NET_BUFFER_LIST.
const fn is_transport(layer: u16) -> bool {
    const INBOUND_V4: u16 = Layers::FWPS_LAYER_INBOUND_TRANSPORT_V4 as u16;
    const INBOUND_V6: u16 = Layers::FWPS_LAYER_INBOUND_TRANSPORT_V6 as u16;
    const OUTBOUND_V4: u16 = Layers::FWPS_LAYER_OUTBOUND_TRANSPORT_V4 as u16;
    const OUTBOUND_V6: u16 = Layers::FWPS_LAYER_OUTBOUND_TRANSPORT_V6 as u16;
    matches!(layer, INBOUND_V4 | INBOUND_V6 | OUTBOUND_V4 | OUTBOUND_V6)
}

/// The datagram layers, whose layer data is a NET_BUFFER_LIST too.
const fn is_datagram(layer: u16) -> bool {
    const V4: u16 = Layers::FWPS_LAYER_DATAGRAM_DATA_V4 as u16;
    const V6: u16 = Layers::FWPS_LAYER_DATAGRAM_DATA_V6 as u16;
    matches!(layer, V4 | V6)
}

/// The layers of ICMP errors that are sent, whose layer data is a NET_BUFFER_LIST too.
const fn is_icmp_error(layer: u16) -> bool {
    const V4: u16 = Layers::FWPS_LAYER_OUTBOUND_ICMP_ERROR_V4 as u16;
    const V6: u16 = Layers::FWPS_LAYER_OUTBOUND_ICMP_ERROR_V6 as u16;
    matches!(layer, V4 | V6)
}

/// The layers of packets that are passed on, whose layer data is a NET_BUFFER_LIST too.
const fn is_forward(layer: u16) -> bool {
    const V4: u16 = Layers::FWPS_LAYER_IPFORWARD_V4 as u16;
    const V6: u16 = Layers::FWPS_LAYER_IPFORWARD_V6 as u16;
    matches!(layer, V4 | V6)
}

/// The layers of received packets that the transport layer discards.
const fn is_discard(layer: u16) -> bool {
    const V4: u16 = Layers::FWPS_LAYER_INBOUND_TRANSPORT_V4_DISCARD as u16;
    const V6: u16 = Layers::FWPS_LAYER_INBOUND_TRANSPORT_V6_DISCARD as u16;
    matches!(layer, V4 | V6)
}

/// The stream layers.
const fn is_stream(layer: u16) -> bool {
    const V4: u16 = Layers::FWPS_LAYER_STREAM_V4 as u16;
    const V6: u16 = Layers::FWPS_LAYER_STREAM_V6 as u16;
    matches!(layer, V4 | V6)
}
