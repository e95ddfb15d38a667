// Where the values of a job lie.
#pragma once

#include <type_traits>

#include "cuda/job.h"

namespace normkit::detail::cuda {

/// A place in a tensor: an index on every axis of its geometry.
struct Place {
  std::int64_t kept[2];
  std::int64_t reduced[3];
};

NORMKIT_DEVICE std::int64_t kept_data_offset(const Geometry& g, int operand, const Place& at) {
  return at.kept[0] * g.kept[0].data_stride[operand] + at.kept[1] * g.kept[1].data_stride[operand];
}
NORMKIT_DEVICE std::int64_t data_offset(const Job& job, int operand, const Place& at) {
  const Geometry& g = job.geometry;
  std::int64_t offset = job.settled ? (operand <= operand_out ? 0 : job.settled_at) : kept_data_offset(g, operand, at);
  NORMKIT_UNROLL_DEVICE for (int a = 0; a < 3; ++a) offset += at.reduced[a] * g.reduced[a].data_stride[operand];
  return offset;
}
NORMKIT_DEVICE std::int64_t kept_param_offset(const Geometry& g, const Place& at) {
  return at.kept[0] * g.kept[0].param_stride + at.kept[1] * g.kept[1].param_stride;
}
NORMKIT_DEVICE std::int64_t param_offset(const Job& job, const Place& at) {
  const Geometry& g = job.geometry;
  const bool settled = job.settled && !job.row_lines && job.column == Column::statistics;
  std::int64_t offset = settled ? 0 : kept_param_offset(g, at);
  NORMKIT_UNROLL_DEVICE for (int a = 0; a < 3; ++a) offset += at.reduced[a] * g.reduced[a].param_stride;
  return offset;
}
/// Most indices fit 32 bits, where a division takes a fifth of the time.
NORMKIT_DEVICE std::int64_t divided(std::int64_t a, std::int64_t b) {
  if (((a | b) >> 32) == 0) return static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b);
  return a / b;
}

#if defined(__CUDA_ARCH__)
NORMKIT_DEVICE std::uint32_t high_product(std::uint32_t a, std::uint32_t b) { return __umulhi(a, b); }
#else
NORMKIT_DEVICE std::uint32_t high_product(std::uint32_t a, std::uint32_t b) {
  return static_cast<std::uint32_t>((std::uint64_t{a} * b) >> 32);
}
#endif
/// What is not general has no more than 2^31 units or positions to a statistic.
NORMKIT_DEVICE std::int64_t divided(std::int64_t a, const Divisor& divisor) {
  if (divisor.by == 1) return a;
  if (divisor.multiplier == 0 || (a >> 31) != 0) return a / divisor.by;
  return high_product(static_cast<std::uint32_t>(a), divisor.multiplier) >> divisor.shift;
}
NORMKIT_DEVICE int divided(int a, const Divisor& divisor) {
  if (divisor.multiplier == 0) return a;  // it is 1
  return static_cast<int>(high_product(static_cast<std::uint32_t>(a), divisor.multiplier) >> divisor.shift);
}

/// Of the lanes of an index of the outer axis, which so many share a statistic with.
NORMKIT_DEVICE std::int64_t pool_of(const Job& job, std::int64_t k1) {
  if (job.form != Form::general) return divided(static_cast<int>(k1), job.by_pooled);
  return divided(k1, job.by_pooled);
}
NORMKIT_DEVICE std::int64_t stat_offset(const Job& job, std::int64_t k0, std::int64_t k1) {
  const Geometry& g = job.geometry;
  return job.first_statistic + k0 * g.kept[0].stat_stride + pool_of(job, k1) * g.kept[1].stat_stride;
}
/// Where lanes hold what is known of a lane's statistic.
NORMKIT_DEVICE std::int64_t slot_of(const Job& job, std::int64_t k0, std::int64_t k1) {
  return k0 * job.pools + pool_of(job, k1);
}

