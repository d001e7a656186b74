//! The objects of one machine, found by their keys and numbers.

use crate::Key;
use crate::read::{Item, ReadError, read};
use crate::record::{Callout, Filter, Layer, NetEvent, Provider, Sublayer};
use filter_engine::layers::{LayerId, LayerTable, WindowsVersion};
use filter_engine::names::builtin_sublayers;
use std::collections::HashMap;
use std::io::Read;
use std::ops::ControlFlow;

/// The most filters of one machine that are kept.
pub const MOST_FILTERS: usize = 1_000_000;

/// The objects of one machine. Which kinds there are depends on the source: `show filters` lists neither sublayers nor
/// callouts.
#[derive(Clone, Debug, Default)]
pub struct Platform {
    /// When the state was written, as the file spells it.
    pub time: Option<String>,
    /// The layers; empty when the source has none.
    pub layers: Vec<Layer>,
    /// The callouts; empty when the source has none.
    pub callouts: Vec<Callout>,
    /// The providers.
    pub providers: Vec<Provider>,
    /// The sublayers; when the source has none, those that are built into Windows, with the weights that live machines
    /// show.
    pub sublayers: Vec<Sublayer>,
    /// The filters.
    pub filters: Vec<Filter>,
    /// The source lists callouts, so that one that is not there does not exist.
    pub lists_callouts: bool,
    /// The source lists sublayers.
    pub lists_sublayers: bool,
    pub(crate) by_id: HashMap<u64, usize>,
    pub(crate) by_key: HashMap<Key, usize>,
}

impl Platform {
    /// Reads the objects of a file of `netsh wfp`, and shows its events to `each_event`.
    ///
    /// # Errors
    /// As [`read`]; the file has more than [`MOST_FILTERS`] filters.
    pub fn read(input: impl Read, each_event: &mut dyn FnMut(NetEvent)) -> Result<Self, ReadError> {
        let mut platform = Self::default();
        let mut too_many = false;
        read(input, &mut |item| {
            match item {
                Item::Filter(filter) => platform.filters.push(filter),
                Item::Layer(layer) => platform.layers.push(layer),
                Item::Callout(callout) => platform.callouts.push(callout),
                Item::Provider(provider) => platform.providers.push(provider),
                Item::Sublayer(sublayer) => platform.sublayers.push(sublayer),
                Item::Event(event) | Item::Audit(_, event) => each_event(event),
                Item::Time(time) => platform.time = Some(time),
            }
            too_many = platform.filters.len() > MOST_FILTERS;
            if too_many { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if too_many {
            let what = format!("more than {MOST_FILTERS} filters: no machine has so many");
            return Err(ReadError { line: 0, what });
        }
        Ok(platform.indexed())
    }

    /// Completes what was collected. A filter that comes twice, as in a capture's state and in its changes, counts once,
    /// as it came last.
    #[must_use]
    pub fn indexed(mut self) -> Self {
        self.lists_callouts = !self.callouts.is_empty() || !self.layers.is_empty();
        self.lists_sublayers = !self.sublayers.is_empty();
        if !self.lists_sublayers {
            self.sublayers = builtin_sublayers().iter().map(built_in).collect();
        }
        // The heaviest first, as they are evaluated.
        self.sublayers.sort_by_key(|sublayer| std::cmp::Reverse(sublayer.weight));
        self.callouts.sort_by_key(|callout| callout.id);
        let mut last = HashMap::new();
        for (index, filter) in self.filters.iter().enumerate() {
            last.insert(filter.id, index);
        }
        if last.len() < self.filters.len() {
            let mut index = 0;
            self.filters.retain(|filter| {
                index += 1;
                last.get(&filter.id) == Some(&(index - 1))
            });
        }
        self.by_id = self.filters.iter().enumerate().map(|(index, filter)| (filter.id, index)).collect();
        self.by_key = self.filters.iter().enumerate().map(|(index, filter)| (filter.key.clone(), index)).collect();
        self
    }

    /// A filter by its filterId.
    #[must_use]
    pub fn filter(&self, id: u64) -> Option<&Filter> {
        self.filters.get(*self.by_id.get(&id)?)
    }

    /// A filter by its filterKey.
    #[must_use]
    pub fn filter_by_key(&self, key: &Key) -> Option<&Filter> {
        self.filters.get(*self.by_key.get(key)?)
    }

    /// A sublayer.
    #[must_use]
    pub fn sublayer(&self, key: &Key) -> Option<&Sublayer> {
        self.sublayers.iter().find(|sublayer| sublayer.key == *key)
    }

    /// A provider.
    #[must_use]
    pub fn provider(&self, key: &Key) -> Option<&Provider> {
        self.providers.iter().find(|provider| provider.key == *key)
    }

    /// A callout.
    #[must_use]
    pub fn callout(&self, key: &Key) -> Option<&Callout> {
        self.callouts.iter().find(|callout| callout.key == *key)
    }

    /// The key of the layer with a run-time id. The ids from 82 on differ between versions of Windows, so without the
    /// machine's own list they name no layer.
    #[must_use]
    pub fn layer_key(&self, id: u16) -> Option<Key> {
        if !self.layers.is_empty() {
            return self.layers.iter().find(|layer| layer.id == id).map(|layer| layer.key.clone());
        }
        let table = LayerTable::of(WindowsVersion::Win24H2);
        (id < 82).then(|| table.get(LayerId(id)))?.map(|layer| Key::Guid(layer.key))
    }

    /// A provider's name, or its key.
    #[must_use]
    pub fn provider_name(&self, key: &Key) -> String {
        named(self.provider(key).map(|provider| provider.name.as_str()), key)
    }

    /// A sublayer's name, or its key.
    #[must_use]
    pub fn sublayer_name(&self, key: &Key) -> String {
        match key.guid().and_then(filter_engine::names::name_of) {
            Some(_) => key.short(),
            None => named(self.sublayer(key).map(|sublayer| sublayer.name.as_str()), key),
        }
    }

    /// A callout's name, or its key.
    #[must_use]
    pub fn callout_name(&self, key: &Key) -> String {
        named(self.callout(key).map(|callout| callout.name.as_str()), key)
    }
}

fn named(name: Option<&str>, key: &Key) -> String {
    match name {
        // What Windows takes from its own resources was not looked up.
        Some(name) if !name.is_empty() && !name.starts_with('@') => name.to_owned(),
        _ => key.short(),
    }
}

fn built_in(sublayer: &filter_engine::names::BuiltinSublayer) -> Sublayer {
    Sublayer {
        key: Key::Guid(sublayer.key),
        name: sublayer.name.to_owned(),
        description: String::new(),
        flags: Vec::new(),
        provider: None,
        weight: sublayer.weight,
    }
}
