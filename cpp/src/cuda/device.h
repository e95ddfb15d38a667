// What kernels are written in: threads of a block, and values in a device's memory. A kernel is an object that is
// called with its block, `kernel(block)`, by every thread; a block knows
//   thread()                 this thread's number within it,
//   threads()                how many it has,
//   index()                  its own number,
//   sync()                   a barrier for all its threads,
//   shuffle_xor(value, bits) what was passed by the thread of the same warp whose number differs in these bits,
//   shared()                 memory of all its threads, as much as the launch asked for,
//   ranks()                  how many blocks its cluster has,
//   open_cluster()           where there are several: once, before anything is sent,
//   exchange(numbers)        a block's numbers, which each of its threads knows, to all blocks of its cluster: where
//                            those of each are found, by rank, met_numbers apart, until this block's next barrier.
//                            There is one before it exchanges again.
//   gather(box, of_block, post)  likewise, of numbers that threads have each some of: `box` is memory of the block for
//                            of_block numbers from each block, by rank, which all others know by the same place in
//                            theirs; every thread calls post(send), and send(at, numbers) for what it has.
// Every thread of a block goes through the same of these, in the same order. On a GPU a block is hardware (launch.h);
// tests run the same kernels on the host (tests/cpp/emulation).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>

#include "half.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define NORMKIT_DEVICE __device__ __forceinline__
#define NORMKIT_UNROLL_DEVICE _Pragma("unroll")
#define NORMKIT_ROLL_DEVICE _Pragma("unroll 1")
#define NORMKIT_PRAGMA_(text) _Pragma(#text)
#define NORMKIT_UNROLL_DEVICE_BY(times) NORMKIT_PRAGMA_(unroll(times))
#else
#define NORMKIT_DEVICE inline
#define NORMKIT_UNROLL_DEVICE
#define NORMKIT_ROLL_DEVICE
#define NORMKIT_UNROLL_DEVICE_BY(times)
#endif
// What a kernel need not be prepared for, which leaves it more registers. The host sees whether it is so.
#if defined(__CUDA_ARCH__)
#define NORMKIT_ASSUME(condition) __builtin_assume(condition)
#else
#define NORMKIT_ASSUME(condition) (static_cast<bool>(condition) ? void() : std::abort())
#endif

namespace normkit::detail::cuda {

inline constexpr int warp_size = 32;

/// The working type of a storage type.
template <class S>
struct WorkOf {
  using Type = float;
};
template <>
struct WorkOf<double> {
  using Type = double;
};
template <class S>
using Work = typename WorkOf<S>::Type;

#if defined(__CUDA_ARCH__)
NORMKIT_DEVICE float widened(Float16 value) { return __half2float(__ushort_as_half(value.bits)); }
NORMKIT_DEVICE float widened(BFloat16 value) { return __uint_as_float(static_cast<unsigned>(value.bits) << 16); }
NORMKIT_DEVICE void narrow(float value, Float16& to) { to.bits = __half_as_ushort(__float2half_rn(value)); }
NORMKIT_DEVICE void narrow(float value, BFloat16& to) { to.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value)); }
#elif !defined(__CUDACC__)
inline float widened(Float16 value) { return to_float(value); }
inline float widened(BFloat16 value) { return to_float(value); }
inline void narrow(float value, Float16& to) { to = to_float16(value); }
inline void narrow(float value, BFloat16& to) { to = to_bfloat16(value); }
#else  // the host's pass of nvcc, which only parses kernels
float widened(Float16 value);
float widened(BFloat16 value);
void narrow(float value, Float16& to);
void narrow(float value, BFloat16& to);
#endif
NORMKIT_DEVICE float widened(float value) { return value; }
NORMKIT_DEVICE double widened(double value) { return value; }
NORMKIT_DEVICE void narrow(float value, float& to) { to = value; }
NORMKIT_DEVICE void narrow(double value, double& to) { to = value; }
NORMKIT_DEVICE void narrow(double value, float& to) { to = static_cast<float>(value); }

/// What a thread reads at once: of rows 16 bytes; of columns, of each of which it has sums to keep, no more than four
/// values.
template <class S>
inline constexpr int unit_size = 16 / static_cast<int>(sizeof(S));
template <class S>
inline constexpr int column_unit_size = unit_size<S> < 4 ? unit_size<S> : 4;
template <class S, bool rows>
inline constexpr int unit_size_of = rows ? unit_size<S> : column_unit_size<S>;

