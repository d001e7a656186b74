//! The data to measure with: real data if available, otherwise generated data.

use sluice_policy::{CompileOptions, Image, compile, parse};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

/// A fixed pseudo-random sequence.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 8
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// The text of a file of the data folder, if there is one.
pub(crate) fn text(name: &str) -> Option<String> {
    let folder = std::env::var_os("SLUICE_DATA").map(PathBuf::from)?;
    std::fs::read_to_string(folder.join(name)).ok()
}

/// A compiled policy and what compiling it took.
pub(crate) struct Built {
    pub(crate) image: Image<Vec<u8>>,
    pub(crate) parse_ms: f64,
    pub(crate) compile_ms: f64,
    pub(crate) validate_ms: f64,
    pub(crate) peak: usize,
}

impl Built {
    pub(crate) fn summary(&self, entries: usize) -> String {
        format!(
            "{} B, {:.1} B/entry; parse {:.0} ms, compile {:.0} ms, validate {:.1} ms, peak {:.1} x image",
            self.image.as_bytes().len(),
            self.image.as_bytes().len() as f64 / entries as f64,
            self.parse_ms,
            self.compile_ms,
            self.validate_ms,
            self.peak as f64 / self.image.as_bytes().len() as f64,
        )
    }
}

/// Parses and compiles a policy with one list file.
pub(crate) fn build(text: &str, list: &str) -> Built {
    build_with(text, BTreeMap::from([(PathBuf::from("list"), list.as_bytes().to_vec())]))
}

/// Parses and compiles a policy with its list files.
pub(crate) fn build_with(text: &str, files: BTreeMap<PathBuf, Vec<u8>>) -> Built {
    let start = Instant::now();
    let policy = parse(Path::new("bench.toml"), text, &files).unwrap_or_else(|errors| panic!("{errors}"));
    drop(files);
    let parse_ms = milliseconds(start);
    let options = CompileOptions { application: &|path| Ok(path.to_owned()), key: [0x5a; 16], at: None };
    let before = crate::data::alloc::restart();
    let start = Instant::now();
    let bytes = compile(&policy, &options).unwrap_or_else(|errors| panic!("{errors}"));
    let compile_ms = milliseconds(start);
    let peak = alloc::peak() - before;
    let start = Instant::now();
    let image = Image::validate(bytes).unwrap();
    Built { image, parse_ms, compile_ms, validate_ms: milliseconds(start), peak }
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Counts what is allocated, for the peak of a compilation.
pub(crate) mod alloc {
    use std::{
        alloc::{GlobalAlloc, Layout, System},
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };

    static NOW: AtomicUsize = AtomicUsize::new(0);
    static PEAK: AtomicUsize = AtomicUsize::new(0);

    struct Counting;

    // SAFETY: every call is passed on to the system's allocator as it came; counting touches no memory of the caller.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            let now = NOW.fetch_add(layout.size(), Relaxed) + layout.size();
            PEAK.fetch_max(now, Relaxed);
            // SAFETY: the caller's promises are those of `System`.
            unsafe { System.alloc(paged(layout)) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            NOW.fetch_sub(layout.size(), Relaxed);
            // SAFETY: the block came from `System`, through `alloc` above.
            unsafe { System.dealloc(block, paged(layout)) }
        }
    }

    /// Like the kernel's pool: blocks of a page or more are page-aligned.
    fn paged(layout: Layout) -> Layout {
        if layout.size() < 4096 { layout } else { layout.align_to(4096).unwrap_or(layout) }
    }

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    /// Starts a new peak and returns what is allocated now.
    pub(crate) fn restart() -> usize {
        let now = NOW.load(Relaxed);
        PEAK.store(now, Relaxed);
        now
    }

    /// The most that was allocated since then.
    pub(crate) fn peak() -> usize {
        PEAK.load(Relaxed)
    }
}
