// Copies in threads: as the C library copies, and with stores that go past the caches.

#include <omp.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

constexpr std::size_t kLine = 64;
constexpr std::size_t kSmall = 128 << 10;  // below, waking a second thread costs more than it copies

#if defined(__SSE2__)

// One line of 64 bytes, from anywhere to an aligned place.
inline void stream_line(char* to, const char* from) {
#if defined(__AVX512F__)
  _mm512_stream_si512(reinterpret_cast<__m512i*>(to), _mm512_loadu_si512(from));
#elif defined(__AVX__)
  for (int i = 0; i < 2; ++i) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(to) + i,
                        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from) + i));
  }
#else
  for (int i = 0; i < 4; ++i) {
    _mm_stream_si128(reinterpret_cast<__m128i*>(to) + i, _mm_loadu_si128(reinterpret_cast<const __m128i*>(from) + i));
  }
#endif
}

void stream(char* to, const char* from, std::size_t bytes) {
  std::size_t head = (kLine - reinterpret_cast<std::uintptr_t>(to) % kLine) % kLine;
  head = head < bytes ? head : bytes;
  std::memcpy(to, from, head);
  std::size_t at = head;
  for (; at + 4 * kLine <= bytes; at += 4 * kLine) {
    for (std::size_t line = 0; line < 4; ++line) stream_line(to + at + line * kLine, from + at + line * kLine);
  }
  std::memcpy(to + at, from + at, bytes - at);
  _mm_sfence();
}

#endif

// The part of a thread, in whole lines.
template <typename Copy>
void in_threads(char* to, const char* from, std::size_t bytes, int threads, Copy copy) {
  if (threads == 1 || bytes < kSmall) return copy(to, from, bytes);
#pragma omp parallel num_threads(threads)
  {
    const std::size_t lines = (bytes + kLine - 1) / kLine;
    const std::size_t team = omp_get_num_threads(), me = omp_get_thread_num();
    const std::size_t first = lines * me / team * kLine;
    std::size_t last = lines * (me + 1) / team * kLine;
    last = last < bytes ? last : bytes;
    if (first < last) copy(to + first, from + first, last - first);
  }
}

}  // namespace

extern "C" {

void copy_memcpy(void* to, const void* from, std::size_t bytes, int threads) {
  in_threads(static_cast<char*>(to), static_cast<const char*>(from), bytes, threads,
             [](char* t, const char* f, std::size_t n) { std::memcpy(t, f, n); });
}

// Returns whether this machine has such stores; nothing is copied where it has not.
int copy_stream(void* to, const void* from, std::size_t bytes, int threads) {
#if defined(__SSE2__)
  in_threads(static_cast<char*>(to), static_cast<const char*>(from), bytes, threads, stream);
  return 1;
#else
  (void)to, (void)from, (void)bytes, (void)threads;
  return 0;
#endif
}
}