/// The axis with unit stride.
NORMKIT_DEVICE const Axis& unit_axis_of(const Geometry& g, bool rows) { return rows ? g.reduced[2] : g.kept[1]; }

NORMKIT_DEVICE void drop_axis(Axis& axis) {
  axis.extent = 1;
  axis.param_stride = axis.stat_stride = 0;
  NORMKIT_UNROLL_DEVICE for (std::int64_t& stride : axis.data_stride) stride = 0;
}

/// How often what is done with each of a batch is written out: in the general form, of several times the code, once.
template <Form form, int batch>
inline constexpr int unrolled = form == Form::general ? 1 : batch;

/// The job as a kernel of a form knows it: what is written here are constants to the compiler, which drops all that is
/// for other jobs. A copy in the general form too: what is read of it then need not be read again after every store.
template <class S, Form form, bool rows, bool gradient, Column column = Column::statistics>
NORMKIT_DEVICE Job known(const Job& job) {
  if constexpr (form == Form::general) {
    Job own = job;
    own.form = Form::general;
    own.settled = own.row_lines = false;
    return own;
  } else {
    Job plain = job;
    plain.form = form;
    plain.column = column;
    if constexpr (gradient) {
      plain.activation = job.activation == Activation::relu ? Activation::relu : Activation::none;
      plain.pools_params = false;  // but through silu they are left to the scale
    }
    plain.aligned = form != Form::unaligned;
    if constexpr (!rows) plain.adds = false;
    plain.omits_nan = plain.tiles.planes = false;
    plain.operands[operand_mask] = plain.operands[operand_weight] = nullptr;
    Axis& unit = rows ? plain.geometry.reduced[2] : plain.geometry.kept[1];
    NORMKIT_UNROLL_DEVICE for (std::int64_t& stride : unit.data_stride) stride = 1;
    if constexpr (rows || are_lines(form)) drop_axis(plain.geometry.reduced[0]);
    if constexpr (are_lines(form)) drop_axis(plain.geometry.reduced[1]);
    if constexpr (are_lines(form) && rows) {
      NORMKIT_UNROLL_DEVICE for (int a = 0; a < 2; ++a) {
        Axis& lane = plain.geometry.kept[a];
        NORMKIT_UNROLL_DEVICE for (std::int64_t& stride : lane.data_stride) {
          stride = job.geometry.kept[a].data_stride[operand_x];
        }
      }
      plain.by_pooled = Divisor{};
      plain.rows.chunks = 1;
      plain.row_lines = true;
    }
    return plain;
  }
}

/// The job where the kept index is known: what follows from that is in its pointers, or, of rows that lie alike in all
/// operands, a single number, which takes fewer registers.
template <class S, Form form, bool rows>
NORMKIT_DEVICE Job settled(const Job& job, const Place& at) {
  if constexpr (form == Form::general) {
    return job;
  } else {
    Job here = job;
    here.settled = true;
    here.settled_at = 0;
    constexpr bool lines = are_lines(form) && rows;
    if constexpr (lines) here.settled_at = kept_data_offset(job.geometry, operand_x, at);
    NORMKIT_UNROLL_DEVICE for (int k = 0; k < (lines ? operand_out + 1 : max_operands); ++k) {
      if (job.operands[k] == nullptr) continue;
      here.operands[k] = static_cast<S*>(job.operands[k]) + kept_data_offset(job.geometry, k, at);
    }
    if (lines || job.column == Column::parameters) return here;
    const std::int64_t params = job.pools_params ? 0 : kept_param_offset(job.geometry, at);
    for (Numbers* numbers : {&here.weight, &here.bias}) {
      if (numbers->data == nullptr) continue;
      const int item = numbers->dtype == DType::float64 ? 8 : numbers->dtype == DType::float32 ? 4 : 2;
      numbers->data = static_cast<const char*>(numbers->data) + params * item;
    }
    return here;
  }
}

