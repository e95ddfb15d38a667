// Vectors of the instruction set this file is compiled for, and fixed virtual lanes made of them.
// Everything here has internal linkage: a function compiled for AVX-512 must never be the copy the linker keeps.
// Loads convert the stored type to the working type, stores round to nearest even; neither asks for alignment.
#pragma once

#include <cstdint>
#include <cstring>

#include "half.h"

#if defined(__AVX512F__) || defined(__AVX2__)
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push  // GCC 12 takes the undefined vectors of its own header for ours (GCC bug 105593)
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#elif defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

namespace normkit::detail {
namespace {

#if defined(__AVX512F__)
constexpr int vector_bytes = 64;
#elif defined(__AVX2__)
constexpr int vector_bytes = 32;
#else
constexpr int vector_bytes = 16;
#endif

template <class T>
struct Native;
template <>
struct Native<float> {
  typedef float Raw __attribute__((vector_size(vector_bytes)));
  typedef float Unaligned __attribute__((vector_size(vector_bytes), aligned(1), may_alias));
  typedef std::int32_t Bits __attribute__((vector_size(vector_bytes)));
  typedef std::uint32_t Unsigned __attribute__((vector_size(vector_bytes)));
};
template <>
struct Native<double> {
  typedef double Raw __attribute__((vector_size(vector_bytes)));
  typedef double Unaligned __attribute__((vector_size(vector_bytes), aligned(1), may_alias));
  typedef std::int64_t Bits __attribute__((vector_size(vector_bytes)));
};

#define NORMKIT_INLINE __attribute__((always_inline)) inline

// Before loops over vectors that are to be registers.
#if defined(__clang__)
#define NORMKIT_UNROLL _Pragma("unroll")
#else
#define NORMKIT_UNROLL _Pragma("GCC unroll 16")
#endif

// One native vector of float or double.
template <class T>
struct Vec {
  using Element = T;
  using Raw = typename Native<T>::Raw;
  using Bits = typename Native<T>::Bits;
  static constexpr int width = vector_bytes / static_cast<int>(sizeof(T));
  Raw raw;

  friend NORMKIT_INLINE Vec operator+(Vec a, Vec b) { return {a.raw + b.raw}; }
  friend NORMKIT_INLINE Vec operator-(Vec a, Vec b) { return {a.raw - b.raw}; }
  friend NORMKIT_INLINE Vec operator*(Vec a, Vec b) { return {a.raw * b.raw}; }
  friend NORMKIT_INLINE Vec operator/(Vec a, Vec b) { return {a.raw / b.raw}; }
};

template <class T>
NORMKIT_INLINE Vec<T> broadcast(T value) {
  return {value - typename Vec<T>::Raw{}};  // a compiler may drop "- 0", but not "+ 0", which would change -0
}

template <class T>
NORMKIT_INLINE Vec<T> select(typename Vec<T>::Bits mask, Vec<T> a, Vec<T> b) {
  return {mask ? a.raw : b.raw};
}

// The first n lanes; those whose byte is not 0.
template <class C>
NORMKIT_INLINE typename Vec<C>::Bits first_lanes(int n) {
  typename Vec<C>::Bits index{};
  for (int i = 0; i < Vec<C>::width; ++i) index[i] = i;
  return index < n;
}
template <class C>
NORMKIT_INLINE typename Vec<C>::Bits nonzero_bytes(const std::uint8_t* p) {
  typedef std::uint8_t Bytes __attribute__((vector_size(Vec<C>::width)));
  Bytes bytes;
  std::memcpy(&bytes, p, sizeof bytes);
  return __builtin_convertvector(bytes, typename Vec<C>::Bits) != 0;
}

// NaN in the accumulated or the new value stays.
template <class T>
NORMKIT_INLINE Vec<T> least(Vec<T> kept, Vec<T> next) {
  return select((next.raw < kept.raw) | (next.raw != next.raw), next, kept);
}
template <class T>
NORMKIT_INLINE Vec<T> greatest(Vec<T> kept, Vec<T> next) {
  return select((next.raw > kept.raw) | (next.raw != next.raw), next, kept);
}

NORMKIT_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
#if defined(__AVX512F__)
  return {_mm512_fmadd_ps(a.raw, b.raw, c.raw)};
#elif defined(__FMA__)
  return {_mm256_fmadd_ps(a.raw, b.raw, c.raw)};
#elif defined(__ARM_NEON)
  return {vfmaq_f32(c.raw, a.raw, b.raw)};
#else
  for (int i = 0; i < a.width; ++i) c.raw[i] = __builtin_fmaf(a.raw[i], b.raw[i], c.raw[i]);
  return c;
#endif
}

NORMKIT_INLINE Vec<double> fma(Vec<double> a, Vec<double> b, Vec<double> c) {
#if defined(__AVX512F__)
  return {_mm512_fmadd_pd(a.raw, b.raw, c.raw)};
#elif defined(__FMA__)
  return {_mm256_fmadd_pd(a.raw, b.raw, c.raw)};
#elif defined(__ARM_NEON)
  return {vfmaq_f64(c.raw, a.raw, b.raw)};
#else
  for (int i = 0; i < a.width; ++i) c.raw[i] = __builtin_fma(a.raw[i], b.raw[i], c.raw[i]);
  return c;
#endif
}

// --- loads: float and double as they are, halves to float, anything to double -------------------------------------

template <class C>
NORMKIT_INLINE Vec<C> load(const C* p) {
  return {reinterpret_cast<const typename Native<C>::Unaligned*>(p)[0]};
}

template <class C, class S>
NORMKIT_INLINE Vec<C> load_each(const S* p) {
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

NORMKIT_INLINE void store(Float16* p, Vec<float> v) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v.raw, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.raw, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__ARM_NEON)
  const uint16x4_t bits = vreinterpret_u16_f16(vcvt_f16_f32(v.raw));
  std::memcpy(p, &bits, sizeof bits);
#else
  for (int i = 0; i < v.width; ++i) store_value(p + i, v.raw[i]);
#endif
}