template <class S, int size = unit_size<S>>
struct alignas(sizeof(S) * size) Unit {
  S of[size];
  NORMKIT_DEVICE Work<S> value(int i) const { return widened(of[i]); }
  NORMKIT_DEVICE S get(int i) const { return of[i]; }
  NORMKIT_DEVICE void put(int i, S element) { of[i] = element; }
  NORMKIT_DEVICE void set(const Work<S> (&values)[size]) {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) narrow(values[i], of[i]);
  }
};
#if defined(__CUDA_ARCH__)
// Two halves are a register: to take one out of it, and to widen it, is one instruction. A unit of halves is such
// words, not elements: where values may come from two places, the compiler would put each together from elements again,
// and wait for what has just been read.
NORMKIT_DEVICE float half_of_word(BFloat16, unsigned word, bool upper) {
  return __uint_as_float(upper ? word & 0xffff0000u : word << 16);
}
NORMKIT_DEVICE float half_of_word(Float16, unsigned word, bool upper) {
  __half2 both;
  memcpy(&both, &word, sizeof both);
  return upper ? __high2float(both) : __low2float(both);
}
NORMKIT_DEVICE unsigned word_of(BFloat16, float lower, float upper) {
  const __nv_bfloat162 both = __floats2bfloat162_rn(lower, upper);
  unsigned word;
  memcpy(&word, &both, sizeof word);
  return word;
}
NORMKIT_DEVICE unsigned word_of(Float16, float lower, float upper) {
  const __half2 both = __floats2half2_rn(lower, upper);
  unsigned word;
  memcpy(&word, &both, sizeof word);
  return word;
}
template <class S, int size>
  requires(sizeof(S) == 2)
struct alignas(sizeof(S) * size) Unit<S, size> {
  unsigned words[size / 2];
  NORMKIT_DEVICE float value(int i) const { return half_of_word(S{}, words[i / 2], i % 2 != 0); }
  NORMKIT_DEVICE S get(int i) const {
    return S{static_cast<std::uint16_t>(i % 2 != 0 ? words[i / 2] >> 16 : words[i / 2] & 0xffffu)};
  }
  NORMKIT_DEVICE void put(int i, S element) {
    const auto bits = static_cast<unsigned>(element.bits);
    words[i / 2] = i % 2 != 0 ? (words[i / 2] & 0xffffu) | bits << 16 : (words[i / 2] & 0xffff0000u) | bits;
  }
  NORMKIT_DEVICE void set(const float (&values)[size]) {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; i += 2) words[i / 2] = word_of(S{}, values[i], values[i + 1]);
  }
};
#endif
#if defined(__CUDA_ARCH__)
template <int bytes>
struct BitsOf {
  using Type = uint4;
};
template <>
struct BitsOf<8> {
  using Type = uint2;
};
#endif

#if defined(__CUDA_ARCH__)
/// A whole unit of halves that begins anywhere: read and written by words, and where these lie across two of the
/// unit's, its first and its last element by themselves, so that nothing is touched that is not the unit's.
template <int size, class S>
NORMKIT_DEVICE Unit<S, size> load_anywhere(const S* p) {
  Unit<S, size> unit;
  constexpr int last = size / 2 - 1;
  if (reinterpret_cast<std::uintptr_t>(p) % 4 == 0) {
    NORMKIT_UNROLL_DEVICE for (int w = 0; w <= last; ++w) unit.words[w] = reinterpret_cast<const unsigned*>(p)[w];
  } else {
    const auto* const across = reinterpret_cast<const unsigned*>(p + 1);
    unsigned lower = p[0].bits;
    NORMKIT_UNROLL_DEVICE for (int w = 0; w < last; ++w) {
      const unsigned both = across[w];
      unit.words[w] = lower | both << 16;
      lower = both >> 16;
    }
    unit.words[last] = lower | static_cast<unsigned>(p[size - 1].bits) << 16;
  }
  return unit;
}
template <class S, int size>
NORMKIT_DEVICE void store_anywhere(S* p, const Unit<S, size>& unit) {
  constexpr int last = size / 2 - 1;
  if (reinterpret_cast<std::uintptr_t>(p) % 4 == 0) {
    NORMKIT_UNROLL_DEVICE for (int w = 0; w <= last; ++w) reinterpret_cast<unsigned*>(p)[w] = unit.words[w];
  } else {
    auto* const across = reinterpret_cast<unsigned*>(p + 1);
    p[0] = unit.get(0);
    NORMKIT_UNROLL_DEVICE for (int w = 0; w < last; ++w) across[w] = unit.words[w] >> 16 | unit.words[w + 1] << 16;
    p[size - 1] = unit.get(size - 1);
  }
}
#endif

