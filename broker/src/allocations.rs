//! Counts heap allocations, for benchmarks (feature `count-allocations`).
#![allow(
    unsafe_code,
    reason = "an allocator is unsafe by nature; this one only counts and passes on"
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use takhin_runtime::telemetry::metrics;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

// SAFETY: every call goes to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// Shows the count among the metrics.
pub(crate) fn register() {
    metrics::sampled(
        "takhin_allocations_total",
        "Heap allocations and reallocations since the start",
        || {
            // Exact up to 2^53, which no run reaches.
            #[allow(clippy::cast_precision_loss)]
            Some(ALLOCATIONS.load(Ordering::Relaxed) as f64)
        },
    );
}
