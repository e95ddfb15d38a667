// What kernels are written in: threads of a block, and values in a device's memory. A kernel is an object that is
// called with its block, `kernel(block)`, by every thread; a block knows
//   thread()                 this thread's number within it,
//   index()                  its own number,
//   sync()                   a barrier for all its threads,
//   from_lane(value, other)  what the thread `other` of the same warp passed,
//   shared()                 memory of all its threads, as much as the launch asked for.
// Every thread of a block goes through the same of these, in the same order. On a GPU a block is hardware (launch.h);
// tests run the same kernels on the host (tests/cpp/emulation).
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "half.h"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define NORMKIT_DEVICE __device__ __forceinline__
#define NORMKIT_UNROLL_DEVICE _Pragma("unroll")
#else
#define NORMKIT_DEVICE inline
#define NORMKIT_UNROLL_DEVICE
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

/// What a thread reads at once: 16 bytes.
template <class S>
struct alignas(16) Unit {
  static constexpr int size = 16 / static_cast<int>(sizeof(S));
  S of[size];
};
template <class S>
inline constexpr int unit_size = Unit<S>::size;

/// The first n elements from p on, the others being zeros. `aligned`: a whole unit may be taken in one go.
template <class S>
NORMKIT_DEVICE Unit<S> load_unit(const S* p, int n, bool aligned) {
  Unit<S> unit;
#if defined(__CUDA_ARCH__)
  if (aligned && n == unit_size<S>) {
    const uint4 bits = *reinterpret_cast<const uint4*>(p);
    memcpy(&unit, &bits, sizeof unit);
    return unit;
  }
#else
  if (aligned && n == unit_size<S>) {
    std::memcpy(&unit, __builtin_assume_aligned(p, 16), sizeof unit);
    return unit;
  }
#endif
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < unit_size<S>; ++i) unit.of[i] = i < n ? p[i] : S{};
  return unit;
}

template <class S>
NORMKIT_DEVICE void store_unit(S* p, int n, bool aligned, const Unit<S>& unit) {
#if defined(__CUDA_ARCH__)
  if (aligned && n == unit_size<S>) {
    uint4 bits;
    memcpy(&bits, &unit, sizeof unit);
    *reinterpret_cast<uint4*>(p) = bits;
    return;
  }
#else
  if (aligned && n == unit_size<S>) {
    std::memcpy(__builtin_assume_aligned(p, 16), &unit, sizeof unit);
    return;
  }
#endif
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < unit_size<S>; ++i) {
    if (i < n) p[i] = unit.of[i];
  }
}

/// n values of any type from p on; the others are zeros.
template <class C, int size, class T>
NORMKIT_DEVICE void load_values(const T* p, int n, C (&to)[size]) {
  constexpr int each = unit_size<T> < size ? unit_size<T> : size;
  const bool aligned = reinterpret_cast<std::uintptr_t>(p) % 16 == 0 && each == unit_size<T>;
  NORMKIT_UNROLL_DEVICE for (int first = 0; first < size; first += each) {
    const int left = n - first;
    const Unit<T> unit = load_unit(p + first, left < each ? (left < 0 ? 0 : left) : each, aligned);
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < each; ++i) to[first + i] = static_cast<C>(widened(unit.of[i]));
  }
}

}  // namespace normkit::detail::cuda
