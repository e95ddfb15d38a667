// Vectors of the instruction set this file is compiled for, and fixed virtual lanes made of them.
// Everything here has internal linkage: a function compiled for AVX-512 must never be the copy the linker keeps.
#pragma once

#include <cstdint>
#include <cstring>

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
#define NORMKIT_NOINLINE __attribute__((noinline))

// Before loops over vectors that are to be registers, and before those whose steps could be taken in any order. Where
// each step calls a function (fma_each) it matters not where they are, and a quarter less code compiles sooner.
#if defined(__x86_64__) && !defined(__FMA__)
#define NORMKIT_UNROLL _Pragma("GCC unroll 1")
#elif defined(__clang__)
#define NORMKIT_UNROLL _Pragma("unroll")
#else
#define NORMKIT_UNROLL _Pragma("GCC unroll 16")
#endif
#if defined(__clang__)
#define NORMKIT_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define NORMKIT_INDEPENDENT _Pragma("GCC ivdep")
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

// Whether any lane is infinite.
template <class T>
NORMKIT_INLINE bool any_infinite(Vec<T> v) {
  const auto infinity = broadcast(static_cast<T>(__builtin_inf()));
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) {
    return _mm512_cmp_ps_mask(_mm512_abs_ps(v.raw), infinity.raw, _CMP_EQ_OQ) != 0;
  } else {
    return _mm512_cmp_pd_mask(_mm512_abs_pd(v.raw), infinity.raw, _CMP_EQ_OQ) != 0;
  }
#else
  const typename Vec<T>::Bits found = (v.raw == infinity.raw) | (v.raw == -infinity.raw);
#if defined(__AVX2__)
  return _mm256_movemask_epi8(reinterpret_cast<__m256i>(found)) != 0;
#elif defined(__SSE2__)
  return _mm_movemask_epi8(reinterpret_cast<__m128i>(found)) != 0;
#elif defined(__ARM_NEON)
  return vmaxvq_u32(reinterpret_cast<uint32x4_t>(found)) != 0;
#else
  bool any = false;
  for (int i = 0; i < Vec<T>::width; ++i) any |= found[i] != 0;
  return any;
#endif
#endif
}

// `next` where it is less, or greater, than what is kept: a NaN never is.
template <class T>
NORMKIT_INLINE Vec<T> lesser(Vec<T> kept, Vec<T> next) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return {_mm512_min_ps(next.raw, kept.raw)};
  if constexpr (sizeof(T) == 8) return {_mm512_min_pd(next.raw, kept.raw)};
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) return {_mm256_min_ps(next.raw, kept.raw)};
  if constexpr (sizeof(T) == 8) return {_mm256_min_pd(next.raw, kept.raw)};
#elif defined(__SSE2__)
  if constexpr (sizeof(T) == 4) return {_mm_min_ps(next.raw, kept.raw)};
  if constexpr (sizeof(T) == 8) return {_mm_min_pd(next.raw, kept.raw)};
#else
  return select(next.raw < kept.raw, next, kept);
#endif
}
template <class T>
NORMKIT_INLINE Vec<T> greater(Vec<T> kept, Vec<T> next) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4) return {_mm512_max_ps(next.raw, kept.raw)};
  if constexpr (sizeof(T) == 8) return {_mm512_max_pd(next.raw, kept.raw)};
#elif defined(__AVX2__)
  if constexpr (sizeof(T) == 4) return {_mm256_max_ps(next.raw, kept.raw)};
  if constexpr (sizeof(T) == 8) return {_mm256_max_pd(next.raw, kept.raw)};
#elif defined(__SSE2__)
  if constexpr (sizeof(T) == 4) return {_mm_max_ps(next.raw, kept.raw)};
  if constexpr (sizeof(T) == 8) return {_mm_max_pd(next.raw, kept.raw)};
#else
  return select(next.raw > kept.raw, next, kept);
#endif
}

