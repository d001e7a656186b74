//! Interleaved timing.

use std::{hint::black_box, time::Instant};

/// One way to look up: `run(count, dependent)` makes that many lookups and returns something of their results.
pub(crate) struct Contender<'c> {
    pub(crate) name: &'static str,
    pub(crate) run: Box<dyn Fn(usize, bool) -> u64 + 'c>,
    /// Looks up key `index`.
    pub(crate) once: Box<dyn Fn(usize) -> u64 + 'c>,
}

/// Makes a contender of a lookup over keys. Dependent lookups wait for the one before through a zero that the
/// compiler cannot see is one.
pub(crate) fn contender<'c, K: Copy + 'c>(
    name: &'static str,
    keys: &'c [K],
    look_up: impl Fn(K) -> u32 + Copy + 'c,
) -> Contender<'c> {
    assert!(keys.len().is_power_of_two());
    let mask = keys.len() - 1;
    Contender {
        name,
        run: Box::new(move |count, dependent| {
            let zero = if dependent { black_box(0usize) } else { 0 };
            let mut sum = 0u64;
            if dependent {
                let mut last = 0usize;
                for index in 0..count {
                    last = look_up(keys[(index + (last & zero)) & mask]) as usize;
                    sum = sum.wrapping_add(last as u64);
                }
            } else {
                for index in 0..count {
                    sum = sum.wrapping_add(u64::from(look_up(keys[index & mask])));
                }
            }
            sum
        }),
        once: Box::new(move |index| u64::from(look_up(keys[index & mask]))),
    }
}

/// Nanoseconds of one contender.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timed {
    pub(crate) independent: f64,
    pub(crate) dependent: f64,
    pub(crate) cold_half: f64,
    pub(crate) cold_last: f64,
}

const ROUNDS: usize = 9;
const COLD: usize = 300;

/// Times the contenders in turns.
pub(crate) fn measure(contenders: &[Contender<'_>]) -> Vec<Timed> {
    let counts: Vec<usize> = contenders.iter().map(|one| calibrate(one)).collect();
    let mut rounds = vec![[Vec::new(), Vec::new()]; contenders.len()];
    for round in 0..ROUNDS {
        for (index, contender) in contenders.iter().enumerate() {
            for dependent in [false, true] {
                let start = Instant::now();
                black_box((contender.run)(counts[index], dependent));
                let took = start.elapsed().as_nanos() as f64 / counts[index] as f64;
                if round > 0 {
                    rounds[index][usize::from(dependent)].push(took);
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
    rounds
        .iter_mut()
        .zip(&mut cold)
        .map(|([independent, dependent], cold)| Timed {
            independent: quantile(independent, 0.5),
            dependent: quantile(dependent, 0.5),
            cold_half: quantile(cold, 0.5),
            cold_last: quantile(cold, 0.99),
        })
        .collect()
}

/// How many lookups take about 8 ms.
fn calibrate(contender: &Contender<'_>) -> usize {
    let mut count = 256;
    loop {
        let start = Instant::now();
        black_box((contender.run)(count, false));
        let took = start.elapsed().as_micros();
        if took > 2000 {
            return (count as u128 * 8000 / took) as usize + 1;
        }
        count *= 4;
    }
}

/// The median cost of asking for the time twice.
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

/// Forty thousand random touches of memory, as other work between two flows makes them.
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

/// Prints the rows of one table; ratios are to the first contender.
pub(crate) fn print(title: &str, contenders: &[Contender<'_>], timed: &[Timed], extra: &str) {
    println!("{title}  {extra}");
    for (contender, one) in contenders.iter().zip(timed) {
        println!(
            "  {:<22} {:>8.1} {:>8.1} ns   cold {:>7.0} {:>7.0} ns   ratio {:>6.2} {:>6.2}",
            contender.name,
            one.independent,
            one.dependent,
            one.cold_half,
            one.cold_last,
            one.independent / timed[0].independent,
            one.dependent / timed[0].dependent,
        );
    }
}
