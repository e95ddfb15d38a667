// 16-bit floating point in memory, one value at a time and without help from the instruction set. Vectors: cpu/lanes.h.
#pragma once

#include <cstdint>
#include <cstring>

namespace normkit::detail {

struct Float16 {
  std::uint16_t bits;
};
struct BFloat16 {
  std::uint16_t bits;
};

// Internal linkage: compiled once per instruction set.
namespace {

template <class To, class From>
inline To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

inline float to_float(BFloat16 value) { return bits_as<float>(static_cast<std::uint32_t>(value.bits) << 16); }

inline float to_float(Float16 value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000u) << 16;
  const std::uint32_t magnitude = value.bits & 0x7fffu;
  if (magnitude > 0x7c00u) return bits_as<float>(sign | 0x7fc00000u | (magnitude << 13));  // NaN, made quiet
  if (magnitude == 0x7c00u) return bits_as<float>(sign | 0x7f800000u);
  // The fields moved to their place read as a float 2^112 too small; the product is exact, subnormals included.
  const float scaled = bits_as<float>(magnitude << 13) * 0x1p112f;
  return bits_as<float>(sign | bits_as<std::uint32_t>(scaled));
}

inline Float16 to_float16(float value) {
  const auto bits = bits_as<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  std::uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | ((magnitude >> 13) & 0x1ffu);  // NaN, made quiet
  } else if (magnitude >= 0x477ff000u) {
    half = 0x7c00u;  // 65520 and more round to infinity
  } else if (magnitude < 0x38800000u) {
    // Subnormal or zero: adding 0.5 rounds at 2^-24 and leaves the result in the low bits.
    half = bits_as<std::uint32_t>(bits_as<float>(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return {static_cast<std::uint16_t>(sign | half)};
}

inline BFloat16 to_bfloat16(float value) {
  const auto bits = bits_as<std::uint32_t>(value);
  const std::uint32_t upper = bits >> 16;
  if (value != value) return {static_cast<std::uint16_t>(upper | 0x40u)};
  return {static_cast<std::uint16_t>((bits + 0x7fffu + (upper & 1u)) >> 16)};
}

// From and to memory of any alignment.
inline float load_value(const Float16* p) {
  Float16 value;
  std::memcpy(&value, p, sizeof value);
  return to_float(value);
}
inline float load_value(const BFloat16* p) {
  BFloat16 value;
  std::memcpy(&value, p, sizeof value);
  return to_float(value);
}
template <class C>
inline C load_value(const C* p) {
  C value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

inline void store_value(Float16* p, float value) {
  const Float16 half = to_float16(value);
  std::memcpy(p, &half, sizeof half);
}
inline void store_value(BFloat16* p, float value) {
  const BFloat16 half = to_bfloat16(value);
  std::memcpy(p, &half, sizeof half);
}

}  // namespace
}  // namespace normkit::detail
