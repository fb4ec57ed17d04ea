/* sanitizer.h: what AddressSanitizer and ThreadSanitizer have to be told. */
#ifndef ISTI_SANITIZER_H
#define ISTI_SANITIZER_H

#if defined(__SANITIZE_ADDRESS__)
#  define ISTI_POISONS 1
#elif defined(__has_feature)
#  if __has_feature(address_sanitizer)
#    define ISTI_POISONS 1
#  endif
#  if __has_feature(thread_sanitizer)
#    define ISTI_TSAN 1
#  endif
#endif
#if defined(__SANITIZE_THREAD__)
#  define ISTI_TSAN 1
#endif
#ifndef ISTI_POISONS
#  define ISTI_POISONS 0
#endif
#ifndef ISTI_TSAN
#  define ISTI_TSAN 0
#endif

/* ThreadSanitizer doesn't know fences, and gcc says so. Ours order atomic accesses only, so nothing is reported for lack of them. */
#if ISTI_TSAN && defined(__GNUC__) && !defined(__clang__)
#  pragma GCC diagnostic ignored "-Wtsan"
#endif

/* Freed blocks and the rest behind a block's exact size are poisoned, as malloc's are: AddressSanitizer doesn't know our heap. */
#if ISTI_POISONS
#  include <sanitizer/asan_interface.h>
#  define isti_poison(p, n) ASAN_POISON_MEMORY_REGION((p), (n))
#  define isti_unpoison(p, n) ASAN_UNPOISON_MEMORY_REGION((p), (n))
#else
#  define isti_poison(p, n) ((void)(p), (void)(n))
#  define isti_unpoison(p, n) ((void)(p), (void)(n))
#endif

#endif