/// The job where weight and bias vary along a row: of the form of lines they do so alike in all rows.
template <Form form>
NORMKIT_DEVICE Job along_row(const Job& job) {
  if constexpr (!are_lines(form)) {
    return job;
  } else {
    Job along = job;
    for (Axis& axis : along.geometry.kept) axis.param_stride = 0;
    return along;
  }
}

// That 32 bits are enough is known of them after they are widened, too.
NORMKIT_DEVICE std::int64_t index_of(std::int64_t index) { return index; }
NORMKIT_DEVICE std::int64_t index_of(int index) { return static_cast<std::uint32_t>(index); }

/// Of a row's unit of values: where it begins and how many there are. Beyond the row's end, where but in the general
/// form nobody may ask, there are none.
template <class S, class Index>
NORMKIT_DEVICE int row_unit(const Job& job, Index unit, Place& at) {
  const RowCut& cut = job.rows;
  const Geometry& g = job.geometry;
  at.reduced[0] = at.reduced[1] = at.reduced[2] = 0;
  if (job.form == Form::general && unit >= cut.units) return 0;
  if (!are_lines(job.form) && cut.units != cut.units_per_run) {
    const Index run = divided(unit, cut.by_run);
    unit -= run * static_cast<Index>(cut.units_per_run);
    const Index outer = g.reduced[0].extent == 1 ? Index{0} : divided(run, cut.by_middle);
    at.reduced[0] = index_of(outer);
    at.reduced[1] = index_of(run - outer * static_cast<Index>(g.reduced[1].extent));
  }
  at.reduced[2] = index_of(unit * unit_size<S>);
  if (has_whole_units(job.form)) return unit_size<S>;
  const std::int64_t left = g.reduced[2].extent - at.reduced[2];
  return left < unit_size<S> ? static_cast<int>(left) : unit_size<S>;
}

/// A column's position.
template <class Index>
NORMKIT_DEVICE void column_position(const Job& job, Index position, Place& at) {
  const Geometry& g = job.geometry;
  if (job.form == Form::lines) {
    at.reduced[0] = at.reduced[1] = 0;
    at.reduced[2] = index_of(position);
    return;
  }
  const Index outer = g.reduced[2].extent == 1 ? position : divided(position, job.columns.by_inner);
  at.reduced[2] = position - outer * static_cast<Index>(g.reduced[2].extent);
  at.reduced[0] = g.reduced[0].extent == 1 ? 0 : divided(outer, job.columns.by_middle);
  at.reduced[1] = outer - at.reduced[0] * g.reduced[1].extent;
}

template <class C = double>
NORMKIT_DEVICE C number(const void* data, DType dtype, std::int64_t index) {
  switch (dtype) {
    case DType::float64: return static_cast<C>(static_cast<const double*>(data)[index]);
    case DType::float16: return widened(static_cast<const Float16*>(data)[index]);
    case DType::bfloat16: return widened(static_cast<const BFloat16*>(data)[index]);
    default: return static_cast<const float*>(data)[index];
  }
}
NORMKIT_DEVICE double number(const Numbers& of, std::int64_t index) {
  return of.data == nullptr ? of.absent : number(of.data, of.dtype, index) + of.offset;
}

/// One number, in the working type; in forms but the general one of that type, of x's own, or float32.
template <class S, class C>
NORMKIT_DEVICE C load_param(const Job& job, const Numbers& of, std::int64_t index) {
  if (of.data == nullptr) return static_cast<C>(of.absent);
  if (job.form == Form::general || sizeof(C) == 8) {
    return number<C>(of.data, of.dtype, index) + static_cast<C>(of.offset);
  }
  C value = sizeof(S) == 2 && of.dtype != DType::float32
                ? static_cast<C>(widened(static_cast<const S*>(of.data)[index]))
                : static_cast<C>(static_cast<const float*>(of.data)[index]);
  if (of.offset != 0.0) value += static_cast<C>(of.offset);
  return value;
}