NORMKIT_INLINE void store(BFloat16* p, Vec<float> v) {
  // Rounds to nearest even on the bits; NaN keeps its upper half, made quiet.
  using Bits = Native<float>::Unsigned;
  const auto bits = reinterpret_cast<Bits>(v.raw);
  const Bits upper = bits >> 16;
  const Bits rounded = (bits + 0x7fff + (upper & 1)) >> 16;
  const Bits result = v.raw != v.raw ? upper | 0x40 : rounded;
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(reinterpret_cast<__m512i>(result)));
#elif defined(__AVX2__)
  const __m256i wide = reinterpret_cast<__m256i>(result);
  const __m128i packed = _mm_packus_epi32(_mm256_castsi256_si128(wide), _mm256_extracti128_si256(wide, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
#else
  for (int i = 0; i < v.width; ++i) p[i].bits = static_cast<std::uint16_t>(result[i]);
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

// --- the first n < width elements: the rest is not touched ----------------------------------------------------------

template <class C, class S>
NORMKIT_INLINE Vec<C> load_first(const S* p, int n, Vec<C> fill) {
#if defined(__AVX512F__)
  const auto lanes = static_cast<__mmask16>((1u << n) - 1u);
  if constexpr (sizeof(C) == 4 && sizeof(S) == 4) {
    return {_mm512_mask_loadu_ps(fill.raw, lanes, p)};
  } else if constexpr (sizeof(C) == 8 && sizeof(S) == 8) {
    return {_mm512_mask_loadu_pd(fill.raw, static_cast<__mmask8>(lanes), p)};
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

// --- across lanes ---------------------------------------------------------------------------------------------------

// v[i] with its partner v[i ^ half], for all i.
template <int half, class T>
NORMKIT_INLINE Vec<T> partner(Vec<T> v) {
  if constexpr (Vec<T>::width == 16) {
    return {__builtin_shufflevector(v.raw, v.raw, 0 ^ half, 1 ^ half, 2 ^ half, 3 ^ half, 4 ^ half, 5 ^ half, 6 ^ half,
                                    7 ^ half, 8 ^ half, 9 ^ half, 10 ^ half, 11 ^ half, 12 ^ half, 13 ^ half, 14 ^ half,
                                    15 ^ half)};
  } else if constexpr (Vec<T>::width == 8) {
    return {__builtin_shufflevector(v.raw, v.raw, 0 ^ half, 1 ^ half, 2 ^ half, 3 ^ half, 4 ^ half, 5 ^ half, 6 ^ half,
                                    7 ^ half)};
  } else if constexpr (Vec<T>::width == 4) {
    return {__builtin_shufflevector(v.raw, v.raw, 0 ^ half, 1 ^ half, 2 ^ half, 3 ^ half)};
  } else {
    return {__builtin_shufflevector(v.raw, v.raw, 0 ^ half, 1 ^ half)};
  }
}

// `count` vectors side by side.
template <class T, int count>
struct Lanes {
  static constexpr int vectors = count;
  Vec<T> v[count];
};

template <class T, int count>
NORMKIT_INLINE Lanes<T, count> broadcast_lanes(T value) {
  Lanes<T, count> lanes;
  NORMKIT_UNROLL for (int j = 0; j < count; ++j) lanes.v[j] = broadcast(value);
  return lanes;
}

// Halves the lanes until one is left: lane i meets lane i + half, on every instruction set. `combine` must commute.
template <int half, class T, class Combine>
NORMKIT_INLINE Vec<T> fold_vector(Vec<T> v, Combine combine) {
  if constexpr (half > 0) v = fold_vector<half / 2>(combine(v, partner<half>(v)), combine);
  return v;
}
template <class T, int count, class Combine>
NORMKIT_INLINE T fold_lanes(Lanes<T, count> lanes, Combine combine) {
  NORMKIT_UNROLL for (int half = count / 2; half > 0; half /= 2) {
    NORMKIT_UNROLL for (int j = 0; j < half; ++j) lanes.v[j] = combine(lanes.v[j], lanes.v[j + half]);
  }
  return fold_vector<Vec<T>::width / 2>(lanes.v[0], combine).raw[0];
}

}  // namespace
}  // namespace normkit::detail
