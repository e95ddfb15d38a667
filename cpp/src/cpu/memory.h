// Between memory and vectors. Loads convert the stored type to the working type, stores round to nearest even; neither
// asks for alignment, but for streaming.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/lanes.h"
#include "half.h"

namespace normkit::detail {
namespace {

// --- loads: float and double as they are, halves to float, anything to double -------------------------------------

template <class C>
NORMKIT_INLINE Vec<C> load(const C* p) {
  return {reinterpret_cast<const typename Native<C>::Unaligned*>(p)[0]};
}

// Not inlined: where it is not a matter of blocks that are folded again in double, the instruction set has no better.
template <class C, class S>
__attribute__((noinline)) Vec<C> load_each(const S* p) {
  Vec<C> v;
  for (int i = 0; i < v.width; ++i) v.raw[i] = static_cast<C>(load_value(p + i));
  return v;
}

NORMKIT_INLINE Vec<float> load_half(const Float16* p) {
#if defined(__AVX512F__)
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
#elif defined(__F16C__)
  return {_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
#elif defined(__ARM_NEON)
  uint16x4_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return {vcvt_f32_f16(vreinterpret_f16_u16(bits))};
#else
  return load_each<float>(p);
#endif
}

NORMKIT_INLINE Vec<float> load_half(const BFloat16* p) {
#if defined(__AVX512F__)
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16))};
#elif defined(__AVX2__)
  const __m256i bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(bits, 16))};
#elif defined(__ARM_NEON)
  uint16x4_t bits;
  std::memcpy(&bits, p, sizeof bits);
  return {vreinterpretq_f32_u32(vshll_n_u16(bits, 16))};
#else
  return load_each<float>(p);
#endif
}

template <class C, class S>
NORMKIT_INLINE Vec<C> load_as(const S* p) {
  if constexpr (sizeof(C) == sizeof(S)) {
    return load(p);
  } else if constexpr (sizeof(C) == 4) {
    return load_half(p);
  } else if constexpr (sizeof(S) == 4) {
    typedef S HalfVector __attribute__((vector_size(vector_bytes / 2), aligned(1), may_alias));
    return {__builtin_convertvector(reinterpret_cast<const HalfVector*>(p)[0], typename Vec<C>::Raw)};
  } else {
    return load_each<C>(p);
  }
}

// --- stores ---------------------------------------------------------------------------------------------------------

template <class C>
NORMKIT_INLINE void store(C* p, Vec<C> v) {
  reinterpret_cast<typename Native<C>::Unaligned*>(p)[0] = v.raw;
}

template <class S, class C>
__attribute__((noinline, unused)) void store_each(S* p, Vec<C> v) {
  for (int i = 0; i < v.width; ++i) store_value(p + i, v.raw[i]);
}

NORMKIT_INLINE void store(Float16* p, Vec<float> v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v.raw, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.raw, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__ARM_NEON)
  const uint16x4_t bits = vreinterpret_u16_f16(vcvt_f16_f32(v.raw));
  std::memcpy(p, &bits, sizeof bits);
#else
  store_each(p, v);
#endif
}

NORMKIT_INLINE void store(BFloat16* p, Vec<float> v) {
  // Rounds to nearest even on the bits. NaN keeps its upper half: the result of arithmetic, it is a quiet one.
#if defined(__AVX512F__)
  const __m512i bits = _mm512_castps_si512(v.raw);
  const __mmask16 is_number = _mm512_cmp_ps_mask(v.raw, v.raw, _CMP_ORD_Q);
  const __mmask16 is_odd = _mm512_mask_test_epi32_mask(is_number, bits, _mm512_set1_epi32(0x10000));
  __m512i rounded = _mm512_mask_add_epi32(bits, is_number, bits, _mm512_set1_epi32(0x7fff));
  rounded = _mm512_mask_add_epi32(rounded, is_odd, rounded, _mm512_set1_epi32(1));
  typedef short Words __attribute__((vector_size(64)));
  const Words upper_halves = {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31};
  const __m512i upper = _mm512_permutexvar_epi16(reinterpret_cast<__m512i>(upper_halves), rounded);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_castsi512_si256(upper));
