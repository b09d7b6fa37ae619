/* Compiler and machine facts that every header of ours relies on. Little-endian x86-64 or AArch64 only: rings, wire and
 * journal hold host integers. */
#ifndef BULLRING_PLATFORM_H
#define BULLRING_PLATFORM_H

#include <stdatomic.h>
#include <stdint.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "Bullring's rings, frames and journals are little-endian"
#endif

/* Adjacent-line prefetch fetches pairs of 64-byte lines, so a "line of one's own" is 128 bytes. */
#define CACHE_LINE 128

#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

#if defined(__x86_64__)
#define CPU_RELAX() __builtin_ia32_pause()
/* asm, because gcc 12 deletes calls to functions whose body only prefetches (LIMITS section 9). */
#define PREFETCH(address) __asm__ volatile("prefetcht0 %0" ::"m"(*(const char *)(address)))
#elif defined(__aarch64__)
#define CPU_RELAX() __asm__ volatile("yield" ::: "memory")
#define PREFETCH(address) __builtin_prefetch(address)
#else
#error "unsupported machine"
#endif

/* gcc's ThreadSanitizer neither models nor allows atomic_thread_fence() (-Wtsan). What our fences order is then ordered by the
 * machine alone; the sanitizer still sees every release and acquire on the cursors. */
#if defined(__SANITIZE_THREAD__) && defined(__x86_64__)
#define MEMORY_FENCE(order) __asm__ volatile("mfence" ::: "memory")
#elif defined(__SANITIZE_THREAD__)
#define MEMORY_FENCE(order) __asm__ volatile("dmb ish" ::: "memory")
#else
#define MEMORY_FENCE(order) atomic_thread_fence(order)
#endif

__extension__ typedef __int128 int128_t;
__extension__ typedef unsigned __int128 uint128_t;

#endif
