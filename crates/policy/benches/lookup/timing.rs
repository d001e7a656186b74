//! Interleaved timing: contenders take turns, each warmed up and then timed in slices so short that most are not
//! interrupted.

use std::{hint::black_box, io::Write, time::Instant};

/// One way to look up: `run(start, count, dependent)` makes that many lookups and returns something of their results.
pub(crate) struct Contender<'c> {
    pub(crate) name: &'static str,
    run: Box<dyn Fn(usize, usize, bool) -> u64 + 'c>,
    /// Looks up key `index`.
    pub(crate) once: Box<dyn Fn(usize) -> u64 + 'c>,
}

/// Makes a contender of a lookup over keys. Dependent lookups wait for the previous one through a zero that the
/// compiler cannot recognize.
pub(crate) fn contender<'c, K: Copy + 'c>(
    name: &'static str,
    keys: &'c [K],
    look_up: impl Fn(K) -> u32 + Copy + 'c,
) -> Contender<'c> {
    assert!(keys.len().is_power_of_two());
    let mask = keys.len() - 1;
    Contender {
        name,
        run: Box::new(move |start, count, dependent| {
            let mut sum = 0u64;
            if dependent {
                let zero = black_box(0usize);
                let mut last = 0usize;
                for index in start..start + count {
                    last = look_up(keys[(index + (last & zero)) & mask]) as usize;
                    sum = sum.wrapping_add(last as u64);
                }
            } else {
                for index in start..start + count {
                    sum = sum.wrapping_add(u64::from(look_up(keys[index & mask])));
                }
            }
            sum
        }),
        once: Box::new(move |index| u64::from(look_up(keys[index & mask]))),
    }
}

/// Nanoseconds of one contender: medians of the slices, the fastest tenth of the slices (an otherwise idle machine),
/// and single lookups with cold caches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timed {
    pub(crate) independent: f64,
    pub(crate) dependent: f64,
    pub(crate) quiet_independent: f64,
    pub(crate) quiet_dependent: f64,
    pub(crate) cold_half: f64,
    pub(crate) cold_last: f64,
}

const ROUNDS: usize = 15;
/// How long a slice takes, in nanoseconds; a round is all keys once, then [`WARM`] uncounted slices, which bring a
/// contender's working set back into the caches, and [`COUNTED`] counted ones.
const SLICE: u128 = 100_000;
const WARM: usize = 30;
const COUNTED: usize = 20;
/// As many lookups as there are keys.
const ALL_KEYS: usize = 1 << 16;
/// Slower contenders are not warmed up with all keys.
const LONG: std::time::Duration = std::time::Duration::from_millis(100);
const COLD: usize = 300;

/// Times the contenders in turns.
pub(crate) fn measure(contenders: &[Contender<'_>]) -> Vec<Timed> {
    let counts: Vec<usize> = contenders.iter().map(calibrate).collect();
    let mut rounds = vec![[Vec::new(), Vec::new()]; contenders.len()];
    for _ in 0..ROUNDS {
        for (index, contender) in contenders.iter().enumerate() {
            let count = counts[index];
            let mut next = 0;
            for dependent in [false, true] {
                // Every key once, if that is quick: a warm lookup is of a key that was looked up before.
                let begun = Instant::now();
                while next < ALL_KEYS && begun.elapsed() < LONG {
                    black_box((contender.run)(next, count, dependent));
                    next += count;
                }
                for slice in 0..WARM + COUNTED {
                    let start = Instant::now();
                    black_box((contender.run)(next, count, dependent));
                    let took = start.elapsed().as_nanos() as f64 / count as f64;
                    if slice >= WARM {
                        rounds[index][usize::from(dependent)].push(took);
                    }
                    next += count;
                }
            }
        }
    }
    let mut cold = vec![Vec::new(); contenders.len()];
    let mut thrash = Thrash::new();
    let idle = timer();
    for sample in 0..COLD {
        for (index, contender) in contenders.iter().enumerate() {
            thrash.run();
            let start = Instant::now();
            black_box((contender.once)(sample * 7919));
            cold[index].push((start.elapsed().as_nanos() as f64 - idle).max(0.0));
        }
    }
    let quantile = |values: &mut Vec<f64>, part: f64| {
        values.sort_by(f64::total_cmp);
        values[((values.len() - 1) as f64 * part) as usize]
    };
    // A scan's slice is a few lookups whose cost depends on the position of their rule: the mean of the uninterrupted
    // slices is the cost of one.
    let middle = |values: &mut Vec<f64>, count: usize| {
        let median = quantile(values, 0.5);
        if count >= 64 {
            return median;
        }
        let kept: Vec<f64> = values.iter().copied().filter(|one| *one <= 10.0 * median).collect();
        kept.iter().sum::<f64>() / kept.len() as f64
    };
    rounds
        .iter_mut()
        .zip(&mut cold)
        .zip(&counts)
        .map(|(([independent, dependent], cold), count)| Timed {
            independent: middle(independent, *count),
            dependent: middle(dependent, *count),
            quiet_independent: quantile(independent, 0.1),
            quiet_dependent: quantile(dependent, 0.1),
            cold_half: quantile(cold, 0.5),
            cold_last: quantile(cold, 0.99),
        })
        .collect()
}

/// How many lookups fill about one slice.
fn calibrate(contender: &Contender<'_>) -> usize {
    let mut count = 1;
    loop {
        let start = Instant::now();
        black_box((contender.run)(0, count, false));
        let took = start.elapsed().as_nanos();
        if took > SLICE / 4 {
            return ((count as u128 * SLICE / took) as usize).clamp(1, count * 8);
        }
        count *= 2;
    }
}

/// The median cost of reading the clock twice.
fn timer() -> f64 {
    let mut samples: Vec<u128> = (0..1001)
        .map(|_| {
            let start = Instant::now();
            start.elapsed().as_nanos()
        })
        .collect();
    samples.sort_unstable();
    samples[samples.len() / 2] as f64
}

/// Forty thousand random memory accesses, as other work makes between two flows.
struct Thrash {
    memory: Vec<u64>,
    state: u64,
}

impl Thrash {
    fn new() -> Self {
        Self { memory: vec![1; (96 << 20) / 8], state: 88_172_645_463_325_252 }
    }

    fn run(&mut self) {
        for _ in 0..40_000 {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            let place = (self.state % self.memory.len() as u64) as usize;
            self.memory[place] = self.memory[place].wrapping_add(self.state);
        }
    }
}

/// Prints the rows of one table: medians, the fastest tenth in brackets, cold p50 and p99, and the ratio to the first
/// contender's time.
pub(crate) fn print(title: &str, contenders: &[Contender<'_>], timed: &[Timed], extra: &str) {
    let mut text = format!("{title}  {extra}\n");
    for (contender, one) in contenders.iter().zip(timed) {
        text.push_str(&format!(
            "  {:<20} {:>8.1} {:>8.1}   ({:>7.1} {:>7.1}) ns   cold {:>6.0} {:>6.0} ns   ratio {:>6.2} {:>6.2}\n",
            contender.name,
            one.independent,
            one.dependent,
            one.quiet_independent,
            one.quiet_dependent,
            one.cold_half,
            one.cold_last,
            one.independent / timed[0].independent,
            one.dependent / timed[0].dependent,
        ));
    }
    std::io::stdout().write_all(text.as_bytes()).expect("standard output takes the table");
}
