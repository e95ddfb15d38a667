// The least that an operation takes whose statistics must be known before its results: what is read is read twice.
// Arithmetic is an addition an element, so that memory alone is timed.

#include <omp.h>

#include <cstddef>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

typedef float Line __attribute__((vector_size(64)));
constexpr std::size_t kAhead = 256;   // lines; as far as normkit's folds fetch
constexpr std::size_t kPiece = 1024;  // lines; the walk back goes from piece to piece

void put(Line* to, Line line, bool streams) {
  if (!streams) {
    *to = line;
    return;
  }
#if defined(__AVX512F__)
  _mm512_stream_ps(reinterpret_cast<float*>(to), reinterpret_cast<__m512>(line));
#elif defined(__SSE2__)
  const auto* parts = reinterpret_cast<const __m128*>(&line);
  for (int i = 0; i < 4; ++i) _mm_stream_ps(reinterpret_cast<float*>(to) + 4 * i, parts[i]);
#else
  *to = line;
#endif
}

Line fold(const Line* x, std::size_t lines) {
  Line sums[4] = {};
  for (std::size_t i = 0; i + 4 <= lines; i += 4) {
    for (std::size_t j = 0; j < 4; ++j) {
      if (i + j + kAhead < lines) __builtin_prefetch(x + i + j + kAhead, 0, 2);
      sums[j] += x[i + j];
    }
  }
  return sums[0] + sums[1] + sums[2] + sums[3];
}

template <bool two>
void map(const Line* x, const Line* dy, Line* y, std::size_t lines, bool streams) {
  for (std::size_t end = lines; end > 0;) {
    const std::size_t begin = end > kPiece ? end - kPiece : 0;
    for (std::size_t i = begin; i < end; ++i) put(y + i, two ? x[i] + dy[i] : x[i], streams);
    end = begin;
  }
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

}  // namespace

// Reads x, and dy where there is one, if `folds`; then, where there is a y, reads both again from their ends and writes
// y, past the caches if `streams`. Lines of 16 floats, a multiple of 4 for each thread; `sink` takes one for each.
extern "C" void walk(const Line* x, const Line* dy, Line* y, std::size_t lines, int threads, bool folds, bool streams,
                     Line* sink) {
#pragma omp parallel num_threads(threads)
  {
    const std::size_t thread = omp_get_thread_num(), each = lines / threads, first = thread * each;
    if (folds) {
      sink[thread] = fold(x + first, each);
      if (dy != nullptr) sink[thread] += fold(dy + first, each);
    }
    if (y != nullptr && dy != nullptr) map<true>(x + first, dy + first, y + first, each, streams);
    if (y != nullptr && dy == nullptr) map<false>(x + first, nullptr, y + first, each, streams);
  }
}