// Where the instruction set has none: a call of the C library's for each. Not inlined, it is in very many places.
template <class T>
__attribute__((noinline, unused)) Vec<T> fma_each(Vec<T> a, Vec<T> b, Vec<T> c) {
  for (int i = 0; i < a.width; ++i) {
    if constexpr (sizeof(T) == 4) {
      c.raw[i] = __builtin_fmaf(a.raw[i], b.raw[i], c.raw[i]);
    } else {
      c.raw[i] = __builtin_fma(a.raw[i], b.raw[i], c.raw[i]);
    }
  }
  return c;
}

NORMKIT_INLINE Vec<float> fma(Vec<float> a, Vec<float> b, Vec<float> c) {
#if defined(__AVX512F__)
  return {_mm512_fmadd_ps(a.raw, b.raw, c.raw)};
#elif defined(__FMA__)
  return {_mm256_fmadd_ps(a.raw, b.raw, c.raw)};
#elif defined(__ARM_NEON)
  return {vfmaq_f32(c.raw, a.raw, b.raw)};
#else
  return fma_each(a, b, c);
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
  return fma_each(a, b, c);
#endif
}

// 0, 1, ... count - 1, as the standard library's integer_sequence has them.
template <int... numbers>
struct Sequence {};
template <int count, int... numbers>
struct NumbersTo : NumbersTo<count - 1, count - 1, numbers...> {};
template <int... numbers>
struct NumbersTo<0, numbers...> {
  using Numbers = Sequence<numbers...>;
};

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

// Lanes meet their partners, those of two vectors at once: where `lane & half` is 0 those of a, elsewhere those of b.
// One blend and one shuffle, since processors have more ways to do the first. `combine` must commute.
template <int half, class T, class Combine, int... lane>
NORMKIT_INLINE Vec<T> fold_pair(Vec<T> a, Vec<T> b, Combine combine, Sequence<lane...>) {
  constexpr int n = Vec<T>::width;
  const Vec<T> own{__builtin_shufflevector(a.raw, b.raw, (lane & half ? n + lane : lane)...)};
  if constexpr (vector_bytes == 64) {  // shuffles take two vectors
    return combine(own,
                   Vec<T>{__builtin_shufflevector(a.raw, b.raw, (lane & half ? n + (lane ^ half) : lane ^ half)...)});
  } else {
    const Vec<T> other{__builtin_shufflevector(b.raw, a.raw, (lane & half ? n + lane : lane)...)};
    return combine(own, partner<half>(other));
  }
}
template <int half, class T, class Combine>
NORMKIT_INLINE void fold_pairs(Vec<T>* v, Combine combine) {
  if constexpr (half > 0) {
    NORMKIT_UNROLL for (int i = 0; i < half; ++i) {
      v[i] = fold_pair<half>(v[i], v[i + half], combine, typename NumbersTo<Vec<T>::width>::Numbers{});
    }
    fold_pairs<half / 2>(v, combine);
  }
}
// What fold_vector makes of each of as many vectors as a vector has lanes, in their order.
template <class T, class Combine>
NORMKIT_INLINE Vec<T> fold_vectors(const Vec<T>* vectors, Combine combine) {
  Vec<T> v[Vec<T>::width];
  NORMKIT_UNROLL for (int i = 0; i < Vec<T>::width; ++i) v[i] = vectors[i];
  fold_pairs<Vec<T>::width / 2>(v, combine);
  return v[0];
}

// Halves the lanes until one is left: lane i meets lane i + half, on every instruction set. `combine` must commute.
template <int half, class T, class Combine>
NORMKIT_INLINE Vec<T> fold_vector(Vec<T> v, Combine combine) {
  if constexpr (half > 0) v = fold_vector<half / 2>(combine(v, partner<half>(v)), combine);
  return v;
}
template <class T, int count, class Combine>
NORMKIT_INLINE Vec<T> fold_to_vector(Lanes<T, count> lanes, Combine combine) {
  NORMKIT_UNROLL for (int half = count / 2; half > 0; half /= 2) {
    NORMKIT_UNROLL for (int j = 0; j < half; ++j) lanes.v[j] = combine(lanes.v[j], lanes.v[j + half]);
  }
  return lanes.v[0];
}

}  // namespace
}  // namespace normkit::detail
