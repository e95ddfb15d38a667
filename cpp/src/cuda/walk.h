// Where the values of a job lie.
#pragma once

#include "cuda/job.h"

namespace normkit::detail::cuda {

/// A place in a tensor: an index on every axis of its geometry.
struct Place {
  std::int64_t kept[2];
  std::int64_t reduced[3];
};

NORMKIT_DEVICE std::int64_t data_offset(const Geometry& g, int operand, const Place& at) {
  std::int64_t offset = 0;
  NORMKIT_UNROLL_DEVICE for (int a = 0; a < 2; ++a) offset += at.kept[a] * g.kept[a].data_stride[operand];
  NORMKIT_UNROLL_DEVICE for (int a = 0; a < 3; ++a) offset += at.reduced[a] * g.reduced[a].data_stride[operand];
  return offset;
}
NORMKIT_DEVICE std::int64_t param_offset(const Geometry& g, const Place& at) {
  std::int64_t offset = 0;
  NORMKIT_UNROLL_DEVICE for (int a = 0; a < 2; ++a) offset += at.kept[a] * g.kept[a].param_stride;
  NORMKIT_UNROLL_DEVICE for (int a = 0; a < 3; ++a) offset += at.reduced[a] * g.reduced[a].param_stride;
  return offset;
}
NORMKIT_DEVICE std::int64_t stat_offset(const Job& job, std::int64_t k0, std::int64_t k1) {
  const Geometry& g = job.geometry;
  return job.first_statistic + k0 * g.kept[0].stat_stride +
         (g.pooled == 1 ? k1 : k1 / g.pooled) * g.kept[1].stat_stride;
}
/// Where lanes hold what is known of a lane's statistic.
NORMKIT_DEVICE std::int64_t slot_of(const Geometry& g, std::int64_t k0, std::int64_t k1) {
  if (g.pooled == 1) return k0 * g.kept[1].extent + k1;
  return (k0 * g.kept[1].extent + k1) / g.pooled;
}

/// Most indices fit 32 bits, where a division takes a fifth of the time.
NORMKIT_DEVICE std::int64_t divided(std::int64_t a, std::int64_t b) {
  if (((a | b) >> 32) == 0) return static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b);
  return a / b;
}

/// The axis with unit stride.
NORMKIT_DEVICE const Axis& unit_axis_of(const Geometry& g, bool rows) { return rows ? g.reduced[2] : g.kept[1]; }

/// Of a row's unit of values: where it begins and how many there are. Beyond the row's end there are none.
template <class S>
NORMKIT_DEVICE int row_unit(const Job& job, std::int64_t unit, Place& at) {
  const RowCut& cut = job.rows;
  const Geometry& g = job.geometry;
  if (unit >= cut.units) {
    at.reduced[0] = at.reduced[1] = at.reduced[2] = 0;
    return 0;
  }
  std::int64_t run = 0;
  if (cut.units != cut.units_per_run) {
    run = divided(unit, cut.units_per_run);
    unit -= run * cut.units_per_run;
  }
  at.reduced[0] = g.reduced[0].extent == 1 ? 0 : divided(run, g.reduced[1].extent);
  at.reduced[1] = run - at.reduced[0] * g.reduced[1].extent;
  at.reduced[2] = unit * unit_size<S>;
  const std::int64_t left = g.reduced[2].extent - at.reduced[2];
  return left < unit_size<S> ? static_cast<int>(left) : unit_size<S>;
}

/// A column's position.
NORMKIT_DEVICE void column_position(const Geometry& g, std::int64_t position, Place& at) {
  const std::int64_t outer = g.reduced[2].extent == 1 ? position : divided(position, g.reduced[2].extent);
  at.reduced[2] = position - outer * g.reduced[2].extent;
  at.reduced[0] = g.reduced[0].extent == 1 ? 0 : divided(outer, g.reduced[1].extent);
  at.reduced[1] = outer - at.reduced[0] * g.reduced[1].extent;
}