#else
  using Bits = Native<float>::Unsigned;
  const auto bits = reinterpret_cast<Bits>(v.raw);
  const Bits upper = bits >> 16;
  const Bits rounded = (bits + 0x7fff + (upper & 1)) >> 16;
  const Bits result = v.raw != v.raw ? upper : rounded;
#if defined(__AVX2__)
  const __m256i wide = reinterpret_cast<__m256i>(result);
  const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
#else
  for (int i = 0; i < v.width; ++i) p[i].bits = static_cast<std::uint16_t>(result[i]);
#endif
#endif
}

// Past the caches, which then need not read what is overwritten as a whole. `p` is aligned to what is stored. Other
// threads see it after fence().
template <class C>
NORMKIT_INLINE void stream(C* p, Vec<C> v) {
#if defined(__AVX512F__)
  _mm512_stream_ps(reinterpret_cast<float*>(p), reinterpret_cast<__m512>(v.raw));
#elif defined(__AVX2__)
  _mm256_stream_ps(reinterpret_cast<float*>(p), reinterpret_cast<__m256>(v.raw));
#elif defined(__SSE2__)
  _mm_stream_ps(reinterpret_cast<float*>(p), reinterpret_cast<__m128>(v.raw));
#else
  store(p, v);
#endif
}

template <class S>
NORMKIT_INLINE void stream_half(S* p, Vec<float> v) {
  static_assert(sizeof(S) == 2);
#if defined(__AVX2__)
  alignas(vector_bytes / 2) S rounded[Vec<float>::width];
  store(rounded, v);
#if defined(__AVX512F__)
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), *reinterpret_cast<const __m256i*>(rounded));
#else
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), *reinterpret_cast<const __m128i*>(rounded));
#endif
#else
  store(p, v);
#endif
}
NORMKIT_INLINE void stream(Float16* p, Vec<float> v) { stream_half(p, v); }
NORMKIT_INLINE void stream(BFloat16* p, Vec<float> v) { stream_half(p, v); }

NORMKIT_INLINE void fence() {
#if defined(__SSE2__)
  _mm_sfence();
#endif
}

// --- ahead ----------------------------------------------------------------------------------------------------------

// Asks the second-level cache for what lies `next` elements after x + i, perhaps beyond the array: hence no pointer.
template <class S>
NORMKIT_INLINE void prefetch(const S* x, std::int64_t i, std::int64_t next) {
  const auto address = reinterpret_cast<std::uintptr_t>(x) + static_cast<std::uintptr_t>(i + next) * sizeof(S);
  __builtin_prefetch(reinterpret_cast<const void*>(address), 0, 2);  // NOLINT(performance-no-int-to-ptr)
}

// The same of n elements.
template <class S>
NORMKIT_INLINE void prefetch(const S* x, std::int64_t i, std::int64_t n, std::int64_t next) {
  constexpr auto line = static_cast<std::int64_t>(64 / sizeof(S));
  for (const std::int64_t end = i + n; i < end; i += line) prefetch(x, i, next);
}

// --- the first n < width elements: the rest is not touched ----------------------------------------------------------

// Before what serves the ends of runs, in very many places: a few masked instructions, or a call.
#if defined(__AVX512F__)
#define NORMKIT_AT_ENDS NORMKIT_INLINE
#else
#define NORMKIT_AT_ENDS __attribute__((noinline))
#endif

