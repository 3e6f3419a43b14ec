//! Latencies in buckets of a half octave.

/// Durations from half a millisecond to half a minute; an error of at most a factor of √2.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Histogram {
    buckets: [u32; BUCKETS],
}

const BUCKETS: usize = 32;
/// Upper bound of the first bucket, in nanoseconds.
const FIRST: f64 = 500_000.0;

impl Histogram {
    pub fn add(&mut self, nanos: u64) {
        let octaves = (nanos as f64 / FIRST).max(1.0).log2();
        let bucket = ((octaves * 2.0).ceil() as usize).min(BUCKETS - 1);
        self.buckets[bucket] = self.buckets[bucket].saturating_add(1);
    }

    /// The upper bound, in milliseconds and to three digits after the point, of the bucket in which the given share of all durations ends.
    pub fn percentile(&self, share: f64) -> Option<f64> {
        let total: u64 = self.buckets.iter().map(|&count| u64::from(count)).sum();
        let wanted = (total as f64 * share).ceil() as u64;
        let mut seen = 0;
        let found = self.buckets.iter().position(|&count| {
            seen += u64::from(count);
            seen >= wanted
        });
        let bound = |bucket: usize| FIRST / 1e3 * (bucket as f64 / 2.0).exp2();
        found.filter(|_| total > 0).map(|bucket| bound(bucket).ceil() / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_within_a_half_octave() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(0.5), None);
        for millis in 1..=1000 {
            histogram.add(millis * 1_000_000);
        }
        for (share, millis) in [(0.5, 500.0), (0.95, 950.0), (0.99, 990.0)] {
            let found = histogram.percentile(share).unwrap();
            assert!((millis..millis * 1.4143).contains(&found), "{share}: {found}");
        }
        histogram.add(0);
        histogram.add(u64::MAX);
        assert!(histogram.percentile(1.0).unwrap() > 20_000.0);
    }
}