NORMKIT_DEVICE double number(const void* data, DType dtype, std::int64_t index) {
  switch (dtype) {
    case DType::float64: return static_cast<const double*>(data)[index];
    case DType::float16: return widened(static_cast<const Float16*>(data)[index]);
    case DType::bfloat16: return widened(static_cast<const BFloat16*>(data)[index]);
    default: return static_cast<const float*>(data)[index];
  }
}
NORMKIT_DEVICE double number(const Numbers& of, std::int64_t index) {
  return of.data == nullptr ? of.absent : number(of.data, of.dtype, index) + of.offset;
}

/// n numbers, `stride` apart, in the working type; parameters are of that type or of x's own.
template <class S, class C, int size>
NORMKIT_DEVICE void load_params(const Numbers& of, std::int64_t first, std::int64_t stride, int n, C (&to)[size]) {
  if (of.data == nullptr || stride == 0) {
    const C shared = of.data == nullptr ? static_cast<C>(of.absent)
                                        : static_cast<C>(number(of.data, of.dtype, first)) + static_cast<C>(of.offset);
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) to[i] = shared;
    return;
  }
  const auto offset = static_cast<C>(of.offset);
  if (stride == 1 && of.dtype != DType::float64 && sizeof(C) == 4) {
    if (of.dtype == DType::float32) {
      load_values(static_cast<const float*>(of.data) + first, n, to);
    } else if (sizeof(S) == 2) {
      load_values(static_cast<const S*>(of.data) + first, n, to);
    }
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) to[i] += offset;
    return;
  }
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    to[i] = i < n ? static_cast<C>(number(of.data, of.dtype, first + i * stride)) + offset : C{0};
  }
}

/// One bit for each of the n values from `at` on: whether it is valid.
template <int size>
NORMKIT_DEVICE unsigned valid_bits(const Job& job, const Place& at, bool rows, int n) {
  const unsigned all = n >= 32 ? ~0u : (1u << n) - 1u;
  const auto* mask = static_cast<const std::uint8_t*>(job.operands[operand_mask]);
  if (mask == nullptr) return all;
  mask += data_offset(job.geometry, operand_mask, at);
  if (unit_axis_of(job.geometry, rows).data_stride[operand_mask] == 0) return *mask != 0 ? all : 0u;
  unsigned bits = 0;
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    if (i < n && mask[i] != 0) bits |= 1u << i;
  }
  return bits;
}

/// The weights of the n values from `at` on.
template <int size>
NORMKIT_DEVICE void read_weights(const Job& job, const Place& at, bool rows, int n, double* to) {
  const auto* weight = static_cast<const double*>(job.operands[operand_weight]);
  weight += data_offset(job.geometry, operand_weight, at);
  const std::int64_t stride = unit_axis_of(job.geometry, rows).data_stride[operand_weight];
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) to[i] = i < n ? weight[i * stride] : 0.0;
}

template <class S>
NORMKIT_DEVICE S* operand(const Job& job, int which, const Place& at) {
  return static_cast<S*>(job.operands[which]) + data_offset(job.geometry, which, at);
}

/// A unit of x. Where x is a sum (`adds`) it is made first, and rounded as it is stored.
template <class S>
NORMKIT_DEVICE Unit<S> read_x(const Job& job, const Place& at, int n, bool adds) {
  S* x = operand<S>(job, operand_x, at);
  if (!adds) return load_unit<S>(x, n, job.aligned);
  const Unit<S> second = load_unit<S>(operand<const S>(job, operand_second, at), n, job.aligned);
  Unit<S> sum = load_unit<S>(operand<const S>(job, operand_third, at), n, job.aligned);
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < unit_size<S>; ++i) {
    narrow(widened(sum.of[i]) + widened(second.of[i]), sum.of[i]);
  }
  store_unit(x, n, job.aligned, sum);
  return sum;
}

}  // namespace normkit::detail::cuda