/// n numbers side by side, or one for all, in the working type; parameters are of that type or of x's own.
template <class S, class C, int size>
NORMKIT_DEVICE void load_params(const Job& job, const Numbers& of, std::int64_t first, int n, C (&to)[size]) {
  if (of.along <= Along::row) {
    const C shared = load_param<S, C>(job, of, first);
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) to[i] = shared;
    return;
  }
  const int there = has_whole_units(job.form) ? size : n;
  if (of.along == Along::storage) {
    load_values(static_cast<const S*>(of.data) + first, there, to);
  } else if (of.along == Along::work) {
    load_values(static_cast<const C*>(of.data) + first, there, to);
  } else {
    load_values(static_cast<const float*>(of.data) + first, there, to);
  }
  if (of.offset != 0.0) {
    NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) to[i] += static_cast<C>(of.offset);
  }
}

/// One bit for each of the n values from `at` on: whether it is valid.
template <int size>
NORMKIT_DEVICE unsigned valid_bits(const Job& job, const Place& at, bool rows, int n) {
  const unsigned all = n >= 32 ? ~0u : (1u << n) - 1u;
  if (job.form != Form::general) return all;
  const auto* mask = static_cast<const std::uint8_t*>(job.operands[operand_mask]);
  if (mask == nullptr) return all;
  mask += data_offset(job, operand_mask, at);
  const std::int64_t stride = unit_axis_of(job.geometry, rows).data_stride[operand_mask];
  if (stride == 0) return *mask != 0 ? all : 0u;
  unsigned bits = 0;
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) {
    if (i < n && mask[i * stride] != 0) bits |= 1u << i;
  }
  return bits;
}

/// The same where what lies beyond a row's end is zeros, whose results go nowhere.
template <int size>
NORMKIT_DEVICE unsigned mapped_bits(const Job& job, const Place& at, bool rows, int n) {
  return valid_bits<size>(job, at, rows, job.form == Form::unaligned ? size : n);
}

/// The weights of the n values from `at` on.
template <int size>
NORMKIT_DEVICE void read_weights(const Job& job, const Place& at, bool rows, int n, double* to) {
  const auto* weight = static_cast<const double*>(job.operands[operand_weight]);
  weight += data_offset(job, operand_weight, at);
  const std::int64_t stride = unit_axis_of(job.geometry, rows).data_stride[operand_weight];
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) to[i] = i < n ? weight[i * stride] : 0.0;
}

template <class S>
NORMKIT_DEVICE S* operand(const Job& job, int which, const Place& at) {
  return static_cast<S*>(job.operands[which]) + data_offset(job, which, at);
}

/// A unit of an operand of x's type.
template <class S, int size>
NORMKIT_DEVICE Unit<S, size> unit_at(const Job& job, int which, const Place& at, int n) {
  return load_unit<size>(operand<const S>(job, which, at), n, job.aligned);
}
/// a + b, rounded as it is stored.
template <class S, int size>
NORMKIT_DEVICE Unit<S, size> sum_of(const Unit<S, size>& a, const Unit<S, size>& b) {
  Work<S> values[size];
  NORMKIT_UNROLL_DEVICE for (int i = 0; i < size; ++i) values[i] = a.value(i) + b.value(i);
  Unit<S, size> sum;
  sum.set(values);
  return sum;
}
/// A unit of x. Where x is a sum (`adds`) it is made first.
template <class S, int size>
NORMKIT_DEVICE Unit<S, size> read_x(const Job& job, const Place& at, int n, bool adds) {
  if (!adds) return unit_at<S, size>(job, operand_x, at, n);
  const Unit<S, size> sum =
      sum_of(unit_at<S, size>(job, operand_third, at, n), unit_at<S, size>(job, operand_second, at, n));
  store_unit(operand<S>(job, operand_x, at), n, job.aligned, sum);
  return sum;
}

}  // namespace normkit::detail::cuda