template <class C, class S>
NORMKIT_INLINE Vec<C> load_first(const S* p, int n, Vec<C> fill) {
#if defined(__AVX512F__)
  const auto lanes = static_cast<__mmask16>((1u << n) - 1u);
  if constexpr (sizeof(C) == 4 && sizeof(S) == 4) {
    return {_mm512_mask_loadu_ps(fill.raw, lanes, p)};
  } else if constexpr (sizeof(C) == 8 && sizeof(S) == 8) {
    return {_mm512_mask_loadu_pd(fill.raw, static_cast<__mmask8>(lanes), p)};
  } else if constexpr (sizeof(S) == 4) {
    const __m512d wide = _mm512_cvtps_pd(_mm256_maskz_loadu_ps(static_cast<__mmask8>(lanes), p));
    return {_mm512_mask_mov_pd(fill.raw, static_cast<__mmask8>(lanes), wide)};
  } else if constexpr (sizeof(C) == 4) {
    S padded[Vec<C>::width];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(padded), _mm256_maskz_loadu_epi16(lanes, p));
    return {_mm512_mask_mov_ps(fill.raw, lanes, load_half(padded).raw)};
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(C) == sizeof(S)) {
    const typename Vec<C>::Bits lanes = first_lanes<C>(n);
    if constexpr (sizeof(C) == 4) {
      return select<C>(lanes, {_mm256_maskload_ps(p, reinterpret_cast<__m256i>(lanes))}, fill);
    } else {
      return select<C>(lanes, {_mm256_maskload_pd(p, reinterpret_cast<__m256i>(lanes))}, fill);
    }
  }
#endif
  for (int i = 0; i < n; ++i) fill.raw[i] = static_cast<C>(load_value(p + i));
  return fill;
}

template <class C, class S>
NORMKIT_INLINE void store_first(S* p, int n, Vec<C> v) {
#if defined(__AVX512F__)
  const auto lanes = static_cast<__mmask16>((1u << n) - 1u);
  if constexpr (sizeof(S) == 4) {
    _mm512_mask_storeu_ps(p, lanes, v.raw);
    return;
  } else if constexpr (sizeof(S) == 8) {
    _mm512_mask_storeu_pd(p, static_cast<__mmask8>(lanes), v.raw);
    return;
  } else if constexpr (sizeof(C) == 4) {
    S rounded[Vec<C>::width];
    store(rounded, v);
    _mm256_mask_storeu_epi16(p, lanes, *reinterpret_cast<const __m256i_u*>(rounded));
    return;
  }
#elif defined(__AVX2__)
  if constexpr (sizeof(C) == sizeof(S)) {
    const auto lanes = reinterpret_cast<__m256i>(first_lanes<C>(n));
    if constexpr (sizeof(C) == 4) {
      _mm256_maskstore_ps(p, lanes, v.raw);
    } else {
      _mm256_maskstore_pd(p, lanes, v.raw);
    }
    return;
  }
#endif
  S rounded[Vec<C>::width];
  store(rounded, v);
  std::memcpy(p, rounded, static_cast<std::size_t>(n) * sizeof(S));
}

// --- either way -----------------------------------------------------------------------------------------------------

template <bool streams, class S, class C>
NORMKIT_INLINE void put(S* p, Vec<C> v) {
  if constexpr (streams) {
    stream(p, v);
  } else {
    store(p, v);
  }
}

// Parts of a line, if of a multiple of so many bytes, can be streamed too: whoever follows completes it.
constexpr std::uintptr_t streamed_part = 16;

template <bool streams, class S, class C>
NORMKIT_INLINE void put_first(S* p, int n, Vec<C> v) {
#if defined(__SSE2__)
  if constexpr (streams && sizeof(S) * Vec<C>::width > streamed_part) {
    const std::size_t bytes = static_cast<std::size_t>(n) * sizeof(S);
    if ((reinterpret_cast<std::uintptr_t>(p) | bytes) % streamed_part == 0) {
      alignas(vector_bytes) S rounded[Vec<C>::width];
      store(rounded, v);
      const auto* from = reinterpret_cast<const __m128i*>(rounded);
      auto* to = reinterpret_cast<__m128i*>(p);
      for (std::size_t k = 0; k < bytes / streamed_part; ++k) _mm_stream_si128(to + k, from[k]);
      return;
    }
  }
#endif
  store_first(p, n, v);
}

}  // namespace
}  // namespace normkit::detail
