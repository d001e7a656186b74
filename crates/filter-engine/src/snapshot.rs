//! The policy in the engine's form: per layer the sublayers by weight, per sublayer the filters by weight.

use crate::filter::CompiledFilter;
use crate::layers::{LayerId, LayerTable};
use sluice_host::Guid;
use std::sync::Arc;

/// All filters, layer by layer.
#[derive(Debug)]
pub(crate) struct Snapshot {
    table: &'static LayerTable,
    layers: Box<[Option<Arc<LayerFilters>>]>,
    /// How often each layer's filters have changed.
    generations: Box<[u64]>,
}

impl Snapshot {
    /// A snapshot without filters.
    pub(crate) fn empty(table: &'static LayerTable) -> Self {
        Self { table, layers: vec![None; table.id_end()].into(), generations: vec![0; table.id_end()].into() }
    }

    /// This snapshot with other filters at some layers.
    pub(crate) fn with(&self, changes: impl IntoIterator<Item = (LayerId, LayerFilters)>) -> Self {
        let mut layers = self.layers.clone();
        let mut generations = self.generations.clone();
        for (id, filters) in changes {
            let index = usize::from(id.0);
            if let (Some(slot), Some(generation)) = (layers.get_mut(index), generations.get_mut(index)) {
                *slot = (!filters.sublayers.is_empty()).then(|| Arc::new(filters));
                *generation += 1;
            }
        }
        Self { table: self.table, layers, generations }
    }

    /// The filters at a layer; `None` when there are none.
    #[inline]
    pub(crate) fn layer(&self, id: LayerId) -> Option<&LayerFilters> {
        self.layers.get(usize::from(id.0))?.as_deref()
    }

    /// How often a layer's filters changed.
    pub(crate) fn generation(&self, id: LayerId) -> u64 {
        self.generations.get(usize::from(id.0)).copied().unwrap_or(0)
    }

    /// The filters at a layer's discard twin.
    pub(crate) fn discard_twin(&self, id: LayerId) -> Option<&LayerFilters> {
        self.layer(self.table.discard_twin(id)?.id)
    }
}

/// The filters of one layer.
#[derive(Debug)]
pub(crate) struct LayerFilters {
    pub(crate) sublayers: Box<[SublayerFilters]>,
    stream: bool,
}

/// The filters of one sublayer at one layer, heaviest first.
#[derive(Debug)]
pub(crate) struct SublayerFilters {
    pub(crate) key: Guid,
    pub(crate) weight: u16,
    /// Breaks a tie between sublayers of equal weight: the one added first comes first.
    order: u64,
    pub(crate) filters: Box<[Arc<CompiledFilter>]>,
}

impl LayerFilters {
    /// Sorts filters into their sublayers; each comes with its sublayer's key, weight and order of creation.
    pub(crate) fn new(filters: impl IntoIterator<Item = (Guid, u16, u64, Arc<CompiledFilter>)>, stream: bool) -> Self {
        let mut sublayers: Vec<(SublayerFilters, Vec<Arc<CompiledFilter>>)> = Vec::new();
        for (key, weight, order, filter) in filters {
            match sublayers.iter_mut().find(|(sublayer, _)| sublayer.key == key) {
                Some((_, list)) => list.push(filter),
                None => sublayers.push((SublayerFilters { key, weight, order, filters: [].into() }, vec![filter])),
            }
        }
        sublayers.sort_by(|(a, _), (b, _)| b.weight.cmp(&a.weight).then(a.order.cmp(&b.order)));
        let sort = |(mut sublayer, mut list): (SublayerFilters, Vec<Arc<CompiledFilter>>)| {
            // The order of filters of equal weight is not documented; here the one added first, with the lower id,
            // comes first.
            list.sort_by(|a, b| b.weight().cmp(&a.weight()).then(a.id().cmp(&b.id())));
            sublayer.filters = list.into();
            sublayer
        };
        Self { sublayers: sublayers.into_iter().map(sort).collect(), stream }
    }

    pub(crate) fn is_stream(&self) -> bool {
        self.stream
    }
}
