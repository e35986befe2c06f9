//! The process's heap.

/// Gives memory that is free back to the system, where the allocator keeps it otherwise: glibc's does wherever something
/// that lives on stands behind it. Looks at the whole heap, so it is for moments in which much was freed.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: may be called at any time from any thread (malloc_trim(3)).
        #[allow(unsafe_code, reason = "no safe crate offers it")]
        unsafe {
            libc::malloc_trim(0);
        }
    }
}