/// The first n elements from p on, the others being zeros. `aligned`: a whole unit may be taken in one go.
template <int size, class S>
NORMKIT_DEVICE Unit<S, size> load_unit(const S* p, int n, bool aligned) {
  Unit<S, size> unit;
  if (aligned && n == size) {
#if defined(__CUDA_ARCH__)
    using Bits = typename BitsOf<sizeof unit>::Type;
    const Bits bits = *reinterpret_cast<const Bits*>(p);
    memcpy(&unit, &bits, sizeof unit);
#else
    std::memcpy(&unit, __builtin_assume_aligned(p, sizeof unit), sizeof unit);
#endif
    return unit;
  }
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(S) == 2) {
    if (n == size) return load_anywhere<size>(p);
  }
#endif
  unit = {};
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    if (i < n) unit.put(i, p[i]);
  }
  return unit;
}

template <class S, int size>
NORMKIT_DEVICE void store_unit(S* p, int n, bool aligned, const Unit<S, size>& unit) {
  if (aligned && n == size) {
#if defined(__CUDA_ARCH__)
    using Bits = typename BitsOf<sizeof unit>::Type;
    Bits bits;
    memcpy(&bits, &unit, sizeof unit);
    *reinterpret_cast<Bits*>(p) = bits;
#else
    std::memcpy(__builtin_assume_aligned(p, sizeof unit), &unit, sizeof unit);
#endif
    return;
  }
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof(S) == 2) {
    if (n == size) return store_anywhere(p, unit);
  }
#endif
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    if (i < n) p[i] = unit.get(i);
  }
}

/// How far into a piece of 16 bytes what lies there begins, in elements.
template <class S>
NORMKIT_DEVICE int begin_in_piece(const S* p) {
  return static_cast<int>(reinterpret_cast<std::uintptr_t>(p) / sizeof(S)) & (unit_size<S> - 1);
}

/// Four bytes from so many bits on, 0 or 16, of what two words have side by side.
NORMKIT_DEVICE std::uint32_t word_across(std::uint32_t lower, std::uint32_t upper, int bits) {
#if defined(__CUDA_ARCH__)
  return __funnelshift_r(lower, upper, static_cast<unsigned>(bits));
#else
  return static_cast<std::uint32_t>((std::uint64_t{upper} << 32 | lower) >> bits);
#endif
}

/// The same unit, of which the compiler is not to know that: what was made of it before is made again, where to keep it
/// would take more registers than there are.
template <class S, int size>
NORMKIT_DEVICE Unit<S, size> forgotten(Unit<S, size> unit) {
#if defined(__CUDA_ARCH__)
  constexpr int words = static_cast<int>(sizeof unit) / 4;
  unsigned word[words];
  memcpy(word, &unit, sizeof unit);
  NORMKIT_UNROLL_DEVICE for (int w = 0; w < words; ++w) asm volatile("" : "+r"(word[w]));
  memcpy(&unit, word, sizeof unit);
#endif
  return unit;
}

/// Likewise an index.
template <class Index>
  requires(std::is_integral_v<Index>)
NORMKIT_DEVICE Index forgotten(Index index) {
#if defined(__CUDA_ARCH__)
  if constexpr (sizeof index == 4) asm volatile("" : "+r"(index));
#endif
  return index;
}

/// The first n values of any type from p on, which is a multiple of 16 bytes or of what is read; the others are zeros.
template <class C, int size, class T>
NORMKIT_DEVICE void load_values(const T* p, int n, C (&to)[size]) {
  constexpr int each = unit_size<T> < size ? unit_size<T> : size;
  NORMKIT_UNROLL_DEVICE for (int first = 0; first < size; first += each) {
    const Unit<T, each> unit = load_unit<each>(p + first, n < first + each ? n - first : each, true);
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < each; ++i) to[first + i] = static_cast<C>(unit.value(i));
  }
}

}  // namespace normkit::detail::cuda
