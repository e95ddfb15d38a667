// PTX's operations on numbers that are no operators of C++, or that C++ leaves undefined.
#pragma once

#include <cfenv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "machine.h"

namespace normkit::ptx {

// ---- Integers: they wrap, and shifts by their width and more leave nothing ------------------------------------------
template <class T>
using Unsigned = std::conditional_t<sizeof(T) < 4, std::uint32_t, std::make_unsigned_t<T>>;  // not to be promoted

template <class T>
T add(T a, T b) {
  return static_cast<T>(static_cast<Unsigned<T>>(a) + static_cast<Unsigned<T>>(b));
}
template <class T>
T subtract(T a, T b) {
  return static_cast<T>(static_cast<Unsigned<T>>(a) - static_cast<Unsigned<T>>(b));
}
template <class T>
T multiply(T a, T b) {
  return static_cast<T>(static_cast<Unsigned<T>>(a) * static_cast<Unsigned<T>>(b));
}
template <class T>
T multiply_high(T a, T b) {
  __extension__ using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
  return static_cast<T>((static_cast<Wide>(a) * static_cast<Wide>(b)) >> (8 * sizeof(T)));
}
template <class T>
T divide(Thread& thread, T a, T b, int line) {
  if (b == 0) stop(thread, line, "divides by zero");
  if (std::is_signed_v<T> && b == static_cast<T>(-1)) return subtract<T>(0, a);
  return static_cast<T>(a / b);
}
template <class T>
T remainder(Thread& thread, T a, T b, int line) {
  return subtract<T>(a, multiply<T>(divide<T>(thread, a, b, line), b));
}
template <class T>
T shift_left(T a, std::uint32_t by) {
  return by >= 8 * sizeof(T) ? T{0} : static_cast<T>(static_cast<Unsigned<T>>(a) << by);
}
template <class T>
T shift_right(T a, std::uint32_t by) {
  if (by >= 8 * sizeof(T)) return static_cast<T>(a < 0 ? -1 : 0);
  return static_cast<T>(a >> by);
}
inline std::uint32_t funnel_right(std::uint32_t low, std::uint32_t high, std::uint32_t by) {
  return static_cast<std::uint32_t>(((static_cast<std::uint64_t>(high) << 32) | low) >> (by % 32));
}
inline std::uint32_t funnel_left(std::uint32_t low, std::uint32_t high, std::uint32_t by) {
  return static_cast<std::uint32_t>(((static_cast<std::uint64_t>(high) << 32) | low) << (by % 32) >> 32);
}
/// Four of the eight bytes of a and b, as the four digits of `selector` say; 8 and more: their sign alone.
inline std::uint32_t permute(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
  const std::uint64_t both = (static_cast<std::uint64_t>(b) << 32) | a;
  std::uint32_t result = 0;
  for (unsigned i = 0; i < 4; ++i) {
    const std::uint32_t digit = selector >> (4 * i) & 15u;
    auto byte = static_cast<std::uint8_t>(both >> (8 * (digit & 7u)));
    if (digit >= 8) byte = byte >= 0x80 ? 0xff : 0;
    result |= static_cast<std::uint32_t>(byte) << (8 * i);
  }
  return result;
}
/// b, but for the lowest `length` bits of a at `position`.
inline std::uint32_t insert_bits(std::uint32_t a, std::uint32_t b, std::uint32_t position, std::uint32_t length) {
  const auto mask = static_cast<std::uint32_t>(((std::uint64_t{1} << std::min(length, 32u)) - 1) << position);
  return (b & ~mask) | (shift_left(a, position) & mask);
}

// ---- Floating point -------------------------------------------------------------------------------------------------
/// Rounded towards minus infinity.
[[gnu::noinline]] inline float fma_down(float a, float b, float c) {
  const int before = std::fegetround();
  std::fesetround(FE_DOWNWARD);
  const volatile float x = a, y = b, z = c;  // not to be moved to where numbers are rounded otherwise
  const volatile float result = std::fma(x, y, z);
  std::fesetround(before);
  return result;
}
/// Into [0, 1], where a NaN is 0.
inline float saturate(float value) { return value > 0 ? std::fmin(value, 1.0f) : 0.0f; }
/// 2 to the power of x: on a GPU to 2 units in the last place; denormal numbers are 0.
inline float exp2_flushed(float x) {
  const float result = std::exp2(x);
  return result < std::numeric_limits<float>::min() ? 0.0f : result;
}

// ---- Half precision -------------------------------------------------------------------------------------------------
inline std::uint16_t to_f16(float value) {
  return std::isnan(value) ? std::uint16_t{0x7fff} : get<std::uint16_t>(static_cast<_Float16>(value));
}
inline float from_f16(std::uint16_t bits) { return static_cast<float>(get<_Float16>(bits)); }
inline std::uint16_t to_bf16(float value) {
  if (std::isnan(value)) return 0x7fff;
  const auto bits = get<std::uint32_t>(value);
  return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1u)) >> 16);
}

}  // namespace normkit::ptx
