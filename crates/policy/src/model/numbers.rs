//! Sets of numbers as ascending disjoint ranges.

/// Ports, protocols, interface LUIDs: ranges in ascending order, neither touching nor overlapping.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NumberSet {
    ranges: Vec<(u64, u64)>,
}

impl NumberSet {
    /// The union of any ranges (first and last).
    #[must_use]
    pub fn from_ranges(mut ranges: Vec<(u64, u64)>) -> Self {
        ranges.retain(|(low, high)| low <= high);
        ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(ranges.len());
        for (low, high) in ranges {
            match merged.last_mut() {
                Some(last) if low <= last.1.saturating_add(1) => last.1 = last.1.max(high),
                _ => merged.push((low, high)),
            }
        }
        Self { ranges: merged }
    }

    /// The ranges, first and last of each.
    #[must_use]
    pub fn ranges(&self) -> &[(u64, u64)] {
        &self.ranges
    }

    /// Whether `value` is in the set.
    #[must_use]
    pub fn contains(&self, value: u64) -> bool {
        let after = self.ranges.partition_point(|range| range.1 < value);
        self.ranges.get(after).is_some_and(|range| range.0 <= value)
    }

    /// What is in this set but not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for &(low, high) in &self.ranges {
            let mut low = Some(low);
            for &(first, last) in &other.ranges {
                let Some(from) = low else { break };
                if last < from || first > high {
                    continue;
                }
                if first > from {
                    left.push((from, first - 1));
                }
                low = last.checked_add(1).filter(|next| *next <= high);
            }
            if let Some(from) = low {
                left.push((from, high));
            }
        }
        Self { ranges: left }
    }

    /// Whether every number of `other` is in this set.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.ranges.iter().all(|&(low, high)| {
            let after = self.ranges.partition_point(|range| range.1 < low);
            self.ranges.get(after).is_some_and(|range| range.0 <= low && high <= range.1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_what_touches() {
        let set = NumberSet::from_ranges(vec![(5, 9), (10, 12), (1, 2), (20, u64::MAX), (30, 40)]);
        assert_eq!(set.ranges(), [(1, 2), (5, 12), (20, u64::MAX)]);
        assert!(set.contains(12) && !set.contains(13) && set.contains(u64::MAX));
    }

    #[test]
    fn takes_away() {
        let set = NumberSet::from_ranges(vec![(0, 100)]);
        let holes = NumberSet::from_ranges(vec![(0, 3), (10, 20), (90, 200)]);
        assert_eq!(set.without(&holes).ranges(), [(4, 9), (21, 89)]);
        assert_eq!(set.without(&set).ranges(), []);
        assert!(set.covers(&set.without(&holes)) && !holes.covers(&set));
    }
}
